"""Tournaments of a second: tiny trainings, in this process, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.config import load
from market import data
from tournament.arena import Arena
from tournament.config import TournamentConfig
from tournament.ledger import Ledger
from tournament.queue import Chain, Queue, Watcher
from tournament.rounds import Tournament
from tournament.score import Standing
from tournament.trial import Trial

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.yaml"
TINY = ["search.samples=0.0001", "data.source.bars=330", "folds={train: 80, validation: 20, test: 30, holdout: 60}"]


class Killed(BaseException):
    """What stands for SIGKILL in this process."""


def config_of(*settings: str) -> TournamentConfig:
    return load(TournamentConfig, SMOKE, [*TINY, *settings])


@cache
def arena_of(*settings: str) -> Arena:
    config = config_of(*settings)
    panel, _ = data.load(config.data)
    return Arena.build(panel, config.features, config.trading, config.folds)


def runner(pick: Callable[[int], int] = lambda there: 0, jobs: float = float("inf")) -> Callable[..., None]:
    """Runs the queue here: `pick` says which of the jobs that are due ends next; killed after so many."""
    done = [0.0]

    def run(stages: Iterator[Sequence[Chain]], arena: Arena, ledger: Ledger, *rest: Any) -> None:
        queue = Queue(stages, arena, ledger, next((r for r in rest if isinstance(r, Watcher)), Watcher()))
        while not queue.ended():
            while queue.next():
                pass
            number = sorted(queue.running)[pick(len(queue.running))]
            if done[0] == jobs:
                raise Killed
            trial = Trial(queue.running[number], arena, ledger)
            for _ in trial.steps():
                pass
            trial.finish()
            done[0] += 1
            queue.finished(number)

    return run


def here(monkeypatch: pytest.MonkeyPatch, execute: Callable[..., None]) -> None:
    """The commands run their trials in this process, without Ray."""
    monkeypatch.setattr("tournament.run.Tournament", partial(Tournament, execute=execute))
    monkeypatch.setattr("tournament.run.begin_beside", lambda work: work())
    monkeypatch.setattr("tournament.run.refuse_unless_room", lambda config: None)


def tournament(folder: Path, *settings: str, run: Callable[..., None] | None = None) -> Tournament:
    config = config_of(*settings)
    return Tournament(config, arena_of(*settings), Ledger(folder / "ledger"), folder / "tune", execute=run or runner())


def leaderboard(standings: Sequence[Standing]) -> list[tuple[Any, ...]]:
    """Everything that must repeat; bits, not roundings."""
    return [
        (s.hash, s.status, s.reason, s.folds, s.scores, s.sharpe, s.edge, s.bound, s.returns.tobytes())
        for s in standings
    ]


def random_pick(seed: int) -> Callable[[int], int]:
    generator = np.random.default_rng(seed)
    return lambda there: int(generator.integers(there))
