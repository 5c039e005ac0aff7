"""The leaderboard: everybody ever scored, as a table for people and as rows for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.files import replacing, write_json
from kit.metrics import sharpe
from tournament.arena import Arena
from tournament.score import Standing, benchmark

TIMING = ("seconds",)  # left out where two runs are compared


def rows(standings: Sequence[Standing], arena: Arena) -> list[dict[str, Any]]:
    """The leader first; None where a figure is not defined."""
    return [_row(place, standing, arena) for place, standing in enumerate(standings, 1)]


def table(standings: Sequence[Standing], arena: Arena, most: int | None = None) -> list[str]:
    """Lines of at most 100 columns."""
    names = f"{'edge, at least':>14} {'edge':>6} {'Sharpe':>6} {'turnover':>8} {'folds':>5}"
    lines = [f"{'':>3} {'candidate':<16} {names}  status"]
    for row in rows(standings, arena)[:most]:
        figures = [_shown(row[name], form) for name, form in (("bound", "+.2f"), ("edge", "+.2f"), ("sharpe", ".2f"))]
        traded = _shown(row["turnover"], ".0f")
        status = f"{row['status']} {row['reason']}".strip()
        line = f"{row['place']:>3} {row['candidate']:<16} {figures[0]:>14} {figures[1]:>6} {figures[2]:>6} {traded:>8}"
        lines.append(f"{line} {row['folds']:>5}  {status}"[:100])
    if most and len(standings) > most:
        lines.append(f"    and {len(standings) - most} more")
    return lines


def write(folder: Path, standings: Sequence[Standing], arena: Arena) -> None:
    """leaderboard.csv, .parquet and .json."""
    made = rows(standings, arena)
    frame = pd.DataFrame(made)
    with replacing(folder / "leaderboard.csv") as temporary:
        frame.to_csv(temporary, index=False)
    with replacing(folder / "leaderboard.parquet") as temporary:
        frame.to_parquet(temporary, index=False)
    write_json(folder / "leaderboard.json", made)


def _row(place: int, standing: Standing, arena: Arena) -> dict[str, Any]:
    candidate, year = standing.entrant.candidate, arena.panel.bars_per_year
    records = [record for seeds in standing.records for record in seeds]
    seeds = max(1, len(standing.records[0]) if standing.records else 1)
    traded = sum(float(record.traded.sum()) for record in records) / seeds
    years = len(standing.returns) / year
    by_fold = [float(sharpe(np.mean([r.returns for r in fold], axis=0), year)) for fold in standing.records]
    against = float(sharpe(benchmark(arena, standing.folds), year)) if standing.folds else math.nan
    figures = {
        "score": standing.score,
        "bound": standing.bound,
        "edge": standing.edge,
        "sharpe": standing.sharpe,
        "equal_weight_sharpe": against,
        "mean_fold_sharpe": float(np.mean(by_fold)) if by_fold else math.nan,
        "turnover": traded / years if years else math.nan,
    }
    return {
        "place": place,
        "candidate": standing.name,
        "algorithm": candidate.algorithm.kind,
        "round": standing.entrant.round,
        "parent": standing.entrant.parent[:8],
        "status": standing.status,
        "reason": standing.reason,
        "folds": standing.folds,
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "samples": sum(record.trained for record in records),
        "seconds": round(sum(sum(record.timing.values()) for record in records), 1),
        "hash": standing.hash,
    }


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
