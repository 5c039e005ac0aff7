"""Small files of bars for tests, in the layouts that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SYMBOLS = ("AAPL", "BRK.B", "MSFT")
FIELDS = ("open", "high", "low", "close", "volume")


def long_frame(days: int = 8, seed: int = 3, start: str = "2020-01-02") -> pd.DataFrame:
    """Sound daily bars of three symbols with a signal, by time and then symbol."""
    rng = np.random.default_rng(seed)
    times = pd.bdate_range(start, periods=days)
    n = days * len(SYMBOLS)
    opens, close = (np.round(50 + rng.random(n), 2) for _ in range(2))
    return pd.DataFrame({
        "timestamp": np.repeat(times, len(SYMBOLS)),
        "symbol": np.tile(SYMBOLS, days),
        "open": opens,
        "high": np.maximum(opens, close) + 0.25,
        "low": np.minimum(opens, close) - 0.25,
        "close": close,
        "volume": rng.integers(1_000, 9_000, n).astype(float),
        "signal": np.round(rng.normal(size=n), 4),
    })  # fmt: skip


def wide_frame(frame: pd.DataFrame, pattern: str = "{symbol}_{field}") -> pd.DataFrame:
    """The same bars with a column per symbol and field, e.g. `AAPL_close`."""
    wide = frame.pivot(index="timestamp", columns="symbol")
    wide.columns = [pattern.format(symbol=symbol, field=field) for field, symbol in wide.columns]
    return wide.reset_index()


def write(frame: pd.DataFrame, path: Path, **options: object) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, **options)  # type: ignore[call-overload]
    return path


def folder_of(frame: pd.DataFrame, folder: Path, suffix: str = ".csv") -> Path:
    """One file per symbol, without a symbol column."""
    folder.mkdir()
    for symbol, rows in frame.groupby("symbol"):
        write(rows.drop(columns="symbol"), folder / f"{symbol}{suffix}")
    return folder
