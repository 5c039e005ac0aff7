"""The training command as a user types it: what it leaves behind, and that stopping it changes nothing."""

from __future__ import annotations

import csv
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from commands import complaint
from hypothesis import given
from hypothesis import strategies as st

from agents import bundle
from kit.config import build, load, to_dict
from market.features import FeatureSpec
from market.synth import SynthSource, write
from podracer import checkpoint
from podracer.bar import Bar
from podracer.command import main
from podracer.folder import COLUMNS, History, held
from podracer.run import TrainConfig, identity, prepare, settled
from podracer.scores import compare, table
from podracer.stop import Stop
from podracer.training import PATIENCE, Progress, train

ROOT = Path(__file__).parents[2]
BARS, UPDATES, STEPS = 400, 30, 64
VALIDATION, TEST = 40, 60
TINY = [
    "features=[{log_return: {horizons: [1, 5]}}, observed]",
    "candidate.network.hidden=[8, 8]",
    f"candidate.algorithm.samples={UPDATES * STEPS}",
    "candidate.algorithm.num_envs=16",
    "candidate.algorithm.horizon=4",
    f"spans={{validation: {VALIDATION}, test: {TEST}}}",
    "checkpoint_every=30",
]
OFTEN = "checkpoint_every=0"
MARKET = [f"data.source={{kind: synth, symbols: 4, bars: {BARS}, ic: 0.3, seed: 5}}"]
KINDS = {
    "ppo": ["candidate.algorithm.kind=ppo", "candidate.algorithm.batch_size=64"],
    "sac": ["candidate.algorithm.kind=sac", "candidate.algorithm.batch_size=64", "candidate.algorithm.buffer=512"],
}


def words(kind: str, *more: str) -> list[str]:
    return ["train", *MARKET, *TINY, *KINDS[kind], *more]


def run(*arguments: str | Path) -> int:
    """The command in this process."""
    return main([str(argument) for argument in arguments])


def launch(*arguments: str | Path) -> subprocess.Popen[str]:
    """The command in one of its own."""
    command = [sys.executable, "-m", "podracer", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def wait_for_rows(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "history.csv").is_file() and (folder / "history.csv").read_text().count("\n") > count:
            return
        time.sleep(0.001)
    raise AssertionError(f"{count} updates were not seen: {process.communicate(timeout=60)}")


def plain(value: Any) -> Any:
    """Tensors as lists, so that states compare to the last bit."""
    if isinstance(value, torch.Tensor):
        return value.nan_to_num(1e30).tolist() if value.is_floating_point() else value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def meaning(folder: Path) -> dict[str, Any]:
    """All that a run says, but for the time it took; the code's hash may move while somebody works on it."""
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    del manifest["hash"], manifest["provenance"]["code"]
    result = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "samples_per_second", "bundle"):
        del result[name]
    return {
        "manifest": manifest,
        "reference": json.loads((folder / "bundle" / "reference.json").read_text()),
        "weights": (folder / "bundle" / "member-0.safetensors").read_bytes(),
        "result": result,
        "history": [{name: row[name] for name in COLUMNS if name != "seconds"} for row in rows_of(folder)],
        "checkpoint": plain(checkpoint.read(folder / "checkpoint.pt")),
    }


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were never stopped."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        assert run(*words(kind), "--out", folder / kind) == 0
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture
def whole(kind: str, runs: dict[str, Path]) -> Path:
    return runs[kind]


@pytest.fixture
def ppo(runs: dict[str, Path]) -> Path:
    return runs["ppo"]


# -- stopped and continued


@pytest.mark.parametrize("kind", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_to_the_last_bit_as_if_it_had_not_been(
    kind: str, whole: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"the moments are drawn from {seed}")
    rng, folder = random.Random(seed), tmp_path / "run"
    for earliest, arguments in ((0, [*words(kind, OFTEN), "--out", folder]), (8, ["train", "--resume", folder])):
        process = launch(*arguments)
        wait_for_rows(process, folder, rng.randint(earliest, earliest + 8))
        time.sleep(rng.uniform(0.0, 0.03))  # within an update, or within the writing of a file
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / "result.json").exists()
    assert run("train", "--resume", folder) == 0
    assert meaning(folder) == meaning(whole)


def test_ctrl_c_ends_the_update_says_how_to_go_on_and_loses_nothing(ppo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = launch(*words("ppo"), "--out", folder)
    wait_for_rows(process, folder, 3)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert output == ""
    assert complaint.splitlines()[-1].endswith(f"python -m podracer train --resume {folder}")
    assert "Traceback" not in complaint
    done = checkpoint.read(folder / "checkpoint.pt")["samples"]
    assert int(rows_of(folder)[-1]["samples"]) == done < UPDATES * STEPS
    assert run("train", "--resume", folder) == 0
    assert meaning(folder) == meaning(ppo)


@pytest.mark.parametrize("last", [1, UPDATES - 1, UPDATES])
def test_a_run_told_to_terminate_exits_with_143_and_goes_on(
    last: int, ppo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last update too: what comes then may take long."""
    folder, add = tmp_path / "run", History.add

    def terminated(history: History, progress: Progress, *more: Any) -> None:
        add(history, progress, *more)
        if progress.samples == last * STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(History, "add", terminated)
    assert run(*words("ppo"), "--out", folder) == 143
    monkeypatch.undo()
    assert checkpoint.read(folder / "checkpoint.pt")["samples"] == last * STEPS
    assert not (folder / "result.json").exists()
    before = rows_of(folder)
    assert run("train", "--resume", folder) == 0
    assert rows_of(folder)[: len(before)] == before  # their seconds too: nothing was done twice
    assert meaning(folder) == meaning(ppo)


@pytest.mark.usefixtures("ctrl_c")
def test_the_first_signal_asks_and_the_second_one_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.code == 130
        stop.listen()  # comes after every update, and must not make the second one the first again
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_a_library_puts_in_between_is_replaced() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        signal.signal(signal.SIGTERM, lambda *_: pytest.fail("not the library's"))
        stop.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.code == 143
    assert signal.getsignal(signal.SIGTERM) is former


def test_a_run_killed_before_its_bundle_or_its_result_finishes_them(ppo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(*words("ppo"), "--out", folder) == 0
    (folder / "result.json").unlink()
    (folder / ".checkpoint.pt.left.pt").write_bytes(b"cut off")
    (folder / ".bundle.left").mkdir()
    assert run("train", "--resume", folder) == 0
    assert meaning(folder) == meaning(ppo)


def test_a_finished_run_says_so(ppo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in ppo.rglob("*")}
    assert run("train", "--resume", ppo) == 0
    assert "finished already" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in ppo.rglob("*")}


def test_the_same_settings_beside_resume_change_nothing(ppo: Path) -> None:
    assert run("train", "--resume", ppo, "--seed", "0", "candidate.network.hidden=[8, 8]") == 0


ROWS = st.lists(st.integers(1, 12), min_size=1, max_size=12, unique=True).map(sorted)


@given(samples=ROWS, kept=st.integers(0, 12), cut=st.integers(0, 30))
def test_history_drops_what_comes_again_and_what_was_cut_off(samples: list[int], kept: int, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        history = History(path, 0)
        for count in samples:
            history.add(Progress(count, 12, 0.5, {"critic": 1.0}, 0.25), 1.0, False)
        history.close()
        text = path.read_text()
        path.write_text(text[: len(text) - cut])
        expected = [line for line in text[: len(text) - cut].split("\n")[1:-1] if int(line.split(",")[0]) <= kept]
        again = History(path, kept)
        again.close()
        assert path.read_text().splitlines() == [",".join(COLUMNS), *expected]
        assert again.seconds == len(expected)


# -- what it makes


def test_validation_chooses_the_checkpoint(whole: Path) -> None:
    """And the bundle holds that one."""
    scores = {int(row["samples"]): float(row["validation"]) for row in rows_of(whole) if row["validation"]}
    result = json.loads((whole / "result.json").read_text())
    assert len(scores) >= PATIENCE
    kept = result["scores"]["validation"]["policy"]["sharpe"]
    assert kept == pytest.approx(scores[result["chosen"]], abs=1e-6)
    best = checkpoint.read(whole / "checkpoint.pt")["best"]
    actor = bundle.load(whole / "bundle").policy.policies[0].actor  # type: ignore[attr-defined]
    assert plain(actor.state_dict()) == plain(best)


def test_what_trades_is_what_was_scored(ppo: Path) -> None:
    """The bundle, loaded, on bars read anew, earns what the result says; so does the training by itself."""
    config, loaded = load(TrainConfig, ppo / "config.yaml"), bundle.load(ppo / "bundle")
    ready = prepare(config)
    scores = json.loads((ppo / "result.json").read_text())["scores"]
    for name, span in (("validation", ready.spans.validation), ("test", ready.spans.test)):
        assert compare(loaded.policy, loaded.market(ready.panel), span)[1] == scores[name]
    trained = train(config.candidate, ready.market, ready.spans, config.seed)
    assert plain(trained.actor.state_dict()) == plain(loaded.policy.policies[0].actor.state_dict())  # type: ignore[attr-defined]


def test_a_bundle_says_where_it_comes_from(ppo: Path) -> None:
    config, loaded = load(TrainConfig, ppo / "config.yaml"), bundle.load(ppo / "bundle")
    record = loaded.manifest.provenance
    assert (record.configuration, record.data) == (identity(config), prepare(config).panel.hash)
    assert re.fullmatch("[0-9a-f]{64}", record.code)
    assert [(member.name, member.weight) for member in loaded.members] == [(config.candidate.name, 1.0)]


def test_training_stops_when_it_stays_surely_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate that moves no weight, nothing is better than the first evaluation."""
    monkeypatch.setattr("podracer.training.surely_behind", lambda returns, leading: True)
    assert run(*words("ppo", "candidate.algorithm.learning_rate=1e-30"), "--out", tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["samples"] == (1 + PATIENCE) * UPDATES // 10 * STEPS
    assert result["chosen"] == UPDATES // 10 * STEPS
    assert "stopped early" in capsys.readouterr().out


def test_without_validation_the_last_policy_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words("ppo", "spans.validation=0", "spans.test=0"), "--out", tmp_path / "run") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["chosen"] == result["samples"] == UPDATES * STEPS
    assert list(result["scores"]) == ["train"]  # named for what it is
    assert "the last one" in capsys.readouterr().out
    assert all(row["validation"] == "" for row in rows_of(tmp_path / "run"))


def test_the_table_shows_both_sides_of_every_span_within_80_columns(
    ppo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", "--resume", ppo)
    printed, scores = capsys.readouterr().out, json.loads((ppo / "result.json").read_text())["scores"]
    lines = table(scores)
    assert "\n".join(lines) in printed
    assert max(map(len, lines)) <= 80
    sharpe = next(line for line in lines if line.startswith("Sharpe ratio"))
    values = [scores[span][who]["sharpe"] for span in ("validation", "test") for who in ("policy", "equal_weight")]
    assert sharpe.split()[2:] == [f"{value:.2f}" for value in values]
    edges = next(line for line in lines if line.startswith("edge")).split()[3:]
    assert edges == [f"{values[0] - values[1]:+.2f}", f"{values[2] - values[3]:+.2f}"]
    assert "One look at the test span is fair" in printed


def test_backtest_trades_a_bundle_on_the_bars_of_its_run_and_on_others(
    ppo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = prepare(load(TrainConfig, ppo / "config.yaml"))
    first, last = (str(ready.market.dates[bar].astype("datetime64[s]")) for bar in (300, 350))
    assert run("backtest", ppo / "bundle", "--start", first, "--end", last) == 0
    expected = compare(bundle.load(ppo / "bundle").policy, ready.market, slice(300, 349))[1]
    printed = capsys.readouterr().out
    assert "\n".join(table({"backtest": expected})) in printed
    assert "proves nothing" in printed
    other = write(SynthSource(symbols=4, bars=200, seed=6), tmp_path / "other.parquet")
    assert run("backtest", ppo / "bundle", other) == 0
    assert "proves nothing" not in capsys.readouterr().out


# -- no leak


def other_bars_from(source: Path, out: Path, time_: pd.Timestamp) -> Path:
    """The same file with every number of later bars another."""
    frame = pd.read_parquet(source)
    rows = frame["timestamp"] >= time_
    assert 0 < rows.sum() < len(frame)
    prices = ["open", "high", "low", "close"]
    frame.loc[rows, prices] = (frame.loc[rows, prices] * 3.0).to_numpy()
    frame.loc[rows, "volume"] = frame.loc[rows, "volume"] * 7.0
    frame.loc[rows, "signal"] = -5.0 * frame.loc[rows, "signal"]
    frame.to_parquet(out, index=False)
    return out


@pytest.mark.parametrize("validation", [VALIDATION, 0])
def test_bars_after_those_for_training_and_choosing_change_nothing(validation: int, tmp_path: Path) -> None:
    source = write(SynthSource(symbols=4, bars=BARS, ic=0.3, seed=5), tmp_path / "bars.parquet")
    settings = [*TINY, *KINDS["ppo"], f"spans.validation={validation}"]
    settings.remove(f"spans={{validation: {VALIDATION}, test: {TEST}}}")
    settings.append(f"spans.test={TEST}")
    ready = prepare(settled(load(TrainConfig, None, [f"data.source={{kind: file, path: {source}}}", *settings])))
    last = ready.spans.validation.stop if validation else ready.spans.train.stop
    times = ready.panel.times
    found = []
    # An order of the last decision fills at the next open, and its reward runs to the next close.
    for name, bar in (("same", None), ("later", last + 1), ("seen", ready.spans.train.stop - 100)):
        bars = (
            source
            if bar is None
            else other_bars_from(source, tmp_path / f"{name}.parquet", pd.Timestamp(times[bar], tz="UTC"))
        )
        folder = tmp_path / name
        assert run("train", bars, *settings, "--out", folder) == 0
        made = meaning(folder)
        history, lens = made["history"], made["manifest"]["lens"]
        found.append((made["weights"], history, lens["scaler"], made["result"]["chosen"]))
    assert found[1] == found[0]
    assert found[2][:2] != found[0][:2]  # but those that were seen do


# -- what it shows


def test_without_a_terminal_ten_lines_say_how_it_goes(ppo: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(*words("ppo"), "--out", tmp_path / "run") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all(re.match(r"ppo: [\d,]+ of 1,920 samples, [\d,]+/s, \d\d:\d\d left, reward", line) for line in lines)
    assert "loss" in lines[-1]
    assert "Sharpe" in lines[-1]


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_a_bar_shows_everything_on_one_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, columns))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = Bar("direct", 0, 2_000_000, 252.0)
        for samples in (1_000_000, 2_031_616):  # the last rollout goes beyond
            time.sleep(0.11)  # tqdm redraws no sooner
            bar.show(Progress(samples, 2_000_000, -0.12 / 252, {"actor": -0.0123}, -1.23))
        bar.close()
        text = ""
        while not text.endswith("\n"):
            text += os.read(reader, 100_000).decode()
    os.close(reader)
    shown = [line for line in re.split(r"[\r\n]", text) if "reward" in line]
    assert shown[0].startswith("direct  50%|")
    assert shown[-1].startswith("direct 100%|")
    for line in shown:
        assert len(line) <= columns
        assert line.endswith("left, reward -12.0%/y, loss 0.012, Sharpe -1.23")
        assert re.search(r"\d[kM]/s \d\d:\d\d left", line)


# -- bad input


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str | Path]) -> str:
    return complaint(capsys, lambda: run(*arguments))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["train", "candidate.algorithm.sample=3"], ["candidate.algorithm.sample = 3", "did you mean samples?"]),
        (["train", "candidate.algorithm.kind=pppo"], ["candidate.algorithm.kind = 'pppo'", "did you mean ppo?"]),
        (["train", "candidate.algorithm.kind=sac", "candidate.algorithm.num_envs=10"], ["num_envs", "multiple of"]),
        (["train", *MARKET, "spans.test=9999"], [f"{BARS} bars", "9999"]),
        (["train", *MARKET, "features=[rsl]"], ["rsl", "did you mean rsi?"]),
        (["train", *MARKET, *TINY, "start=imitate:momentun"], ["imitate:momentun", "expected one of"]),
        (["train", *MARKET, *TINY, "start=nothere.pt"], ["nothere.pt", "no such checkpoint"]),
        (["train", "nothere.yaml"], ["nothere.yaml", "no such file"]),
        (["train", "nothere.csv"], ["nothere.csv", "no such file"]),
        (["train", "--seed", "many"], ["seed = 'many'", "a whole number"]),
        (["train", "--resume", "nothere"], ["'nothere'", "config.yaml"]),
        (["train", "--resume", "."], ["'.'", "config.yaml"]),
        (["train", "--resum", "x"], ["--resum"]),
        (["backtest", "nothere"], ["nothere", "no such bundle"]),
        (["backtest"], ["BUNDLE"]),
        (["trian"], ["did you mean train?"]),
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


def test_a_folder_in_use_is_refused(ppo: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, file = elsewhere / "full", elsewhere / "file"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    assert "not empty" in refused(capsys, [*words("ppo"), "--out", full])
    assert "is a file" in refused(capsys, [*words("ppo"), "--out", file])
    assert "--resume" in refused(capsys, [*words("ppo"), "--out", ppo])
    assert "leave one of them out" in refused(capsys, ["train", "--resume", ppo, "--out", full])
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


def test_other_settings_beside_resume_are_refused(ppo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "seed = 3: this run's is 0" in refused(capsys, ["train", "--resume", ppo, "--seed", "3"])
    assert "kind = 'td3'" in refused(capsys, ["train", "--resume", ppo, "candidate.algorithm={kind: td3}"])
    assert "data.source" in refused(capsys, ["train", "--resume", ppo, ROOT / "configs" / "train.yaml"])


def test_a_second_process_in_the_same_run_is_refused(
    ppo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text((ppo / "config.yaml").read_text())
    with held(tmp_path):
        assert "another process" in refused(capsys, ["train", "--resume", tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_damaged_checkpoint_and_other_bars_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bars, folder = write(SynthSource(symbols=4, bars=BARS), tmp_path / "bars.parquet"), tmp_path / "run"
    assert run("train", bars, *TINY, *KINDS["ppo"], "--out", folder) == 0
    (folder / "result.json").unlink()
    write(SynthSource(symbols=4, bars=BARS, seed=8), bars)
    assert "market = " in refused(capsys, ["train", "--resume", folder])
    (folder / "checkpoint.pt").write_bytes(b"PK")
    assert "damaged" in refused(capsys, ["train", "--resume", folder])


def test_a_folder_that_cannot_be_written_is_one_line(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "permission denied" in refused(capsys, [*words("ppo"), "--out", sealed / "run"])


def test_a_training_that_diverges_is_one_line_and_exit_code_1(tmp_path: Path, capsys: Any) -> None:
    assert run(*words("ppo", "candidate.algorithm.learning_rate=1e30"), "--out", tmp_path / "run") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ppo-")
    assert not (tmp_path / "run" / "bundle").exists()


# -- configurations


def test_the_configuration_in_the_folder_is_the_default() -> None:
    config = load(TrainConfig, ROOT / "configs" / "train.yaml")
    assert config == TrainConfig()
    assert build(TrainConfig, to_dict(config)) == config
    assert load(TrainConfig, ROOT / "configs" / "train.yaml", ["candidate.algorithm.kind=sac"]).seed == 0


def test_a_stored_configuration_names_its_files_and_its_device_wherever_it_is_read(elsewhere: Path) -> None:
    given_ = load(
        TrainConfig, None, ["data.source={kind: file, path: bars.csv}", "data.observed=[{path: o.csv}]", "start=a.pt"]
    )
    made = settled(given_)
    assert made.data.source.path == elsewhere / "bars.csv"  # type: ignore[union-attr]
    assert made.data.observed[0].path == elsewhere / "o.csv"
    assert made.start == str(elsewhere / "a.pt")
    assert made.device in ("cpu", "cuda")
    assert settled(TrainConfig(start="imitate:momentum")).start == "imitate:momentum"
    assert made.features == FeatureSpec.default()


@pytest.mark.parametrize("command", [[], ["train"], ["backtest"]])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*command, "--help")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in text
    named = {line.split()[3] for line in text.splitlines() if line.strip().startswith("python -m podracer")}
    assert named <= {"train", "backtest"}
