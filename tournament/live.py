"""What a run shows while it goes on: two lines on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from tournament.config import TournamentConfig
from tournament.ledger import Record
from tournament.queue import Watcher
from tournament.rounds import Tournament
from tournament.score import Standing, rungs
from tournament.trial import Job

LINES = 10  # of a rung, where there is no terminal
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} trials"
FINAL = "final fit"
REDRAW = 0.2  # seconds
SHARE = 0.02  # of the time, at most, goes into working out how everybody stands


@dataclass
class Stage:
    """A rung, an extension, or the final fit."""

    name: str = ""
    total: int = 0  # trials
    round: int = 0  # 0: all rounds are over
    rung: int = 0


class Live(Watcher):
    """Round, rung and fold; trials done and running; who is alive, and the best bound; the speed, the time left."""

    def __init__(self, tournament: Tournament, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._started, self._progressed, self._finished, self._began)
        self.config, self.ends, self.clock = tournament.config, tournament.arena.folds.ends, clock
        self.folds = self.ends[-1]
        self.tournament = tournament
        self.stage = Stage()
        self.done: set[str] = set()  # of the stage, by key
        self.running: dict[str, tuple[Job, int]] = {}  # by name, with its samples so far
        self.fold = 0
        self.since: float | None = None  # the first training of this process
        self.samples, self.work = 0, 0.0  # of trials that ended in this process
        self.standings: list[Standing] = []
        self.looked = -math.inf, 0.0  # when the ledger was looked at last, and how long that took
        self.tenth, self.drawn = 0, -math.inf
        options: dict[str, Any] = {"file": sys.stderr, "dynamic_ncols": True, "disable": None, "leave": False}
        self.bar = tqdm(desc="starting", bar_format=BAR, total=1, position=0, **options)
        self.line = tqdm(bar_format="{desc}", total=1, position=1, **options)

    def close(self) -> None:
        self.line.close()
        self.bar.close()

    def _began(self, name: str, total: int) -> None:
        numbers = [int(word) for word in re.findall(r"\d+", name)] if name.startswith("round") else []
        self.stage = Stage(name, total, *numbers)
        self.done.clear()
        self.fold = self.tenth = 0
        self.looked = -math.inf, 0.0  # the rung before has eliminated
        if not self.bar.disable:
            self.bar.reset(total)

    def _started(self, job: Job) -> None:
        if self.since is None:
            self.since = self.clock()
        if job.fold == 0 and self.stage.name != FINAL:
            self._began(FINAL, self.config.ensemble.size * self.config.search.seeds)
        self.running[job.name] = (job, 0)
        self.fold = min(running.fold for running, _ in self.running.values())
        self._show()

    def _progressed(self, job: Job, figures: dict[str, Any]) -> None:
        if job.name in self.running:
            self.running[job.name] = (job, int(figures.get("samples", 0)))
        self._show()

    def _finished(self, record: Record) -> None:
        if record.key.hash in self.done:
            return
        self.done.add(record.key.hash)
        name = f"{record.candidate['algorithm']['kind']}-{record.key.candidate[:8]}"
        if self.running.pop(f"{name}-fold{record.fold}-seed{record.key.seed}", None):
            self.samples += record.trained
            self.work += cost(self.config, record.fold, self.folds)
            if record.status != "done":
                tqdm.write(f"{name}: {record.status}: {record.reason}", file=sys.stderr)
        self._show()

    # -- what there is to say

    def _show(self) -> None:
        now = self.clock()
        complete = len(self.done) >= self.stage.total
        if complete or now - self.looked[0] >= self.looked[1] / SHARE:
            other = Tournament(self.config, self.tournament.arena, self.tournament.ledger, self.tournament.folder)
            self.standings = other.recall()
            self.looked = now, self.clock() - now
        if not self.bar.disable:
            self.bar.n = min(len(self.done), self.stage.total)
            self.bar.set_description_str(self._where(), refresh=False)
            self.line.set_description_str(f"  {', '.join([*self._who(), *self._speed(now)])}", refresh=False)
            if now - self.drawn >= REDRAW or complete:
                self.drawn = now
                self.bar.refresh()
                self.line.refresh()
        elif (tenth := 1 + len(self.done) * LINES // max(1, self.stage.total)) > self.tenth:
            self.tenth = tenth
            trials = f"{len(self.done)}/{self.stage.total} trials"
            print(f"{self._where()}: {', '.join([trials, *self._who(), *self._speed(now)])}", file=sys.stderr)

    def _where(self) -> str:
        fold = f", fold {self.fold}/{self.folds}" if self.fold else ""
        if not self.stage.round:
            return f"{self.stage.name}{fold}"
        rounds, last = self.config.search.rounds, len(rungs(self.ends[0]))
        return f"round {self.stage.round}/{rounds}, rung {self.stage.rung}/{last}{fold}"

    def _who(self) -> list[str]:
        rounds = [self.stage.round] if self.stage.round else range(1, self.config.search.rounds + 1)
        statuses = [standing.status for standing in self.standings if standing.entrant.round in rounds]
        there = sum(status in ("running", "finished") for status in statuses)
        who = [f"{there} alive, {statuses.count('eliminated')} eliminated"] if statuses else []
        failed = len(statuses) - there - statuses.count("eliminated")
        bounds = [s.bound for s in self.standings if math.isfinite(s.bound) and s.status != "leaked"]
        return [
            *who,
            *([f"{failed} failed"] if failed else []),
            f"{len(self.running)} running",
            *([f"best bound {max(bounds):+.2f}"] if bounds else []),
        ]

    def _speed(self, now: float) -> list[str]:
        elapsed = now - self.since if self.since is not None else 0.0
        partial = sum(
            done / job.budget * cost(self.config, job.fold, self.folds) for job, done in self.running.values()
        )
        samples = self.samples + sum(done for _, done in self.running.values())
        if elapsed <= 0 or not samples:
            return []
        left = (self._left() - partial) * elapsed / (self.work + partial)
        return [f"{samples / elapsed:,.0f} steps/s", f"{tqdm.format_interval(max(0.0, left))} left"]

    def _left(self) -> float:
        """The work of all trials that are still to end, as eliminations will probably go."""
        there = sum(s.entrant.round == self.stage.round and s.status in ("running", "finished") for s in self.standings)
        now = (self.stage.total - len(self.done)) * cost(self.config, self.stage.rung, self.folds)  # rung 1 is fold 1
        return now + planned(self.config, self.ends[0], self.stage, there)


def cost(config: TournamentConfig, fold: int, folds: int) -> float:
    """Of a trial, in trainings of full length; the final fit, fold 0, is as long as all folds, within bounds."""
    search = config.search
    if fold == 0 and search.warm > 0:
        return min(1.0 + (folds - 1) * search.warm, 1.0 / search.samples)
    return search.warm if fold > 1 and search.warm > 0 else 1.0


def planned(config: TournamentConfig, folds: int, stage: Stage, alive: int) -> float:
    """The work of the rungs and rounds to come, and of the final fit: halving goes on as it should.

    An extension comes when all rounds are over: only the final fit is left after it.
    """
    if stage.name == FINAL:
        return 0.0
    search, ends = config.search, rungs(folds)
    work = config.ensemble.size * search.seeds * cost(config, 0, folds)
    for number in range(stage.round or search.rounds + 1, search.rounds + 1):
        here = number == stage.round
        there = alive if here else search.candidates + (search.offspring if number > 1 else 0)
        for rung in range(stage.rung if here else 0, len(ends)):
            first = ends[rung - 1] if rung else 0
            if rung:
                there = min(there, max(search.keep, math.ceil(there / search.eta)))
            work += there * search.seeds * sum(cost(config, fold, folds) for fold in range(first + 1, ends[rung] + 1))
    return work
