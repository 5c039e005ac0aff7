"""What trading took, and what would be left at other costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from agents.baselines import around_stuck
from agents.shuffled import first_decision, targets
from envs.backtest import Track, backtest
from envs.market import MarketTensors
from envs.policy import equal_weight
from kit.charts import format_value
from kit.metrics import cagr, sharpe
from tournament.arena import Arena
from tournament.choose import concatenated
from tournament.report.drawings import Report
from tournament.report.material import ENSEMBLE, EQUAL, Material, part

MULTIPLES = (0.0, 1.0, 2.0, 5.0)
MEAN = 21  # bars
KINDS = ("commission", "spread", "impact", "borrow")


def add(page: Report, arena: Arena, material: Material) -> None:
    page.section("Costs and turnover")
    if material.ours is not None:
        _multiples(page, material, at_multiples(arena, material))
    tracks = {name: track for name, track in material.tracks.items() if name in (ENSEMBLE, EQUAL)}
    year = material.theirs.bars_per_year
    if len(material.theirs.returns) >= 2 * MEAN:
        smooth = {
            name: pd.Series(track.traded).rolling(MEAN).mean().to_numpy()[MEAN - 1 :] * year
            for name, track in tracks.items()
        }
        note = f"Times wealth, bought and sold, at the pace of the last {MEAN} bars. Each fold begins in cash."
        page.lines("Turnover a year", material.theirs.dates[MEAN - 1 :], smooth, note=note)
    years = len(material.theirs.returns) / year
    paid = {kind: np.array([float(t.costs[kind].sum()) / years for t in tracks.values()]) for kind in KINDS}
    page.table(
        "Paid a year, by kind",
        {
            "Rule": list(tracks),
            "Turnover": np.array([float(track.traded.sum()) / years for track in tracks.values()]),
            **{f"{kind[0].upper()}{kind[1:]}, bp": amounts * 1e4 for kind, amounts in paid.items()},
        },
        note="Turnover: times wealth, bought and sold. Costs in basis points of wealth.",
    )


def at_multiples(
    arena: Arena, material: Material, multiples: Sequence[float] = MULTIPLES
) -> dict[float, tuple[Track, Track]]:
    """The ensemble's targets and equal weight, through the backtest at each multiple of the costs."""
    assert material.ours is not None
    found = {1.0: (material.ours, material.theirs)}
    wanted = torch.zeros_like(material.market.table[0])  # [T, A+1]
    for days in material.days():
        track = part(material.ours, days)
        first = first_decision(track, material.market)
        rows = torch.as_tensor(targets(track, material.market), dtype=wanted.dtype)
        wanted[first : first + len(rows)] = rows.to(wanted.device)

    def follow(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return around_stuck(market, bar, portfolio[:, : market.assets + 1], wanted.index_select(0, bar))

    panel = arena.seen(material.folds[-1].spans)
    for multiple in multiples:
        if multiple not in found:
            costs = replace(arena.trading.costs, multiple=arena.trading.costs.multiple * multiple)
            market = MarketTensors.build(panel, replace(arena.trading, costs=costs), device=arena.device)
            pairs = [backtest([follow, equal_weight], market, fold.spans.test) for fold in material.folds]
            found[multiple] = concatenated([ours for ours, _ in pairs]), concatenated([theirs for _, theirs in pairs])
    return dict(sorted(found.items()))


def break_even(multiples: np.ndarray, edges: np.ndarray) -> float:  # [M] twice
    """Where a line through the edges falls to zero: 0 where there is none at first, infinity where it never does."""
    if not edges[0] > 0:
        return 0.0
    below = np.flatnonzero(edges <= 0)
    if not len(below):
        return np.inf
    after, before = below[0], below[0] - 1
    share = edges[before] / (edges[before] - edges[after])
    return float(multiples[before] + share * (multiples[after] - multiples[before]))


def _multiples(page: Report, material: Material, found: dict[float, tuple[Track, Track]]) -> None:
    year, multiples = material.theirs.bars_per_year, np.array(list(found))
    ratios = np.array([[float(sharpe(track.returns, year)) for track in pair] for pair in found.values()])
    growth = np.array([[float(cagr(track.returns, year)) for track in pair] for pair in found.values()])
    edges = ratios[:, 0] - ratios[:, 1]
    at = break_even(multiples, edges)
    shown = "none" if at == 0.0 else f"above ×{multiples[-1]:g}" if np.isinf(at) else f"×{format_value(at)}"
    metrics = material.ours.metrics() if material.ours else {}
    page.figures(
        [
            ("Break-even", shown, "costs at which the Sharpe ratio is equal weight's"),
            ("Turnover a year", format_value(metrics["turnover"]), "times wealth, bought and sold"),
            ("Costs a year", format_value(metrics["cost"], "%"), "of wealth, at the costs configured"),
        ]
    )
    page.text(
        "At other costs the backtest is run again, for equal weight too. The ensemble follows the targets that it had "
        "at the costs configured: its members are not asked anew, and none was trained at other costs."
    )
    page.lines(
        "Sharpe ratio at other costs",
        multiples,
        {ENSEMBLE: ratios[:, 0], EQUAL: ratios[:, 1]},
        note="By the multiple of commission, spread and impact.",
    )
    page.table(
        "At other costs",
        {
            "Costs": [f"×{multiple:g}" for multiple in multiples],
            "Return, ensemble": growth[:, 0],
            "Return, equal weight": growth[:, 1],
            "Sharpe, ensemble": ratios[:, 0],
            "Sharpe, equal weight": ratios[:, 1],
            "Edge": edges,
        },
        units=dict.fromkeys(("Return, ensemble", "Return, equal weight"), "%"),
        note="Returns are a year's. Edge: of the Sharpe ratio.",
    )
