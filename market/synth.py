"""The built-in market: bars made from a known law (`market.process`), so that results have an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kit.config import setting
from kit.errors import UserError
from kit.files import replacing
from market.bars import Bars
from market.clock import DAY, TRADING_DAYS, US_SESSION_MINUTES, bar_closes, infer_bar, infer_bars_per_year
from market.panel import FIELDS, Observed, Panel
from market.process import Streams, Stretch, Traits, draw_traits, simulate

SIGNAL = "signal"
FIRST_DAY = "2000-01-03"
MOST_YEARS = 100
BARS_PER_YEAR = {"day": TRADING_DAYS, "minute": TRADING_DAYS * US_SESSION_MINUTES}
GAP = {"day": 0.25, "minute": 0.02}  # share of a bar's variance between the last close and its open
FLOOR = 0.1  # no price falls below a tenth of the last close
DECIMALS = 6  # of prices near 100: a minute's return keeps four digits or more
DAILY_SHARES = (1e6, 1e7)  # log-uniform between
VOLUME_ELASTICITY, VOLUME_NOISE = 0.8, 0.35


@dataclass(frozen=True)
class SynthSource:
    """The built-in market as a source of bars."""

    kind: Literal["synth"] = "synth"
    symbols: int = setting(10, low=2, high=10_000, help="how many symbols")
    bars: int = setting(5040, low=2, help="how many bars; 252 days or 98,280 minutes are a year")
    ic: float = setting(0.08, low=0, below=1, help="correlation of the signal with the next own return; 0: no signal")
    seed: int = setting(7, low=0, help="another seed is another market")
    bar: Literal["day", "minute"] = setting("day", help="the size of a bar")

    def __post_init__(self) -> None:
        most = MOST_YEARS * BARS_PER_YEAR[self.bar]
        if self.bars > most:
            raise ValueError(f"bars must be at most {most}, {MOST_YEARS} years of {self.bar} bars")

    def read(self) -> Bars:
        return SynthBars(self)


class SynthBars(Bars):
    """The rows of the market's file, time-major: what `write` puts into it."""

    names: tuple[str, ...] = (*FIELDS, SIGNAL)

    def __init__(self, source: SynthSource) -> None:
        self._panel = generate(source)
        self.origin = f"built-in market (seed {source.seed})"
        self.symbols = self._panel.symbols
        self.codes = np.tile(np.arange(source.symbols, dtype=np.int32), source.bars)
        self.times = np.repeat(self._panel.times, source.symbols)

    def column(self, name: str) -> np.ndarray:
        values = self._panel.observed[SIGNAL].values if name == SIGNAL else getattr(self._panel, name)
        return values.reshape(-1)

    def known_at(self, name: str) -> None:
        return None

    def row_name(self, row: int) -> str:
        return f"{self.origin} row {row + 1}"


def generate(source: SynthSource) -> Panel:
    """The market as a panel, the same as by way of its file."""
    bars_per_year = BARS_PER_YEAR[source.bar]
    streams = Streams(source.seed)
    traits = draw_traits(streams, source.symbols, bars_per_year)
    shape = (source.bars, source.symbols)
    columns = {name: np.empty(shape) for name in (*FIELDS, SIGNAL)}
    last = traits.price
    for stretch in simulate(streams, traits, source.bars, bars_per_year, source.ic):
        last = _fill_prices(columns, stretch, last, GAP[source.bar], streams)
        columns["volume"][stretch.rows] = _volume(stretch, traits, source.bar, streams)
        columns[SIGNAL][stretch.rows] = np.round(stretch.signal, 8)
    times = _times(source)
    bar = infer_bar(times)
    closes = bar_closes(times, bar)
    signal = Observed(columns.pop(SIGNAL), np.broadcast_to(closes[:, None], shape))
    return Panel(
        symbols=tuple(f"SYN{i:0{max(2, len(str(source.symbols - 1)))}d}" for i in range(source.symbols)),
        times=times,
        closes=closes,
        **columns,
        tradable=np.ones(shape, dtype=bool),
        bars_per_year=infer_bars_per_year(times, bar),
        observed={SIGNAL: signal},
    )


def _fill_prices(
    columns: dict[str, np.ndarray], stretch: Stretch, last: np.ndarray, gap: float, streams: Streams
) -> np.ndarray:
    """Write a stretch of prices; returns the last close [A] before rounding.

    Within a bar the price is a Brownian bridge: its open is the bridge at time `gap`, so that `gap`
    of the variance, and of what the signal foretells, falls before the open and the rest can still
    be had there. High and low have the exact law of the extremes between open and close, each drawn
    by itself.
    """
    relative = np.maximum(1.0 + stretch.returns, FLOOR)  # [B, A], as all below, in units of the last close
    opens = 1.0 + gap * stretch.returns + math.sqrt(gap * (1.0 - gap)) * stretch.bridge
    np.maximum(opens, FLOOR, out=opens)
    middle, square = 0.5 * (opens + relative), (relative - opens) ** 2
    swing = (2.0 * (1.0 - gap)) * stretch.deviation**2
    high = middle + 0.5 * np.sqrt(square + swing * streams.exponential("high", *middle.shape))
    low = middle - 0.5 * np.sqrt(square + swing * streams.exponential("low", *middle.shape))
    np.maximum(high, np.maximum(opens, relative), out=high)
    np.clip(low, FLOOR, np.minimum(opens, relative), out=low)

    path = np.concatenate([last[None], relative])
    np.multiply.accumulate(path, axis=0, out=path)
    for name, values in {"open": opens, "high": high, "low": low, "close": relative}.items():
        np.round(path[:-1] * values, DECIMALS, out=columns[name][stretch.rows])
    return path[-1]


def _volume(stretch: Stretch, traits: Traits, bar: str, streams: Streams) -> np.ndarray:  # -> [B, A]
    """Whole shares: log volume = level of the symbol + elasticity * log v + noise."""
    least, most = DAILY_SHARES
    level = math.log(least) + math.log(most / least) * traits.turnover
    if bar == "minute":
        level = level - math.log(US_SESSION_MINUTES)
    noise = VOLUME_NOISE * streams.normal("volume", *stretch.returns.shape)
    return np.maximum(1.0, np.rint(np.exp(level + VOLUME_ELASTICITY * np.log(stretch.v)[:, None] + noise)))


def _times(source: SynthSource) -> np.ndarray:  # [T] datetime64[ns]
    """Weekdays, labelled at midnight UTC; minutes from 9:30 in New York, labelled at their start."""
    per_day = BARS_PER_YEAR[source.bar] // TRADING_DAYS
    count = -(-source.bars // per_day)
    days = np.busday_offset(np.datetime64(FIRST_DAY, "D"), np.arange(count)).astype("datetime64[ns]")
    if per_day == 1:
        return days
    opens = bar_closes(days, DAY, "09:30 America/New_York")
    minutes = np.arange(per_day) * np.timedelta64(1, "m")
    return (opens[:, None] + minutes).reshape(-1)[: source.bars]


def write(source: SynthSource, path: str | Path) -> Path:
    """Write the market as a table, one row for each time and symbol: `.csv` or `.parquet`."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: cannot write {path.suffix or 'a file without suffix'!r}; end it on .csv or .parquet")
    bars = SynthBars(source)
    symbols = pd.Categorical.from_codes(bars.codes, categories=pd.Index(bars.symbols))
    columns = {name: bars.column(name) for name in bars.names}
    columns["volume"] = columns["volume"].astype(np.int64)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            form = "%Y-%m-%d" if source.bar == "day" else "%Y-%m-%dT%H:%M:%SZ"
            labels = pd.DatetimeIndex(bars.times[:: source.symbols]).strftime(form)
            texts = pd.Categorical.from_codes(np.repeat(np.arange(source.bars), source.symbols), categories=labels)
            table = pd.DataFrame({"timestamp": texts, "symbol": symbols, **columns})
            table.to_csv(temporary, index=False, lineterminator="\n")
        else:
            times = pd.DatetimeIndex(bars.times, tz="UTC")
            pd.DataFrame({"timestamp": times, "symbol": symbols, **columns}).to_parquet(temporary, index=False)
    return path
