"""The stationary bootstrap of Politis and Romano, shared by every candidate that saw the same days.

A resample is how often each day was drawn, so that the sums of all candidates over all resamples are one
matrix product. Blocks keep runs of days together, and every candidate is resampled on the same days: what
candidates have in common stays in common. The block is a fixed ten days (about the cube root of four years
of days) and not estimated: an estimate would differ between candidates, and the same days must serve them all.
Daily returns hardly remember; their volatility does, but that changes the error of a mean little.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kit.metrics import NEGLIGIBLE

RESAMPLES, BLOCK = 2000, 10
ROUNDING = 1e-5  # of a column's largest move: what is left of the deviation of a constant resample


@lru_cache(maxsize=8)
def day_counts(days: int, resamples: int = RESAMPLES, block: float = BLOCK, seed: int = 0) -> np.ndarray:
    """How often each day is drawn, [1 + resamples, days]; row 0 is the sample itself, every day once.

    A block starts anywhere, lasts `block` days on average and goes on from the last day to the first.
    """
    generator = np.random.default_rng(seed)
    fresh = generator.random((resamples, days)) * block < 1.0
    starts = generator.integers(days, size=(resamples, days))
    day = np.arange(days, dtype=np.int32)  # half the memory to move
    begun = np.maximum.accumulate(np.where(fresh, day, 0), axis=1)
    first = days * np.arange(resamples)[:, None]  # of each resample, all in one row
    drawn = starts.ravel()[begun + first]
    drawn += day - begun
    drawn[drawn >= days] -= days
    drawn += first
    counts = np.ones((1 + resamples, days))
    counts[1:] = np.bincount(drawn.ravel(), minlength=resamples * days).reshape(resamples, days)
    counts.flags.writeable = False
    return counts


def sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:  # [T, N], [B, T] -> [B, N]
    """The sum over the days of every resample, the same to the last bit on every machine.

    Values go to a grid (of about 1e-12 of the column's largest) on which these sums are whole numbers below 2**53:
    such sums are exact in any order, whatever the matrix product does and whoever else is in it.
    """
    bits = 53 - int(np.ceil(np.log2(len(values))))
    _, exponent = np.frexp(np.max(np.abs(values), axis=0))
    grid = np.ldexp(1.0, np.maximum(exponent, -900) - bits)
    return counts @ np.rint(values / grid) * grid


def sharpes(returns: np.ndarray, counts: np.ndarray) -> np.ndarray:  # [T, N], [B, T] -> [B, N]
    """The Sharpe ratio per period of every column in every resample; NaN where the resample is constant."""
    days = len(returns)
    centre = sums(returns, np.ones((1, days)))[0] / days  # so that squares do not cancel
    centred = returns - centre
    columns = returns.shape[1]
    both = sums(np.concatenate([centred, centred**2], axis=1), counts)
    first, second = both[:, :columns], both[:, columns:]
    std = np.sqrt(np.maximum(second - first**2 / days, 0.0) / (days - 1))
    varies = std > np.maximum(NEGLIGIBLE, ROUNDING * np.abs(centred).max(axis=0))
    return np.where(varies, (centre + first / days) / np.where(varies, std, 1.0), np.nan)


def edge_bound(
    returns: np.ndarray, against: np.ndarray, counts: np.ndarray, level: float, periods: float = 252
) -> np.ndarray:  # [T, N], [T], [B, T] -> [N]
    """The `level` quantile of each column's annual Sharpe ratio minus that of `against` on the same days.

    Level .2 against equal weight is a candidate's score, a lower bound; level .8 against the leader is an upper
    bound, and below zero the candidate is surely behind. NaN where a resample has no Sharpe ratio: such a series
    moved on too few days to be judged.
    """
    ratios = sharpes(np.column_stack([returns, against]), counts)
    return np.quantile(ratios[1:, :-1] - ratios[1:, -1:], level, axis=0) * np.sqrt(periods)
