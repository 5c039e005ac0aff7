"""Does the verdict tell skill from luck? Whole tournaments of `configs/demo.yaml`, hold-out opened.

python -m benchmarks.verdict [--quick] [--json FILE]

`skill`: markets with a signal of .08. Value: the ensemble's share of the oracle rule's edge on the hold-out.
`luck`: markets without. Value: edge of the five best candidates, whether or not they were eligible.
Every run keeps its ledger below runs/verdict, so that this can be stopped and begun again. Takes hours.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from agents.baselines import Oracle
from agents.ensemble import Ensemble
from benchmarks.harness import ROOT, Result, arguments
from benchmarks.learning import edge
from envs.market import MarketTensors
from envs.policy import Allocated
from kit.config import load
from market import data
from market.synth import SIGNAL
from tournament.arena import Arena
from tournament.choose import Choice
from tournament.config import TournamentConfig
from tournament.final import conclude, final_fit, open_hold_out
from tournament.ledger import Ledger
from tournament.rounds import Tournament
from tournament.score import Standing
from tournament.trial import policy_of, spans_of
from tournament.verdict import BETTER

SKILL, LUCK = range(300, 310), range(300, 320)
RUNS = ROOT / "runs" / "verdict"
UNGATED = 5


class Outcome(NamedTuple):
    verdict: str
    ensemble: float  # edges on the hold-out
    ungated: float
    oracle: float


def played(ic: float, seed: int, folder: Path) -> Outcome:
    """One tournament to its end, and what lies in its hold-out."""
    settings = [f"data.source.ic={ic}", f"data.source.seed={seed}", f"seed={seed}", "wandb=disabled"]
    config = load(TournamentConfig, ROOT / "configs" / "demo.yaml", settings)
    panel, _ = data.load(config.data)
    arena = Arena.build(panel, config.features, config.trading, config.folds)
    run = Tournament(config, arena, Ledger(folder / "ledger"), folder / "tune")
    run.run()
    outcome = conclude(run, folder)
    verdict = open_hold_out(run, folder, "benchmarks.verdict", "")
    lens = arena.lens(spans_of(arena, 0))
    market, span = lens.market(panel), arena.folds.holdout
    oracle = edge(Oracle(panel.observed[SIGNAL].values), market, span)
    best = ungated(run, outcome.standings)
    chosen = outcome.choices or []
    return Outcome(verdict.outcome, _edge(run, chosen, market, span), _edge(run, best, market, span), oracle)


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


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    skill, luck = (SKILL[:1], LUCK[:1]) if options.quick else (SKILL, LUCK)
    result = Result("verdict")
    jobs = [("skill", 0.08, seed) for seed in skill] + [("luck", 0.0, seed) for seed in luck]
    found: dict[str, list[Outcome]] = {"skill": [], "luck": []}
    for case, ic, seed in tqdm(jobs, unit="tournament"):
        outcome = played(ic, seed, RUNS / f"{case}-{seed}")
        found[case].append(outcome)
        edges = {"ensemble": [outcome.ensemble], "best five": [outcome.ungated], "oracle": [outcome.oracle]}
        result.add(f"{case} seed={seed}, {outcome.verdict}", "edge", edges, compare=False)
    for case, outcomes in found.items():
        better = sum(outcome.verdict == BETTER for outcome in outcomes)
        result.add(f"{case}: called better", f"of {len(outcomes)}", {"podracer": [float(better)]})
    share = sum(o.ensemble for o in found["skill"]) / sum(o.oracle for o in found["skill"])
    result.add("skill: share of the oracle's edge", "1", {"podracer": [share]})
    ungated_edges = [o.ungated for o in found["luck"]]
    result.add("luck: mean edge of the best five", "Sharpe", {"podracer": [statistics.mean(ungated_edges)]})
    if len(ungated_edges) > 1:
        error = statistics.stdev(ungated_edges) / len(ungated_edges) ** 0.5
        result.add("luck: its standard error", "Sharpe", {"podracer": [error]})
    result.finish(options.json)


if __name__ == "__main__":
    main()
