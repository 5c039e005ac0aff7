"""Does the verdict tell skill from luck? Whole tournaments of `configs/demo.yaml`, hold-out opened.

python -m benchmarks.verdict [--quick] [--json FILE]

`skill`: markets with a signal of .08. Value: the ensemble's share of the oracle rule's edge on the hold-out.
`luck`: markets without. Value: edge of the five best candidates, whether or not they were eligible.
`leak`: what looks ahead, planted in the way from bars to decisions. Value: 1 where the self-test finds it.
Every run keeps its ledger below runs/verdict, so that this can be stopped and begun again. Takes hours.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from tqdm import tqdm

from agents.baselines import Oracle
from agents.ensemble import Ensemble
from benchmarks.harness import ROOT, Result, arguments
from benchmarks.learning import edge
from envs.market import MarketTensors
from envs.policy import Allocated
from kit.config import load
from market import data
from market.features import Scaler
from market.features.observed import ObservedColumn
from market.panel import Panel
from market.synth import SIGNAL
from tournament.arena import Arena
from tournament.choose import Choice
from tournament.config import TournamentConfig
from tournament.final import conclude, final_fit, last_stage, open_hold_out
from tournament.leak import LeakFound, self_test
from tournament.ledger import Ledger
from tournament.rounds import Tournament
from tournament.score import Standing
from tournament.trial import policy_of, spans_of
from tournament.verdict import BETTER

SKILL, LUCK = range(300, 310), range(300, 320)
DEMO = ROOT / "configs" / "demo.yaml"
RUNS = ROOT / "runs" / "verdict"
UNGATED = 5
NO_LEAK = "nothing planted"


class Outcome(NamedTuple):
    verdict: str
    ensemble: float  # edges on the hold-out
    oracle: float
    ungated: float = math.nan


def tournament(file: Path, folder: Path, *settings: str) -> Tournament:
    config = load(TournamentConfig, file, [*settings, "wandb=disabled"])
    panel, _ = data.load(config.data)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    return Tournament(config, arena, Ledger(folder / "ledger"), folder / "tune")


def played(run: Tournament, folder: Path, ungate: bool) -> Outcome:
    """One tournament to its end, and what lies in its hold-out."""
    run.run(last_stage)
    outcome = conclude(run, folder)
    verdict = open_hold_out(run, folder, "benchmarks.verdict", "")
    panel, span = run.arena.panel, run.arena.folds.holdout
    market = run.arena.lens(spans_of(run.arena, 0)).market(panel)
    oracle = edge(Oracle(panel.observed[SIGNAL].values), market, span)
    ensemble = _edge(run, outcome.choices, market, span)
    if not ungate:
        return Outcome(verdict.outcome, ensemble, oracle)
    return Outcome(verdict.outcome, ensemble, oracle, _edge(run, ungated(run, outcome.standings), market, span))


def ungated(run: Tournament, standings: list[Standing]) -> list[Choice]:
    finished = [standing for standing in standings if standing.status == "finished"][:UNGATED]
    return [Choice(standing, 1.0 / len(finished)) for standing in finished]


def _edge(run: Tournament, choices: list[Choice], market: MarketTensors, span: slice) -> float:
    """Of the final fits of these candidates as one; equal weight, 0, where there is none."""
    if not choices:
        return 0.0
    fitted = final_fit(run, choices)
    policies, weights = [], []
    for choice, records in zip(choices, fitted):
        for record in records:
            policies.append(Allocated(policy_of(record, run.arena, run.ledger)))
            weights.append(choice.weight / len(records))
    return edge(Ensemble(policies, [weight / sum(weights) for weight in weights]), market, span)


@contextmanager
def shifted_feature() -> Iterator[None]:
    """Each bar gets the signal of the next."""
    compute = ObservedColumn.compute

    def early(self: ObservedColumn, window: Any) -> list[np.ndarray]:
        return [np.concatenate([values[1:], values[-1:]]) for values in compute(self, window)]

    with patch.object(ObservedColumn, "compute", early):
        yield


@contextmanager
def scaler_of_everything() -> Iterator[None]:
    fit = Scaler.fit
    with patch.object(Scaler, "fit", classmethod(lambda cls, features, span: fit(features, slice(None)))):
        yield


@contextmanager
def fill_at_the_close() -> Iterator[None]:
    """An order fills at the price that it was decided at."""

    def relatives(panel: Panel, fill: str) -> tuple[np.ndarray, np.ndarray]:
        drift = np.ones_like(panel.close)
        drift[:-1] = panel.close[1:] / panel.close[:-1]
        return np.ones_like(drift), drift

    with patch("envs.market._relatives", relatives):
        yield


LEAKS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "a feature shifted by a bar": shifted_feature,
    "a scaler fitted on everything": scaler_of_everything,
    "a fill at the close that decided": fill_at_the_close,
    NO_LEAK: nullcontext,
}


def caught(planted: Callable[[], AbstractContextManager[None]]) -> bool:
    with planted():
        try:
            self_test(tournament(DEMO, RUNS).arena)
        except LeakFound:
            return True
    return False


def brief(result: Result) -> str:
    """The README's table: a line a case."""
    values = {(row.case, row.arm): row.value for row in result.rows}

    def tournaments(case: str) -> int:
        return sum(row.case.startswith(f"{case} seed=") and row.arm == "oracle" for row in result.rows)

    def called(case: str) -> str:
        return f"{values[f'{case}: called better', 'podracer']:.0f} of {tournaments(case)} called better"

    share, best = values["skill: the oracle's edge", "share"], "luck: edge of the best five"
    mean, error = values[best, "mean"], values[best, "standard error"]
    leaks = [row for row in result.rows if row.case.startswith("leak: ") and row.case != f"leak: {NO_LEAK}"]
    named = ", ".join(row.case.removeprefix("leak: ") for row in leaks)
    return "\n".join(
        [
            "| | verdict | on the hold-out |",
            "|---|---|---|",
            f"| skill: markets with a signal of .08 | {called('skill')} | the ensemble earns {share:.2f} of the "
            "oracle rule's edge |",
            f"| luck: markets without any | {called('luck')} | the best five earn {mean:+.3f} Sharpe over equal weight "
            f"(standard error {error:.3f}) |",
            f"| leaks: {named} | {sum(row.value for row in leaks):.0f} of {len(leaks)} found before training | |",
        ]
    )


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    skill, luck = (SKILL[:1], LUCK[:2]) if options.quick else (SKILL, LUCK)
    result = Result("verdict")
    for leak, planted in LEAKS.items():
        result.add(f"leak: {leak}", "found", {"self-test": [float(caught(planted))]})
    jobs = [("skill", 0.08, seed) for seed in skill] + [("luck", 0.0, seed) for seed in luck]
    found: dict[str, list[Outcome]] = {"skill": [], "luck": []}
    for case, ic, seed in tqdm(jobs, unit="tournament"):
        settings = [f"data.source.ic={ic}", f"data.source.seed={seed}", f"seed={seed}"]
        folder = RUNS / f"{case}-{seed}"
        outcome = played(tournament(DEMO, folder, *settings), folder, ungate=case == "luck")
        tqdm.write(f"{case} {seed}: {outcome}")
        found[case].append(outcome)
        edges = {"ensemble": [outcome.ensemble], "oracle": [outcome.oracle]}
        edges |= {"best five": [outcome.ungated]} if case == "luck" else {}
        result.add(f"{case} seed={seed}, {outcome.verdict}", "edge", edges, compare=False)
    for case, outcomes in found.items():
        better = sum(outcome.verdict == BETTER for outcome in outcomes)
        result.add(f"{case}: called better", f"of {len(outcomes)}", {"podracer": [float(better)]})
    share = sum(o.ensemble for o in found["skill"]) / sum(o.oracle for o in found["skill"])
    result.add("skill: the oracle's edge", "1", {"share": [share]})
    edges_of_luck = [o.ungated for o in found["luck"]]
    error = statistics.stdev(edges_of_luck) / len(edges_of_luck) ** 0.5
    figures = {"mean": [statistics.mean(edges_of_luck)], "standard error": [error]}
    result.add("luck: edge of the best five", "Sharpe", figures, compare=False)
    result.finish(options.json)


if __name__ == "__main__":
    main()
