"""Time of bars: their size, when they close, and how many make a year."""

from __future__ import annotations

from datetime import time
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
US_SESSION_MINUTES = 390
TRADING_DAYS = 252
US_CLOSE = "16:00 America/New_York"


def infer_bar(times: np.ndarray) -> np.timedelta64:  # times [T]
    """The most common step between bars; a single bar counts as a day."""
    if len(times) < 2:
        return DAY
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return steps[counts.argmax()]


def round_the_clock(times: np.ndarray) -> bool:  # times [T]
    """Whether bars fall on weekends, as those of crypto do."""
    weekday = (times.astype("datetime64[D]").astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    return bool((weekday >= 5).mean() > 0.1)


def infer_bars_per_year(times: np.ndarray, bar: np.timedelta64) -> float:  # times [T]
    """252 for daily bars, 98,280 for US minutes, 525,600 for crypto minutes; weeks and months likewise."""
    days_a_year = 365 if round_the_clock(times) else TRADING_DAYS
    if bar >= 28 * DAY:
        return 12.0
    if bar >= 5 * DAY:
        return 52.0
    if bar >= DAY:
        return float(days_a_year)
    minutes_a_day = 24 * 60 if round_the_clock(times) else US_SESSION_MINUTES
    return days_a_year * minutes_a_day / float(bar / np.timedelta64(1, "m"))


def bar_closes(times: np.ndarray, bar: np.timedelta64, session_close: str | None = None) -> np.ndarray:
    """[T] when each bar's values were known.

    Intraday bars close one bar after their label. Daily and longer ones close with the session of
    their last day, `session_close` (default: 16:00 in New York), or at midnight round the clock.
    """
    if bar < DAY:
        return times + bar
    if session_close is None and round_the_clock(times):
        steps = np.append(np.diff(times), bar)  # labels at a local midnight are 23 or 25 hours apart twice a year
        return times + np.where(abs(steps - bar) <= np.timedelta64(1, "h"), steps, bar)
    clock, zone = parse_session_close(session_close or US_CLOSE)
    labels = pd.DatetimeIndex(times)
    dated = labels.tz_localize("UTC").tz_convert(zone).tz_localize(None)
    midnight_utc = labels == labels.normalize()  # a bare date
    days = pd.DatetimeIndex(np.where(midnight_utc, labels, dated)).normalize() + pd.Timedelta(bar - DAY)
    offset = pd.Timedelta(hours=clock.hour, minutes=clock.minute)
    local = (days + offset).tz_localize(zone, nonexistent="shift_forward", ambiguous=np.zeros(len(days), bool))
    closes = local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    return np.maximum(closes, times)


def parse_session_close(text: str) -> tuple[time, ZoneInfo]:
    """`16:00 America/New_York` as a time and a zone."""
    clock, _, zone = text.partition(" ")
    try:
        return time.fromisoformat(clock), ZoneInfo(zone.strip())
    except (ValueError, OSError, KeyError):
        raise ValueError(f"{text!r} is not a time and a zone; write e.g. {US_CLOSE!r}") from None
