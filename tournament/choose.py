"""Who becomes the ensemble, and what such an ensemble would have earned on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.covariance import ledoit_wolf, long_only
from agents.ensemble import Ensemble
from envs.backtest import Track, backtest
from envs.policy import Allocated, Policy, equal_weight
from tournament.arena import Arena
from tournament.config import EnsembleConfig
from tournament.ledger import Ledger, Record
from tournament.score import LOWER, Standing, benchmark, bounds, joined
from tournament.statistics.bootstrap import day_counts, sharpes
from tournament.trial import policy_of

NEAR = 0.5  # of the leader's bound: who is further behind would only dilute it
SHARPNESS = 4.0  # of softmax weights: its temperature is a standard error over this


@dataclass(frozen=True)
class Choice:
    """A member of the ensemble."""

    standing: Standing
    weight: float


def choose(standings: Sequence[Standing], config: EnsembleConfig, arena: Arena) -> list[Choice]:
    """The best of those that did every fold and are eligible; may be none."""
    eligible = _eligible([standing for standing in standings if standing.status == "finished"])
    return _weighted(sorted(eligible, key=lambda standing: standing.order)[: config.size], config, arena)


def walk_forward(standings: Sequence[Standing], config: EnsembleConfig, arena: Arena, ledger: Ledger) -> Track | None:
    """From fold 2 on, members of each fold chosen by earlier folds alone; equal weight where none is eligible.

    Only among those that were still there, and that was decided with later folds in view: no test may use it.
    """
    tracks = []
    for fold in arena.folds.folds[1:]:
        there = [s for s in standings if s.folds >= fold.number and s.status != "leaked"]
        before = [upto(standing, fold.number - 1, arena) for standing in there]
        chosen = _weighted(_eligible(before)[: config.size], config, arena)
        now = {
            standing.hash: standing.records[fold.number - 1] for standing in standings if standing.folds >= fold.number
        }
        members = [(now[choice.standing.hash], choice.weight) for choice in chosen]
        policy = combined(members, arena, ledger) if members else equal_weight
        tracks.append(backtest([policy], arena.market(fold.spans), fold.spans.test)[0])
    return concatenated(tracks) if tracks else None


def _eligible(standings: Sequence[Standing]) -> list[Standing]:
    """Who is above equal weight even by the lower bound, and not far behind the leader; the leader first."""
    above = sorted((s for s in standings if s.bound > 0), key=lambda standing: (-standing.bound, standing.hash))
    return [standing for standing in above if standing.bound >= NEAR * above[0].bound]


def combined(members: Sequence[tuple[Sequence[Record], float]], arena: Arena, ledger: Ledger) -> Policy:
    """The ensemble of finished trials; the seeds of a candidate share its weight."""
    policies = [Allocated(policy_of(record, arena, ledger)) for records, _ in members for record in records]
    return Ensemble(policies, [weight / len(records) for records, weight in members for _ in records])


def upto(standing: Standing, folds: int, arena: Arena) -> Standing:
    """The same candidate as it stood after so many folds."""
    returns = joined(standing.records[:folds])
    bound = bounds(returns[:, None], benchmark(arena, folds), LOWER, arena.panel.bars_per_year)
    return replace(standing, records=standing.records[:folds], returns=returns, bound=float(bound[0]))


def concatenated(tracks: Sequence[Track]) -> Track:
    """Tracks of spans that adjoin, as one; each began in cash."""
    names = ("dates", "returns", "weights", "traded")
    joint: dict[str, Any] = {name: np.concatenate([getattr(track, name) for track in tracks]) for name in names}
    costs = {kind: np.concatenate([track.costs[kind] for track in tracks]) for kind in tracks[0].costs}
    return replace(tracks[0], costs=costs, **joint)


def _weighted(chosen: Sequence[Standing], config: EnsembleConfig, arena: Arena) -> list[Choice]:
    if not chosen:
        return []
    returns = np.column_stack([standing.returns for standing in chosen])
    weights = {"equal": _equal, "softmax": _softmax, "mean_variance": _mean_variance}[config.weights](returns)
    return [Choice(standing, float(weight)) for standing, weight in zip(chosen, weights) if weight > 0]


def _equal(returns: np.ndarray) -> np.ndarray:  # [T, M] -> [M], as the others
    return np.full(returns.shape[1], 1.0 / returns.shape[1])


def _softmax(returns: np.ndarray) -> np.ndarray:
    """By Sharpe ratio; the temperature comes from how surely it is known."""
    ratios = sharpes(returns, day_counts(len(returns)))
    error = float(np.mean(np.nanstd(ratios[1:], axis=0)))
    raised = np.exp((ratios[0] - ratios[0].max()) * SHARPNESS / max(error, 1e-12))
    return np.asarray(raised / raised.sum())


def _mean_variance(returns: np.ndarray) -> np.ndarray:
    """The best Sharpe ratio without short positions, by a shrunk covariance; half-way back to equal weights."""
    mean, equal = returns.mean(axis=0), _equal(returns)
    if not (mean > 0).any():
        return equal
    return 0.5 * equal + 0.5 * long_only(ledoit_wolf(returns)[0], mean)
