"""What several sections of the report need: tracks on the same days, and what everybody earned beyond equal weight."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agents.baselines import BASELINES
from envs.backtest import Track, backtest
from envs.market import MarketTensors
from tournament.arena import Arena
from tournament.choose import concatenated
from tournament.final import Outcome
from tournament.folds import Fold
from tournament.score import Standing
from tournament.statistics.compare import scaled_excess

ENSEMBLE, EQUAL = "ensemble", "equal weight"
IN_VIEW = "pool chosen with later folds in view"
SAME = 1e-6  # returns closer than this differ by rounding


@dataclass(frozen=True, eq=False)
class Material:
    """The ensemble's days are those from fold 2 on; where it has none, equal weight stands alone on all days."""

    folds: tuple[Fold, ...]  # those of the days below
    market: MarketTensors  # of the bars up to the last test day
    ours: Track | None
    theirs: Track  # equal weight
    baselines: dict[str, Track]
    scored: list[Standing]  # everybody with a fold done
    excess: np.ndarray  # [T, N] theirs over equal weight, as the verdict has it; T: the days of all folds

    @property
    def tracks(self) -> dict[str, Track]:
        return ({} if self.ours is None else {ENSEMBLE: self.ours}) | {EQUAL: self.theirs} | self.baselines

    def days(self) -> list[slice]:
        """Of each fold, among the days of the tracks."""
        stops = np.cumsum([fold.spans.test.stop - fold.spans.test.start for fold in self.folds]).tolist()
        return [slice(start, stop) for start, stop in zip([0, *stops], stops)]


def gather(outcome: Outcome, arena: Arena) -> Material:
    ours = outcome.track
    folds = arena.folds.folds if ours is None else arena.folds.folds[1:]
    market = arena.market(arena.folds.folds[-1].spans)
    days = sum(fold.spans.test.stop - fold.spans.test.start for fold in folds)
    theirs = part(outcome.benchmark, slice(len(outcome.benchmark.returns) - days, None))
    baselines = _baselines(market, folds)
    if np.allclose(baselines["1/N"].returns, theirs.returns, atol=SAME):
        del baselines["1/N"]
    scored = [standing for standing in outcome.standings if standing.folds]
    excess = _excess(scored, outcome.benchmark.returns, market.interest)
    return Material(folds, market, ours, theirs, baselines, scored, excess)


def part(track: Track, days: slice) -> Track:
    costs = {kind: paid[days] for kind, paid in track.costs.items()}
    names = ("dates", "returns", "weights", "traded")
    return replace(track, costs=costs, **{name: getattr(track, name)[days] for name in names})


def _baselines(market: MarketTensors, folds: tuple[Fold, ...]) -> dict[str, Track]:
    """Each fold begins in cash, as it does for the ensemble."""
    names = {"equal_weight": "1/N", "hold": "equal weight held"}
    policies = {
        names.get(name, name.replace("_", " ").replace("sharpe", "Sharpe")): make() for name, make in BASELINES.items()
    }
    tracks = [backtest(list(policies.values()), market, fold.spans.test) for fold in folds]
    return {name: concatenated([of_fold[k] for of_fold in tracks]) for k, name in enumerate(policies)}


def _excess(scored: list[Standing], benchmark: np.ndarray, interest: float) -> np.ndarray:  # [T] -> [T, N]
    """After its elimination a candidate's is 0."""
    returns = np.full((len(benchmark), len(scored)), np.nan)
    for column, standing in enumerate(scored):
        returns[: len(standing.returns), column] = standing.returns - interest
    return np.nan_to_num(scaled_excess(returns, benchmark - interest), nan=0.0)
