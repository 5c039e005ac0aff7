"""Metrics of return series, by convention: 252-day years unless told, Sharpe with ddof 1.

Every function takes simple returns per period, [T] or [T, K], and reduces over time. What is not
defined is NaN: the Sharpe ratio of a constant series is NaN, not infinity.
"""

from __future__ import annotations

import numpy as np

NEGLIGIBLE = 1e-12  # a standard deviation below this is a constant series


def equity(returns: np.ndarray) -> np.ndarray:  # [T, ...] -> [T + 1, ...]
    """Wealth of one unit, starting at 1 before the first period."""
    returns = np.asarray(returns, dtype=np.float64)
    start = np.ones((1, *returns.shape[1:]))
    return np.concatenate([start, np.cumprod(1.0 + returns, axis=0)])


def volatility(returns: np.ndarray, periods: float = 252) -> np.ndarray:
    return _std(returns) * np.sqrt(periods)


def sharpe(returns: np.ndarray, periods: float = 252) -> np.ndarray:
    """Mean over standard deviation, annualised; of returns in excess of cash if you pass those."""
    std = _std(returns)
    return _ratio(np.mean(returns, axis=0), std) * np.sqrt(periods)


def sortino(returns: np.ndarray, periods: float = 252) -> np.ndarray:
    """Mean over the root mean square of losses, over all periods."""
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=0))
    return _ratio(np.mean(returns, axis=0), downside) * np.sqrt(periods)


def cagr(returns: np.ndarray, periods: float = 252) -> np.ndarray:
    """Compound annual growth rate; -1 once wealth is gone."""
    growth = np.maximum(equity(returns)[-1], 0.0)
    years = len(returns) / periods
    return growth ** (1.0 / years) - 1.0 if years else np.full_like(growth, np.nan)


def drawdown(returns: np.ndarray) -> np.ndarray:  # [T, ...] -> [T + 1, ...], at most 0
    """Wealth below its peak so far; the start counts as a peak."""
    wealth = equity(returns)
    return wealth / np.maximum.accumulate(wealth, axis=0) - 1.0


def max_drawdown(returns: np.ndarray) -> np.ndarray:
    return drawdown(returns).min(axis=0)


def calmar(returns: np.ndarray, periods: float = 252) -> np.ndarray:
    return _ratio(cagr(returns, periods), -max_drawdown(returns))


def value_at_risk(returns: np.ndarray, level: float = 0.05) -> np.ndarray:
    """The historical quantile: the return that only `level` of periods fall below."""
    return np.quantile(returns, level, axis=0)


def expected_shortfall(returns: np.ndarray, level: float = 0.05) -> np.ndarray:
    """The mean of the worst `level` of periods (at least one)."""
    worst = max(1, int(np.floor(level * len(returns) + 1e-9)))
    return np.sort(returns, axis=0)[:worst].mean(axis=0)


def win_rate(returns: np.ndarray) -> np.ndarray:
    """The share of all periods that gained, those at zero counted in."""
    return np.mean(np.asarray(returns) > 0.0, axis=0)


def tail_ratio(returns: np.ndarray) -> np.ndarray:
    """The 95 % quantile over the 5 % quantile, both taken as sizes."""
    return _ratio(np.abs(np.quantile(returns, 0.95, axis=0)), np.abs(np.quantile(returns, 0.05, axis=0)))


def turnover(weights: np.ndarray) -> np.ndarray:  # [T, ..., A] -> [T - 1, ...]
    """Sum of absolute changes of weight from one row to the next."""
    return np.abs(np.diff(weights, axis=0)).sum(axis=-1)


def summary(returns: np.ndarray, periods: float = 252) -> dict[str, float]:
    """The figures that every report shows, of one series [T]."""
    return {
        "cagr": float(cagr(returns, periods)),
        "volatility": float(volatility(returns, periods)),
        "sharpe": float(sharpe(returns, periods)),
        "sortino": float(sortino(returns, periods)),
        "max_drawdown": float(max_drawdown(returns)),
        "calmar": float(calmar(returns, periods)),
        "value_at_risk": float(value_at_risk(returns)),
        "expected_shortfall": float(expected_shortfall(returns)),
        "win_rate": float(win_rate(returns)),
    }


def _std(returns: np.ndarray) -> np.ndarray:
    if len(returns) < 2:
        return np.full(np.shape(returns)[1:], np.nan)
    return np.std(returns, axis=0, ddof=1)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    top, bottom = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    defined = bottom > NEGLIGIBLE
    return np.where(defined, top / np.where(defined, bottom, 1.0), np.nan)
