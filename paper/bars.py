"""The recent bars that a decision sees: fetched as they close, laid out as in training, refused when stale or gappy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from market.align import fill_gaps
from market.checks import TOLERANCE
from market.clock import DAY, bar_closes
from market.panel import FIELDS, PRICES, Panel
from paper.broker import Broker, Row

OVERLAP = 2  # bars that are fetched again each time: where they differ, the past was adjusted
CALENDAR = 1.6  # days of a calendar for each day of trading, holidays included
SLACK = timedelta(days=12)


class Stale(Exception):
    """What a decision needs is not there, or not sound; one line says what."""


class Bars:
    """Keeps the last bars of some symbols: `needed` at least, `kept` where there are so many."""

    def __init__(
        self,
        broker: Broker,
        symbols: Sequence[str],
        needed: int,
        bars_per_year: float,
        bar: np.timedelta64,
        session_close: str | None = None,
        gaps: float = 0.0,  # the share of symbols that may lack the last bar though they trade
        kept: int = 0,
    ) -> None:
        self.broker, self.symbols = broker, tuple(symbols)
        self.needed, self.kept = needed, max(needed, kept)
        self.bars_per_year, self.bar, self.session_close, self.gaps = bars_per_year, bar, session_close, gaps
        self._rows: dict[np.datetime64, np.ndarray] = {}  # by time: [A, 5], NaN where a symbol has no bar
        self._before = np.full(len(self.symbols), np.nan)  # [A] the last close before these

    def upto(self, close: datetime) -> Panel:
        """The bars up to the one that closes then; raises Stale."""
        known = sorted(self._rows)
        if not known or not self._extend(known[-min(OVERLAP, len(known))], close):
            self._fetch_all(close)
        times = self._trim()
        if len(times) < self.needed:
            raise Stale(f"{len(times)} bars up to {_shown(close)}; the ensemble needs {self.needed}")
        closes = self._closes(times, close)
        if closes[-1] != _moment(close):
            raise Stale(f"the last bar closed at {_minute(closes[-1])}; expected one of {_shown(close)}")
        return self._panel(times, closes)

    def _trim(self) -> np.ndarray:
        """The last times; of what goes, the last closes are kept: a symbol may pause for longer."""
        times = sorted(self._rows)
        for time in times[: -self.kept]:
            close = self._rows.pop(time)[:, FIELDS.index("close")]
            self._before = np.where(np.isnan(close), self._before, close)
        return np.array(times[-self.kept :])

    def _extend(self, since: np.datetime64, close: datetime) -> bool:
        """Whether what was fetched before still stands."""
        before = {time: values for time, values in self._rows.items() if time >= since}
        self._rows |= self._fetch(since, close)
        return all(np.array_equal(self._rows[time], values, equal_nan=True) for time, values in before.items())

    def _fetch_all(self, close: datetime) -> None:
        span, self._before = self._calendar_span(), np.full(len(self.symbols), np.nan)
        for _ in range(3):
            self._rows = self._fetch(_moment(close - span), close)
            if len(self._rows) >= self.kept:
                return
            span *= 2

    def _calendar_span(self) -> timedelta:
        days = self.kept / max(self.bars_per_year / 252.0, 1.0) if self.bar < DAY else self.kept * (self.bar / DAY)
        return timedelta(days=float(days) * CALENDAR) + SLACK

    def _fetch(self, start: np.datetime64, close: datetime) -> dict[np.datetime64, np.ndarray]:
        first = start.astype("datetime64[us]").item().replace(tzinfo=UTC)
        place = {symbol: k for k, symbol in enumerate(self.symbols)}
        found: dict[np.datetime64, np.ndarray] = {}
        for row in self.broker.rows(self.symbols, first, close):
            table = found.setdefault(row.time, np.full((len(self.symbols), len(FIELDS)), np.nan))
            table[place[row.symbol]] = _checked(row)
        return found

    def _closes(self, times: np.ndarray, close: datetime) -> np.ndarray:  # [T]
        """As training has them, but a day that ends early ends when it does."""
        closes = bar_closes(times, self.bar, self.session_close)
        if self.bar >= DAY and closes[-1] > _moment(close) > times[-1]:
            closes = closes.copy()
            closes[-1] = _moment(close)
        return closes

    def _panel(self, times: np.ndarray, closes: np.ndarray) -> Panel:
        cube = np.stack([self._rows[time] for time in times])  # [T, A, 5]
        columns = {name: np.ascontiguousarray(cube[:, :, k]) for k, name in enumerate(FIELDS)}
        tradable = ~np.isnan(columns["close"])
        self._refuse_gaps(tradable)
        for name in FIELDS:
            carried = 0.0 if name == "volume" else self._before
            paused = ~tradable[0] & ~np.isnan(self._before)
            columns[name][0] = np.where(paused, carried, columns[name][0])
        fill_gaps(columns, tradable)
        return Panel(
            self.symbols,
            times,
            closes,
            columns["open"],
            columns["high"],
            columns["low"],
            columns["close"],
            columns["volume"],
            tradable,
            self.bars_per_year,
        )

    def _refuse_gaps(self, tradable: np.ndarray) -> None:  # [T, A]
        """A symbol without the last bar must be one that cannot be traded now."""
        absent = [symbol for symbol, there in zip(self.symbols, tradable[-1]) if not there]
        if len(absent) <= self.gaps * len(self.symbols):
            return
        reasons = self.broker.tradable(absent)
        if unexplained := [symbol for symbol in absent if not reasons.get(symbol)]:
            raise Stale(f"no bar of {', '.join(unexplained[:5])}, which can be traded")


def _checked(row: Row) -> list[float]:
    values = [getattr(row, name) for name in FIELDS]
    prices = [getattr(row, name) for name in PRICES]
    sound = all(np.isfinite(values)) and min(prices) > 0 and row.volume >= 0
    sound &= row.high >= max(row.open, row.close) * (1 - TOLERANCE)
    sound &= row.low <= min(row.open, row.close) * (1 + TOLERANCE)
    if not sound:
        raise Stale(f"the bar of {row.symbol} at {row.time} makes no sense: {', '.join(f'{v:g}' for v in values)}")
    return values


def _minute(time: np.datetime64) -> str:
    return f"{np.datetime_as_string(time, 'm').replace('T', ' ')} UTC"


def _moment(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ns")


def _shown(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
