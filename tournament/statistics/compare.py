"""Is any candidate better than equal weight, after looking at all of them?

The published tests on the shared resamples of `bootstrap.day_counts`, studentised as their authors advise:
the statistic of a candidate is its mean over the standard error of that mean. A candidate that is exactly
equal weight has no error and no p-value below 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit.metrics import NEGLIGIBLE
from tournament.statistics.bootstrap import BLOCK, RESAMPLES, ROUNDING, sums

VOLATILITY = 0.10  # a year: what both sides of an excess are scaled to
LEAST = 20  # days that a trailing volatility needs
SAME = 1e-6  # per square root of days: Sharpe ratios closer than this are one
CAP = 4.0  # a candidate is scaled up by at most this much more than equal weight


def scaled_excess(returns: np.ndarray, benchmark: np.ndarray, window: int = 60, periods: float = 252) -> np.ndarray:
    """Excess over the benchmark per day, each side held at 10 % a year by its volatility so far: [T, N], [T] -> [T, N].

    The volatility of day t is that of the `window` days before t; of all days before while these are fewer; and with
    fewer than 20, on the first 20 days, the excess is NaN. It is NaN where a return is NaN. Pass returns in excess of
    cash, or a candidate that holds cash is scaled up until its interest looks like skill; a volatility below a
    quarter of the benchmark's counts as that quarter.
    """
    theirs = _trailing_std(benchmark[:, None], window)
    ours = np.maximum(_trailing_std(returns, window), theirs / CAP)
    target = VOLATILITY / np.sqrt(periods)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = target * (returns / ours - benchmark[:, None] / theirs)
    return np.where(theirs > NEGLIGIBLE, excess, np.nan)


def superior_ability(excess: np.ndarray, counts: np.ndarray) -> float:  # [T, N], [1 + B, T]
    """The p-value of "no candidate is better" (Hansen's SPA, 2005, consistent).

    Candidates so far behind that they cannot matter (by the law of the iterated logarithm) do not raise the bar.
    """
    means, errors = _means(excess, counts)
    mean = means[0]
    far_behind = mean < -errors * np.sqrt(2 * np.log(np.log(len(excess))))
    luck = _over(means[1:] - np.where(far_behind, 0.0, mean), errors)
    best = _over(mean, errors).max(initial=0.0)  # also where there is no candidate at all
    return float(_p_value(luck.max(axis=1, initial=0.0) >= best))


def step_down(excess: np.ndarray, counts: np.ndarray) -> np.ndarray:  # [T, N], [1 + B, T] -> [N]
    """Each candidate's p-value after all comparisons (StepM of Romano and Wolf, 2005, as adjusted p-values of 2016).

    Those at most .05 are better than the benchmark, all of them together, but for a chance of 5 %.
    """
    means, errors = _means(excess, counts)
    score = _over(means[0], errors)
    order = np.argsort(-score, kind="stable")
    luck = _over(means[1:] - means[0], errors)[:, order]
    hardest = np.maximum.accumulate(luck[:, ::-1], axis=1)[:, ::-1]  # the best of a candidate and those behind it
    p_values = np.empty(len(score))
    p_values[order] = np.maximum.accumulate(_p_value(hardest >= score[order]))
    return p_values


class SharpeTest(NamedTuple):
    edge: float  # annual Sharpe ratio minus the benchmark's
    lower: float  # its one-sided lower bound at the level asked for
    p_value: float  # of "the edge is not above zero"


def sharpe_difference(
    returns: np.ndarray,  # [T]
    benchmark: np.ndarray,  # [T]
    level: float = 0.05,
    block: int = BLOCK,
    resamples: int = RESAMPLES,
    seed: int = 0,
    periods: float = 252,
) -> SharpeTest:
    """One-sided test that a Sharpe ratio is above another's on the same days (Ledoit and Wolf, 2008).

    Circular blocks, and every resample divided by its own standard error: that of a mean of blocks, by the delta
    method. The sample's own error takes all its circular blocks, which is a Bartlett kernel.
    """
    days = len(returns)
    if days < 2 * block:
        raise ValueError(f"{days} days are too few to resample in blocks of {block}")
    moments = np.column_stack([returns, benchmark, returns**2, benchmark**2])
    centre = moments.mean(axis=0)
    ahead = np.concatenate([np.zeros((1, 4)), np.cumsum(np.concatenate([moments, moments[: block - 1]]) - centre, 0)])
    block_sums = ahead[block:] - ahead[:-block]  # [T, 4], from every day on, around the end
    products = (block_sums[:, :, None] * block_sums[:, None, :]).reshape(days, 16)

    drawn = days // block
    starts = np.random.default_rng(seed).integers(days, size=(resamples, drawn)) + days * np.arange(resamples)[:, None]
    counts = np.ones((1 + resamples, days))
    counts[1:] = np.bincount(starts.ravel(), minlength=resamples * days).reshape(resamples, days)
    used = counts.sum(axis=1, keepdims=True)  # blocks
    shift = counts @ block_sums / (used * block)
    covariance = (counts @ products / (used * block)).reshape(-1, 4, 4) - block * shift[:, :, None] * shift[:, None, :]

    edges, gradient = _edge_and_gradient(centre + shift)
    length = np.where(np.arange(1 + resamples) == 0, days, drawn * block)
    variance = np.einsum("bi,bij,bj->b", gradient, covariance, gradient) / length
    errors = np.sqrt(np.maximum(variance, 0.0))
    edge, error = edges[0], errors[0]
    year = np.sqrt(periods * (days - 1) / days)  # a year's, with ddof 1
    if not error * np.sqrt(days) > SAME:  # the same series twice but for rounding, or one without a Sharpe ratio
        return SharpeTest(float(edge * year), np.nan, 1.0)
    defined = (errors * np.sqrt(length))[1:] > SAME  # what has no error but rounding's counts as lucky
    luck = np.where(defined, (edges[1:] - edge) / np.where(defined, errors[1:], 1.0), np.inf)
    lower = edge - np.quantile(luck, 1 - level, method="higher") * error
    return SharpeTest(float(edge * year), float(lower * year), float(_p_value(luck >= edge / error)))


def _trailing_std(returns: np.ndarray, window: int) -> np.ndarray:  # [T, N] -> [T, N]
    """The standard deviation of the `window` days before each day, fewer at the start, NaN below `LEAST`."""
    length = np.minimum(np.arange(len(returns)), window)[:, None]
    first, second = np.zeros(returns.shape), np.zeros(returns.shape)
    squares = returns**2
    for lag in range(1, window + 1):
        first[lag:] += returns[:-lag]
        second[lag:] += squares[:-lag]
    variance = (second - first**2 / np.maximum(length, 1)) / np.maximum(length - 1, 1)
    return np.where(length < LEAST, np.nan, np.sqrt(np.maximum(variance, 0.0)))


def _means(excess: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of all resamples [1 + B, N], and the standard errors of the sample's [N]."""
    means = sums(excess, counts) / len(excess)
    return means, np.std(means[1:], axis=0)


def _over(values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Values in standard errors; minus infinity where there is no error."""
    defined = errors > NEGLIGIBLE
    return np.where(defined, values / np.where(defined, errors, 1.0), -np.inf)


def _p_value(as_lucky: np.ndarray) -> np.ndarray:  # [B, ...] -> [...]
    """The share of resamples as lucky as the sample, the sample itself counted among them."""
    return (1 + np.sum(as_lucky, axis=0)) / (1 + len(as_lucky))


def _edge_and_gradient(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [B, 4] -> [B], [B, 4]
    """The difference of two Sharpe ratios of two means and two means of squares, and its derivatives."""
    mean, square = moments[:, :2], moments[:, 2:]
    variance = square - mean**2
    defined = variance > np.maximum(NEGLIGIBLE**2, ROUNDING**2 * variance[0])  # of row 0, the sample
    std = np.sqrt(np.where(defined, variance, np.nan))
    ratio, by_mean, by_square = mean / std, square / std**3, -mean / (2 * std**3)
    sign = np.array([1.0, -1.0])
    return (ratio * sign).sum(axis=1), np.concatenate([by_mean * sign, by_square * sign], axis=1)
