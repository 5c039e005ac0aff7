"""What the built-in market's signal can earn: the optimum on paper, and a rule that can be traded.

On paper: no costs, weights free, Sharpe ratio = ic * sqrt(breadth * bars a year), joined with the
market's own. Traded: long only, fully invested, the target 1/N + tilt * signal projected on the
simplex, approached by a share `rate` a bar at a flat cost, against equal weight kept in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kit import metrics
from kit.config import setting
from kit.errors import UserError
from market.panel import FIELDS, Panel
from market.process import SECTORS
from market.synth import SIGNAL

FILLS = ("observed close", "one bar later")  # by lag
FEWEST_BARS = 64
NEIGHBOURS = 4  # bars on either side that tell a bar's volatility


@dataclass(frozen=True)
class OracleRule:
    """The tradable oracle and what is asked of it."""

    tilt: float = setting(0.4, low=0, help="weight per unit of signal, before the projection on the simplex")
    rate: float = setting(0.4, above=0, high=1, help="share of the way to the target that is traded each bar")
    cost_bp: float = setting(5.0, low=0, help="cost of trading, in basis points of the traded notional")
    last: int = setting(1260, low=2, help="bars at the end that are also reported by themselves")


@dataclass(frozen=True)
class SignalStrength:
    """How well a signal foretells the next own return, as measured."""

    ic: float
    ic_error: float  # standard error
    breadth: float  # independent bets a bar: the number of symbols, less what hedging the common factors costs


@dataclass(frozen=True)
class OracleSpan:
    """The rule against equal weight over one span; Sharpe ratios are annual."""

    bars: int
    fill: str
    equal_weight: float
    oracle: float
    edge: float
    edge_error: float  # standard error of the paired difference
    share: float | None  # of the optimum on paper; None where there is none


@dataclass(frozen=True)
class OracleReport:
    symbols: int
    signal: SignalStrength
    neutral: float  # annual Sharpe ratio of the optimum on paper, market hedged
    optimum: float  # and with the market's own, as equal weight earned it before costs
    rule: OracleRule
    spans: tuple[OracleSpan, ...]

    def lines(self) -> Iterator[str]:
        signal, rule = self.signal, self.rule
        yield f"signal    ic {signal.ic:.4f} ± {signal.ic_error:.4f}, breadth {signal.breadth:.1f} of {self.symbols}"
        yield f"on paper  Sharpe {self.neutral:.2f} with the market hedged, {self.optimum:.2f} with it; no costs"
        yield f"tradable  long only, tilt {rule.tilt:g}, rate {rule.rate:g} a bar, {rule.cost_bp:g} bp; Sharpe:"
        yield f"{'bars':>10}  {'fill':<14}  {'equal weight':>12}  {'oracle':>6}  {'edge':>13}  of paper"
        for span in self.spans:
            edge = f"{span.edge:+.2f} ± {span.edge_error:.2f}"
            share = "none" if span.share is None else f"{span.share:.0%}"
            yield (
                f"{span.bars:>10}  {span.fill:<14}  {span.equal_weight:>12.2f}  {span.oracle:>6.2f}"
                f"  {edge:>13}  {share:>8}"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def analyse(panel: Panel, rule: OracleRule | None = None, origin: str = "the panel") -> OracleReport:
    """What the signal of a panel can earn; `origin` names its file in complaints."""
    rule = rule or OracleRule()
    signal = _usable_signal(panel, origin)
    returns = panel.close[1:] / panel.close[:-1] - 1.0
    strength = measure_signal(returns, signal[:-1])
    year, symbols = panel.bars_per_year, len(panel.symbols)
    neutral = max(strength.ic, 0.0) * math.sqrt(strength.breadth * year)
    optimum = math.hypot(neutral, max(float(metrics.sharpe(returns.mean(axis=1), year)), 0.0))

    equal_and_oracle = np.stack([np.full_like(signal, 1.0 / symbols), oracle_target(signal, rule.tilt)], axis=1)
    spans = []
    for lag, fill in enumerate(FILLS):
        earned = follow(returns[:, None], equal_and_oracle[:-1], rule.rate, rule.cost_bp, lag)  # [T - 1, 2]
        for bars in sorted({len(earned), min(rule.last, len(earned))}, reverse=True):
            equal, oracle = metrics.sharpe(earned[-bars:], year).tolist()
            error = sharpe_difference_error(earned[-bars:, 0], earned[-bars:, 1], year)
            share = oracle / optimum if optimum > 0 else None
            spans.append(OracleSpan(bars, fill, equal, oracle, oracle - equal, error, share))
    return OracleReport(symbols, strength, neutral, optimum, rule, tuple(spans))


def oracle_target(signal: np.ndarray, tilt: float = OracleRule.tilt) -> np.ndarray:  # [..., A] -> [..., A]
    """Target weights of the tradable oracle."""
    return simplex_projection(1.0 / signal.shape[-1] + tilt * signal)


def simplex_projection(x: np.ndarray) -> np.ndarray:  # [..., A] -> [..., A]
    """The nearest weights that are not negative and sum to 1."""
    falling = -np.sort(-x, axis=-1)
    counts = np.arange(1, x.shape[-1] + 1)
    shifts = (np.cumsum(falling, axis=-1) - 1.0) / counts  # what to subtract if just the first n stay positive
    kept = np.count_nonzero(falling > shifts, axis=-1, keepdims=True)
    return np.maximum(x - np.take_along_axis(shifts, kept - 1, axis=-1), 0.0)


def follow(
    returns: np.ndarray,  # [T, ..., A] simple, from close t to close t + 1
    targets: np.ndarray,  # [T, ..., A] weights decided at close t
    rate: float,
    cost_bp: float,
    lag: int = 0,
) -> np.ndarray:  # [T, ...]
    """Net returns of going `rate` of the way to the target decided `lag` closes ago, at every close.

    Starts at equal weight, free of cost; between trades the weights drift with the prices.
    """
    shape = np.broadcast_shapes(returns.shape, targets.shape)[1:]
    weights = np.full(shape, 1.0 / shape[-1])
    net = np.empty((len(returns), *shape[:-1]))
    for t, relative in enumerate(1.0 + returns):
        kept: np.ndarray | float = 1.0
        if t >= lag:
            trade = rate * (targets[t - lag] - weights)
            weights += trade
            kept = 1.0 - cost_bp * 1e-4 * np.abs(trade).sum(axis=-1)
        weights *= relative
        growth = weights.sum(axis=-1)
        weights /= growth[..., None]
        net[t] = kept * growth - 1.0
    return net


def measure_signal(returns: np.ndarray, signal: np.ndarray) -> SignalStrength:
    """Correlate the signal [T, A] with the part of the next return [T, A] that is each symbol's own.

    The own part is what the leading principal components, as many as the market has sectors, leave.
    It is divided by the volatility of the bars around it, not its own. What is left of its noise
    makes the measured ic 2 to 3 % too low.
    """
    bars, symbols = returns.shape
    standard = returns / returns.std(axis=0)
    strengths, directions = np.linalg.eigh(np.cov(standard.T, bias=True))
    factors = min(SECTORS, symbols - 1)
    common, strength = directions[:, -factors:], strengths[-factors:]  # [A, K], [K]
    rest = np.eye(symbols) - common @ common.T
    own, seen = standard @ rest, signal @ rest

    variance = np.diag(own.T @ own) / bars / np.diag(rest)  # [A] share of each symbol's variance that is its own
    factor_variance = np.maximum(strength - common.T**2 @ variance, 0.0)
    covariance = (common * factor_variance) @ common.T + np.diag(variance)
    breadth = float(variance @ np.diag(np.linalg.inv(covariance)))

    around = np.ones(2 * NEIGHBOURS + 1)
    around[NEIGHBOURS] = 0.0
    nearby = np.convolve((own**2).mean(axis=1), around, "same") / np.convolve(np.ones(bars), around, "same")
    products = (own * seen).sum(axis=1) / np.sqrt(nearby)
    size = math.sqrt(((own**2).sum(axis=1) / nearby).sum() * (seen**2).sum())
    return SignalStrength(float(products.sum()) / size, math.sqrt((products**2).sum()) / size, breadth)


def sharpe_difference_error(a: np.ndarray, b: np.ndarray, periods: float) -> float:  # [T], [T]
    """Standard error of the difference of two annual Sharpe ratios on the same days (Jobson, Korkie, Memmel)."""
    one, two = float(metrics.sharpe(a, 1)), float(metrics.sharpe(b, 1))
    rho = float(np.corrcoef(a, b)[0, 1])
    variance = 2 - 2 * rho + 0.5 * (one**2 + two**2 - 2 * one * two * rho**2)
    return math.sqrt(max(variance, 0.0) / len(a) * periods)


def _usable_signal(panel: Panel, origin: str) -> np.ndarray:  # -> [T, A]
    if SIGNAL not in panel.observed:
        columns = ", ".join((*FIELDS, *panel.observed))
        raise UserError(f"{origin}: has no column {SIGNAL!r}, which the oracle reads; its columns are {columns}")
    signal = panel.observed[SIGNAL].values
    if len(panel) < FEWEST_BARS:
        raise UserError(f"{origin}: holds {len(panel)} bars; the oracle needs at least {FEWEST_BARS}")
    if len(panel.symbols) < 2:
        raise UserError(f"{origin}: holds 1 symbol; the oracle needs at least 2")
    usable = panel.tradable & np.isfinite(signal)
    if not usable.all():
        t, i = np.argwhere(~usable)[0]
        day = np.datetime_as_string(panel.times[t], "m")
        raise UserError(f"{origin}: {panel.symbols[i]} has no bar or no {SIGNAL} at {day}; the oracle needs them all")
    still = np.ptp(panel.close, axis=0) == 0
    if still.any():
        raise UserError(f"{origin}: the close of {panel.symbols[int(still.argmax())]} never moves")
    return signal
