"""How much of one Sharpe ratio is luck, given its length, its tails and the number of tries.

Sharpe ratios here are per period, not per year (`kit.metrics.sharpe(returns, periods=1)`); kurtosis is not excess.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from kit.metrics import NEGLIGIBLE

EULER = 0.5772156649015329
Numbers = float | np.ndarray


def shape(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [T, ...] -> [...], [...]
    """Skew and kurtosis, population moments; 0 and 3, a normal's, for a series that is constant."""
    centred = returns - np.mean(returns, axis=0)
    std = np.std(returns, axis=0)
    varies = std > NEGLIGIBLE
    unit = centred / np.where(varies, std, 1.0)
    return np.where(varies, np.mean(unit**3, axis=0), 0.0), np.where(varies, np.mean(unit**4, axis=0), 3.0)


def probabilistic_sharpe(
    sharpe: Numbers, periods: int, skew: Numbers = 0.0, kurtosis: Numbers = 3.0, threshold: Numbers = 0.0
) -> np.ndarray:
    """The probability that the true Sharpe ratio is above the threshold (Bailey and López de Prado, 2012)."""
    return ndtr((np.asarray(sharpe) - threshold) * np.sqrt((periods - 1) / _spread(sharpe, skew, kurtosis)))


def minimum_track_record(
    sharpe: float, threshold: float = 0.0, skew: float = 0.0, kurtosis: float = 3.0, level: float = 0.95
) -> float:
    """The observations that it takes until the Sharpe ratio is above the threshold at this level."""
    if sharpe <= threshold:
        return np.inf
    return float(1.0 + _spread(sharpe, skew, kurtosis) * (ndtri(level) / (sharpe - threshold)) ** 2)


def expected_maximum(trials: float) -> float:
    """What the best of so many independent standard normal draws is expected to be; 0 for a single one."""
    best = (1 - EULER) * ndtri(1 - 1 / trials) + EULER * ndtri(1 - 1 / (trials * np.e))
    return max(0.0, float(best))  # below two trials the approximation falls below zero, to minus infinity at one


def deflated_sharpe(
    sharpe: Numbers,
    periods: int,
    skew: Numbers = 0.0,
    kurtosis: Numbers = 3.0,
    trials: float = 1,
    variance: float | None = None,
) -> np.ndarray:
    """The probability that a Sharpe ratio is above what the best of so many lucky trials would show.

    `variance` is that of the trials' Sharpe ratios; without it the variance of pure luck, 1 / periods.
    """
    luck = np.sqrt(1 / periods if variance is None else variance) * expected_maximum(trials)
    return probabilistic_sharpe(sharpe, periods, skew, kurtosis, threshold=luck)


def effective_trials(returns: np.ndarray, trials: float | None = None) -> float:  # [T, N]
    """The number of independent trials that N correlated columns are worth: ρ + (1 - ρ)·N at mean correlation ρ.

    `trials` is N where more were tried than there are columns (seeds, checkpoints).
    """
    trials = returns.shape[1] if trials is None else trials
    varying = returns[:, np.std(returns, axis=0) > NEGLIGIBLE]
    count = varying.shape[1]
    if count < 2:
        return float(trials)
    correlation = np.corrcoef(varying, rowvar=False)
    mean = max(0.0, (correlation.sum() - count) / (count * (count - 1)))
    return float(mean + (1 - mean) * trials)


def minimum_backtest_years(trials: float, target: float = 1.0) -> float:
    """The years of data below which the best of so many worthless trials is expected to reach the annual target."""
    return (expected_maximum(trials) / target) ** 2


def annual_factor(periods: int, autocorrelations: Sequence[float] | np.ndarray = ()) -> float:
    """What turns a Sharpe ratio per period into one per `periods` of them (Lo, 2002).

    The autocorrelations are those of lag 1, 2, …; lags beyond the last one given count as uncorrelated.
    """
    lags = np.arange(1, len(autocorrelations) + 1)
    if len(lags) >= periods:
        raise ValueError(f"{len(lags)} autocorrelations, but only {periods - 1} lags fit into {periods} periods")
    variance = periods + 2 * np.sum((periods - lags) * np.asarray(autocorrelations))
    return float(periods / np.sqrt(variance)) if variance > 0 else np.nan


def _spread(sharpe: Numbers, skew: Numbers, kurtosis: Numbers) -> np.ndarray:
    """The variance of the estimated Sharpe ratio, times the number of periods."""
    return 1 - np.asarray(skew) * sharpe + (np.asarray(kurtosis) - 1) / 4 * np.asarray(sharpe) ** 2
