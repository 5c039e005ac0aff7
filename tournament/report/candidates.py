"""Everybody who ever entered: how they stand, on which days, and who was eliminated when."""

from __future__ import annotations

import numpy as np

from kit.metrics import sharpe
from tournament.arena import Arena
from tournament.final import Outcome
from tournament.report.drawings import Report
from tournament.report.material import Material
from tournament.score import UPPER, Standing, benchmark, bounds
from tournament.statistics.bootstrap import day_counts
from tournament.statistics.compare import step_down
from tournament.statistics.sharpe import deflated_sharpe, shape

DRAWN = 100  # rows of the picture of eliminations


def add(page: Report, outcome: Outcome, arena: Arena, material: Material) -> None:
    page.section("Candidates")
    if material.scored:
        _leaderboard(page, outcome, arena, material)
    else:
        page.text("No candidate was ever scored, so there is no leaderboard.")
        page.bullets([f"{standing.name}: {fate(standing)}" for standing in outcome.standings])
    page.section("Folds")
    page.text(
        "Each fold trains on its first span, chooses a checkpoint on the second and is scored on the third; the next "
        "one does so further on. The final fit trains on everything before the hold-out."
    )
    page.timeline("Folds over time", arena.folds.picture(arena.panel.closes))
    if material.scored:
        _eliminations(page, outcome, arena, material)


def _leaderboard(page: Report, outcome: Outcome, arena: Arena, material: Material) -> None:
    standings = outcome.standings
    members = {choice.standing.hash: choice.weight for choice in outcome.choices}
    names = {standing.hash: standing.name for standing in standings}
    upper, judged = _upper(material.scored, arena), _judged(outcome, material)
    never = (np.nan, np.nan)
    page.table(
        "Leaderboard",
        {
            "Candidate": [standing.name for standing in standings],
            "Fate": [fate(standing) for standing in standings],
            "Folds": np.array([standing.folds for standing in standings]),
            "Sharpe": np.array([standing.sharpe for standing in standings]),
            "Edge": np.array([standing.edge for standing in standings]),
            "Lower": np.array([standing.bound for standing in standings]),
            "Upper": np.array([upper.get(standing.hash, np.nan) for standing in standings]),
            "Deflated": np.array([judged.get(standing.hash, never)[0] for standing in standings]),
            "StepM p": np.array([judged.get(standing.hash, never)[1] for standing in standings]),
            "Weight": np.array([members.get(standing.hash, np.nan) for standing in standings]),
            "Round": np.array([standing.entrant.round for standing in standings]),
            "Parent": [names.get(standing.entrant.parent, "–") for standing in standings],
        },
        units={"Weight": "%"},
        note="Everybody ever entered, the leader first. Edge: Sharpe ratio minus equal weight's on the same days; "
        "lower, upper: its 20 % and 80 % bounds. Deflated, StepM p: as in the verdict, over all test days. Weight: in "
        "the ensemble.",
    )


def fate(standing: Standing) -> str:
    """In words."""
    if not standing.reason:
        return standing.status
    return f"{standing.status}{' ' if standing.status == 'eliminated' else ': '}{standing.reason}"


def _upper(scored: list[Standing], arena: Arena) -> dict[str, float]:
    """The edges' upper bounds; those that did as many folds are resampled on the same days."""
    found: dict[str, float] = {}
    for folds in {standing.folds for standing in scored}:
        there = [standing for standing in scored if standing.folds == folds]
        returns = np.column_stack([standing.returns for standing in there])
        upper = bounds(returns, benchmark(arena, folds), UPPER, arena.panel.bars_per_year)
        found |= {standing.hash: float(bound) for standing, bound in zip(there, upper)}
    return found


def _judged(outcome: Outcome, material: Material) -> dict[str, tuple[float, float]]:
    """Deflated Sharpe and StepM's p-value of everybody, by the verdict's own rule."""
    excess = material.excess
    skew, kurtosis = shape(excess)
    tries = outcome.verdict.walk_forward.effective_trials
    deflated = deflated_sharpe(sharpe(excess, periods=1), len(excess), skew, kurtosis, tries)
    p_values = step_down(excess, day_counts(len(excess)))
    return {s.hash: (round(float(d), 3), round(float(p), 4)) for s, d, p in zip(material.scored, deflated, p_values)}


def _eliminations(page: Report, outcome: Outcome, arena: Arena, material: Material) -> None:
    drawn = material.scored[:DRAWN]
    rest = len(material.scored) - len(drawn)
    page.heatmap(
        "Who was eliminated when",
        [standing.name for standing in drawn],
        [str(fold.number) for fold in arena.folds.folds],
        edges(drawn, arena).round(2),
        note="Each fold's Sharpe ratio minus equal weight's there, a year's; a row ends where its candidate did."
        + (f" The first {DRAWN}; {rest:,} more are not shown." if rest else ""),
    )
    gone: dict[str, list[str]] = {}
    for standing in outcome.standings:
        if standing.status not in ("finished", "running"):
            gone.setdefault(fate(standing), []).append(standing.name)
    page.bullets([f"{what[0].upper()}{what[1:]}: {', '.join(names)}" for what, names in sorted(gone.items())])


def edges(standings: list[Standing], arena: Arena) -> np.ndarray:  # [N, folds]
    """Sharpe ratio minus equal weight's on each fold's own days; NaN where a candidate did not come that far."""
    year = arena.panel.bars_per_year
    table = np.full((len(standings), len(arena.folds.folds)), np.nan)
    for column, fold in enumerate(arena.folds.folds):
        theirs = float(sharpe(arena.benchmark(fold.spans).returns, year))
        for row, standing in enumerate(standings):
            if standing.folds > column:
                own = np.mean([record.returns for record in standing.records[column]], axis=0)
                table[row, column] = float(sharpe(own, year)) - theirs
    return table
