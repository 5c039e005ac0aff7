"""What a run shows: the numbers are those of the ledger, and they fit where they are shown."""

from __future__ import annotations

import os
import pty
import re
import sys
import termios
from pathlib import Path

import pytest
from small import config_of, runner, tournament

from tournament.live import FINAL, Live, Stage, planned
from tournament.propose import propose
from tournament.queue import Queue
from tournament.rounds import Tournament
from tournament.score import chain

SETTINGS = (
    "search.candidates=4",
    "search.keep=1",
    "folds={train: 80, validation: 20, test: 30, holdout: 60, count: 2}",
)


class Clock:
    """A second goes by whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def watched(folder: Path, *settings: str) -> Tournament:
    run = tournament(folder, *SETTINGS, *settings)
    run.watcher = Live(run, Clock())
    run.run()
    run.watcher.close()
    return run


def test_without_a_terminal_lines_say_how_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = watched(tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 2 * 11  # two rungs
    assert lines[0] == "round 1/1, rung 1/2, fold 1/2: 0/4 trials, 4 alive, 0 eliminated, 1 running"
    pattern = (
        r"round 1/1, rung [12]/2(, fold [12]/2)?: \d/\d trials, \d alive, \d eliminated, \d running, "
        r"(best bound [+-]\d+\.\d\d, )?[\d,]+ steps/s, [\d:]+ left"
    )
    later = [line for line in lines if "steps/s" in line]
    assert later and all(re.fullmatch(pattern, line) for line in later)
    standings = run.standings()
    first = next(line for line in lines if "rung 2/2" in line)
    gone = sum(standing.status == "eliminated" for standing in standings)
    assert f"{4 - gone} alive, {gone} eliminated" in first
    assert f"best bound {max(standing.bound for standing in standings):+.2f}" in lines[-1]


def test_a_run_that_goes_on_counts_what_is_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = watched(tmp_path)
    capsys.readouterr()
    again = Tournament(run.config, run.arena, run.ledger, run.folder, execute=runner(jobs=0))
    live = Live(again, Clock())
    again.watcher = live
    again.run()
    live.close()
    assert live.samples == 0 and not live.running
    assert len(live.done) == live.stage.total
    assert "steps/s" not in capsys.readouterr().err


def test_a_trial_that_fails_is_named_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tournament(tmp_path, *SETTINGS)
    live = Live(run, Clock())
    entrant = propose(1, [], run.config.search, run.config.seed)[0]
    queue = Queue(
        iter([[chain(entrant, 0, run.arena, run.config.search, run.config.seed)]]), run.arena, run.ledger, live
    )
    live.began("round 1 rung 1", 1)
    found = queue.next()
    assert found is not None
    queue.finished(found[0], "its process died, again and again")
    assert queue.ended()
    live.close()
    assert f"{entrant.candidate.name}: crashed: its process died, again and again" in capsys.readouterr().err


def test_speed_and_time_left_are_those_of_the_work_done(tmp_path: Path) -> None:
    """Four first folds of which one is half done after ten seconds."""
    run = tournament(tmp_path, *SETTINGS)
    clock = Clock()
    live = Live(run, clock)
    entrants = propose(1, [], run.config.search, run.config.seed)
    chains = [chain(e, 0, run.arena, run.config.search, run.config.seed)[:1] for e in entrants]
    live.began("round 1 rung 1", 4)
    queue = Queue(iter([chains]), run.arena, run.ledger, live)
    found = queue.next()
    assert found is not None
    job = found[1]
    live.since = 0.0
    live.progressed(job, {"samples": job.budget / 2, "reward": 0.0})
    speed, left = live._speed(10.0)
    assert speed == f"{int(job.budget / 2) / 10:,.0f} steps/s"
    share = int(job.budget / 2) / job.budget
    work = 4 + planned(run.config, 2, live.stage, 0)
    expected = (work - share) * 10.0 / share
    minutes, seconds = divmod(int(expected), 60)
    assert left == f"{minutes:02}:{seconds:02} left"
    live.close()


def test_the_plan_halves_as_the_rounds_will() -> None:
    config = config_of(
        "search.candidates=8", "search.offspring=2", "search.rounds=2", "search.keep=3", "ensemble.size=5"
    )
    # Folds 1 | 2 | 3, 4: 8 trainings of fold 1 are done; 4 go on, then 3. A later fold costs half a training.
    first = 4 * 0.5 + 3 * 2 * 0.5
    second = 10 + 5 * 0.5 + 3 * 2 * 0.5
    final = 5 * (1 + 3 * 0.5)  # as long as all four folds
    assert planned(config, 4, Stage("round 1 rung 1", 8, 1, 1), 8) == first + second + final
    assert planned(config, 4, Stage("round 2 rung 1", 10, 2, 1), 10) == 5 * 0.5 + 3 * 2 * 0.5 + final
    assert planned(config, 4, Stage("round 2 rung 3", 6, 2, 3), 3) == final
    assert planned(config, 4, Stage(FINAL, 5), 0) == 0.0


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_two_lines_are_drawn_in_place(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pty.openpty()
    termios.tcsetwinsize(writer, (24, columns))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        watched(tmp_path)
        terminal.write("end\n")
        terminal.flush()
        text = ""
        while "end" not in text:
            text += os.read(reader, 100_000).decode()
    os.close(reader)
    shown = [line for line in re.split(r"[\r\n]|\x1b\[A", text) if line.strip()]
    bars = [line for line in shown if line.startswith("round")]
    assert any(re.match(r"round 1/1, rung 1/2, fold 1/2 +50%\|.*\| 2/4 trials", line) for line in bars)
    assert any(re.match(r"round 1/1, rung 2/2, fold 2/2 +\d+%\|", line) for line in bars)
    assert any(re.match(r"  \d alive, \d eliminated, \d running, best bound .* steps/s, [\d:]+ left", s) for s in shown)
    assert max(map(len, shown)) <= columns
