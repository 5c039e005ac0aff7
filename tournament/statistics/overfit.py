"""The probability of backtest overfitting, by combinatorially symmetric cross-validation.

Bailey, Borwein, López de Prado and Zhu (2017): cut the days into blocks, choose the best candidate on every
half of the blocks, and see how often it is below the middle on the other half.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import numpy as np

from kit.metrics import NEGLIGIBLE
from tournament.statistics.bootstrap import ROUNDING

Metric = Literal["sharpe", "mean"]


def overfitting(returns: np.ndarray, blocks: int = 16, metric: Metric = "sharpe") -> float:  # [T, N]
    """The share of splits in which the best on one half is in the lower half on the other; NaN for one candidate."""
    days, candidates = returns.shape
    if blocks < 2 or blocks % 2 or blocks > days:
        raise ValueError(f"blocks must be even, at least 2 and at most the {days} days, but is {blocks}")
    if candidates < 2:
        return np.nan
    halves = list(combinations(range(blocks), blocks // 2))
    inside = np.zeros((len(halves), blocks))
    np.put_along_axis(inside, np.array(halves), 1.0, axis=1)
    centre = returns.mean(axis=0)
    centred = returns - centre  # so that squares do not cancel
    still = np.maximum(NEGLIGIBLE, ROUNDING * np.abs(centred).max(axis=0))  # as after an elimination, but for rounding
    edges = np.linspace(0, days, blocks + 1).astype(int)
    lengths = np.diff(edges)
    first, second = (np.add.reduceat(values, edges[:-1], axis=0) for values in (centred, centred**2))

    def score(chosen: np.ndarray) -> np.ndarray:  # [C, S] -> [C, N]
        length = (chosen @ lengths)[:, None]
        mean = centre + chosen @ first / length
        if metric == "mean":
            return mean
        std = np.sqrt(np.maximum(chosen @ second - length * (mean - centre) ** 2, 0.0) / length)
        return np.where(std > still, mean / np.maximum(std, still), 0.0)

    best = np.argmax(score(inside), axis=1)[:, None]
    others = score(1 - inside)
    own = np.take_along_axis(others, best, axis=1)
    ranks = (others < own).sum(axis=1) + ((others == own).sum(axis=1) + 1) / 2  # 1 is the worst; ties share theirs
    return float(np.mean(ranks / (candidates + 1) <= 0.5))  # where the logit of the rank is at most zero
