"""Bars as rows -> a panel [T, A]: the union of times, symbols in alphabetical order, gaps filled forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kit.errors import UserError
from market.bars import Bars
from market.clock import bar_closes, infer_bar, infer_bars_per_year
from market.panel import Observed, Panel

NOTHING = np.datetime64("NaT", "ns")
BLOCK = 1 << 20


@dataclass
class Grid:
    """Where each bar lies in the rows of its source."""

    bars: Bars
    symbols: tuple[str, ...]
    times: np.ndarray  # [T]
    row: np.ndarray  # [T, A] int32; -1: no bar
    untimed: np.ndarray  # rows without a time
    superseded: np.ndarray  # rows whose symbol and time come again further down

    def take(self, column: np.ndarray) -> np.ndarray:  # [R] -> [T, A], NaN where there is no bar
        out = np.empty(self.row.shape)
        for rows in self.blocks():
            row = self.row[rows]
            np.take(column, row, out=out[rows], mode="clip")  # clips -1 to 0, and is the fastest
            out[rows][row < 0] = np.nan
        return out

    def blocks(self) -> Iterator[slice]:
        """Spans of T that fit a processor's cache rather than the machine's memory."""
        step = max(1, (BLOCK >> 2) // self.row.shape[1])
        return (slice(t, min(t + step, len(self.row))) for t in range(0, len(self.row), step))


def lay_out(
    bars: Bars,
    symbols: list[str] | None = None,
    start: np.datetime64 | None = None,
    end: np.datetime64 | None = None,
) -> Grid:
    """Find the place of every row with start <= time < end; of twins the last one counts."""
    chosen = _choose(bars, symbols)
    place = np.full(len(bars.symbols), -1, np.int64)
    position = {symbol: i for i, symbol in enumerate(bars.symbols)}
    for a, symbol in enumerate(chosen):
        place[position[symbol]] = a
    assert len(bars.times) < np.iinfo(np.int32).max, "rows are counted in 32 bits"

    def spans() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:  # rows, times and columns of the grid
        for low in range(0, len(bars.times), BLOCK):
            at = bars.times[low : low + BLOCK]
            column = place[bars.codes[low : low + BLOCK]]
            use = (column >= 0) & ~np.isnat(at)
            use &= True if start is None else at >= start
            use &= True if end is None else at < end
            rows = np.flatnonzero(use)
            yield rows + low, at[rows], column[rows]

    times = np.unique(np.concatenate([_distinct(at) for _, at, _ in spans()] or [bars.times[:0]]))
    if not len(times):
        first, last = (("the beginning" if start is None else start), ("the end" if end is None else end))
        raise UserError(f"{bars.origin}: no bars of {', '.join(chosen[:3]) or 'any symbol'} from {first} to {last}")
    row = np.full((len(times), len(chosen)), -1, np.int32)
    cells, lost = row.reshape(-1), []
    for rows, at, column in spans():
        cell = np.searchsorted(times, at) * len(chosen) + column
        before = cells[cell]
        cells[cell] = rows
        lost += [before[before >= 0], rows[cells[cell] != rows]]
    some = np.flatnonzero((row >= 0).any(axis=0))
    if len(some) < len(chosen):
        if symbols is not None:
            absent = next(symbol for a, symbol in enumerate(chosen) if a not in some)
            raise UserError(f"{bars.origin}: no bars of {absent} in the span from start to end")
        row, chosen = np.ascontiguousarray(row[:, some]), tuple(chosen[a] for a in some)
    untimed = np.flatnonzero(np.isnat(bars.times))
    return Grid(bars, chosen, times, row, untimed, np.unique(np.concatenate(lost)).astype(np.int64))


def _distinct(times: np.ndarray) -> np.ndarray:  # [N]
    """Sorting is dear and times mostly come in runs."""
    return np.unique(np.concatenate([times[:1], times[1:][times[1:] != times[:-1]]]))


def _choose(bars: Bars, symbols: list[str] | None) -> tuple[str, ...]:
    unknown = sorted(set(symbols or ()) - set(bars.symbols))
    if unknown:
        known = ", ".join(sorted(bars.symbols)[:20])
        raise UserError(f"symbols: {unknown[0]!r} is not in {bars.origin}; it has {known}")
    return tuple(sorted(set(bars.symbols if symbols is None else symbols)))


def to_panel(
    grid: Grid,
    columns: dict[str, np.ndarray],  # open, high, low, close, volume: [T, A]; filled in place
    bars_per_year: float | None = None,
    session_close: str | None = None,
) -> Panel:
    """Fill the gaps and add the clock; without observed columns."""
    bar = infer_bar(grid.times)
    closes = bar_closes(grid.times, bar, session_close)
    twin = np.flatnonzero(np.diff(closes) <= np.timedelta64(0))
    if len(twin):
        first, second = grid.times[twin[0]], grid.times[twin[0] + 1]
        raise UserError(
            f"{grid.bars.origin}: the bars of {_show(first)} and {_show(second)} close at one time; "
            f"expected one bar size and one way to write dates"
        )
    tradable = grid.row >= 0
    fill_gaps(columns, tradable)
    return Panel(
        symbols=grid.symbols,
        times=grid.times,
        closes=closes,
        open=columns["open"],
        high=columns["high"],
        low=columns["low"],
        close=columns["close"],
        volume=columns["volume"],
        tradable=tradable,
        bars_per_year=bars_per_year or infer_bars_per_year(grid.times, bar),
    )


def fill_gaps(columns: Mapping[str, np.ndarray], tradable: np.ndarray) -> None:  # [T, A] each
    """Repeat the last close, with volume 0; before the first bar NaN stays, and volume is NaN too."""
    close = columns["close"]
    gaps = ~tradable
    for t in np.flatnonzero(gaps.any(axis=1)):
        if t:
            np.copyto(close[t], close[t - 1], where=gaps[t])
    gaps &= ~np.isnan(close)
    for name in ("open", "high", "low"):
        np.copyto(columns[name], close, where=gaps)
    columns["volume"][gaps] = 0.0


def known_at_close(values: np.ndarray, closes: np.ndarray) -> Observed:  # [T, A], [T]
    """Values that were known when their bar closed; where one is missing, the last one stands."""
    missing = np.isnan(values)
    if not missing.any():
        return Observed(values, np.broadcast_to(closes[:, None], values.shape))
    known_at = np.where(missing, NOTHING, closes[:, None])
    for t in np.flatnonzero(missing.any(axis=1)):
        if t:
            np.copyto(values[t], values[t - 1], where=missing[t])
            np.copyto(known_at[t], known_at[t - 1], where=missing[t])
    return Observed(values, known_at)


def as_of(
    closes: np.ndarray,  # [T]
    codes: np.ndarray,  # [N] column of the panel, -1 for none
    known_at: np.ndarray,  # [N]
    values: np.ndarray,  # [N]
    width: int,
) -> Observed:
    """At each bar the value that became known last, at or before its close; of twins the one further down."""
    usable = np.flatnonzero((codes >= 0) & ~np.isnan(values) & ~np.isnat(known_at))
    order = usable[np.lexsort((known_at[usable], codes[usable]))]
    starts = np.searchsorted(codes[order], np.arange(width + 1))
    out, when = np.full((len(closes), width), np.nan), np.full((len(closes), width), NOTHING)
    for a in range(width):
        rows = order[starts[a] : starts[a + 1]]
        last = np.searchsorted(known_at[rows], closes, side="right") - 1
        known = last >= 0
        out[known, a] = values[rows[last[known]]]
        when[known, a] = known_at[rows[last[known]]]
    return Observed(out, when)


def _show(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ")
