"""How candidates stand: what their test days say, joined over folds and averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kit.metrics import sharpe
from tournament.arena import Arena
from tournament.ledger import Record
from tournament.statistics.bootstrap import day_counts, edge_bound

if TYPE_CHECKING:
    from tournament.propose import Entrant

LOWER, UPPER = 0.2, 0.8  # of the bounds that rank and that spare


@dataclass(frozen=True, eq=False)
class Standing:
    """A candidate as the ledger has it."""

    entrant: Entrant
    records: tuple[tuple[Record, ...], ...]  # of each fold done, one a seed
    status: Literal["running", "finished", "eliminated", "diverged", "crashed", "leaked"]
    reason: str
    returns: np.ndarray  # [T] simple, per test day, mean of the seeds
    scores: tuple[tuple[int, float], ...]  # after which fold, and the value that it was ranked by
    sharpe: float  # annual
    edge: float  # over equal weight's on the same days
    bound: float  # the edge's lower bound
    fold_sharpe: float  # mean of the folds'

    @property
    def folds(self) -> int:
        return len(self.records)

    @property
    def score(self) -> float:
        """What it was last ranked by; below every number where it never was."""
        return self.scores[-1][1] if self.scores and np.isfinite(self.scores[-1][1]) else -np.inf

    @property
    def order(self) -> tuple[float, float, str]:
        """The leader first: further folds, higher scores; ties by hash."""
        return (-self.folds, -self.score, self.entrant.candidate.hash)


def joined(records: Sequence[Sequence[Record]]) -> np.ndarray:  # [T]
    return np.concatenate([np.mean([record.returns for record in seeds], axis=0) for seeds in records] or [np.zeros(0)])


def benchmark(arena: Arena, folds: int) -> np.ndarray:  # [T]
    """Equal weight on the test days of the first folds."""
    tracks = [arena.benchmark(fold.spans).returns for fold in arena.folds.folds[:folds]]
    return np.concatenate(tracks or [np.zeros(0)])


def bounds(returns: np.ndarray, against: np.ndarray, level: float, year: float) -> np.ndarray:  # [T, N], [T] -> [N]
    return edge_bound(returns, against, day_counts(len(returns)), level, year)


def annual(returns: np.ndarray, year: float) -> float:
    return float(sharpe(returns, year))
