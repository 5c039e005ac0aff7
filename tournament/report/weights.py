"""What the ensemble held, and which assets and members its return came from."""

from __future__ import annotations

import numpy as np
import torch

from envs.backtest import Track
from envs.market import MarketTensors
from kit import metrics
from tournament.choose import Choice
from tournament.final import Outcome
from tournament.report.drawings import Report
from tournament.report.material import ENSEMBLE, EQUAL, Material

CASH = "cash"
SHOWN = 40  # symbols in the heat map
PERIODS = 24  # columns of the heat map, at most


def add(page: Report, outcome: Outcome, material: Material) -> None:
    page.section("Weights and where the return came from")
    ours = material.ours
    if ours is None:
        page.text("Without a walk-forward of the ensemble there are no weights to show.")
        return
    if (ours.weights >= -1e-6).all():
        note = "At each close. Every fold begins in cash."
        page.stacked("Weights over time", ours.dates, ours.symbols, ours.weights, note=note)
    else:
        page.text("The ensemble held short positions, so its weights cannot be stacked.")
    _held(page, ours)
    _by_asset(page, material, ours)
    _by_member(page, outcome, material)


def _held(page: Report, track: Track) -> None:
    names, means = average_weights(track)
    average = np.argsort(-np.abs(track.weights[:, :-1]).mean(axis=0), kind="stable")[:SHOWN]
    rest = len(track.symbols) - len(average)
    page.heatmap(
        "Average weights",
        [*(track.symbols[asset] for asset in average), CASH],
        names,
        np.concatenate([means[:, average], means[:, -1:]], axis=1).T,
        unit="%",
        note=f"The {SHOWN} largest; {rest:,} more are not shown." if rest else "",
    )


def average_weights(track: Track) -> tuple[list[str], np.ndarray]:
    """Quarters, or years where these are too many, and [P, A+1] the average weights."""
    months = track.dates.astype("datetime64[M]").astype(int)
    quarters = months // 3
    yearly = quarters[-1] - quarters[0] >= PERIODS
    found, starts = np.unique(months // 12 if yearly else quarters, return_index=True)
    sums = np.add.reduceat(track.weights.astype(np.float64), starts, axis=0)
    names = [str(1970 + p) if yearly else f"{1970 + p // 4} Q{p % 4 + 1}" for p in found.tolist()]
    return names, sums / np.diff(np.append(starts, len(months)))[:, None]


def contributions(
    track: Track, market: MarketTensors, folds: list[slice]
) -> tuple[np.ndarray, dict[str, float]]:  # [A], and by kind
    """What each asset, the costs and the interest added to the total return, as shares of the wealth at the start.

    An asset's gain in a bar is its value at the end, less its value at the start and what was bought of it.
    """
    first = int(np.searchsorted(market.dates, track.dates[0])) - 1
    quote = market.quote(torch.arange(first, first + len(track.returns), device=market.device))
    drift, hold = (values[:, :-1].double().cpu().numpy() for values in (quote.drift, quote.hold))
    after = track.weights[:, :-1] * (1.0 + track.returns[:, None])
    before = np.concatenate([np.zeros((1, after.shape[1])), track.weights[:-1, :-1]])
    before[[days.start for days in folds]] = 0.0
    gains = after - before - (after - before * drift) / hold
    wealth = metrics.equity(track.returns)[:-1]
    signs = {"commission": -1, "spread": -1, "impact": -1, "borrow": -1, "interest": 1}
    return wealth @ gains, {kind: sign * float(wealth @ track.costs[kind]) for kind, sign in signs.items()}


def _by_asset(page: Report, material: Material, ours: Track) -> None:
    parts = {ENSEMBLE: ours, EQUAL: material.theirs}
    found = {name: contributions(track, material.market, material.days()) for name, track in parts.items()}
    kinds = [kind for kind in found[ENSEMBLE][1] if any(abs(paid[kind]) > 0 for _, paid in found.values())]
    columns = {name: np.array([*gains, *(paid[kind] for kind in kinds)]) for name, (gains, paid) in found.items()}
    held = {name: [*track.weights[:, :-1].mean(axis=0), *[np.nan] * len(kinds)] for name, track in parts.items()}
    page.bars(
        "The ensemble's return by asset",
        ours.symbols,
        found[ENSEMBLE][0],
        unit="%",
        note="Of the wealth at the start, before costs.",
    )
    page.table(
        "Return by asset",
        {
            "Part": [*ours.symbols, *kinds, "all"],
            "Weight, ensemble": np.array([*held[ENSEMBLE], np.nan]),
            "Weight, equal weight": np.array([*held[EQUAL], np.nan]),
            "Return, ensemble": np.append(columns[ENSEMBLE], columns[ENSEMBLE].sum()),
            "Return, equal weight": np.append(columns[EQUAL], columns[EQUAL].sum()),
            "Difference": np.append(columns[ENSEMBLE] - columns[EQUAL], (columns[ENSEMBLE] - columns[EQUAL]).sum()),
        },
        units=dict.fromkeys(
            ("Weight, ensemble", "Weight, equal weight", "Return, ensemble", "Return, equal weight", "Difference"), "%"
        ),
        note="What each added to the total return, of the wealth at the start; the parts sum to all of it.",
    )


def _by_member(page: Report, outcome: Outcome, material: Material) -> None:
    if not outcome.choices:
        page.text("There are no members to attribute anything to: the ensemble is equal weight.")
        return
    names, figures = members(outcome.choices, material)
    page.table(
        "Members",
        {"Member": names, **figures},
        units=dict.fromkeys(("Weight", "Return a year", "Weight × return"), "%"),
        note="The members chosen in the end, each on the same days but traded alone: what nets in the ensemble, and "
        "members that a fold did not have yet, make its own return another than the sum. "
        "Correlation: with the ensemble.",
    )


def members(choices: list[Choice], material: Material) -> tuple[list[str], dict[str, np.ndarray]]:
    assert material.ours is not None
    year, days = material.theirs.bars_per_year, len(material.theirs.returns)
    alone = np.column_stack([choice.standing.returns[-days:] for choice in choices])
    weights = np.array([choice.weight for choice in choices])
    growth, theirs = metrics.cagr(alone, year), float(metrics.sharpe(material.theirs.returns, year))
    ratios = metrics.sharpe(alone, year)
    likeness = [np.corrcoef(column, material.ours.returns)[0, 1] for column in alone.T]
    return [choice.standing.name for choice in choices], {
        "Weight": weights,
        "Return a year": growth,
        "Weight × return": weights * growth,
        "Sharpe ratio": ratios,
        "Edge": ratios - theirs,
        "Correlation": np.array(likeness),
    }
