"""A source of one's own: bars from a table of an SQLite database.

    python examples/own_source.py

docs/extending.md says how a configuration comes to name it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd

from kit.config import setting
from kit.errors import UserError
from market.bars import Bars
from market.panel import FIELDS
from market.synth import SynthSource, generate


@dataclass(frozen=True)
class SqliteSource:
    """A table with the columns time, symbol, open, high, low, close and volume, and others that count as observed."""

    path: Path = setting(help="the database")
    kind: Literal["sqlite"] = "sqlite"
    table: str = setting("bars", help="the name of the table")

    def __post_init__(self) -> None:
        if not self.table.isidentifier():
            raise ValueError(f"table = {self.table!r}: expected a plain name")

    def read(self) -> Bars:
        if not Path(self.path).is_file():
            raise UserError(f"{self.path}: no such file; expected an SQLite database")
        try:
            with closing(sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
                frame = pd.read_sql(f"SELECT * FROM {self.table} ORDER BY time, symbol", connection)
        except pd.errors.DatabaseError as error:
            raise UserError(f"{self.path}: table = {self.table!r}: {error.__cause__}") from None
        return SqliteBars(frame, f"{self.path}:{self.table}")


class SqliteBars(Bars):
    """A row for each time and symbol. What is wrong in it, the checks that follow say."""

    def __init__(self, frame: pd.DataFrame, origin: str) -> None:
        codes, symbols = pd.factorize(frame["symbol"].astype(str))
        self._frame, self.origin = frame, origin
        self.codes, self.symbols = codes.astype(np.int32), tuple(symbols)
        self.times = pd.to_datetime(frame["time"], utc=True).dt.tz_localize(None).to_numpy("datetime64[ns]")
        others = [name for name in frame.columns if name not in ("time", "symbol", *FIELDS)]
        self.names = (*(name for name in FIELDS if name in frame.columns), *others)

    def column(self, name: str) -> np.ndarray:  # [R]
        return self._frame[name].to_numpy(np.float64)

    def known_at(self, name: str) -> None:
        """At the close of its bar; a column that says otherwise would be returned here."""

    def row_name(self, row: int) -> str:
        return f"{self.origin} row {row + 1}"


def write(source: SynthSource, path: Path) -> None:
    """The built-in market as such a database."""
    panel = generate(source)
    columns = {name: getattr(panel, name).reshape(-1) for name in FIELDS}
    times = np.repeat(np.datetime_as_string(panel.times, "D"), len(panel.symbols))
    symbols = np.tile(panel.symbols, len(panel))
    frame = pd.DataFrame({"time": times, "symbol": symbols, **columns, "signal": panel.observed["signal"].values.flat})
    with closing(sqlite3.connect(path)) as connection:
        frame.to_sql("bars", connection, index=False)


def main() -> None:
    from market.data import DataConfig, load  # it imports every source

    with TemporaryDirectory() as folder:
        database = Path(folder) / "bars.sqlite"
        write(SynthSource(symbols=3, bars=300), database)
        source: Any = SqliteSource(database)
        panel, report = load(DataConfig(source))
    print("\n".join(report.lines()))
    print(f"{len(panel)} bars of {', '.join(panel.symbols)}, beside them {', '.join(panel.observed)}")


if __name__ == "__main__":
    main()
