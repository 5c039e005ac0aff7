"""Looking for faults, on the grid and in blocks, so that it costs little memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kit.errors import UserError
from market.align import Grid
from market.bars import Bars
from market.panel import FIELDS, PRICES
from market.quality import EXAMPLES, Coverage, Example, Report

TOLERANCE = 1e-9  # relative; for prices that were scaled
SPLITS = (1.5, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
SPLIT_TOLERANCE = 0.03
SPLIT_LASTS = 5  # bars after which the jump must still stand
SPLIT_DRIFT = 0.15


def check_columns(bars: Bars, report: Report) -> list[str]:
    """The columns to read; those that are missing are refused or left to be filled."""
    missing = [name for name in FIELDS if name not in bars.names]
    if missing:
        found = f"has no column {missing[0]}; found {', '.join(bars.names)}"
        report.add("missing_column", len(missing), [Example(bars.origin, column=found)])
        report.refuse()
        if "close" in missing:
            raise UserError(f"{bars.origin}: has no column close, from which others could be filled")
    return [name for name in FIELDS if name in bars.names]


def check_rows(grid: Grid, report: Report) -> None:
    """Rows without a time, out of order, or twice."""
    for kind, what, rows in (
        ("bad_time", "has no time", grid.untimed),
        ("unordered", "goes back in time", _rows_going_back(grid)),
        ("duplicate", "comes again further down", grid.superseded),
    ):
        report.add(kind, len(rows), [_row_example(grid, row, what) for row in rows[:EXAMPLES]])
    report.refuse()


def check_cells(grid: Grid, columns: Mapping[str, np.ndarray], report: Report) -> None:  # columns [T, A]
    """Impossible prices and volumes; repaired ones leave the grid and become gaps.

    A bar counts once, for its gravest fault.
    """
    for rows in grid.blocks():
        o, h, l, c, v = (columns[name][rows] for name in FIELDS)  # noqa: E741
        present = grid.row[rows] >= 0
        _add_cells(grid, rows.start, report, "zero_volume", "volume", present & (v == 0), v)
        top, bottom = np.maximum(o, c), np.minimum(o, c)
        sound = (l > 0) & (l <= bottom * (1 + TOLERANCE)) & (h >= top * (1 - TOLERANCE)) & (h < np.inf)
        sound &= (v >= 0) & (v < np.inf) & (h >= l)
        if (sound | ~present).all():
            continue
        bad = present & ~sound
        finds = [("non_finite", name, ~np.isfinite(columns[name][rows])) for name in FIELDS]
        finds += [("non_positive", name, columns[name][rows] <= 0) for name in PRICES]
        finds += [
            ("high_below_low", "high", h < l),
            ("high_inside_body", "high", h < top * (1 - TOLERANCE)),
            ("low_inside_body", "low", l > bottom * (1 + TOLERANCE)),
            ("negative_volume", "volume", v < 0),
        ]
        dropped = np.zeros_like(bad)
        for kind, name, mask in finds:
            mask &= bad
            bad &= ~mask
            _add_cells(grid, rows.start, report, kind, name, mask, columns[name][rows])
            if getattr(report.config, kind) == "repair":
                dropped |= mask
        grid.row[rows][dropped] = -1
    report.refuse()
    if any(fault.policy == "repair" for fault in report.faults.values()):
        for name in FIELDS:
            columns[name][grid.row < 0] = np.nan
        if (grid.row < 0).all():
            raise UserError(f"{grid.bars.origin}: no bar is left after repairs")


def check_series(grid: Grid, columns: Mapping[str, np.ndarray], report: Report) -> None:  # columns [T, A]
    """What shows only along time: gaps, stale closes, jumps like splits; and what each symbol covers."""
    dates = grid.times.astype("datetime64[D]")
    for a, symbol in enumerate(grid.symbols):
        at = np.flatnonzero(grid.row[:, a] >= 0)
        if not len(at):
            report.coverage.append(Coverage(symbol, 0, 0, "", "", True, True))
            continue
        first, last = int(at[0]), int(at[-1])
        gaps = last - first + 1 - len(at)
        if gaps:
            absent = first + np.flatnonzero(grid.row[first:last, a] < 0)[:EXAMPLES]
            report.add("missing_bars", gaps, [Example(grid.bars.origin, symbol, show(grid.times[t])) for t in absent])
        report.coverage.append(
            Coverage(symbol, len(at), gaps, show(grid.times[first]), show(grid.times[last]),
                     first > 0, last < len(grid.times) - 1)
        )  # fmt: skip
        close, opens = columns["close"][at, a], columns["open"][at, a]
        starts, lengths = stale_runs(close, report.config.stale_bars)
        runs = [
            _cell_example(grid, at[s], a, f"{n} bars with close", close[s])
            for s, n in zip(starts[:EXAMPLES], lengths, strict=False)
        ]
        report.add("stale", len(starts), runs)
        jumps = split_like(opens, close, dates[at])
        leaps = [
            _cell_example(grid, at[t], a, f"after a close of {close[t - 1]:g}, open", opens[t])
            for t in jumps[:EXAMPLES]
        ]
        report.add("split_like", len(jumps), leaps)
    report.times, report.first, report.last = len(grid.times), show(grid.times[0]), show(grid.times[-1])
    report.refuse()


def stale_runs(close: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:  # [N] -> starts and lengths
    """Runs of at least `least` equal closes."""
    edges = np.flatnonzero(np.concatenate([[True], close[1:] != close[:-1], [True]]))
    lengths = np.diff(edges)
    long = lengths >= least
    return edges[:-1][long], lengths[long]


def split_like(opens: np.ndarray, close: np.ndarray, dates: np.ndarray) -> np.ndarray:  # [N] each -> positions
    """Bars that open on a new day near n:1 or 1:n of the close before, and stay there for some bars."""
    ratio = opens[1:] / close[:-1]
    leap = np.abs(np.log(ratio))
    t = 1 + np.flatnonzero((leap > np.log(SPLITS[0]) - 2 * SPLIT_TOLERANCE) & (dates[1:] != dates[:-1]))
    near = (np.abs(leap[t - 1, None] - np.log(SPLITS)) <= np.log1p(SPLIT_TOLERANCE)).any(axis=1)
    t = t[near]
    later = close[np.minimum(t + SPLIT_LASTS, len(close) - 1)] / close[t - 1]
    return t[np.abs(np.log(later / ratio[t - 1])) <= SPLIT_DRIFT]


def show(time: np.datetime64) -> str:
    """A date where there is no time of day, else to the second."""
    text = str(time.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def _rows_going_back(grid: Grid) -> np.ndarray:
    """Rows earlier than the row before them of the same symbol, in the order of the file."""
    latest, ordered = np.full(len(grid.symbols), -1, np.int32), True
    for rows in grid.blocks():
        row = grid.row[rows]
        highest = np.maximum.accumulate(np.vstack([latest, row]), axis=0)
        ordered &= not ((row >= 0) & (row < highest[:-1])).any()
        latest = highest[-1]
    if ordered:
        return np.empty(0, np.int64)
    used = np.sort(grid.row[grid.row >= 0])
    used = used[np.argsort(grid.bars.codes[used], kind="stable")]
    codes, times = grid.bars.codes[used], grid.bars.times[used]
    return np.sort(used[1:][(codes[1:] == codes[:-1]) & (times[1:] < times[:-1])])


def _row_example(grid: Grid, row: int, what: str) -> Example:
    time = grid.bars.times[row]
    symbol = grid.bars.symbols[grid.bars.codes[row]]
    return Example(grid.bars.row_name(int(row)), symbol, "" if np.isnat(time) else show(time), what)


def _cell_example(grid: Grid, t: int, a: int, column: str, value: float) -> Example:
    place = grid.bars.row_name(int(grid.row[t, a]))
    return Example(place, grid.symbols[a], show(grid.times[t]), column, f"{value:g}")


def _add_cells(
    grid: Grid,
    start: int,
    report: Report,
    kind: str,
    name: str,
    mask: np.ndarray,  # [t, A], bars from `start` on
    values: np.ndarray,  # [t, A]
) -> None:
    t, a = np.divmod(np.flatnonzero(mask)[:EXAMPLES], mask.shape[1])
    examples = [_cell_example(grid, start + i, j, name, values[i, j]) for i, j in zip(t, a, strict=True)]
    report.add(kind, int(mask.sum()), examples)
