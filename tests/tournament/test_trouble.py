"""What a machine, a market or a candidate can do to a run: one clear line, or it goes on without them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small import SMOKE, TINY, here, runner
from test_command_line import refused, run
from test_kills import Family, family, leaderboard

from kit.config import load
from kit.errors import run_command
from market.synth import SynthSource, write
from tournament.config import TournamentConfig
from tournament.run import recalled

ROOT = Path(__file__).parents[2]
STOCKS = ROOT / "configs" / "daily_stocks.yaml"
LESS = [*TINY, "folds.count=2", "leak.self_test=false", "execution.workers=2"]
WORDS = ["run", SMOKE, *LESS]


pytestmark = pytest.mark.usefixtures("in_this_process")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without trouble."""
    folder = tmp_path_factory.mktemp("clean") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        assert run(*WORDS, "--out", folder) == 0
    return folder


# -- the machine


@pytest.mark.parametrize("name", ["config.yaml", "origin.json", ".trial", ".pt", ".seal", "leaderboard.csv"])
def test_a_full_disk_is_one_line_and_with_room_again_the_run_goes_on(
    name: str, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is full for one kind of file, when its second is written, or its only one."""
    folder, real, seen = tmp_path / "run", os.fsync, [0]

    def full(handle: int) -> None:
        if name in os.readlink(f"/proc/self/fd/{handle}"):
            seen[0] += 1
            if seen[0] >= (2 if name.startswith(".") else 1):
                raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as there:
        there.setattr("kit.files.os.fsync", full)
        with pytest.raises(SystemExit) as caught:
            run_command(lambda: run(*WORDS, "--out", folder))
    *progress, complaint = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert all(line.startswith("round 1/1") for line in progress)
    assert "the disk is full" in complaint and name in complaint and str(folder) in complaint
    assert not [file for file in folder.rglob(".*") if file.is_file()]  # nothing half-written
    begun = (folder / "config.yaml").is_file()
    assert run(*(["run", "--resume", folder] if begun else [*WORDS, "--out", folder])) == 0
    assert leaderboard(folder) == leaderboard(clean)


FULL = """
import errno, os, pathlib

write = pathlib.Path.write_bytes

def full(path, data):
    if ".trial" in path.name and os.path.exists(os.environ["FULL"]):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    return write(path, data)

pathlib.Path.write_bytes = full
"""


@pytest.mark.slow
def test_a_disk_that_is_full_where_a_trial_runs_is_one_line_and_no_candidates_fault(
    clean: Path, tmp_path: Path
) -> None:
    folder, there = tmp_path / "run", tmp_path / "full"
    (tmp_path / "sitecustomize.py").write_text(FULL)  # for every Python that Ray starts
    there.touch()
    with family() as ours:
        variables = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "FULL": str(there)}
        code, complaint = said(ours, SMOKE, *LESS, "--out", folder, **variables)
        assert code == 2
        assert complaint[-1].startswith(f"error: {folder}/ledger/")
        assert complaint[-1].endswith("No space left on device")
        assert all(line.startswith("round 1/1") for line in complaint[:-1])
        assert not list(folder.glob("ledger/*.trial"))
        there.unlink()
        code, complaint = said(ours, "--resume", folder, **variables)
        assert code == 0, complaint
    assert leaderboard(folder) == leaderboard(clean)


ALONE = """
import sys
from dataclasses import replace
from agents.networks import NetworkConfig
from small import arena_of, config_of
from kit.config import to_dict
from tournament import trainable, trial
from tournament.ledger import Ledger
from tournament.propose import propose
from tournament.score import chain

arena, search = arena_of(), config_of().search
job = chain(propose(1, [], search, 0)[0], 0, arena, search, 0)[0](None)
actor = trainable.Actor.__new__(trainable.Actor)  # without what Ray would put around it

def comes_to(candidate, code):
    actor.setup({"job": to_dict(replace(job, candidate=candidate)), "code": code}, arena, sys.argv[1], "")
    while not (said := actor.step())["done"]:
        pass
    return said

print(comes_to(job.candidate, "0" * 64)["trouble"], len(Ledger(sys.argv[1]).records()))
wild = replace(job.candidate, algorithm=replace(job.candidate.algorithm, learning_rate=1e30))
huge = replace(job.candidate, network=NetworkConfig(hidden=(8, 10**15)))
for candidate in (huge, wild, job.candidate):
    print(comes_to(candidate, trial.code()))
for record in Ledger(sys.argv[1]).records():
    print(record.status, record.reason)
"""


def test_what_an_actor_records_and_what_it_does_not(tmp_path: Path) -> None:
    """Of another version it trains nothing: that would be recorded as another trial, and taken for a crash."""
    variables = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path], env=os.environ | variables, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    changed, crashed, diverged, well, *records = done.stdout.splitlines()
    assert "changed while the run went on" in changed and changed.endswith("expected one version 0")
    assert crashed == diverged == "{'done': True}"  # nothing that would stop the rest
    assert "samples" in well
    told = dict(record.split(" ", 1) for record in records)
    assert "allocate" in told.pop("crashed")
    assert "no number" in told.pop("diverged")
    assert told == {"done": ""}


def said(ours: Family, *words: Any, **variables: str) -> tuple[int, list[str]]:
    process = ours.run(*words, **variables)
    _, complaint = process.communicate(timeout=200)
    return process.returncode, complaint.splitlines()


def test_a_folder_that_must_not_be_written_is_one_line(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "permission denied" in refused(capsys, [*WORDS, "--out", sealed / "run"])


def test_an_object_store_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    complaint = refused(capsys, [*WORDS, "--out", "s3://bucket/run"])
    assert "--out = 's3:/bucket/run'" in complaint and "a folder on a file system" in complaint
    assert list(tmp_path.iterdir()) == []


# -- the market


def bars(folder: Path, change: Any = lambda frame: frame, symbols: int = 4) -> list[str]:
    """A run on a file of bars, after a change to them."""
    file = write(SynthSource(symbols=4, bars=330, ic=0.3, seed=7), folder / "bars.parquet")
    frame = pd.read_parquet(file)
    names = sorted(frame["symbol"].unique())[:symbols]
    change(frame[frame["symbol"].isin(names)]).to_parquet(file)
    less = [word for word in LESS if not word.startswith("data.")]
    return ["run", str(file), "features=[{log_return: {horizons: [1, 5]}}, observed]", *less, "wandb=disabled"]


def holes(frame: pd.DataFrame) -> pd.DataFrame:
    """A tenth of the bars is missing, one symbol comes after two thirds of a train span, one leaves in fold 1."""
    times, names = np.sort(frame["timestamp"].unique()), sorted(frame["symbol"].unique())
    place = np.searchsorted(times, frame["timestamp"])
    gone = np.random.default_rng(0).random(len(frame)) < 0.1
    gone |= (frame["symbol"] == names[1]) & (place < 60)
    gone |= (frame["symbol"] == names[2]) & (place > 120)
    return frame[~gone | (frame["symbol"] == names[0])]


def test_a_market_with_gaps_late_listings_and_departures_runs_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run(*bars(tmp_path, holes), "search.samples=0.001", "search.candidates=4", "--out", folder) == 0
    told = capsys.readouterr().err
    assert "missing bars" in told and "listed late" in told and "ended early" in told
    rows = leaderboard(folder)
    assert len(rows) == 4
    assert {row["status"] for row in rows} <= {"finished", "eliminated"}
    for standing in recalled(folder).standings():
        assert np.isfinite(standing.returns).all()
        for (record,) in standing.records:
            np.testing.assert_allclose(record.weights.sum(axis=1), 1, atol=1e-5)


def test_a_market_of_one_symbol_runs_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(*bars(tmp_path, symbols=1), "search.candidates=4", "--out", folder) == 0
    assert len(leaderboard(folder)) == 4


# -- a candidate

ODD = """
import sys
from dataclasses import replace
from agents.candidate import Candidate
from agents.config import DirectConfig, PPOConfig
from agents.networks import NetworkConfig
from tournament import propose, rounds
from tournament.__main__ main as main
from tournament.score import Entrant

def odd(round, known, config, seed):
    there = propose.propose(round, known, config, seed)
    wild = Candidate(replace(there[0].candidate.algorithm, learning_rate=1e30))
    huge = Candidate(there[0].candidate.algorithm, NetworkConfig(hidden=(8, 10**15)))
    return [*there, Entrant(wild, round), Entrant(huge, round)] if round == 1 else there

rounds.propose = odd
sys.exit(main(sys.argv[1:]))
""".replace("__main__ main as main", "__main__ import main")


@pytest.mark.slow
def test_who_diverges_or_crashes_is_recorded_with_the_reason_and_the_rest_goes_on(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with family() as ours:
        process = ours.launch("-c", ODD, *WORDS, "--out", folder)
        _, complaint = process.communicate(timeout=200)
        assert process.returncode == 0, complaint
    rows = {row["status"]: row for row in leaderboard(folder)}
    assert "no number" in rows["diverged"]["reason"]
    assert "allocate" in rows["crashed"]["reason"]
    rest = [row for row in leaderboard(folder) if row["status"] not in ("diverged", "crashed")]
    assert [row["hash"] for row in rest] == [row["hash"] for row in leaderboard(clean)]


# -- a tournament for one's own bars


def test_the_tournament_for_daily_stocks_is_good_and_says_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load(TournamentConfig, STOCKS, ["data.source.path=bars.parquet"])
    entrants = config.search.candidates * config.search.rounds + config.search.offspring * (config.search.rounds - 1)
    assert entrants == 24
    assert config.folds.holdout >= 2 * 252
    complaint = refused(capsys, ["run", STOCKS, "--out", tmp_path / "run"])
    assert "data.source.path" in complaint and "expected a path" in complaint
    assert list(tmp_path.iterdir()) == []
