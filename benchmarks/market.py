"""Load, align and compute features: seconds and peak memory, beside the same in plain pandas.

python -m benchmarks.market [--quick] [--json FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import Result, Spent, arguments, in_child
from market.data import load_file
from market.features import FeatureSpec
from market.panel import FIELDS, Panel
from market.synth import SynthSource, write

SPEC = FeatureSpec.from_config(["log_return", "ewma_volatility", "rsi", "macd", "distance_from_high", "volume_zscore"])


def path(file: str) -> str:
    return file


def load_podracer(file: str) -> Panel:
    return load_file(file)[0]


def load_pandas(file: str) -> object:
    """A pivot per field, gaps filled forward: what a notebook does."""
    table = pd.read_parquet(file)
    wide = {name: table.pivot(index="timestamp", columns="symbol", values=name) for name in FIELDS}
    return {name: frame.ffill() for name, frame in wide.items()}


def features_podracer(panel: Panel) -> object:
    return SPEC.compute(panel)


def features_pandas(table: pd.DataFrame) -> object:
    """The default features, a symbol at a time, with rolling and ewm."""
    made = []
    for _, bars in table.groupby("symbol", observed=True):
        close, volume = bars["close"], bars["volume"]
        log_close = np.log(close)
        change = close.diff()
        gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        loss = (-change.clip(upper=0)).ewm(alpha=1 / 14, adjust=False).mean()
        macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
        size = np.log1p(volume)
        columns = {f"return_{n}": log_close.diff(n) for n in (1, 5, 20)}
        columns["volatility"] = np.sqrt((log_close.diff() ** 2).ewm(span=20, adjust=False).mean())
        columns["rsi"] = 100 * gain / (gain + loss)
        columns["macd"] = (macd - macd.ewm(span=9, adjust=False).mean()) / close
        columns["from_high"] = close / bars["high"].rolling(60).max() - 1
        columns["volume_z"] = (size - size.rolling(20).mean()) / size.rolling(20).std()
        made.append(pd.DataFrame(columns).astype(np.float32))
    return pd.concat(made)


Arm = tuple[Callable[[str], Any], Callable[[Any], object]]  # what is prepared, and what is counted


def measure(result: Result, case: str, arms: Mapping[str, Arm], file: Path, rounds: int) -> None:
    spent: dict[str, list[Spent]] = {arm: [] for arm in arms}
    file.read_bytes()  # from now on in the page cache, for every arm
    for _ in range(rounds):
        for arm, (prepare, work) in arms.items():
            spent[arm].append(in_child(prepare, work, str(file)))
    result.add(case, "s", {arm: [s.seconds for s in runs] for arm, runs in spent.items()})
    result.add(f"{case}, peak memory", "MB", {arm: [s.megabytes for s in runs] for arm, runs in spent.items()})


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    result = Result("market")
    daily, minutes = SynthSource(symbols=30, bars=3_500), SynthSource(symbols=500, bars=100_000, bar="minute")
    cases = [("30 x 3,500 daily", daily, 7), ("500 x 100,000 minutes", minutes, 1)]
    if options.quick:
        cases = [cases[0], ("100 x 10,000 minutes", SynthSource(symbols=100, bars=10_000, bar="minute"), 1)]
    with tempfile.TemporaryDirectory() as folder:
        for name, source, rounds in cases:
            file = Path(folder) / "bars.parquet"
            write(source, file)
            arrays = source.bars * source.symbols * (len(FIELDS) * 8 + 1 + 8) / 1e6  # with tradable and the signal
            result.add(f"{name}: the panel's arrays", "MB", {"podracer": [arrays]})
            loads: dict[str, Arm] = {"podracer": (path, load_podracer), "pandas": (path, load_pandas)}
            measure(result, f"{name}: load", loads, file, rounds)
            features: dict[str, Arm] = {
                "podracer": (load_podracer, features_podracer),
                "pandas-loop": (pd.read_parquet, features_pandas),
            }
            measure(result, f"{name}: features", features, file, rounds)
    result.finish(options.json)


if __name__ == "__main__":
    main()
