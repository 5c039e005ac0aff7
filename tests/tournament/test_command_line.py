"""What the tournament's commands print, write and refuse; trials run in this process, but for one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import complaint
from small import SMOKE, TINY, Killed, here, random_pick, runner

from kit.config import load
from market.synth import SynthSource, write
from podracer.folder import held
from tournament import leaderboard
from tournament.__main__ import main
from tournament.config import TournamentConfig
from tournament.leak import LeakFound
from tournament.run import recalled

ROOT = Path(__file__).parents[2]
LESS = [*TINY, "search.candidates=3", "leak.self_test=false"]
COMMANDS = ("run", "extend", "leaderboard", "report", "final")


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def words(*more: str | Path) -> list[str | Path]:
    return ["run", SMOKE, *LESS, *more]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """What must repeat."""
    rows = json.loads((folder / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name not in leaderboard.TIMING} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        assert run(*words("--out", folder)) == 0
    return folder


pytestmark = pytest.mark.usefixtures("in_this_process")


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str | Path], code: int = 2) -> str:
    return complaint(capsys, lambda: run(*arguments), code)


# -- a run


def test_a_run_leaves_everything_and_says_where(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"config.yaml", "origin.json", "ledger", "bundle", "bundle.verdict.json", "report.html", "result.json"}
    assert names <= {path.name for path in finished.iterdir()}
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    assert run("run", "--resume", finished) == 0
    printed = capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    result = json.loads((finished / "result.json").read_text())
    verdict = json.loads((finished / "bundle.verdict.json").read_text())
    manifest = json.loads((finished / "bundle" / "manifest.json").read_text())
    assert result["bundle"] == verdict["bundle"] == manifest["hash"]
    assert verdict["openings"] == 0 and verdict["hold_out"] is None
    for text in ("finished already", result["text"], str(finished / "report.html"), str(finished / "bundle")):
        assert text in printed
    assert f"python -m tournament final {finished}" in printed
    assert [row["candidate"] in printed for row in rows_of(finished)] == [True] * 3
    assert max(map(len, printed.splitlines()[: 2 + len(rows_of(finished))])) <= 100


def test_the_order_in_which_trials_end_changes_no_leaderboard(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, runner(random_pick(3)))
    assert run(*words("execution.workers=3", "--out", tmp_path / "run")) == 0
    assert rows_of(tmp_path / "run") == rows_of(finished)
    results = [json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "run", finished)]
    assert results[0] == results[1]


def test_another_seed_is_another_tournament(finished: Path, tmp_path: Path) -> None:
    assert run(*words("--seed", "5", "--out", tmp_path / "run")) == 0
    assert rows_of(tmp_path / "run") != rows_of(finished)


def test_a_run_that_was_killed_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    here(monkeypatch, runner(jobs=3))
    with pytest.raises(Killed):
        run(*words("--out", folder))
    assert not (folder / "result.json").exists()
    here(monkeypatch, runner())
    assert run("run", "--resume", folder, "execution.workers=1") == 0
    assert rows_of(folder) == rows_of(finished)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_it_says_how_to_go_on(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    here(monkeypatch, stopped)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert run(*words("--out", tmp_path / "run")) == code
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped; go on with: python -m tournament run --resume {tmp_path / 'run'}"
    )
    assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


def test_what_looks_ahead_ends_with_3_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(arena: Any) -> None:
        raise LeakFound("features.rsi: knows the next bar")

    monkeypatch.setattr("tournament.run.self_test", found)
    settings = [word for word in words("--out", tmp_path / "run") if word != "leak.self_test=false"]
    assert "knows the next bar" in refused(capsys, settings, 3)
    assert list(tmp_path.iterdir()) == []
    assert run(*words("--out", tmp_path / "run")) == 0  # not asked for


def test_a_candidate_too_good_to_be_true_is_named_and_the_run_ends_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def alarms(standings: Any, *_: Any) -> dict[str, str]:
        return {min(standing.hash for standing in standings): "its information ratio is 31"}

    monkeypatch.setattr("tournament.rounds.alarms", alarms)
    for arguments in (words("--out", tmp_path / "run"), ["run", "--resume", tmp_path / "run"]):
        assert run(*arguments) == 3
        printed = capsys.readouterr().out
        assert "held as too good to be true: " in printed and "its information ratio is 31" in printed
    (row,) = [row for row in rows_of(tmp_path / "run") if row["status"] == "leaked"]
    assert row["reason"] == "its information ratio is 31"


# -- the leaderboard


def test_the_leaderboard_is_that_of_the_run_in_every_form(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, parquet = tmp_path / "board.csv", tmp_path / "board.parquet"
    assert run("leaderboard", finished, "--json", "--csv", csv, "--parquet", parquet) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((finished / "leaderboard.json").read_text())
    assert csv.read_bytes() == (finished / "leaderboard.csv").read_bytes()
    assert parquet.read_bytes() == (finished / "leaderboard.parquet").read_bytes()
    assert run("leaderboard", finished) == 0
    tournament = recalled(finished)
    assert capsys.readouterr().out.splitlines() == leaderboard.table(tournament.standings(), tournament.arena)


def test_the_leaderboard_is_there_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    here(monkeypatch, runner(jobs=2))
    with pytest.raises(Killed):
        run(*words("--out", folder))
    with held(folder):  # as by the process that runs it
        assert run("leaderboard", folder, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3
    assert sum(row["folds"] for row in rows) == 2
    assert {row["status"] for row in rows} == {"running"}


def test_watching_shows_what_changes_and_ends_with_the_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    here(monkeypatch, runner(jobs=2))
    with pytest.raises(Killed):
        run(*words("--out", folder))
    here(monkeypatch, runner())
    capsys.readouterr()
    naps = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:  # after a look at which nothing was new
            assert run("run", "--resume", folder) == 0

    monkeypatch.setattr("tournament.__main__.time.sleep", sleep)
    assert run("leaderboard", folder, "--watch") == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    candidate")]
    assert len(titles) == 3  # at first, that of the run itself, and at the end
    assert len(naps) == 2 and min(naps) >= 2
    assert rows_of(folder) == rows_of(finished)


# -- afterwards


@pytest.mark.usefixtures("page")
def test_the_report_is_written_again_from_the_ledger(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    html, made = finished / "report.html", (finished / "bundle" / "manifest.json").stat().st_mtime_ns
    before = html.read_text(encoding="utf-8")
    html.unlink()
    assert run("report", finished) == 0
    assert capsys.readouterr().out.strip() == str(html)
    assert html.read_text(encoding="utf-8") == before
    assert (finished / "bundle" / "manifest.json").stat().st_mtime_ns == made


@pytest.mark.usefixtures("page")
def test_every_look_at_the_hold_out_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(*words("--out", folder)) == 0
    capsys.readouterr()
    assert run("final", folder) == 0
    first, aside = capsys.readouterr()
    verdict = json.loads((folder / "bundle.verdict.json").read_text())
    assert verdict["openings"] == 1 and verdict["hold_out"] is not None
    assert first == verdict["text"] + "\n" and "fair test" not in aside
    assert json.loads((folder / "result.json").read_text())["text"] == verdict["text"]
    assert "opened once" in (folder / "report.html").read_text()
    assert run("final", folder) == 0
    assert "this was look 2" in capsys.readouterr().err
    assert run("run", "--resume", folder) == 0
    printed = capsys.readouterr().out
    assert verdict["text"] in printed and "next:" not in printed


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["run"], ["CONFIG", "configs/demo.yaml"]),
        (["run", "search.candidates=3"], ["CONFIG", "configs/demo.yaml"]),
        (["run", str(SMOKE), "search.candidate=3"], ["search.candidate = 3", "did you mean candidates?"]),
        (["run", str(SMOKE), "search.algorithms=[pppo]"], ["'pppo'", "did you mean ppo?"]),
        (["run", str(SMOKE), "folds.count=999"], ["folds", "999"]),
        (["run", str(SMOKE), "folds.holdout=10"], ["folds.holdout", "at least 20"]),
        (["run", str(SMOKE), "data.source={kind: file, path: no/such.csv}"], ["no/such.csv", "no such file"]),
        (["run", "data.source.path=no/such.csv"], ["CONFIG", "configs/demo.yaml"]),
        (["run", str(SMOKE), "data.source.bars=300"], ["300", "folds"]),
        (["run", str(SMOKE), "features=[{no_such: {}}]"], ["no_such"]),
        (["run", "nothere.yaml"], ["nothere.yaml", "no such file"]),
        (["run", "nothere.csv"], ["nothere.csv", "no such file"]),
        (["run", str(SMOKE), "--seed", "many"], ["seed = 'many'", "a whole number"]),
        (["run", "--resume", "nothere"], ["'nothere'", "config.yaml"]),
        (["leaderboard", "nothere"], ["'nothere'", "config.yaml"]),
        (["report", "nothere"], ["'nothere'", "config.yaml"]),
        (["final", "."], ["'.'", "config.yaml"]),
        (["leaderboard"], ["RUN"]),
        (["leaderbord", "x"], ["did you mean leaderboard?"]),
        ([], ["COMMAND"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], fragments: list[str], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = refused(capsys, arguments)
    for fragment in fragments:
        assert fragment in complaint
    assert list(elsewhere.iterdir()) == []


def test_a_folder_in_use_is_refused(finished: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = elsewhere / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    assert "not empty" in refused(capsys, words("--out", full))
    assert f"--resume {finished}" in refused(capsys, words("--out", finished))
    assert "leave one of them out" in refused(capsys, ["run", "--resume", finished, "--out", full])
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_other_settings_beside_resume_are_refused_but_where_trials_run_may_change(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "seed = 3: this run's is 0" in refused(capsys, ["run", "--resume", finished, "--seed", "3"])
    assert "search.keep = 1: this run's is 2" in refused(capsys, ["run", "--resume", finished, "search.keep=1"])
    assert run("run", "--resume", finished, "execution.workers=7", "wandb=auto") == 0


def test_a_second_process_in_the_same_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    here(monkeypatch, runner(jobs=0))
    with pytest.raises(Killed):
        run(*words("--out", folder))
    with held(folder):
        assert "another process" in refused(capsys, ["run", "--resume", folder])


def test_what_has_not_ended_has_no_report_and_no_hold_out_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    here(monkeypatch, runner(jobs=1))
    with pytest.raises(Killed):
        run(*words("--out", folder))
    for command in ("report", "final"):
        assert f"python -m tournament run --resume {folder}" in refused(capsys, [command, folder])
    assert not (folder / "openings.json").exists()


def test_a_folder_of_another_version_of_other_bars_or_of_changed_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bars, folder = write(SynthSource(symbols=4, bars=330, ic=0.3, seed=7), tmp_path / "bars.parquet"), tmp_path / "run"
    source = f"data.source={{kind: file, path: {bars}}}"
    config = tmp_path / "bars.yaml"
    built_in = "{kind: synth, symbols: 4, bars: 700, ic: 0.3, seed: 7}"
    config.write_text(SMOKE.read_text().replace(built_in, "{kind: file, path: x}"))
    less = [word for word in LESS if not word.startswith("data.")]
    here(monkeypatch, runner(jobs=0))
    with pytest.raises(Killed):
        run("run", config, source, *less, "--out", folder)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("keep: 2", "keep: 1"))
    assert "configuration = " in refused(capsys, ["leaderboard", folder])
    (folder / "config.yaml").write_text(text)
    assert run("leaderboard", folder) == 0
    with monkeypatch.context() as other:
        other.setattr("tournament.run.code", lambda: "f" * 64)
        for command in (["leaderboard"], ["run", "--resume"]):
            complaint = refused(capsys, [*command, folder])
            assert "code = " in complaint and "expected the version that began this run" in complaint
    write(SynthSource(symbols=4, bars=330, ic=0.3, seed=8), bars)
    assert "data = " in refused(capsys, ["run", "--resume", folder])


# -- and the rest


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*command, "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in text
    named = {line.split()[3] for line in text.splitlines() if line.strip().startswith("python -m tournament")}
    assert named <= set(COMMANDS) and set(command) <= named
    if not command:
        assert named == set(COMMANDS)


def test_the_configurations_in_the_folder_are_good() -> None:
    for name in ("demo.yaml", "smoke.yaml"):
        assert load(TournamentConfig, ROOT / "configs" / name).seed == 0


@pytest.mark.slow
def test_on_ray_ctrl_c_stops_in_order_and_the_run_ends_as_one_in_this_process(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [sys.executable, "-m", "tournament", *map(str, words("execution.workers=2", "--out", folder))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("ledger/*.trial")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=120)
    assert process.returncode == 130, complaint
    assert output == "" and "Traceback" not in complaint
    assert complaint.splitlines()[-1].endswith(f"python -m tournament run --resume {folder}")
    done = list(folder.glob("ledger/*.trial"))
    assert 0 < len(done) < 6
    again = subprocess.run(
        [sys.executable, "-m", "tournament", "run", "--resume", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert again.returncode == 0, again.stderr
    assert rows_of(folder) == rows_of(finished)
