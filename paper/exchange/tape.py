"""The panel as far as the virtual clock lets it be seen, with splits and halts.

The clock has two stages per bar. `closed`: bar `bar` has closed, the newest prices are its closes.
`filled`: orders have met the price at which bar `bar + 1` fills, and that is all that is known of it.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pandas as pd

from market.clock import DAY, bar_closes, infer_bar, round_the_clock
from market.panel import Panel
from paper.exchange.book import exact
from paper.exchange.faults import Script

Stage = Literal["closed", "filled"]
NEW_YORK = "America/New_York"
SESSION_OPEN = f"09:30 {NEW_YORK}"
ROWS_KEPT = 1 << 16


class Tape:
    def __init__(self, panel: Panel, bar: int, fill: Literal["open", "close"], script: Script) -> None:
        self.panel, self.bar, self.fill, self.script = panel, bar, fill, script
        self.stage: Stage = "closed"
        self.place = {symbol: a for a, symbol in enumerate(panel.symbols)}
        self.size = infer_bar(panel.times)
        self.never_shut = round_the_clock(panel.times)
        daily = self.size >= DAY and not self.never_shut
        self.opens = bar_closes(panel.times, DAY, SESSION_OPEN) if daily else panel.times  # [T] when a bar trades first
        self.sessions = Sessions(self.opens, panel.closes, self.never_shut)
        self._splits: dict[int, list[tuple[int, float]]] = {}  # symbol -> (bar, ratio), those that have happened
        self._ticks = 0
        self._prices = self._look_up()  # [A]
        self._exact: dict[str, Decimal] = {}  # of these, where asked for
        self._row = lru_cache(ROWS_KEPT)(self._row_text)

    @property
    def ended(self) -> bool:
        return self.stage == "closed" and self.bar == len(self.panel) - 1

    @property
    def _begun(self) -> int:
        """The bar that the newest prices are of."""
        return self.bar if self.stage == "closed" else self.bar + 1

    @property
    def stage_time(self) -> np.datetime64:
        closes = self.panel.closes
        if self.stage == "closed":
            return closes[self.bar]
        return max(self.opens[self.bar + 1], closes[self.bar]) if self.fill == "open" else closes[self.bar + 1]

    @property
    def now(self) -> datetime:
        return moment(self.stage_time)

    def tick(self) -> datetime:
        """The time of something that happens now: microseconds later, so that no two things share one."""
        self._ticks += 1
        return self.now + timedelta(microseconds=self._ticks)

    def move(self) -> None:
        """To the next stage."""
        self._ticks = 0
        if self.stage == "closed":
            self.stage = "filled"
        else:
            self.bar, self.stage = self.bar + 1, "closed"
        self._prices, self._exact = self._look_up(), {}

    def prices(self) -> np.ndarray:  # [A]
        """The newest price of each symbol, NaN before its first."""
        return self._prices

    def price(self, symbol: str) -> Decimal:
        """The newest price of a symbol that has one."""
        if symbol not in self._exact:
            self._exact[symbol] = exact(self._prices[self.place[symbol]])
        return self._exact[symbol]

    def _look_up(self) -> np.ndarray:  # [A]
        opened = self.stage == "filled" and self.fill == "open"
        return (self.panel.open if opened else self.panel.close)[self._begun] / self.factors(self._begun)

    def last_close(self, symbol: str) -> float:
        """The close before the newest price, in today's shares."""
        a = self.place[symbol]
        close = self.panel.close[max(0, self._begun - 1), a] / self._factor(a, self._begun)
        return float(self.prices()[a] if np.isnan(close) else close)

    def tradable(self, symbol: str) -> bool:
        return bool(self.panel.tradable[self.bar, self.place[symbol]]) and not self.script.halted(symbol, self.bar)

    def split(self, symbol: str, bar: int, ratio: float) -> None:
        self._splits.setdefault(self.place[symbol], []).append((bar, ratio))

    def factors(self, bar: int) -> np.ndarray:  # [A]
        """How much lower prices of this bar are, by the splits until then."""
        factors = np.ones(len(self.place))
        for a in self._splits:
            factors[a] = self._factor(a, bar)
        return factors

    def quote(self, symbol: str) -> tuple[float, datetime] | None:
        """The newest price and its time; None before the first."""
        a = self.place[symbol]
        price = float(self.prices()[a])
        if np.isnan(price):
            return None
        if self.stage == "filled" and self.panel.tradable[self.bar + 1, a]:
            return price, moment(self.stage_time)
        traded = np.flatnonzero(self.panel.tradable[: self.bar + 1, a])
        return (price, moment(self.panel.closes[traded[-1]])) if len(traded) else None

    def rows(self, symbol: str, first: np.datetime64, last: np.datetime64, hidden: int) -> list[int]:
        """Numbers of the bars of a symbol that have closed, first <= time <= last; `hidden` of the newest are not."""
        times = self.panel.times[: self.bar + 1 - hidden]
        low, high = np.searchsorted(times, first, "left"), np.searchsorted(times, last, "right")
        traded = self.panel.tradable[low:high, self.place[symbol]]
        return [int(low + t) for t in np.flatnonzero(traded)]

    def row(self, symbol: str, t: int, adjusted: bool) -> str:
        """A bar as JSON, its prices adjusted for splits that have happened since, or as they were."""
        assert t <= self.bar
        a = self.place[symbol]
        return self._row(a, t, self._factor(a, self._begun if adjusted else t))

    def calendar(self, first: str, last: str) -> list[dict[str, str]]:
        days = self.sessions.days
        return days[bisect_right(days, first, key=_before) : bisect_right(days, last, key=_date)]

    def _factor(self, a: int, bar: int) -> float:
        return math.prod(ratio for when, ratio in self._splits.get(a, ()) if when <= bar)

    def _row_text(self, a: int, t: int, factor: float) -> str:
        panel = self.panel
        prices = {k: float(v[t, a]) / factor for k, v in zip("ohlc", (panel.open, panel.high, panel.low, panel.close))}
        volume = float(np.nan_to_num(panel.volume[t, a])) * factor
        return json.dumps({"t": iso(panel.times[t]), **prices, "v": volume, "n": None, "vw": None})


class Sessions:
    """When the market is open, day after day; known in advance, as a calendar is."""

    def __init__(self, opens: np.ndarray, closes: np.ndarray, never_shut: bool) -> None:  # both [T]
        self.never_shut = never_shut
        shown = [np.datetime_as_string(_in_new_york(times), unit="m") for times in (opens, closes)]  # 2019-01-07T09:30
        dates, first = np.unique(shown[0].astype("U10"), return_index=True)
        last = np.append(first[1:], len(opens)) - 1
        self.opens, self.closes = opens[first], closes[last]  # [D]
        self.days: list[dict[str, str]] = [
            {
                "date": str(date),
                "open": "00:00" if never_shut else str(start)[-5:],
                "close": "23:59" if never_shut else str(stop)[-5:],
                "session_open": "0400",
                "session_close": "2000",
            }
            for date, start, stop in zip(dates, shown[0][first], shown[1][last])
        ]

    def at(self, now: np.datetime64) -> dict[str, Any]:
        """Whether it is open, and what comes next; a day later, where the panel knows no more."""
        beyond = self.closes[-1] + DAY
        i, j = (int(np.searchsorted(times, now, "right")) for times in (self.opens, self.closes))
        return {
            "is_open": self.never_shut or i > j,
            "next_open": iso(self.opens[i] if i < len(self.opens) else beyond),
            "next_close": iso(self.closes[j] if j < len(self.closes) else beyond),
        }


def moment(time: np.datetime64) -> datetime:
    return pd.Timestamp(time).to_pydatetime(warn=False).replace(tzinfo=UTC)


def iso(time: np.datetime64 | datetime) -> str:
    if isinstance(time, datetime):
        return time.isoformat().replace("+00:00", "Z")
    return str(np.datetime_as_string(time, unit="s" if time == time.astype("datetime64[s]") else "ns")) + "Z"


def timeframe(size: np.timedelta64) -> str:
    """A bar's size, as Alpaca writes it."""
    minutes = int(size / np.timedelta64(1, "m"))
    for unit, count in (("Month", 28 * 1440), ("Week", 5 * 1440), ("Day", 1440)):
        if minutes >= count:
            return f"1{unit}"
    return f"{minutes // 60}Hour" if minutes % 60 == 0 else f"{minutes}Min"


def _in_new_york(times: np.ndarray) -> np.ndarray:  # [T] -> [T]
    local = pd.DatetimeIndex(times).tz_localize("UTC").tz_convert(NEW_YORK)
    return local.tz_localize(None).to_numpy()


def _date(day: dict[str, str]) -> str:
    return day["date"]


def _before(day: dict[str, str]) -> str:
    """Sorts before every other text of that date."""
    return day["date"] + "\x7f"
