"""The ensemble beside equal weight and the baselines, on the same days and through the same costs."""

from __future__ import annotations

import numpy as np

from envs.backtest import Track
from kit import metrics
from tournament.final import Outcome
from tournament.report.drawings import Report
from tournament.report.material import ENSEMBLE, EQUAL, IN_VIEW, Material

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SPREAD = 5.0  # equity is drawn on a logarithmic axis beyond it
STRONG = 0.10  # a month's return in full colour


def add(page: Report, outcome: Outcome, material: Material) -> None:
    page.section("Against equal weight and other rules")
    tracks = material.tracks
    first, last = material.folds[0].name, material.folds[-1].name
    span = first if first == last else f"{first} to {last}"
    if material.ours is None:
        page.text(
            "The ensemble has no walk-forward: its members of a fold are chosen on earlier folds, and there is only "
            "one. What follows is equal weight and the other rules on the test days."
        )
    else:
        page.text(
            f"The ensemble's walk-forward ({IN_VIEW}), test days of {span}: its members of each fold were "
            "chosen on earlier folds alone, but only among those that no later fold had eliminated. That flatters, so "
            "it gets no p-value. Every fold begins in cash, for everybody."
        )
    dates, note = material.theirs.dates, f"Ensemble: {IN_VIEW}." if material.ours else ""
    wealth = {name: metrics.equity(track.returns)[1:] for name, track in tracks.items()}
    values = np.concatenate(list(wealth.values()))
    log = bool(values.min() > 0 and values.max() > SPREAD * values.min())
    scale = " Logarithmic." if log else ""
    page.lines("Equity", dates, wealth, log=log, note=f"Of 1 at the start, after costs.{scale} {note}".strip())
    falls = {name: metrics.drawdown(tracks[name].returns)[1:] for name in (ENSEMBLE, EQUAL) if name in tracks}
    page.lines("Drawdown", dates, falls, unit="%", area=True, note=f"Below the highest equity so far. {note}".strip())
    _figures(page, tracks, note)
    name = ENSEMBLE if ENSEMBLE in tracks else EQUAL
    _months(page, f"Monthly returns of {'the ' if name == ENSEMBLE else ''}{name}", tracks[name], note)


def _figures(page: Report, tracks: dict[str, Track], note: str) -> None:
    found = [track.metrics() for track in tracks.values()]
    shown = {
        "Return": "cagr",
        "Volatility": "volatility",
        "Sharpe": "sharpe",
        "Sortino": "sortino",
        "Drawdown": "max_drawdown",
        "Calmar": "calmar",
        "CVaR": "expected_shortfall",
        "Turnover": "turnover",
        "Costs": "cost",
    }
    units = ("Return", "Volatility", "Drawdown", "CVaR", "Costs")
    columns = {head: np.array([figures[key] for figures in found]) for head, key in shown.items()}
    page.table(
        "In figures",
        {"Rule": list(tracks), **columns},
        units=dict.fromkeys(units, "%"),
        note="Return, turnover and costs: a year's. Drawdown: the worst. CVaR: mean of the worst twentieth of "
        f"bars. Turnover: times wealth, bought and sold. {note}".strip(),
    )


def _months(page: Report, title: str, track: Track, note: str) -> None:
    years, table = monthly(track)
    page.heatmap(title, years, [*MONTHS, "Year"], table, limit=STRONG, unit="%", note=f"After costs. {note}".strip())


def monthly(track: Track) -> tuple[list[str], np.ndarray]:
    """Years, and [Y, 13] their months' returns, compounded, with the whole year's at the end; NaN: no bars."""
    months = track.dates.astype("datetime64[M]").astype(int)
    first = months[0] // 12
    table = np.full((months[-1] // 12 - first + 1, 13), np.nan)
    found, starts = np.unique(months, return_index=True)
    growth = np.multiply.reduceat(1.0 + track.returns, starts)
    table[found // 12 - first, found % 12] = growth - 1.0
    table[:, 12] = np.nanprod(1.0 + table[:, :12], axis=1) - 1.0
    return [str(1970 + first + row) for row in range(len(table))], table
