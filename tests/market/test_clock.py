"""Bar sizes, closes and years are those of calendars that people know."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panels import business_days, us_minutes

from market.clock import DAY, bar_closes, infer_bar, infer_bars_per_year, parse_session_close, round_the_clock

MINUTE = np.timedelta64(60, "s").astype("timedelta64[ns]")


def at(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[ns]")


def every(step: np.timedelta64, count: int, start: str = "2020-01-01") -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * step


@pytest.mark.parametrize(
    ("times", "bar", "bars_per_year"),
    [
        (business_days(600), DAY, 252),
        (every(DAY, 600), DAY, 365),
        (us_minutes(5 * 390), MINUTE, 98_280),
        (every(MINUTE, 20_000), MINUTE, 525_600),
        (us_minutes(5 * 390)[::15], 15 * MINUTE, 98_280 / 15),
        (every(60 * MINUTE, 2_000), 60 * MINUTE, 8_760),
        (every(7 * DAY, 60, "2020-01-03"), 7 * DAY, 52),
        (np.arange("2020-01", "2025-01", dtype="datetime64[M]").astype("datetime64[ns]"), 31 * DAY, 12),
    ],
)
def test_the_bar_and_the_year_are_told_from_the_times(
    times: np.ndarray, bar: np.timedelta64, bars_per_year: float
) -> None:
    assert infer_bar(times) == bar
    assert infer_bars_per_year(times, infer_bar(times)) == pytest.approx(bars_per_year)


def test_missing_bars_do_not_change_the_bar() -> None:
    times = np.delete(us_minutes(390), np.arange(5, 300, 7))
    assert infer_bar(times) == MINUTE


def test_a_single_bar_counts_as_a_day() -> None:
    assert infer_bar(at("2020-01-01")) == DAY


def test_intraday_bars_close_a_bar_after_their_label() -> None:
    times = us_minutes(390)
    np.testing.assert_array_equal(bar_closes(times, MINUTE), times + MINUTE)


@pytest.mark.parametrize(
    "labels",
    [
        at("2020-01-02", "2020-07-02"),  # bare dates
        at("2020-01-02T05:00", "2020-07-02T04:00"),  # midnight in New York, as Alpaca and Yahoo label
        at("2020-01-02T14:30", "2020-07-02T13:30"),  # the open of the session
    ],
)
def test_daily_bars_close_with_the_session_in_winter_and_summer(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(bar_closes(labels, DAY), at("2020-01-02T21:00", "2020-07-02T20:00"))


def test_another_session_close_can_be_given() -> None:
    closes = bar_closes(at("2020-01-02", "2020-07-02"), DAY, "17:30 Europe/Berlin")
    np.testing.assert_array_equal(closes, at("2020-01-02T16:30", "2020-07-02T15:30"))


def test_days_round_the_clock_close_at_midnight() -> None:
    times = every(DAY, 30)
    assert round_the_clock(times)
    np.testing.assert_array_equal(bar_closes(times, DAY), times + DAY)


def test_a_week_closes_with_the_session_of_its_last_day() -> None:
    mondays = every(7 * DAY, 4, "2020-01-06")
    np.testing.assert_array_equal(bar_closes(mondays, 7 * DAY), mondays + 6 * DAY + 21 * 60 * MINUTE)


@given(
    st.integers(0, 20_000), st.integers(2, 300), st.sampled_from(["16:00 America/New_York", "15:00 Asia/Tokyo", None])
)
def test_closes_increase_and_never_precede_their_label(start: int, count: int, session_close: str | None) -> None:
    times = business_days(count, str(np.datetime64("1990-01-01") + start))
    closes = bar_closes(times, DAY, session_close)
    assert (closes >= times).all()
    assert (np.diff(closes) > np.timedelta64(0)).all()


@pytest.mark.parametrize("text", ["16:00", "four America/New_York", "16:00 New York", "25:00 UTC", ""])
def test_a_session_close_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time and a zone; write e.g. '16:00 America/New_York'"):
        parse_session_close(text)


def test_a_day_round_the_clock_ends_where_the_next_begins_when_the_clocks_change():
    local = pd.date_range("2024-02-20", "2024-11-20", freq="D", tz="America/Chicago")
    times = local.tz_convert("UTC").tz_localize(None).to_numpy().astype("datetime64[ns]")
    closes = bar_closes(times, DAY)
    assert (closes[:-1] == times[1:]).all()
    assert set(np.unique(np.diff(times)) / np.timedelta64(1, "h")) == {23.0, 24.0, 25.0}
