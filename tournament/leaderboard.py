"""The leaderboard: everybody who ever entered, as a table for people and as rows for programs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from kit.files import replacing, write_json
from kit.metrics import sharpe
from tournament.arena import Arena
from tournament.score import Standing, benchmark
from tournament.statistics.compare import scaled_excess
from tournament.statistics.sharpe import deflated_sharpe, effective_trials, shape

WIDTH = 100
TIMING = ("seconds",)  # left out where two runs are compared
COLUMNS: dict[str, pa.DataType] = {
    "place": pa.int64(),
    "candidate": pa.string(),
    "algorithm": pa.string(),
    "round": pa.int64(),
    "parent": pa.string(),  # its name; null: it has none
    "status": pa.string(),
    "reason": pa.string(),  # of its end; null: it has not ended, or by doing every fold
    "folds": pa.int64(),  # done
    "score": pa.float64(),  # what it was last ranked by
    "bound": pa.float64(),  # 20 % lower bound of the edge
    "edge": pa.float64(),  # its Sharpe ratio minus equal weight's
    "sharpe": pa.float64(),  # annual, as all of them
    "equal_weight_sharpe": pa.float64(),  # on the same days
    "mean_fold_sharpe": pa.float64(),
    "deflated_sharpe": pa.float64(),  # a probability; that of the verdict
    "turnover": pa.float64(),  # a year, in wealths
    "samples": pa.int64(),  # trained in all folds done, by all seeds
    "seconds": pa.float64(),
    "hash": pa.string(),
}
SHOWN = (  # key, title, width, format
    ("edge", "edge", 6, "+.2f"),
    ("bound", "at least", 8, "+.2f"),
    ("sharpe", "Sharpe", 6, ".2f"),
    ("equal_weight_sharpe", "1/N", 5, ".2f"),
    ("deflated_sharpe", "deflated", 8, ".2f"),
    ("turnover", "turnover", 8, ".0f"),
    ("folds", "folds", 5, "d"),
)

Row = dict[str, Any]


def rows(standings: Sequence[Standing], arena: Arena) -> list[Row]:
    """The leader first; None where a figure is not defined."""
    names = {standing.hash: standing.name for standing in standings}
    likely = deflated(standings, arena)
    return [
        _row(place, standing, arena, names, likely.get(standing.hash, math.nan))
        for place, standing in enumerate(standings, 1)
    ]


def table(standings: Sequence[Standing], arena: Arena, most: int | None = None) -> list[str]:
    """Lines of at most 100 columns."""
    titles = " ".join(f"{title:>{width}}" for _, title, width, _ in SHOWN)
    lines = [f"{'':>3} {'candidate':<15} {titles}  status"]
    for row in rows(standings, arena)[:most]:
        figures = " ".join(f"{_shown(row[key], form):>{width}}" for key, _, width, form in SHOWN)
        line = f"{row['place']:>3} {row['candidate']:<15} {figures}  {fate(row)}"
        lines.append(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…")
    if most and len(standings) > most:
        lines.append(f"    and {len(standings) - most:,} more")
    return lines if standings else ["no candidate has entered yet"]


def fate(row: Row) -> str:
    """Why it is no longer there, in words; one whose reason is not when, but why, has a colon."""
    if row["reason"] is None:
        return str(row["status"])
    return f"{row['status']}{' ' if row['status'] == 'eliminated' else ': '}{row['reason']}"


def write(folder: Path, standings: Sequence[Standing], arena: Arena) -> None:
    """leaderboard.csv, .parquet and .json."""
    made = rows(standings, arena)
    write_csv(folder / "leaderboard.csv", made)
    write_parquet(folder / "leaderboard.parquet", made)
    write_json(folder / "leaderboard.json", made)


def write_csv(file: Path, made: Sequence[Row]) -> None:
    with replacing(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(COLUMNS))
        writer.writeheader()
        writer.writerows(made)


def write_parquet(file: Path, made: Sequence[Row]) -> None:
    with replacing(file) as temporary:
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(made), pa.schema(COLUMNS.items())), temporary)


def deflated(standings: Sequence[Standing], arena: Arena) -> dict[str, float]:
    """By hash, the probability that a candidate is better than the luckiest of as many tries; the verdict's own rule.

    Whoever has not done all days, or is out, earned no excess there. Those held as leaks are not judged.
    """
    scored = [standing for standing in standings if standing.folds and standing.status != "leaked"]
    if not scored:
        return {}
    against, interest = benchmark(arena, len(arena.folds.folds)), arena.market(arena.folds.folds[0].spans).interest
    returns = np.full((len(against), len(scored)), np.nan)
    for column, standing in enumerate(scored):
        returns[: len(standing.returns), column] = standing.returns - interest
    excess = np.nan_to_num(scaled_excess(returns, against - interest), nan=0.0)
    tries = effective_trials(excess, sum(len(standing.records[0]) for standing in scored))
    found = deflated_sharpe(sharpe(excess, periods=1), len(excess), *shape(excess), tries)
    return {standing.hash: float(value) for standing, value in zip(scored, found)}


def _row(place: int, standing: Standing, arena: Arena, names: dict[str, str], likely: float) -> Row:
    year, parent = arena.panel.bars_per_year, standing.entrant.parent
    records = [record for seeds in standing.records for record in seeds]
    by_fold = [float(sharpe(np.mean([r.returns for r in seeds], axis=0), year)) for seeds in standing.records]
    years, seeds = len(standing.returns) / year, len(standing.records[0]) if standing.records else 1
    figures = {
        "score": standing.score,
        "bound": standing.bound,
        "edge": standing.edge,
        "sharpe": standing.sharpe,
        "equal_weight_sharpe": float(sharpe(benchmark(arena, standing.folds), year)) if records else math.nan,
        "mean_fold_sharpe": float(np.mean(by_fold)) if by_fold else math.nan,
        "deflated_sharpe": likely,
        "turnover": sum(float(r.traded.sum()) for r in records) / seeds / years if years else math.nan,
    }
    row = {
        "place": place,
        "candidate": standing.name,
        "algorithm": standing.entrant.candidate.algorithm.kind,
        "round": standing.entrant.round,
        "parent": names.get(parent, parent) or None,
        "status": standing.status,
        "reason": standing.reason or None,
        "folds": standing.folds,
        "samples": sum(record.trained for record in records),
        "seconds": round(sum(sum(record.timing.values()) for record in records), 1),
        "hash": standing.hash,
    } | {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return {name: row[name] for name in COLUMNS}


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
