"""How long a round takes on many devices: with synchronous rungs, as here, or promoting as results come in.

No benchmark by itself: `benchmarks.tournament` fills it with what it has measured. A device trains one
candidate at a time. Given durations and scores, nothing is left to chance.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LUCK = 0.5  # standard deviation of what one fold says, where that of the candidates' skill is 1


@dataclass(frozen=True)
class Plan:
    """After how many folds a candidate is judged, and which share of those who are goes on."""

    rungs: tuple[int, ...]  # the last ends the round
    shares: tuple[float, ...]  # after each but the last
    opening: float = 0.0  # seconds until the first trial begins
    handing: float = 0.0  # seconds of the driver for each trial, during which no other begins


class Ran(NamedTuple):
    seconds: float  # from the beginning to the end of the last
    trained: np.ndarray  # [C] seconds of each candidate

    @property
    def work(self) -> float:
        """Of all devices, in training."""
        return float(self.trained.sum())

    @property
    def longest(self) -> float:
        """Of one candidate, its trials one after the other: no number of devices goes below."""
        return float(self.trained.max())

    def idle(self, devices: int) -> float:
        """Share of the devices' time."""
        return 1 - self.work / (devices * self.seconds)


def synchronous(durations: np.ndarray, scores: np.ndarray, devices: int, plan: Plan) -> Ran:  # [C, F], [C, rungs]
    """Nobody goes on before all of a rung are judged."""
    alive, seconds, trained, done = list(range(len(durations))), plan.opening, np.zeros(len(durations)), 0
    for rung, fold in enumerate(plan.rungs):
        ran = _run(_Queue(durations, done, alive, fold), devices, plan.handing)
        seconds, trained, done = seconds + ran.seconds, trained + ran.trained, fold
        if rung < len(plan.shares):
            places = math.ceil(plan.shares[rung] * len(alive))
            alive = sorted(sorted(alive, key=lambda candidate: -scores[candidate, rung])[:places])
    return Ran(seconds, trained)


def asynchronous(durations: np.ndarray, scores: np.ndarray, devices: int, plan: Plan) -> Ran:  # as above
    """A free device takes whoever is among the best of a rung so far, the highest rung first; else somebody new.

    So the round has no barrier, and trains some who would not have gone on, had one waited (ASHA).
    """
    ran = _run(_Promotions(durations, scores, plan), devices, plan.handing)
    return ran._replace(seconds=plan.opening + ran.seconds)


def drawn(measured: np.ndarray, candidates: int, rungs: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """So many candidates, each as long as a measured one [M, F]; and scores that tell skill from luck ever better."""
    random = np.random.default_rng(seed)
    durations = measured[random.integers(len(measured), size=candidates)]
    skill, luck = random.normal(size=(candidates, 1)), random.normal(size=(candidates, max(rungs)))
    said = np.cumsum(skill + LUCK * luck, axis=1) / np.arange(1, max(rungs) + 1)
    return durations, said[:, [fold - 1 for fold in rungs]]


class _Queue:
    """Candidates in order, each up to the same fold; a device keeps the one that it has begun."""

    def __init__(self, durations: np.ndarray, done: int, candidates: Sequence[int], until: int) -> None:
        self.durations, self.done, self.until = durations, [done] * len(durations), until
        self.due = [*reversed(candidates)]  # the last is the next

    def ask(self) -> tuple[int, float] | None:
        """Whose next trial may begin now, and how long it is."""
        if not self.due:
            return None
        candidate = self.due.pop()
        return candidate, float(self.durations[candidate, self.done[candidate]])

    def told(self, candidate: int) -> None:
        """Its trial has ended."""
        self.done[candidate] += 1
        if self.done[candidate] < self.until:
            self.due.append(candidate)


class _Promotions:
    def __init__(self, durations: np.ndarray, scores: np.ndarray, plan: Plan) -> None:
        self.durations, self.scores, self.plan = durations, scores, plan
        self.done = [0] * len(durations)
        self.goes_on: list[int] = []  # between two rungs
        self.fresh = [*reversed(range(len(durations)))]
        self.judged: list[list[int]] = [[] for _ in plan.rungs]  # the best first
        self.promoted: list[set[int]] = [set() for _ in plan.rungs]

    def ask(self) -> tuple[int, float] | None:
        candidate = self.goes_on.pop() if self.goes_on else self._promotion()
        if candidate is None and self.fresh:
            candidate = self.fresh.pop()
        return None if candidate is None else (candidate, float(self.durations[candidate, self.done[candidate]]))

    def told(self, candidate: int) -> None:
        self.done[candidate] += 1
        if self.done[candidate] in self.plan.rungs:
            rung = self.plan.rungs.index(self.done[candidate])
            self.judged[rung].append(candidate)
            if rung < len(self.plan.shares):
                self.judged[rung].sort(key=lambda other: -self.scores[other, rung])
        else:
            self.goes_on.append(candidate)

    def _promotion(self) -> int | None:
        for rung in reversed(range(len(self.plan.shares))):
            judged, promoted = self.judged[rung], self.promoted[rung]
            share = self.plan.shares[rung] * len(judged)
            places = math.ceil(share) if self._complete(rung) else math.floor(share)
            for candidate in judged[:places]:
                if candidate not in promoted:
                    promoted.add(candidate)
                    return candidate
        return None

    def _complete(self, rung: int) -> bool:
        """Nobody comes to this rung any more."""
        if rung == 0:
            return len(self.judged[0]) == len(self.durations)
        below, promoted = self.judged[rung - 1], self.promoted[rung - 1]
        places = math.ceil(self.plan.shares[rung - 1] * len(below))
        return self._complete(rung - 1) and promoted >= {*below[:places]} and len(self.judged[rung]) == len(promoted)


def _run(queue: _Queue | _Promotions, devices: int, handing: float) -> Ran:
    """Whoever is due begins as soon as a device is free and the driver has handed out those before."""
    now = driver = 0.0
    trained = np.zeros(len(queue.durations))
    running: list[tuple[float, int, int]] = []  # end, order of beginning, candidate
    order = 0
    while True:
        while len(running) < devices and (found := queue.ask()):
            candidate, seconds = found
            driver = max(now, driver) + handing
            heapq.heappush(running, (driver + seconds, order, candidate))
            trained[candidate] += seconds
            order += 1
        if not running:
            return Ran(now, trained)
        now, _, candidate = heapq.heappop(running)
        queue.told(candidate)
