"""The verdict in words, the figures that it rests on, and what is known of the hold-out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agents.manifest import parse_json
from kit.charts import format_value
from tournament.final import VERDICT, Outcome, openings
from tournament.report.drawings import Report
from tournament.report.material import Material
from tournament.statistics.overfit import overfitting
from tournament.verdict import LEVEL

BLOCKS, DAYS_OF_A_BLOCK = 16, 5  # of the probability of overfitting; the days are the fewest


def stated(outcome: Outcome, folder: Path) -> str:
    """The verdict in a few words."""
    return str(_opened(outcome, folder).get("outcome", outcome.verdict.outcome))


def add(page: Report, outcome: Outcome, material: Material, folder: Path) -> None:
    opened = _opened(outcome, folder)
    page.section("Verdict")
    page.text(opened["text"] if opened else outcome.verdict.text)
    _hold_out(page, outcome, folder, opened)
    if not outcome.choices:
        page.text(
            "Nobody was eligible for the ensemble: no candidate that did every fold is above equal weight even by its "
            "lower bound. The bundle holds equal weight instead."
        )
    walk = outcome.verdict.walk_forward
    pbo = overfit(material.excess)
    page.figures(
        [
            ("SPA", _probability(walk.spa_p), f"p-value; needs at most {LEVEL:g}"),
            (
                "StepM",
                f"{len(walk.stepm)} of {walk.candidates}",
                f"better; leader's p {_probability(walk.stepm_p)}",
            ),
            ("Deflated Sharpe", _probability(walk.deflated), f"probability; needs {1 - LEVEL:g}"),
            ("PBO", _probability(pbo), "told, not judged by"),
            ("Tries", f"{walk.trials:,}", f"worth {walk.effective_trials:.1f} independent ones"),
        ]
    )
    page.bullets(
        [
            f"SPA asks about all candidates at once: if none were better than equal weight, the best of them would "
            f"look this good with probability {_probability(walk.spa_p)}.",
            f"StepM asks about each candidate, and counts that many were looked at: {len(walk.stepm)} of "
            f"{walk.candidates} are better than equal weight.",
            f"The deflated Sharpe ratio asks about the leader, whose excess over equal weight has a Sharpe ratio of "
            f"{format_value(walk.leader_sharpe)}: that this is more than the luckiest of so many worthless tries "
            f"would show has probability {_probability(walk.deflated)} "
            f"({_probability(walk.deflated_empirical)} if luck is as wide as these candidates are).",
            f"PBO, the probability of backtest overfitting, asks about the choice: the best on one half of the days "
            f"is in the lower half on the other half with probability {_probability(pbo)}; at 0.5, choosing the best "
            f"is no better than drawing lots."
            if np.isfinite(pbo)
            else f"PBO, the probability of backtest overfitting, needs two candidates and {BLOCKS * DAYS_OF_A_BLOCK} "
            "test days: it is left out.",
        ]
    )
    page.text(
        "All of them compare with equal weight after costs, day by day, both sides scaled to the same trailing "
        "volatility, over every candidate ever scored; after its elimination a candidate's excess is 0."
    )


def overfit(excess: np.ndarray) -> float:  # [T, N]
    """PBO over everybody ever scored; NaN where there are too few days or candidates."""
    enough = len(excess) >= BLOCKS * DAYS_OF_A_BLOCK and excess.shape[1] > 1
    return overfitting(excess, BLOCKS) if enough else np.nan


def _opened(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """What the opened hold-out said of this bundle; empty where it said nothing."""
    file, manifest = folder / VERDICT, outcome.bundle / "manifest.json"
    if not file.is_file() or not manifest.is_file():
        return {}
    found = parse_json(file.read_bytes(), str(file))
    return found if found["bundle"] == parse_json(manifest.read_bytes(), str(manifest))["hash"] else {}


def _hold_out(page: Report, outcome: Outcome, folder: Path, opened: dict[str, Any]) -> None:
    looks = openings(folder)
    if not looks:
        page.text("The hold-out has not been opened: nothing on this page has seen it.")
        return
    times = "once" if len(looks) == 1 else f"{len(looks)} times"
    page.text(
        f"The hold-out was opened {times}, last at {looks[-1]['at']}. Only the first look at it is a fair test; "
        f"whatever was chosen after it has it in view."
    )
    part = opened.get("hold_out") if opened else None
    if part is None:
        page.text("What was seen there was not this bundle: it says nothing about it.")
        return
    figures = {name: np.nan if value is None else value for name, value in part.items()}
    page.figures(
        [
            ("Hold-out days", f"{figures['days']:,}", ""),
            ("Ensemble", format_value(figures["sharpe"]), "Sharpe ratio on the hold-out"),
            ("Equal weight", format_value(figures["benchmark_sharpe"]), "Sharpe ratio on the hold-out"),
            ("Edge", format_value(figures["edge"]), f"lower bound {format_value(figures['edge_lower'])}"),
            ("Hold-out p", _probability(figures["p_value"]), f"needs at most {LEVEL:g}"),
        ]
    )


def _probability(value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return "below 0.001" if value < 0.001 else "above 0.999" if value > 0.999 else f"{value:.3f}"
