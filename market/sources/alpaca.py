"""Bars from Alpaca's market data: downloaded in chunks, kept on disk, resumed where they stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from kit.config import setting
from kit.errors import UserError
from kit.files import Json
from market.bars import Bars
from market.clock import DAY, bar_closes
from market.panel import FIELDS
from market.sources.cache import Cache, Rows, Stored, default_cache
from market.sources.patience import Clock, keys_if_any, make_patient, read_keys
from market.sources.times import parse_moment

log = logging.getLogger(__name__)

SPELLINGS = {
    "open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "trade_count": "n", "vwap": "vw",
}  # fmt: skip
SIZES = {"minute": np.timedelta64(1, "m"), "hour": np.timedelta64(1, "h"), "day": DAY}
# From a bar's label until its values stand: trades are reported late, and a day may last 25 hours.
STANDS_AFTER = {name: np.timedelta64(m, "m") for name, m in {"minute": 2, "hour": 61, "day": 25 * 60}.items()}
CHUNK_MONTHS = {"minute": 1, "hour": 12, "day": 120}  # each at most a few pages of 10,000 bars
NEW_YORK = "America/New_York"
OPENS, CLOSES = 9 * 60 + 30, 16 * 60  # the regular session, minutes of the day in New York
LAST_TRADES = f"20:00 {NEW_YORK}"  # until then trades after hours add to a day's volume, count and vwap
SETTLED = DAY  # past a chunk's end, until its bars are taken as final
PROBE = 100  # bars
MICROSECOND = np.timedelta64(1, "us")
SYSTEM = Clock()

Progress = Callable[[], Any]


@dataclass(frozen=True)
class AlpacaSource:
    """Bars of US stocks or crypto from Alpaca. The keys come from the environment and are kept nowhere.

    Adjusted prices look back from the day of the download: a split or dividend scales all prices before it,
    also those of years when nobody knew of it. Returns and other relatives are not affected, price levels
    are. Bars of one symbol are therefore never mixed when a split or dividend lies between their downloads.
    """

    symbols: list[str] = setting(help="e.g. [AAPL, MSFT], or [BTC/USD]")
    start: str = setting(help="the first time, UTC unless it names a zone")
    end: str = setting(help="the time at which to stop")
    kind: Literal["alpaca"] = setting("alpaca")
    bar: Literal["minute", "hour", "day"] = setting("day", help="the size of a bar")
    asset_class: Literal["stocks", "crypto"] = setting("stocks", help="crypto needs no keys")
    feed: Literal["iex", "sip", "otc"] = setting("iex", help="of stocks; sip and otc need a subscription")
    adjustment: Literal["raw", "split", "dividend", "all"] = setting("all", help="of the prices of stocks")
    hours: Literal["regular", "extended"] = setting("regular", help="of stocks: 9:30 to 16:00, or all there are")
    observed: list[Literal["trade_count", "vwap"]] = setting([], help="further columns to take")
    cache: Path | None = setting(None, help="(default: PODRACER_CACHE, or podracer in the user's cache folder)")
    url: str | None = setting(None, help="of another server that answers like Alpaca's")
    timeout_s: float = setting(30.0, above=0, help="the longest wait for a part of an answer")

    def __post_init__(self) -> None:
        odd = [s for s in self.symbols if not s or set(s) & set(", \t\n")]
        twins = sorted({s for s in self.symbols if self.symbols.count(s) > 1})
        if not self.symbols or odd or twins:
            what = f"{odd[0]!r} is no symbol" if odd else f"{twins[0]} comes twice" if twins else "is empty"
            raise ValueError(f"symbols: {what}; write e.g. [AAPL, MSFT]")
        if len(set(self.observed)) < len(self.observed):
            raise ValueError("observed: a column comes twice")
        if parse_moment(self.end) <= parse_moment(self.start):
            raise ValueError(f"end = {self.end} must come after start = {self.start}")
        if self.url is not None and (
            not self.url.startswith(("http://", "https://")) or self.url.endswith(("/", "/v2"))
        ):
            raise ValueError(f"url = {self.url!r}: expected http(s)://HOST, without a path")

    def read(self, clock: Clock = SYSTEM) -> Bars:
        now = np.datetime64(round(clock.now() * 1e6), "us").astype("datetime64[ns]")
        if parse_moment(self.end) > now:
            raise UserError(
                f"end = {self.end}: lies in the future; expected {_iso(now.astype('datetime64[m]'))} or before"
            )
        download = _Download(self, now, clock)
        chunks = _chunks(parse_moment(self.start), parse_moment(self.end), CHUNK_MONTHS[self.bar])
        with tqdm(
            total=len(chunks) * len(self.symbols), desc="Alpaca", unit="chunk", disable=None, leave=False
        ) as line:
            parts = [self._settled(download.symbol(s, chunks, line.update), now) for s in self.symbols]
        absent = [symbol for symbol, rows in zip(self.symbols, parts, strict=True) if not len(rows)]
        for symbol in absent:  # what is wrong today may be right tomorrow
            download.forget(symbol, chunks)
        if absent:
            raise UserError(
                f"{self.origin}: no {self.bar} bars of {', '.join(absent[:10])} from {self.start} to {self.end}; "
                "check the spelling, or take them out of symbols"
            )
        return AlpacaBars(self, parts)

    @property
    def origin(self) -> str:
        return f"Alpaca {f'stocks ({self.feed})' if self.asset_class == 'stocks' else 'crypto'}"

    def known_late(self, times: np.ndarray) -> np.ndarray | None:  # [R] -> [R]
        """When volume, count and vwap stood, where that was after the bar's close."""
        return bar_closes(times, DAY, LAST_TRADES) if (self.bar, self.asset_class) == ("day", "stocks") else None

    def _settled(self, rows: Rows, now: np.datetime64) -> Rows:
        """Without bars that are still growing, and without those outside the wanted hours."""
        late = self.known_late(rows.times)
        stands = rows.times + STANDS_AFTER[self.bar] if late is None else late
        keep = np.asarray(stands <= now)
        if self.asset_class == "stocks" and self.bar != "day" and self.hours == "regular":
            keep &= in_regular_hours(rows.times, SIZES[self.bar])
        return rows.where(keep)


def in_regular_hours(times: np.ndarray, size: np.timedelta64) -> np.ndarray:  # [R] -> [R] bool
    """Whether intraday bars that start then touch New York's regular session."""
    local = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(NEW_YORK)
    minute = np.asarray(local.hour * 60 + local.minute)  # of the day there
    return np.asarray((minute + size // np.timedelta64(1, "m") > OPENS) & (minute < CLOSES))


class AlpacaBars(Bars):
    """Downloaded bars, symbol after symbol."""

    def __init__(self, source: AlpacaSource, parts: Sequence[Rows]) -> None:
        self._source = source
        self.origin = source.origin
        self.symbols = tuple(source.symbols)
        self.codes = np.repeat(np.arange(len(parts), dtype=np.int32), [len(rows) for rows in parts])
        self.times = np.concatenate([rows.times for rows in parts])
        self.names = (*FIELDS, *source.observed)
        self.session_close = LAST_TRADES if (source.bar, source.asset_class) == ("day", "stocks") else None
        self._columns = {name: np.concatenate([rows.columns[name] for rows in parts]) for name in self.names}

    def column(self, name: str) -> np.ndarray:  # [R]
        return self._columns[name]

    def known_at(self, name: str) -> np.ndarray | None:  # [R]
        return None if name in FIELDS else self._source.known_late(self.times)

    def row_name(self, row: int) -> str:
        return f"{self.origin}, bar of {self.symbols[self.codes[row]]} at {_iso(self.times[row])}"


Chunk = tuple[np.datetime64, np.datetime64]  # first <= time < stop


class _Download:
    """Brings the chunks of a symbol: from the cache where they are final, else from the service."""

    def __init__(self, source: AlpacaSource, now: np.datetime64, clock: Clock) -> None:
        self._source, self._now, self._clock = source, now, clock
        self._today = str(now.astype("datetime64[D]"))
        self._cache = Cache(source.cache or default_cache())
        self._columns = (*FIELDS, *source.observed)
        self._adjusted = source.asset_class == "stocks" and source.adjustment != "raw"
        self._call: Callable[..., dict[str, list[dict[str, Any]]]] | None = None

    def symbol(self, symbol: str, chunks: Sequence[Chunk], advance: Progress) -> Rows:
        stored = [self._cache.get(self._request(symbol, chunk), self._columns) for chunk in chunks]
        if self._adjusted:
            stored = self._of_one_adjustment(symbol, chunks, stored)
        parts = []
        for chunk, found in zip(chunks, stored, strict=True):
            parts.append(found.rows if found else self._bring(symbol, chunk))
            advance()
        columns = {name: np.concatenate([rows.columns[name] for rows in parts]) for name in self._columns}
        return Rows(np.concatenate([rows.times for rows in parts]), columns)

    def forget(self, symbol: str, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            self._cache.forget(self._request(symbol, chunk))

    def _of_one_adjustment(
        self, symbol: str, chunks: Sequence[Chunk], stored: list[Stored | None]
    ) -> list[Stored | None]:
        """Drop what was stored before a later split or dividend, unless all of it was: then it agrees with itself.

        Such an event scales every bar before it, so a few bars per day of download tell.
        """
        days = {found.day for found in stored if found and len(found.rows)}
        if None not in stored and len(days) <= 1:
            return stored
        for day in sorted(days - {self._today}):
            of_day = [i for i, found in enumerate(stored) if found and found.day == day]
            probe = next(s.rows.where(slice(-PROBE, None)) for i in of_day if (s := stored[i]) and len(s.rows))
            if probe.same(self._fetch(symbol, (probe.times[0], probe.times[-1] + MICROSECOND))):
                for i in of_day:
                    self._cache.confirm(self._request(symbol, chunks[i]), self._today)
            else:
                log.info("%s: prices were adjusted anew since %s; they are downloaded again", symbol, day)
                stored = [None if i in of_day else found for i, found in enumerate(stored)]
        return stored

    def _bring(self, symbol: str, chunk: Chunk) -> Rows:
        rows = self._fetch(symbol, chunk)
        if chunk[1] + SETTLED <= self._now:
            self._cache.put(self._request(symbol, chunk), rows, self._today)
        return rows

    def _fetch(self, symbol: str, chunk: Chunk) -> Rows:
        if self._call is None:
            self._call = _connect(self._source, self._clock)
        first, last = (_moment(time) for time in (chunk[0], chunk[1] - MICROSECOND))  # the service includes its end
        bars = [bar for bar in self._call(symbol, first, last).get(symbol, []) if bar]
        try:
            times = pd.to_datetime([bar["t"] for bar in bars], format="ISO8601", utc=True)
            columns = {name: np.array([bar.get(key) for bar in bars], float) for name, key in SPELLINGS.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{self._source.origin}: an answer for {symbol} holds bars that cannot be read") from None
        utc = times.tz_localize(None).to_numpy().astype("datetime64[ns]")
        return Rows(utc, columns).where((utc >= chunk[0]) & (utc < chunk[1]))

    def _request(self, symbol: str, chunk: Chunk) -> Json:
        """All that the bars of a chunk depend on."""
        source = self._source
        stocks = {"feed": source.feed, "adjustment": source.adjustment} if source.asset_class == "stocks" else {}
        return {
            "service": source.url or "alpaca",
            "asset_class": source.asset_class,
            "symbol": symbol,
            "bar": source.bar,
            "first": _iso(chunk[0]),
            "stop": _iso(chunk[1]),
            **stocks,
        }


def _chunks(start: np.datetime64, end: np.datetime64, months: int) -> list[Chunk]:
    """The span cut where the calendar's multiples of `months` begin, so that longer spans reuse the cuts."""
    first, last = (int(time.astype("datetime64[M]").astype(int)) // months * months for time in (start, end))
    inner = np.arange(first + months, last + 1, months).astype("datetime64[M]").astype("datetime64[ns]")
    return list(pairwise([start, *(cut for cut in inner if start < cut < end), end]))


def _connect(source: AlpacaSource, clock: Clock) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """(symbol, first, last) -> raw bars by symbol. Loads alpaca-py, and with it pydantic."""
    from alpaca.data.enums import Adjustment, DataFeed
    from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
    from alpaca.data.requests import CryptoBarsRequest, StockBarsRequest
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    stocks = source.asset_class == "stocks"
    key, secret = read_keys() if stocks else keys_if_any() or (None, None)
    client: Any = (StockHistoricalDataClient if stocks else CryptoHistoricalDataClient)(
        key, secret, raw_data=True, url_override=source.url
    )
    hint = f", and that the subscription covers feed = {source.feed}" if stocks else ""
    make_patient(client, source.url or "https://data.alpaca.markets", hint, source.timeout_s, clock)
    frame = TimeFrame(1, TimeFrameUnit[source.bar.capitalize()])
    feed, adjustment = DataFeed(source.feed), Adjustment(source.adjustment)

    def call(symbol: str, first: datetime, last: datetime) -> dict[str, list[dict[str, Any]]]:
        span: dict[str, Any] = {"symbol_or_symbols": symbol, "timeframe": frame, "start": first, "end": last}
        if stocks:
            return client.get_stock_bars(StockBarsRequest(**span, feed=feed, adjustment=adjustment))
        return client.get_crypto_bars(CryptoBarsRequest(**span))

    return call


def _moment(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").item()


def _iso(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, unit='auto')}Z"
