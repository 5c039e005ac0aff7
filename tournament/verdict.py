"""The one verdict on a tournament: is what it found better than equal weight, or luck?

(a) Walk-forward: over every candidate ever scored in any round, on daily excess over equal weight, both scaled to one
trailing volatility; after its elimination a candidate's excess is 0. All of SPA, StepM and the deflated Sharpe ratio
must hold at 5 %. (b) Hold-out, once it is opened: one ensemble, one test of its Sharpe ratio against equal weight's.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kit.metrics import sharpe
from tournament.statistics.bootstrap import day_counts
from tournament.statistics.compare import scaled_excess, sharpe_difference, step_down, superior_ability
from tournament.statistics.sharpe import deflated_sharpe, effective_trials, shape

LEVEL = 0.05
YEAR = 252

PROMISING = "promising, hold-out unopened"
NOT_BETTER = "not better than equal weight"
BETTER = "better than equal weight"


@dataclass(frozen=True)
class WalkForward:
    """Part (a). The leader is the candidate whose excess has the highest Sharpe ratio."""

    days: int
    candidates: int  # columns: every configuration ever scored
    trials: int  # every configuration × seed ever scored
    effective_trials: float  # what they are worth if they were independent
    spa_p: float  # "no candidate is better"
    stepm: tuple[int, ...]  # columns of the candidates that are better, jointly at 5 %
    stepm_p: float  # the leader's p-value after all comparisons
    leader: int | None  # its column; none where no candidate ever differs from equal weight
    leader_sharpe: float  # annual, of its scaled excess
    deflated: float  # probability that it is above the best of as many lucky trials; variance of pure luck, 1 / days
    deflated_empirical: float  # the same with the variance that the candidates show; told, not judged by

    @property
    def holds(self) -> bool:
        return self.spa_p <= LEVEL and len(self.stepm) > 0 and self.deflated >= 1 - LEVEL


@dataclass(frozen=True)
class HoldOut:
    """Part (b)."""

    days: int
    sharpe: float  # annual
    benchmark_sharpe: float
    edge: float  # the difference
    edge_lower: float  # its one-sided 95 % bound
    p_value: float  # "the edge is not above zero"

    @property
    def holds(self) -> bool:
        return self.p_value <= LEVEL


@dataclass(frozen=True)
class Verdict:
    walk_forward: WalkForward
    hold_out: HoldOut | None = None

    @property
    def outcome(self) -> str:
        if not self.walk_forward.holds:
            return NOT_BETTER
        if self.hold_out is None:
            return PROMISING
        return BETTER if self.hold_out.holds else NOT_BETTER

    @property
    def text(self) -> str:
        """One sentence for a reader who knows no statistics."""
        walk, hold = self.walk_forward, self.hold_out
        tried = f"{walk.trials:,} tr{'y' if walk.trials == 1 else 'ies'}"
        if not walk.holds:
            return (
                f"{_sentence(NOT_BETTER)}: over {walk.days:,} test days, the best of {tried} "
                f"did no better than luck alone can explain."
            )
        if hold is None:
            return (
                f"{_sentence(PROMISING)}: over {walk.days:,} test days, the best of {tried} did better than luck alone "
                f"explains; whether that lasts, only the days held out can tell."
            )
        if not hold.holds:
            return (
                f"{_sentence(NOT_BETTER)}: what looked promising did not hold on the {hold.days:,} days held out "
                f"(Sharpe ratio {hold.sharpe:.2f} against {hold.benchmark_sharpe:.2f})."
            )
        return (
            f"{_sentence(BETTER)}: the ensemble also did better on {hold.days:,} days that no choice had seen "
            f"(Sharpe ratio {hold.sharpe:.2f} against {hold.benchmark_sharpe:.2f}); luck alone does so "
            f"{_chance(hold.p_value)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: every figure, what is undefined as None."""
        parts = {"outcome": self.outcome, "text": self.text, "level": LEVEL}
        for name, part in (("walk_forward", self.walk_forward), ("hold_out", self.hold_out)):
            figures = part and {key: _plain(value) for key, value in asdict(part).items()} | {"holds": part.holds}
            parts[name] = figures
        return parts


def verdict(
    returns: np.ndarray,  # [T, N], joined test days, in excess of cash; NaN after a candidate's elimination
    benchmark: np.ndarray,  # [T], equal weight on the same days
    trials: int | None = None,  # every configuration × seed ever scored; N where each was scored once
    hold_out: tuple[np.ndarray, np.ndarray] | None = None,  # ensemble [H], equal weight [H]; only once it is opened
) -> Verdict:
    return Verdict(walk_forward(returns, benchmark, trials), None if hold_out is None else _hold_out(*hold_out))


def walk_forward(returns: np.ndarray, benchmark: np.ndarray, trials: int | None = None) -> WalkForward:
    """Part (a), by itself."""
    days, candidates = returns.shape
    trials = candidates if trials is None else trials
    if trials < candidates:
        raise ValueError(f"{trials} trials, but {candidates} candidates were scored")
    alive = np.isfinite(returns)
    if np.any(alive[1:] & ~alive[:-1]):
        raise ValueError("a candidate's returns must be whole from the first day until its elimination")
    excess = np.nan_to_num(scaled_excess(returns, benchmark), nan=0.0)
    counts = day_counts(days)
    p_values = step_down(excess, counts)
    ratios = np.asarray(sharpe(excess, periods=1))
    differs = np.isfinite(ratios)
    effective = effective_trials(excess, trials)
    leader = int(np.nanargmax(ratios)) if differs.any() else None
    deflated = deflated_empirical = 0.0
    if leader is not None:
        skew, kurtosis = shape(excess[:, leader])
        deflated = float(deflated_sharpe(ratios[leader], days, skew, kurtosis, effective))
        variance = float(np.var(ratios[differs], ddof=1)) if differs.sum() > 1 else None
        deflated_empirical = float(deflated_sharpe(ratios[leader], days, skew, kurtosis, trials, variance))
    return WalkForward(
        days=days,
        candidates=candidates,
        trials=trials,
        effective_trials=effective,
        spa_p=superior_ability(excess, counts),
        stepm=tuple(int(column) for column in np.flatnonzero(p_values <= LEVEL)),
        stepm_p=1.0 if leader is None else float(p_values[leader]),
        leader=leader,
        leader_sharpe=np.nan if leader is None else float(ratios[leader] * np.sqrt(YEAR)),
        deflated=deflated,
        deflated_empirical=deflated_empirical,
    )


def _hold_out(ensemble: np.ndarray, benchmark: np.ndarray) -> HoldOut:
    test = sharpe_difference(ensemble, benchmark, LEVEL)
    return HoldOut(
        days=len(ensemble),
        sharpe=float(sharpe(ensemble)),
        benchmark_sharpe=float(sharpe(benchmark)),
        edge=test.edge,
        edge_lower=test.lower,
        p_value=test.p_value,
    )


def _sentence(outcome: str) -> str:
    return outcome[0].upper() + outcome[1:]


def _chance(p_value: float) -> str:
    return f"once in {int(1 / p_value):,} runs"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
