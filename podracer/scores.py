"""How a policy did beside equal weight through the same environment, as figures and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from envs.backtest import Track, backtest
from envs.market import MarketTensors
from envs.policy import Policy, equal_weight

ROWS = {
    "sharpe": ("Sharpe ratio", "{:.2f}"),
    "cagr": ("yearly growth", "{:.1%}"),
    "volatility": ("volatility", "{:.1%}"),
    "max_drawdown": ("deepest drawdown", "{:.1%}"),
    "turnover": ("turnover a year", "{:.1f}x"),
    "cost": ("costs a year", "{:.2%}"),
}
LABEL, COLUMN = 18, 14


def compare(policy: Policy, market: MarketTensors, span: slice) -> tuple[Track, dict[str, Any]]:
    """The policy's track, and its scores beside those of equal weight; null where one is not defined."""
    ours, standard = backtest([policy, equal_weight], market, span)
    figures = [track.metrics() for track in (ours, standard)]
    edge = figures[0]["sharpe"] - figures[1]["sharpe"]
    return ours, {
        "first": str(ours.dates[0].astype("datetime64[D]")),
        "last": str(ours.dates[-1].astype("datetime64[D]")),
        "bars": len(ours.returns),
        "edge": _defined(edge),
        "policy": {name: _defined(value) for name, value in figures[0].items()},
        "equal_weight": {name: _defined(value) for name, value in figures[1].items()},
    }


def table(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A pair of columns per span, by the names of the spans."""
    titles = [f"{name}, {span['bars']:,} bars" for name, span in scores.items()]
    dates = [f"{span['first']} to {span['last']}" for span in scores.values()]
    lines = [_row("", [f"{text:>{2 * COLUMN}}" for text in texts]) for texts in (titles, dates)]
    lines.append(_row("", [f"{name:>{COLUMN}}" for _ in scores for name in ("policy", "equal weight")]))
    for key, (label, form) in ROWS.items():
        cells = [span[who][key] for span in scores.values() for who in ("policy", "equal_weight")]
        lines.append(_row(label, [f"{_shown(value, form):>{COLUMN}}" for value in cells]))
    edges = [f"{_shown(span['edge'], '{:+.2f}'):>{COLUMN}}{'':{COLUMN}}" for span in scores.values()]
    return [line.rstrip() for line in [*lines, _row("edge in Sharpe", edges)]]


def _row(label: str, cells: list[str]) -> str:
    return f"{label:<{LABEL}}" + "".join(cells)


def _shown(value: float | None, form: str) -> str:
    return "undefined" if value is None else form.format(value)


def _defined(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None
