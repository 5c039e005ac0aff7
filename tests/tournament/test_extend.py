"""Bars that came since: what is new is trained and nothing else, and what was decided stays decided."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import complaint
from hypothesis import given
from hypothesis import strategies as st
from small import SMOKE, TINY, Killed, here, leaderboard, runner

from agents import bundle
from kit.config import load
from kit.errors import UserError
from market.synth import SIGNAL, SynthSource, generate
from podracer.spans import PURGE
from tournament.__main__ import main
from tournament.config import TournamentConfig
from tournament.folds import FoldConfig, Folds
from tournament.leaderboard import TIMING
from tournament.ledger import Ledger
from tournament.rounds import EXTENSIONS
from tournament.run import recalled
from tournament.score import rungs

ROOT = Path(__file__).parents[2]
BARS, ONE, TWO = 270, 290, 330  # two folds need 116 + 2 * 30 + 82 = 258, three 288, four 318
MOST = 420
LESS = [
    *TINY,
    f"data.source.bars={BARS}",
    "search.rounds=2",
    "search.candidates=4",
    "search.offspring=2",
    "search.keep=1",
    "leak.self_test=false",
]


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@cache
def table() -> pd.DataFrame:
    """The market of smoke.yaml, which goes on longer than the run knows."""
    panel = generate(SynthSource(symbols=4, bars=MOST, ic=0.3, seed=7))
    shape = panel.close.shape
    columns = {name: getattr(panel, name).reshape(-1) for name in ("open", "high", "low", "close", "volume")}
    columns[SIGNAL] = panel.observed[SIGNAL].values.reshape(-1)
    times = np.repeat(panel.times, shape[1])
    return pd.DataFrame({"time": times, "symbol": np.tile(panel.symbols, shape[0]), **columns})


def bars(file: Path, count: int, change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows) -> Path:
    change(table().iloc[: 4 * count].copy()).to_parquet(file)
    return file


pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds on the built-in market."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        monkeypatch.setattr("tournament.run.page.write", lambda *_: None)
        assert run("run", SMOKE, *LESS, "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds more."""
    return bars(tmp_path_factory.mktemp("bars") / "longer.parquet", TWO)


@pytest.fixture
def copy(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


@pytest.fixture(scope="module")
def extended(ended: Path, longer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(ended, tmp_path_factory.mktemp("runs") / "extended"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        monkeypatch.setattr("tournament.run.page.write", lambda *_: None)
        assert run("extend", folder, "--bars", longer) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    return complaint(capsys, lambda: run(*words))


def content(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob(pattern) if file.is_file()}


def config_of(folder: Path) -> TournamentConfig:
    return load(TournamentConfig, folder / "config.yaml")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def result_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def by_key(folder: Path) -> dict[str, str]:
    return {record.key.hash: record.hash for record in Ledger(folder / "ledger").records()}


# -- what is trained


def test_added_folds_move_no_elimination() -> None:
    assert rungs(8, [6]) == [1, 2, 4, 6, 8]
    assert rungs(20, [6, 8, 9]) == [1, 2, 4, 6, 8, 9, 20]


@pytest.mark.parametrize("extended", [(2, 2), (3, 2)])
def test_folds_done_only_grow_in_number(extended: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="numbers that grow"):
        FoldConfig(extended=extended)
    with pytest.raises(UserError, match="count = 3: 3 are done already; expected at least 4"):
        Folds.cut(BARS, 12, FoldConfig(count=3, extended=(2, 3)))


@given(folds=st.integers(1, 9), validation=st.integers(0, 9), gap=st.integers(PURGE, 9), holdout=st.integers(0, 9))
def test_the_bars_needed_are_the_fewest_in_which_the_folds_fit(
    folds: int, validation: int, gap: int, holdout: int
) -> None:
    config = FoldConfig(train=20, validation=validation, test=7, gap=gap, holdout=holdout)
    enough = Folds.needed(10, config, folds)
    assert len(Folds.cut(enough, 10, config).folds) == folds
    fewer = replace(config, count=folds)
    with pytest.raises(UserError, match=f"expected at least {enough} bars"):
        Folds.cut(enough - 1, 10, fewer)


def test_an_extended_run_trains_only_what_is_new(ended: Path, extended: Path) -> None:
    before, after = Ledger(ended / "ledger").records(), Ledger(extended / "ledger").records()
    new = [record for record in after if record.key.hash not in {old.key.hash for old in before}]
    champions = {standing.hash for standing in recalled(ended).standings() if standing.status == "finished"}
    assert len(champions) > 1
    trained = sorted((record.fold, record.key.candidate) for record in new if record.fold)
    assert trained == sorted((fold, champion) for fold in (3, 4) for champion in champions)
    assert {record.fold for record in new} <= {0, 3, 4}  # 0: the final fit


def test_old_records_and_seals_are_untouched(ended: Path, extended: Path) -> None:
    before, after = (content(folder / "ledger") for folder in (ended, extended))
    assert {name: after[name] for name in before} == before
    assert {name for name in set(after) - set(before) if name.endswith(".seal")} == {"round-0-rung-1.seal"}


def test_champions_begin_their_new_fold_from_their_last_checkpoint(extended: Path) -> None:
    finished = [standing for standing in recalled(extended).standings() if standing.status == "finished"]
    assert finished
    for standing in finished:
        for (before,), (after,) in zip(standing.records[1:], standing.records[2:]):
            assert after.key.start == before.checkpoint
            assert after.key.budget == max(1, round(standing.records[0][0].key.budget * 0.5))


def test_the_candidates_that_were_eliminated_stay_out(ended: Path, extended: Path) -> None:
    before, after = ({s.hash: s for s in recalled(folder).standings()} for folder in (ended, extended))
    assert set(before) == set(after)
    out = [standing for standing in before.values() if standing.status == "eliminated"]
    assert out
    for standing in out:
        assert leaderboard([after[standing.hash]]) == leaderboard([standing])
    for standing in after.values():
        if before[standing.hash].status == "finished":
            assert standing.folds == 4 and standing.status == "finished"
            assert [fold for fold, _ in standing.scores] == [1, 2, 4]
            days = len(before[standing.hash].returns)
            np.testing.assert_array_equal(standing.returns[:days], before[standing.hash].returns)
            assert len(standing.returns) == 4 * 30


def test_the_former_bundle_and_all_that_was_said_of_it_are_kept(ended: Path, extended: Path) -> None:
    names = ("config.yaml", "origin.json", "result.json", "bundle.verdict.json", "leaderboard.csv", "bundle/*")
    former = {name: data for pattern in names for name, data in content(ended, pattern).items()}
    assert len(former) >= 7
    assert {name: content(extended / "earlier" / "1")[name] for name in former} == former
    made, kept = bundle.load(extended / "bundle"), bundle.load(extended / "earlier" / "1" / "bundle")
    assert made.hash == result_of(extended)["bundle"] != kept.hash
    folds = recalled(extended).arena.folds
    assert made.manifest.provenance.data == recalled(extended).arena.panel[: folds.final.train.stop + 1].hash


@pytest.mark.slow
def test_a_run_from_nothing_with_the_same_settings_comes_to_the_same(
    ended: Path, extended: Path, tmp_path: Path
) -> None:
    """Round 2 proposes what it proposed when there were two folds only, though there are four now."""
    assert run("run", extended / "config.yaml", "--out", tmp_path / "anew") == 0
    assert rows_of(tmp_path / "anew") == rows_of(extended)
    assert result_of(tmp_path / "anew") == result_of(extended)
    seals = content(ended / "ledger", "*.seal")
    assert {name: content(tmp_path / "anew" / "ledger", "*.seal")[name] for name in seals} == seals


@pytest.mark.slow
def test_extending_in_two_steps_trains_what_one_step_does(copy: Path, extended: Path, tmp_path: Path) -> None:
    for number, count in enumerate((ONE, TWO)):
        assert run("extend", copy, "--bars", bars(tmp_path / f"{number}.parquet", count)) == 0
    assert config_of(copy).folds.extended == (2, 3)
    assert sorted(path.name for path in (copy / "earlier").iterdir()) == ["1", "2"]
    assert {"round-0-rung-1.seal", "round-0-rung-2.seal"} <= {path.name for path in (copy / "ledger").iterdir()}
    ours, theirs = (recalled(folder).standings() for folder in (copy, extended))
    assert [(s.hash, s.folds, s.returns.tobytes()) for s in ours] == [
        (s.hash, s.folds, s.returns.tobytes()) for s in theirs
    ]
    assert by_key(extended).items() <= by_key(copy).items()


def test_changed_future_bars_move_no_earlier_record(ended: Path, extended: Path, tmp_path: Path) -> None:
    """From nothing, on bars that are others after the old folds: the old trials to the last bit, and other new ones."""
    last = recalled(ended).arena.folds.folds[-1].spans.test.stop

    def otherwise(rows: pd.DataFrame) -> pd.DataFrame:
        columns = ["open", "high", "low", "close", "volume", SIGNAL]
        return rows.assign(
            **{name: rows[name].where(rows.index < 4 * (last + 1), rows[name] * 1.1) for name in columns}
        )

    other = bars(tmp_path / "other.parquet", TWO, otherwise)
    assert run("run", extended / "config.yaml", f"data.source.path={other}", "--out", tmp_path / "run") == 0
    old, there = ({r.key.hash: r.hash for r in Ledger(f / "ledger").records() if r.fold} for f in (ended, extended))
    found = by_key(tmp_path / "run")
    assert {key: found.get(key) for key in old} == old
    assert found.keys().isdisjoint(there.keys() - old.keys())


@pytest.mark.slow
def test_folds_that_were_not_counted_are_as_many_as_fit(copy: Path, longer: Path, tmp_path: Path) -> None:
    assert config_of(copy).folds.count is None
    assert run("extend", copy, "--bars", longer, "folds.count=3", "execution.workers=3") == 0
    config = config_of(copy)
    assert config.folds.count == 3 and config.folds.extended == (2,) and config.execution.workers == 3
    assert run("extend", copy, "--bars", bars(tmp_path / "more.parquet", TWO + 30)) == 0
    assert config_of(copy).folds.count == 5  # it was named, so it is again
    assert {standing.folds for standing in recalled(copy).standings() if standing.status == "finished"} == {5}


def test_who_fails_in_a_new_fold_is_out_from_there_on(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tournament.queue import Queue, Watcher
    from tournament.trial import failed

    victim = next(s for s in recalled(copy).standings() if s.status == "finished")
    plain = runner()

    def failing(stages: Iterator[Sequence[Any]], arena: Any, ledger: Ledger, *rest: Any) -> None:
        def spoilt() -> Iterator[Sequence[Any]]:
            for chains in stages:
                queue = Queue(iter([chains]), arena, ledger, Watcher())
                while queue.next():
                    pass
                for job in queue.running.values():
                    if job.candidate.hash == victim.hash and job.fold == 3:
                        ledger.put(failed(job, arena, "diverged", "its loss was NaN"))
                yield chains

        plain(spoilt(), arena, ledger, *rest)

    here(monkeypatch, failing)
    for number, count in enumerate((ONE, TWO)):
        assert run("extend", copy, "--bars", bars(tmp_path / f"{number}.parquet", count)) == 0
    found = next(s for s in recalled(copy).standings() if s.hash == victim.hash)
    assert found.status == "diverged" and found.folds == 2
    for number in (1, 2):
        sealed = Ledger(copy / "ledger").sealed(EXTENSIONS, number)
        assert sealed is not None and victim.hash not in sealed["kept"] and not sealed["eliminated"]


def test_who_is_too_good_to_be_true_on_new_days_is_held(
    copy: Path, longer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = next(s for s in recalled(copy).standings() if s.status == "finished")

    def alarms(standings: Sequence[Any], *_: Any) -> dict[str, str]:
        return {victim.hash: "it knew"} if any(s.folds == 4 for s in standings) else {}

    monkeypatch.setattr("tournament.rounds.alarms", alarms)
    assert run("extend", copy, "--bars", longer) == 3
    assert f"held as too good to be true: {victim.name}: it knew" in capsys.readouterr().out
    assert result_of(copy)["held"] == {victim.hash: "it knew"}
    found = next(s for s in recalled(copy).standings() if s.hash == victim.hash)
    assert found.status == "leaked" and found.folds == 4
    assert recalled(copy).gone[victim.hash] == 4


def test_who_was_held_for_knowing_more_than_the_built_in_market_tells_stays_held(
    longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars come from a file now, of which nobody knows what can be known."""
    held: list[str] = []

    def alarms(standings: Sequence[Any], arena: Any, config: Any, known: bool) -> dict[str, str]:
        held.append(min(standing.hash for standing in standings))
        return {held[0]: "it knew"} if known else {}

    monkeypatch.setattr("tournament.rounds.alarms", alarms)
    words = [*LESS, "search.rounds=1", "search.candidates=3", "search.keep=3"]
    assert run("run", SMOKE, *words, "--out", tmp_path / "run") == 3
    before = content(tmp_path / "run" / "ledger", "*.seal")
    assert run("extend", tmp_path / "run", "--bars", longer) == 3
    assert content(tmp_path / "run" / "ledger", "*.seal").items() >= before.items()
    assert result_of(tmp_path / "run")["held"] == {held[0]: "it knew"}


# -- stopped


@pytest.mark.parametrize(("jobs", "again"), [(1, "extend"), (4, "resume")])
def test_a_killed_extension_goes_on_and_ends_the_same(
    jobs: int, again: str, copy: Path, extended: Path, longer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch, runner(jobs=jobs))
    with pytest.raises(Killed):
        run("extend", copy, "--bars", longer)
    assert not (copy / "result.json").exists()
    assert bundle.load(copy / "bundle").hash == bundle.load(copy / "earlier" / "1" / "bundle").hash  # it still serves
    here(monkeypatch, runner())
    words = {"extend": ("extend", copy, "--bars", longer), "resume": ("run", "--resume", copy)}
    assert run(*words[again]) == 0
    assert config_of(copy).folds.extended == (2,)
    assert rows_of(copy) == rows_of(extended)
    assert result_of(copy) == result_of(extended)


@pytest.fixture(scope="module")
def looked(ended: Path, longer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose hold-out was opened, and what it comes to when it is extended."""
    folder = Path(shutil.copytree(ended, tmp_path_factory.mktemp("runs") / "looked"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        monkeypatch.setattr("tournament.run.page.write", lambda *_: None)
        assert run("final", folder) == 0
        before = Path(shutil.copytree(folder, folder.with_name("before")))
        assert run("extend", folder, "--bars", longer, "folds.holdout=40", "folds.count=3") == 0
    return before, folder


@pytest.mark.parametrize("after", [-13, -6, -2, -1, 0, 1, 2, 3])
def test_a_kill_between_any_two_writes_of_the_folder_loses_nothing(
    after: int, looked: tuple[Path, Path], longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed so many changes after that of config.yaml, the run is an extended one; before, it is what it was."""
    copies = sum(path.is_file() for path in (looked[1] / "earlier" / "1").rglob("*"))
    step = copies + 2 + after  # the copies get their name, and result.json goes, before config.yaml is written
    folder, changes = Path(shutil.copytree(looked[0], tmp_path / "run")), list[str]()
    words: list[str | Path] = ["extend", folder, "--bars", longer, "folds.holdout=40", "folds.count=3"]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Path, *arguments: Any, **options: Any) -> Any:
            if len(changes) == step:
                raise Killed
            changes.append(path.name)
            return real(path, *arguments, **options)

        return change

    with monkeypatch.context() as there:
        for name in ("rename", "replace", "unlink"):
            there.setattr(Path, name, counted(getattr(Path, name)))
        here(there, runner(jobs=0))
        with pytest.raises(Killed):
            run(*words)
    assert len(changes) == step
    assert bundle.load(folder / "bundle")
    extension = bool(config_of(folder).folds.extended)
    assert extension == (after > 0)
    assert extension or len(json.loads((folder / "openings.json").read_text())["openings"]) == 1
    if step % 2:
        assert run("run", "--resume", folder) == 0
    if not (step % 2 and extension):
        assert run(*words) == 0
    assert sorted(path.name for path in (folder / "earlier").iterdir()) == ["1"]
    names = set(content(looked[1], "[!.]*")) | set(content(looked[1], "earlier/1/**/[!.]*"))
    assert set(content(folder, "[!.]*")) | set(content(folder, "earlier/1/**/[!.]*")) == names
    assert "earlier/1/openings.json" in names and "openings.json" not in names
    assert rows_of(folder) == rows_of(looked[1]) and result_of(folder) == result_of(looked[1])


def test_a_source_that_grows_in_place_is_no_other_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one that a nightly job appends to."""
    file, folder = bars(tmp_path / "bars.parquet", BARS), tmp_path / "run"
    config = tmp_path / "bars.yaml"
    config.write_text(
        SMOKE.read_text().replace(
            "{kind: synth, symbols: 4, bars: 700, ic: 0.3, seed: 7}", f"{{kind: file, path: {file}}}"
        )
    )
    settings = [word for word in LESS if not word.startswith("data.")]
    assert run("run", config, *settings, "--out", folder) == 0
    before = rows_of(folder)
    for count in (ONE, TWO):
        bars(file, count)
        assert run("run", "--resume", folder) == 0
        assert run("leaderboard", folder, "--json") == 0
        capsys.readouterr()
        assert rows_of(folder) == before
        assert run("extend", folder, "--bars", file) == 0
        before = rows_of(folder)
    bars(file, MOST)
    capsys.readouterr()
    assert run("leaderboard", folder, "--json") == 0
    assert [row["hash"] for row in json.loads(capsys.readouterr().out)] == [row["hash"] for row in before]
    assert config_of(folder).folds.extended == (2, 3)


# -- the hold-out


def test_a_hold_out_that_was_never_opened_becomes_ordinary_data(
    copy: Path, longer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    former = recalled(copy).arena.folds.holdout
    assert run("extend", copy, "--bars", longer) == 0
    printed, aside = capsys.readouterr()
    folds = recalled(copy).arena.folds
    assert folds.holdout == slice(TWO - 61, TWO - 1) and former == slice(BARS - 61, BARS - 1)
    assert folds.folds[-1].spans.test.stop > former.start
    assert "was never opened" in aside and "60 new bars: 4 folds instead of 2" in aside
    assert f"python -m tournament final {copy}" in printed


def test_an_opened_hold_out_is_never_a_hold_out_again(
    copy: Path, longer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("final", copy) == 0
    looked = BARS - 1
    complaint = refused(capsys, "extend", copy, "--bars", longer, "folds.holdout=59")
    assert (
        f"opened up to bar {looked}" in complaint and "expected at most 58 (0: none yet), or 1 more bars" in complaint
    )
    assert not (copy / "earlier").exists()
    assert run("extend", copy, "--bars", longer, "folds.holdout=40") == 0
    assert "was opened: it is never one again" in capsys.readouterr().err
    for _ in range(2):  # also where it is made again from the folder alone
        assert recalled(copy).arena.folds.holdout.start == TWO - 41 >= looked + PURGE
    verdict = json.loads((copy / "bundle.verdict.json").read_text())
    assert verdict["openings"] == 0 and verdict["hold_out"] is None
    assert json.loads((copy / "earlier" / "1" / "bundle.verdict.json").read_text())["openings"] == 1


def test_a_look_is_remembered_over_any_number_of_extensions(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("final", copy) == 0
    one, two = bars(tmp_path / "one.parquet", TWO), bars(tmp_path / "two.parquet", TWO + 60)
    assert run("extend", copy, "--bars", one, "folds.holdout=20", "folds.count=3") == 0
    kept = shutil.copytree(copy, tmp_path / "kept")
    assert "opened up to bar 269" in refused(capsys, "extend", copy, "--bars", two, "folds.holdout=119")
    assert run("extend", copy, "--bars", two, "folds.holdout=118") == 0
    assert run("final", kept) == 0
    assert "this was look" not in capsys.readouterr().err  # at the new hold-out it is the first
    assert "opened up to bar 329" in refused(capsys, "extend", kept, "--bars", two, "folds.holdout=118")
    assert run("extend", kept, "--bars", two, "folds.holdout=58") == 0


@pytest.mark.usefixtures("page")
def test_the_report_tells_of_the_new_folds_and_of_the_new_hold_out(copy: Path, longer: Path) -> None:
    assert run("final", copy) == 0
    assert "opened once" in (copy / "report.html").read_text()
    assert run("extend", copy, "--bars", longer, "folds.holdout=40") == 0
    text = (copy / "report.html").read_text()
    assert "5 folds" in text and "has not been opened" in text
    assert "opened once" in (copy / "earlier" / "1" / "report.html").read_text()


# -- refused


def otherwise(column: str, row: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{column: rows[column].where(rows.index != row, rows[column] * 1.001)})

    return change


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        (otherwise("volume", 4 * 37 + 1), ["bar 37 (2000-02-23T00:00) of SYN01 has volume", "the run's has"]),
        (otherwise(SIGNAL, 4 * 37 + 1), ["bar 37 (2000-02-23T00:00) of SYN01 has signal"]),
        (lambda rows: rows.drop(index=range(4 * 37, 4 * 38)), ["bar 37 is that of 2000-02-24T00:00", "of 2000-02-23"]),
        (lambda rows: rows.drop(index=4 * 37 + 1), ["bar 37 (2000-02-23T00:00) of SYN01 has"]),
        (lambda rows: rows[rows.symbol != "SYN02"], ["has no bars of SYN02, which the run has"]),
        (lambda rows: rows.replace({"symbol": {"SYN02": "SYN09"}}), ["has no bars of SYN02, which the run has"]),
        (lambda rows: rows.drop(columns=SIGNAL), ["has no column signal, which the run has"]),
        (lambda rows: rows.assign(mood=1.0), ["has column mood, which the run has not"]),
        (lambda rows: rows.iloc[: 4 * (BARS - 1)], ["ends with the bar of", "before the run's do"]),
        (lambda rows: rows.iloc[: 4 * BARS], ["has 0 new bars; expected 18 more, for another fold"]),
        (lambda rows: rows.iloc[: 4 * (ONE - 3)], ["has 17 new bars; expected 1 more, for another fold"]),
    ],
)
def test_bars_that_differ_from_the_runs_are_refused_and_nothing_changes(
    change: Callable[[pd.DataFrame], pd.DataFrame],
    fragments: list[str],
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, new = content(copy), bars(tmp_path / "new.parquet", TWO, change)
    complaint = refused(capsys, "extend", copy, "--bars", new)
    for fragment in (str(new), *fragments):
        assert fragment in complaint
    assert content(copy) == before


def test_where_the_runs_bars_are_gone_others_are_refused_all_the_same(
    copy: Path, longer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(shutil.copy(longer, tmp_path / "moved.parquet"))
    assert run("extend", copy, "--bars", file) == 0
    file.unlink()
    new = bars(tmp_path / "new.parquet", MOST, otherwise("volume", 0))
    assert "its first 330 bars are not those that the run has" in refused(capsys, "extend", copy, "--bars", new)
    assert run("extend", copy, "--bars", bars(tmp_path / "good.parquet", MOST)) == 0


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (["search.keep=2"], ["search.keep = 2: this run's is 1", "folds.count, folds.holdout, execution and wandb"]),
        (["seed=1"], ["seed = 1: this run's is 0"]),
        (["folds.test=20"], ["folds.test = 20: this run's is 30"]),
        (["folds.extended=[1]"], ["folds.extended"]),
        (["folds.count=2"], ["count = 2: 2 are done already; expected at least 3"]),
        (["folds.count=9"], ["4 of 9 folds fit", "or count at most 4"]),
        (["folds.holdut=9"], ["did you mean holdout?"]),
    ],
)
def test_other_settings_are_refused_and_nothing_changes(
    settings: list[str], fragments: list[str], copy: Path, longer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(copy)
    complaint = refused(capsys, "extend", copy, "--bars", longer, *settings)
    for fragment in fragments:
        assert fragment in complaint
    assert content(copy) == before


def test_a_run_that_has_not_ended_or_is_of_another_version_is_refused(
    copy: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as there:
        there.setattr("tournament.extend.code", lambda: "f" * 64)
        assert "expected the version that began this run" in refused(capsys, "extend", copy, "--bars", longer)
    assert "config.yaml" in refused(capsys, "extend", tmp_path / "nothere", "--bars", longer)
    assert "no such file" in refused(capsys, "extend", copy, "--bars", tmp_path / "nothere.csv")
    assert "--bars" in refused(capsys, "extend", copy)
    (copy / "result.json").unlink()
    assert f"go on with: python -m tournament run --resume {copy}" in refused(capsys, "extend", copy, "--bars", longer)


def test_another_extension_does_not_begin_before_the_last_has_ended(
    copy: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here(monkeypatch, runner(jobs=1))
    with pytest.raises(Killed):
        run("extend", copy, "--bars", longer)
    other = bars(tmp_path / "other.parquet", MOST)
    for words in ([other], [longer, "folds.holdout=0"]):
        assert "has not ended" in refused(capsys, "extend", copy, "--bars", *words)


# -- on Ray


@pytest.mark.slow
def test_on_ray_it_ends_as_in_this_process(copy: Path, extended: Path, longer: Path) -> None:
    words = [sys.executable, "-m", "tournament", "extend", copy, "--bars", longer, "execution.workers=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "4 folds instead of 2" in done.stderr and "extension 1" in done.stderr
    assert str(copy / "bundle") in done.stdout
    assert rows_of(copy) == rows_of(extended)
