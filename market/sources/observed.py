"""Columns from files of their own, beside the bars: sentiment, fundamentals, the VIX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kit.config import setting
from kit.errors import UserError
from market.sources.columns import SYMBOL
from market.sources.files import EMPTY
from market.sources.tables import open_table
from market.sources.times import check_zone


@dataclass(frozen=True)
class Observations:
    """Values in the order of a file, each with the time it became known."""

    origin: str
    known_at: np.ndarray  # [N] datetime64[ns], UTC
    symbols: tuple[str, ...] | None  # None: of the whole market
    codes: np.ndarray  # [N] int32, positions in `symbols`
    values: dict[str, np.ndarray]  # [N] float64 each


@dataclass(frozen=True)
class ObservedFile:
    """A CSV or Parquet file with a column of times at which values became known, and columns of values.

    With a symbol column the values belong to that symbol, without to the whole market. A bare date
    counts as the end of that day, since any earlier might be too early.
    """

    path: Path = setting(help="a CSV or Parquet file")
    known_at: str = setting("known_at", help="the column that says when a value became known")
    columns: list[str] | None = setting(None, help="values to take (default: every column of numbers)")
    timezone: str = setting("UTC", help="of times that name no zone")

    def __post_init__(self) -> None:
        check_zone(self.timezone)

    def read(self) -> Observations:
        path = Path(self.path)
        try:
            table = open_table(path, tuple(EMPTY))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; expected observed values as CSV or Parquet") from None
        titles = [table.title(i) for i in range(len(table.names))]
        twins = [title for i, title in enumerate(titles) if title in titles[:i]]
        if twins:
            raise UserError(f"{path}: two columns are named {twins[0]!r}; expected one of them")
        for name in (self.known_at, *(self.columns or ())):
            if name not in titles:
                right = "say which with known_at: NAME" if name == self.known_at else "correct columns"
                raise UserError(f"{path}: has no column {name!r}; found {', '.join(titles)}; {right}")
        if not table.rows:
            raise UserError(f"{path}: holds a header but no values")
        symbol = next((i for i, title in enumerate(titles) if title.lower() in SYMBOL), None)
        known = titles.index(self.known_at)
        if self.columns is None:
            taken = [i for i in range(len(titles)) if i not in (symbol, known) and table.numeric(i)]
        else:
            taken = [titles.index(name) for name in self.columns]
        if not taken:
            raise UserError(f"{path}: holds no column of numbers; found {', '.join(titles)}")
        codes, words = table.words(symbol) if symbol is not None else (np.zeros(table.rows, np.int32), [])
        if (codes < 0).any():
            table.refuse(int(np.flatnonzero(codes < 0)[0]), symbol or 0, "expected a symbol, e.g. AAPL")
        known_at = table.times(known, self.timezone, end_of_day=True)
        if np.isnat(known_at).any():
            table.refuse(int(np.flatnonzero(np.isnat(known_at))[0]), known, "expected when the values became known")
        values = {titles[i]: table.numbers(i) for i in taken}
        for i in taken:
            if np.isinf(values[titles[i]]).any():
                row = int(np.flatnonzero(np.isinf(values[titles[i]]))[0])
                table.refuse(row, i, "expected a finite number, or leave the cell empty")
        return Observations(
            origin=str(path),
            known_at=known_at,
            symbols=None if symbol is None else tuple(words),
            codes=codes,
            values=values,
        )
