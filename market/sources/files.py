"""Bars from CSV and Parquet files: long, wide, or a folder of one file per symbol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from kit.config import setting
from kit.errors import UserError
from market.bars import Bars
from market.panel import FIELDS, PRICES
from market.sources.columns import KNOWN_AT, Layout, recognise
from market.sources.tables import Table, open_table
from market.sources.times import NS, check_zone

SUFFIXES = (".csv", ".tsv", ".txt", ".gz", ".parquet", ".pq")
EMPTY = ["", "NaN", "nan", "NA", "N/A", "null", "NULL", "None"]


@dataclass(frozen=True)
class FileSource:
    """A CSV or Parquet file, or a folder of them. FinRL, yfinance and Alpaca files need no settings."""

    path: Path = setting(help="a CSV or Parquet file, or a folder with one per symbol")
    kind: Literal["file"] = setting("file")
    timezone: str = setting("UTC", help="of times that name no zone; bare dates stay dates")
    columns: dict[str, str] = setting({}, help="rename columns: {theirs: ours}, e.g. {px_last: close}")
    symbol: str | None = setting(None, help="of a file without a symbol column (default: the file's name)")
    observed: list[str] | None = setting(None, help="further columns to take (default: all that hold numbers)")
    empty: list[str] = setting(EMPTY, help="cells that mean no value")
    adjust: bool = setting(False, help="scale open, high, low and close by Adj Close / Close")

    def __post_init__(self) -> None:
        check_zone(self.timezone)

    def read(self) -> Bars:
        path = Path(self.path)
        try:
            if path.is_dir():
                return self._read_folder(path)
            return self._read_file(path, self.symbol or _bare_name(path))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file or folder; expected bars as CSV or Parquet") from None
        except PermissionError as error:
            raise UserError(f"{error.filename or path}: permission denied; expected a file that can be read") from None

    def _read_folder(self, folder: Path) -> Bars:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if self.symbol is not None:
            raise UserError(f"{folder}: symbol = {self.symbol!r} names a file; in a folder the names of the files do")
        if not files:
            raise UserError(f"{folder}: the folder holds no bars; expected files such as AAPL.csv or AAPL.parquet")
        return FolderBars(folder, [self._read_file(file, _bare_name(file)) for file in files])

    def _read_file(self, file: Path, symbol: str) -> FileBars:
        table = open_table(file, tuple({"": None, **dict.fromkeys(self.empty)}))
        layout = recognise(table, self.columns, self.observed)
        if table.rows == 0:
            raise UserError(f"{file}: holds a header but no bars")
        if self.symbol is not None and (layout.symbol is not None or layout.wide):
            raise UserError(f"{file}: names its symbols itself; leave out symbol = {self.symbol!r}")
        if self.adjust and "adj_close" not in layout.columns:
            raise UserError(f"{file}: adjust = true needs a column Adj Close; found none")
        return WideBars(table, layout, self) if layout.wide else LongBars(table, layout, self, symbol)


class FileBars(Bars):
    """What long and wide files share: the Bars of one file, columns read when asked for."""

    symbols: tuple[str, ...]
    codes: np.ndarray  # [R]
    times: np.ndarray  # [R]

    def __init__(self, table: Table, layout: Layout, source: FileSource) -> None:
        self._table, self._layout, self._source = table, layout, source
        self.origin = str(table.path)
        self.names = (*(name for name in FIELDS if name in layout.columns), *layout.observed)
        self.notes: list[str] = [f"ignored columns: {', '.join(layout.ignored)}"] if layout.ignored else []
        if "adj_close" in layout.columns:
            if source.adjust:
                self.notes = ["open, high, low and close are scaled by Adj Close / Close"]
            else:
                self.notes.append(
                    "Adj Close stands beside Close: prices are taken as they are; adjust: true scales them"
                )

    def column(self, name: str) -> np.ndarray:  # [R]
        values = self._values(name)
        if self._source.adjust and name in PRICES:
            adjusted = self._values("adj_close")
            with np.errstate(divide="ignore", invalid="ignore"):  # a close of zero is found by the checks
                values = adjusted if name == "close" else values * (adjusted / self._values("close"))
        return values

    def known_at(self, name: str) -> np.ndarray | None:  # [R]
        """From `NAME_known_at`; a bare date counts as the end of that day, since any earlier might be too early."""
        return self._known_times(name + KNOWN_AT) if name + KNOWN_AT in self._layout.columns else None

    def row_name(self, row: int) -> str:
        return self._table.place(row)

    def _values(self, name: str) -> np.ndarray:  # [R]
        raise NotImplementedError

    def _known_times(self, name: str) -> np.ndarray:  # [R]
        raise NotImplementedError


class LongBars(FileBars):
    """One row per time and symbol."""

    def __init__(self, table: Table, layout: Layout, source: FileSource, symbol: str) -> None:
        super().__init__(table, layout, source)
        if layout.symbol is None:
            self.symbols, self.codes = (symbol,), np.zeros(table.rows, np.int32)
            self.notes.append(f"no symbol column: every row is {symbol}")
        else:
            self.codes, words = table.words(layout.symbol)
            empty = np.flatnonzero(self.codes < 0)
            blank = next((i for i, word in enumerate(words) if not word.strip()), None)
            if blank is not None:
                empty = np.flatnonzero(self.codes == blank)
            if len(empty):
                table.refuse(int(empty[0]), layout.symbol, "expected a symbol, e.g. AAPL", _more(len(empty) - 1))
            self.symbols = tuple(words)
        self.times = table.times(layout.time, source.timezone)

    def _values(self, name: str) -> np.ndarray:  # [R]
        return self._table.numbers(self._layout.columns[name][None])

    def _known_times(self, name: str) -> np.ndarray:  # [R]
        return self._table.times(self._layout.columns[name][None], self._source.timezone, end_of_day=True)


class WideBars(FileBars):
    """One row per time and a column per symbol and field; here in rows by time, then symbol.

    Where every price of a symbol is empty, and its volume empty or zero, there is no bar.
    """

    def __init__(self, table: Table, layout: Layout, source: FileSource) -> None:
        super().__init__(table, layout, source)
        self.symbols = layout.symbols
        self._refuse_holes()
        present = np.zeros((table.rows, len(self.symbols)), bool)
        for name in FIELDS:
            for a, column in enumerate(self._columns_of(name)):
                values = table.numbers(column)
                present[:, a] |= ~np.isnan(values) & ((name != "volume") | (values != 0))
        self._present = present
        rows, codes = np.nonzero(present)
        self.codes = codes.astype(np.int32)
        self._file_rows = rows.astype(np.int32)
        self.times = table.times(layout.time, source.timezone)[rows]

    def row_name(self, row: int) -> str:
        return self._table.place(int(self._file_rows[row]))

    def _refuse_holes(self) -> None:
        for name in self.names:
            by_symbol = self._layout.columns[name]
            absent = [s for s in self.symbols if s not in by_symbol and None not in by_symbol]
            if absent and name in FIELDS:
                raise UserError(f"{self.origin}: has no column {name} of {absent[0]}{_more(len(absent) - 1)}")

    def _columns_of(self, name: str) -> list[int]:
        by_symbol = self._layout.columns.get(name, {})
        return [by_symbol[symbol] for symbol in self.symbols if symbol in by_symbol]

    def _values(self, name: str) -> np.ndarray:  # [R]
        by_symbol = self._layout.columns[name]
        out = np.full(self._present.shape, np.nan)
        if None in by_symbol:
            out[:] = self._table.numbers(by_symbol[None])[:, None]
        for a, symbol in enumerate(self.symbols):
            if symbol in by_symbol:
                out[:, a] = self._table.numbers(by_symbol[symbol])
        return out[self._present]

    def _known_times(self, name: str) -> np.ndarray:  # [R]
        by_symbol = self._layout.columns[name]
        out = np.full(self._present.shape, np.datetime64("NaT"), NS)
        for symbol, column in by_symbol.items():
            times = self._table.times(column, self._source.timezone, end_of_day=True)
            out[:, slice(None) if symbol is None else self.symbols.index(symbol)] = (
                times[:, None] if symbol is None else times
            )
        return out[self._present]


class FolderBars(Bars):
    """Several files, one after the other."""

    def __init__(self, folder: Path, parts: list[FileBars]) -> None:
        self.origin, self._parts = str(folder), parts
        self.names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        for part in parts:
            lacking = [name for name in FIELDS if name in self.names and name not in part.names]
            if lacking:
                raise UserError(f"{part.origin}: has no column {lacking[0]}, which other files of the folder have")
        self.symbols = tuple(dict.fromkeys(symbol for part in parts for symbol in part.symbols))
        position = {symbol: i for i, symbol in enumerate(self.symbols)}
        self.codes = np.concatenate(
            [np.array([position[s] for s in part.symbols], np.int32)[part.codes] for part in parts]
        )
        self.times = np.concatenate([part.times for part in parts])
        self.notes = list(dict.fromkeys(note for part in parts for note in part.notes if "every row is" not in note))

    @cached_property
    def _starts(self) -> np.ndarray:  # [parts + 1]
        return np.cumsum([0, *(len(part.times) for part in self._parts)])

    def column(self, name: str) -> np.ndarray:  # [R]
        out = np.full(len(self.times), np.nan)
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            if name in part.names:
                out[start:stop] = part.column(name)
        return out

    def known_at(self, name: str) -> np.ndarray | None:  # [R]
        known = [part.known_at(name) if name in part.names else None for part in self._parts]
        if all(times is None for times in known):
            return None
        sizes = np.diff(self._starts)
        absent = np.datetime64("NaT", "ns")
        return np.concatenate(
            [np.full(n, absent) if times is None else times for times, n in zip(known, sizes, strict=True)]
        )

    def row_name(self, row: int) -> str:
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[part].row_name(row - int(self._starts[part]))


def _bare_name(file: Path) -> str:
    """`BRK.B.csv.gz` holds BRK.B."""
    return Path(file.name.removesuffix(".gz")).stem


def _more(count: int) -> str:
    return f"; {count} more" if count > 0 else ""
