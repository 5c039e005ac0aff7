"""Times as files write them -> UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NoReturn
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Refuse = Callable[[int, str], NoReturn]  # (which of the values, what would be right)

NS = np.dtype("datetime64[ns]")
DAY = np.timedelta64(1, "D")
EARLIEST, LATEST = np.datetime64("1900-01-01", "ns"), np.datetime64("2200-01-01", "ns")
ISO = "expected a time such as 2020-01-31 or 2020-01-31 14:30:00-05:00"
_ZONED = r"\d\d:\d\d.*([Zz]|[+-]\d\d(:?\d\d)?)$"
_NUMBER = r"^\s*\d+(\.\d*)?\s*$"
_EPOCHS = (("s", 1e11, 10**9), ("ms", 1e14, 10**6), ("us", 1e17, 10**3), ("ns", np.inf, 1))  # 1e11 s is the year 5138


def check_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"timezone {name!r} is unknown; write e.g. UTC or America/New_York") from None


def parse_moment(text: str) -> np.datetime64:
    """A date or time from a configuration, UTC where it names no zone."""
    try:
        moment = pd.Timestamp(datetime.fromisoformat(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a time; {ISO}") from None
    return (moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment).to_datetime64().astype(NS)


def times_from_text(texts: list[str], zone: str, refuse: Refuse, end_of_day: bool = False) -> np.ndarray:
    """ISO text or epoch numbers -> [N] UTC; NaT where empty."""
    array = pa.array(texts, pa.string())
    filled = pc.not_equal(pc.utf8_trim_whitespace(array), "").to_numpy(zero_copy_only=False)
    if not filled.any():
        return np.full(len(texts), np.datetime64("NaT"), NS)
    numeric = pc.match_substring_regex(array, _NUMBER).to_numpy(zero_copy_only=False)
    if (numeric == filled).all():
        rows = np.flatnonzero(filled)
        numbers = pd.to_numeric(pd.Series(texts)[filled]).to_numpy()
        out = np.full(len(texts), np.datetime64("NaT"), NS)
        out[rows] = times_from_numbers(numbers, zone, lambda i, right: refuse(int(rows[i]), right), end_of_day)
        return out
    zoned = pc.match_substring_regex(array, _ZONED).to_numpy(zero_copy_only=False)
    if zoned.any() and not zoned[filled].all():
        odd = np.flatnonzero(filled & (zoned != zoned[np.flatnonzero(filled)[0]]))[0]
        refuse(int(odd), "times with and without a zone are mixed; write all of them one way")
    index = pd.to_datetime(pd.Series(texts), format="ISO8601", utc=True, errors="coerce")
    utc = index.dt.tz_localize(None).to_numpy()
    refuse_unreadable(utc, filled, refuse)
    utc = utc.astype(NS)
    return utc if zoned.any() else in_zone(utc, zone, refuse, end_of_day)


def times_from_numbers(
    numbers: np.ndarray,  # [N]
    zone: str,
    refuse: Refuse,
    end_of_day: bool = False,
) -> np.ndarray:  # [N]
    """Seconds, milli-, micro- or nanoseconds since 1970, told by size; or dates as 20200131."""
    known = np.isfinite(numbers)
    if not known.any():
        return np.full(len(numbers), np.datetime64("NaT"), NS)
    low, high = numbers[known].min(), numbers[known].max()
    if low >= 19000101 and high <= 21991231:
        texts = [str(int(n)) if ok else "" for n, ok in zip(numbers, known, strict=True)]
        utc = pd.to_datetime(pd.Series(texts), format="%Y%m%d", errors="coerce").to_numpy()
        refuse_unreadable(utc, known, refuse)
        return in_zone(utc.astype(NS), zone, refuse, end_of_day)
    unit, nanoseconds = _epoch_unit(high)
    if _epoch_unit(low)[0] != unit:
        odd = int(np.flatnonzero(known & (numbers == low))[0])
        refuse(odd, f"most times count {unit} since 1970, this one does not; {ISO}")
    whole = np.floor(np.where(known, numbers, 0)).astype(np.int64) if numbers.dtype.kind == "f" else numbers
    utc = whole.astype(f"datetime64[{unit}]")
    refuse_unreadable(utc, known, refuse)
    utc = utc.astype(NS)
    if numbers.dtype.kind == "f":
        part = (np.where(known, numbers, 0) - whole) * nanoseconds
        utc = utc + np.round(part).astype("timedelta64[ns]")
        utc[~known] = np.datetime64("NaT")
    return utc


def _epoch_unit(number: float) -> tuple[str, int]:
    """The unit that a count since 1970 of this size must have, and its length in nanoseconds."""
    return next((unit, nanoseconds) for unit, limit, nanoseconds in _EPOCHS if number < limit)


def refuse_unreadable(utc: np.ndarray, filled: np.ndarray, refuse: Refuse) -> None:  # both [N]
    readable = (utc >= EARLIEST.astype(utc.dtype)) & (utc < LATEST.astype(utc.dtype))  # NaT is neither
    if not readable[filled].all():
        refuse(int(np.flatnonzero(filled & ~readable)[0]), f"{ISO}, between 1900 and 2200")


def in_zone(naive: np.ndarray, zone: str, refuse: Refuse, end_of_day: bool) -> np.ndarray:  # naive [N] -> [N] UTC
    """Clock times of `zone` to UTC. When all are midnights they are dates: these stay, or become the day's end."""
    if bare_dates(naive):
        if not end_of_day:
            return naive
        naive = naive + DAY
    if zone == "UTC":
        return naive
    index = pd.DatetimeIndex(naive)
    local = index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    lost = np.asarray(local.isna()) & ~np.asarray(index.isna())
    if lost.any():
        refuse(
            int(np.flatnonzero(lost)[0]), f"the clocks of {zone} show this time twice or never; write times with a zone"
        )
    return local.tz_convert("UTC").tz_localize(None).to_numpy().astype(NS)


def bare_dates(times: np.ndarray) -> bool:  # times [N]
    return all(
        bool((block.astype("datetime64[D]") == block)[~np.isnat(block)].all())
        for block in np.array_split(times, max(1, len(times) >> 20))
    )
