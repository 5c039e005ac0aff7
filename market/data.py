"""From a configuration to a checked panel: the one way in for every command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kit.config import setting
from kit.errors import UserError
from market.align import Grid, as_of, known_at_close, lay_out, to_panel
from market.bars import Bars
from market.checks import check_cells, check_columns, check_rows, check_series
from market.clock import parse_session_close
from market.panel import FIELDS, Observed, Panel
from market.quality import QualityConfig, Report
from market.sources.alpaca import AlpacaSource
from market.sources.files import FileSource
from market.sources.observed import ObservedFile
from market.sources.times import parse_moment
from market.synth import SynthSource


@dataclass(frozen=True)
class DataConfig:
    """Which bars, and how they become a panel."""

    source: FileSource | AlpacaSource | SynthSource = setting(help="kind: file, alpaca or synth, and its settings")
    observed: list[ObservedFile] = setting([], help="columns from files of their own")
    quality: QualityConfig = setting(QualityConfig(), help="what to do about faults")
    symbols: list[str] | None = setting(None, help="which of the source's symbols (default: all)")
    start: str | None = setting(None, help="the first time, UTC unless it names a zone")
    end: str | None = setting(None, help="the time at which to stop")
    bars_per_year: float | None = setting(None, above=0, help="(default: told from the times)")
    session_close: str | None = setting(None, help="of daily bars (default: the source's, or 16:00 America/New_York)")

    def __post_init__(self) -> None:
        for text in (self.start, self.end):
            if text is not None:
                parse_moment(text)
        if self.session_close is not None:
            parse_session_close(self.session_close)


def load(config: DataConfig) -> tuple[Panel, Report]:
    """Read, check and align. Faults are refused, repaired or reported, as `config.quality` says."""
    bars = config.source.read()
    report = Report(bars.origin, config.quality, notes=list(bars.notes))
    names = check_columns(bars, report)
    start, end = (None if text is None else parse_moment(text) for text in (config.start, config.end))
    grid = lay_out(bars, config.symbols, start, end)
    if absent := sorted(set(bars.symbols if config.symbols is None else ()) - set(grid.symbols)):
        report.notes.append(f"{len(absent)} symbols have no bars in the span and are left out: {', '.join(absent[:5])}")
    check_rows(grid, report)
    columns = {name: grid.take(bars.column(name)) for name in names}
    _fill_missing_columns(columns)
    check_cells(grid, columns, report)
    check_series(grid, columns, report)
    panel = to_panel(grid, columns, config.bars_per_year, config.session_close or bars.session_close)
    observed = _observed_beside_bars(bars, grid, panel.closes)
    for file in config.observed:
        for name, column in _observed_in_file(file, panel, report).items():
            if name in observed or name in FIELDS:
                raise UserError(f"{file.path}: {name!r} is also a column of {bars.origin}; expected another name")
            observed[name] = column
    return replace(panel, observed=observed), report


def check(config: DataConfig) -> Report:
    """The report alone; what must be refused is raised."""
    return load(config)[1]


def load_file(path: str | Path) -> tuple[Panel, Report]:
    """A file of bars, with every setting at its default."""
    return load(DataConfig(source=FileSource(Path(path))))


def _fill_missing_columns(columns: dict[str, np.ndarray]) -> None:  # [T, A] each
    close = columns["close"]
    for name in FIELDS:
        if name not in columns:
            columns[name] = np.where(np.isnan(close), np.nan, 0.0) if name == "volume" else close.copy()


def _observed_beside_bars(bars: Bars, grid: Grid, closes: np.ndarray) -> dict[str, Observed]:  # closes [T]
    """Columns of the bars themselves; a value that became known late is used when it was known."""
    observed = {}
    for name in bars.names:
        if name in FIELDS:
            continue
        values, known_at = bars.column(name), bars.known_at(name)
        if np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            raise UserError(
                f"{bars.row_name(row)}: {name} = {values[row]}: expected a finite number, or leave it empty"
            )
        if known_at is None:
            observed[name] = known_at_close(grid.take(values), closes)
            continue
        t, a = np.nonzero(grid.row >= 0)
        rows = grid.row[t, a]
        when = np.where(np.isnat(known_at[rows]), closes[t], known_at[rows])
        observed[name] = as_of(closes, a, when, values[rows], len(grid.symbols))
    return observed


def _observed_in_file(file: ObservedFile, panel: Panel, report: Report) -> dict[str, Observed]:
    found = file.read()
    shape = panel.close.shape
    if found.symbols is None:
        market = {name: as_of(panel.closes, found.codes, found.known_at, v, 1) for name, v in found.values.items()}
        return {
            name: Observed(np.broadcast_to(c.values, shape), np.broadcast_to(c.known_at, shape))
            for name, c in market.items()
        }
    place = {symbol: a for a, symbol in enumerate(panel.symbols)}
    strangers = [symbol for symbol in found.symbols if symbol not in place]
    if strangers:
        report.notes.append(f"{found.origin}: {len(strangers)} symbols have no bars, e.g. {strangers[0]}")
    codes = np.array([place.get(symbol, -1) for symbol in found.symbols], np.int64)[found.codes]
    return {name: as_of(panel.closes, codes, found.known_at, v, shape[1]) for name, v in found.values.items()}
