"""A tournament as a user runs it, on a real Ray Tune: what it leaves, and what a kill does to it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from buckets import SECRET, bucket
from small import SMOKE, TINY

from agents import bundle
from podracer.store import Store
from tournament.__main__ import main
from tournament.leaderboard import TIMING
from tournament.ledger import Ledger

ROOT = Path(__file__).parents[2]


def launch(*words: str | Path, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tournament", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(*words: str | Path, **variables: str) -> str:
    process = launch(*words, **variables)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out


def leaderboard(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


@dataclass
class Done:
    folder: Path
    said: str
    store: str
    logs: Path  # Ray's


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """A run into an object store, by one worker."""
    folder = tmp_path_factory.mktemp("run") / "smoke"
    with bucket() as runs, TemporaryDirectory(prefix="r", dir="/tmp") as logs:
        words = [*TINY, "execution.workers=1", f"execution.storage={runs}/smoke", "--out", folder]
        said = ended("run", SMOKE, *words, RAY_TMPDIR=logs)
        yield Done(folder, said, f"{runs}/smoke", Path(logs))


def test_a_run_leaves_a_leaderboard_a_bundle_and_a_report(done: Done) -> None:
    folder, said = done.folder, done.said
    rows = leaderboard(folder)
    assert len(rows) == 4
    assert [row["place"] for row in rows] == [1, 2, 3, 4]
    assert {row["algorithm"] for row in rows} == {"ppo", "sac", "td3", "direct"}
    assert pd.read_csv(folder / "leaderboard.csv")["hash"].tolist() == [row["hash"] for row in rows]
    assert pd.read_parquet(folder / "leaderboard.parquet")["hash"].tolist() == [row["hash"] for row in rows]
    assert bundle.load(folder / "bundle").members
    assert "<html" in (folder / "report.html").read_text()
    assert list((folder / "tune").rglob("events.out.tfevents*"))
    assert "than equal weight" in said or "hold-out unopened" in said
    assert max(len(line) for line in said.splitlines()[:5]) <= 100


def test_actors_put_their_trials_into_the_store_and_its_key_nowhere(done: Done) -> None:
    told = [file for place in (done.logs, done.folder) for file in place.rglob("*") if file.is_file()]
    assert any(file.suffix == ".log" for file in told)
    assert [file.name for file in told if SECRET.encode() in file.read_bytes()] == []
    here = {file.relative_to(done.folder).as_posix() for file in done.folder.rglob("*") if file.is_file()}
    assert Store(done.store).names() == {name for name in here if not name.startswith("tune/")}


def test_on_ray_it_comes_to_what_it_comes_to_in_this_process(done: Done, tmp_path: Path, in_this_process: None) -> None:
    assert main(["run", str(SMOKE), *TINY, "--out", str(tmp_path / "run")]) == 0
    assert leaderboard(tmp_path / "run") == leaderboard(done.folder)


@pytest.mark.slow
def test_a_driver_killed_anywhere_and_resumed_ends_with_the_same_leaderboard(done: Done, tmp_path: Path) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    stop = random.Random(seed).randint(1, 5)
    folder = tmp_path / "killed"
    process = launch("run", SMOKE, *TINY, "--out", folder)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("ledger/*.trial"))) < stop and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended("run", "--resume", folder)
    assert leaderboard(folder) == leaderboard(done.folder)  # which one worker made, and not two


def test_a_finished_run_gone_on_with_trains_nothing_and_says_the_same(done: Done) -> None:
    folder = done.folder
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "ledger").iterdir()}
    assert main(["run", "--resume", str(folder)]) == 0
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "ledger").iterdir()} == before


def test_the_leaderboard_is_shown_from_the_ledger(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(done.folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [{k: v for k, v in row.items() if k not in TIMING} for row in shown] == leaderboard(done.folder)
    assert main(["leaderboard", str(done.folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_every_look_at_the_hold_out_is_counted_before_it_is_taken(
    done: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = done.folder
    assert main(["final", str(folder)]) == 0
    verdict = json.loads((folder / "bundle.verdict.json").read_text())
    assert capsys.readouterr().out.strip() == verdict["text"]
    assert verdict["bundle"] == bundle.load(folder / "bundle").hash
    assert verdict["openings"] == 1
    assert verdict["hold_out"]["days"] == 60

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the power goes")

    monkeypatch.setattr("tournament.final.backtest", broken)
    with pytest.raises(RuntimeError):
        main(["final", str(folder)])
    monkeypatch.undo()
    assert main(["final", str(folder)]) == 0
    assert json.loads((folder / "bundle.verdict.json").read_text())["openings"] == 3


SEBULBA = "search={algorithms: [ppo], candidates: 1, pods: {ppo: {kind: sebulba, actors: 1, staleness: 0}}}"
TWO_CPUS = "search.pods.ppo.actor_cpus=0.5"


@pytest.mark.slow
def test_a_pod_with_a_remote_actor_comes_to_what_one_process_comes_to(done: Done, tmp_path: Path) -> None:
    """One actor with the newest weights is Anakin to the last bit; here both share a placement group."""
    tiny = [word for word in TINY if not word.startswith("search.")]
    short = "search.samples=0.0001"
    ended("run", SMOKE, SEBULBA, TWO_CPUS, short, *tiny, "--out", tmp_path / "run")
    (row,) = leaderboard(tmp_path / "run")
    assert row["status"] == "finished"
    remote, local = tracks(tmp_path / "run", "ppo"), tracks(done.folder, "ppo")
    assert len(remote) > 1
    for fold, (candidate, returns) in remote.items():
        assert candidate["pod"]["kind"] == "sebulba"
        np.testing.assert_array_equal(returns, local[fold][1])


def tracks(folder: Path, algorithm: str) -> dict[int, tuple[Any, np.ndarray]]:
    """Of each fold: the candidate, and its returns on the test days."""
    records = [r for r in Ledger(folder / "ledger").records() if r.candidate["algorithm"]["kind"] == algorithm]
    return {record.fold: (record.candidate, record.returns) for record in records if record.fold}


@pytest.mark.slow
def test_a_pod_that_this_machine_has_no_room_for_is_refused(tmp_path: Path) -> None:
    process = launch("run", SMOKE, *TINY, "search.pods={ppo: {kind: sebulba, actors: 999}}", "--out", tmp_path / "run")
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2, said
    assert "error: search.pods.ppo and execution: a trial takes 1000 CPUs at a time, this machine has " in said
    assert not (tmp_path / "run").exists()
