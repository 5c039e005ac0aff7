"""When a desk decides: at each close, once, also on half days and over weekends; never when it is too late."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from paper.broker import Session
from paper.pace import Calendar, Close

DAY, HOUR = np.timedelta64(1, "D"), np.timedelta64(1, "h")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


WEEK = [
    Session(date(2024, 11, 26), utc("2024-11-26 14:30"), utc("2024-11-26 21:00")),
    Session(date(2024, 11, 27), utc("2024-11-27 14:30"), utc("2024-11-27 21:00")),  # then Thanksgiving
    Session(date(2024, 11, 29), utc("2024-11-29 14:30"), utc("2024-11-29 18:00")),  # a half day, then the weekend
    Session(date(2024, 12, 2), utc("2024-12-02 14:30"), utc("2024-12-02 21:00")),
    Session(date(2024, 12, 3), utc("2024-12-03 14:30"), utc("2024-12-03 21:00")),
]


class At:
    """A broker at a moment."""

    def __init__(self, now: str, sessions: list[Session] = WEEK) -> None:
        self.moment, self.all = utc(now), sessions

    def now(self) -> datetime:
        return self.moment

    def sessions(self, first: date, last: date) -> list[Session]:
        return [session for session in self.all if first <= session.day <= last]


def following(now: str, after: str | None = None, bar: np.timedelta64 = DAY, patience: float = 60) -> Close:
    return Calendar(At(now), bar, patience).next(utc(after) if after else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("now", "close", "fills"), [
    ("2024-11-26 15:00", "2024-11-26 21:00", "2024-11-27 14:30"),
    ("2024-11-26 21:00", "2024-11-26 21:00", "2024-11-27 14:30"),
    ("2024-11-27 10:00", "2024-11-26 21:00", "2024-11-27 14:30"),  # not too late: the market is shut
    ("2024-11-27 14:31", "2024-11-27 21:00", "2024-11-29 14:30"),  # too late: its orders would have filled
    ("2024-11-28 12:00", "2024-11-27 21:00", "2024-11-29 14:30"),
    ("2024-11-29 15:00", "2024-11-29 18:00", "2024-12-02 14:30"),
    ("2024-12-01 00:00", "2024-11-29 18:00", "2024-12-02 14:30"),
])  # fmt: skip
def test_a_daily_bar_is_handled_until_its_orders_could_fill(now: str, close: str, fills: str):
    assert following(now) == Close(utc(close), utc(fills))


def test_a_bar_is_handled_once():
    assert following("2024-11-26 21:05", after="2024-11-26 21:00").at == utc("2024-11-27 21:00")
    assert following("2024-11-30 00:00", after="2024-11-29 18:00").at == utc("2024-12-02 21:00")


def test_hours_close_within_the_session_and_the_last_with_it():
    seen, after = [], "2024-11-27 21:00"
    for _ in range(5):
        close = following("2024-11-29 14:00", after, HOUR)
        seen.append(f"{close.at:%d %H:%M}")
        after = f"{close.at:%Y-%m-%d %H:%M}"
    assert seen == ["29 15:30", "29 16:30", "29 17:30", "29 18:00", "02 15:30"]


def test_an_hour_that_closed_is_let_pass_after_the_patience():
    assert following("2024-11-26 15:30:50", bar=HOUR).at == utc("2024-11-26 15:30")
    assert following("2024-11-26 15:31:10", bar=HOUR).at == utc("2024-11-26 16:30")


def test_round_the_clock_days_close_at_midnight():
    days = [date(2024, 3, 1) + timedelta(days=k) for k in range(-5, 20)]
    midnights = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
    sessions = [Session(day, at, at + timedelta(days=1)) for day, at in zip(days, midnights)]
    close = Calendar(At("2024-03-02 13:00", sessions), DAY, 60).next(None)  # type: ignore[arg-type]
    assert close == Close(utc("2024-03-03"), utc("2024-03-03"))


def test_orders_are_late_after_their_deadline():
    close = Close(utc("2024-11-26 21:00"), utc("2024-11-27 14:30"))
    assert not Calendar(At("2024-11-27 14:34"), DAY, 60).late(close, 300)  # type: ignore[arg-type]
    assert Calendar(At("2024-11-27 14:36"), DAY, 60).late(close, 300)  # type: ignore[arg-type]
