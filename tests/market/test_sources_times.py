"""Times as files write them all become UTC, and what is ambiguous is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UserError
from market.sources.files import FileSource

MORNING = np.datetime64("2020-07-01T13:30:00", "ns")  # 9:30 in New York
NOON = np.datetime64("2020-07-01T16:00:00", "ns")


def times_in_csv(folder: Path, texts: list[str], zone: str = "UTC") -> np.ndarray:
    path = folder / "bars.csv"
    path.write_text("\n".join(["timestamp,open,high,low,close,volume", *(f"{t},1,1,1,1,1" for t in texts)]) + "\n")
    return FileSource(path, timezone=zone).read().times


def times_in_parquet(folder: Path, times: pa.Array, zone: str = "UTC") -> np.ndarray:
    path = folder / "bars.parquet"
    ones = dict.fromkeys(("open", "high", "low", "close", "volume"), [1.0] * len(times))
    pq.write_table(pa.table({"timestamp": times, **ones}), path)
    return FileSource(path, timezone=zone).read().times


@pytest.mark.parametrize(
    ("texts", "zone"),
    [
        (["2020-07-01 13:30:00", "2020-07-01 16:00:00"], "UTC"),
        (["2020-07-01T13:30:00Z", "2020-07-01T16:00:00Z"], "America/New_York"),
        (["2020-07-01 09:30:00-04:00", "2020-07-01 12:00:00-04:00"], "UTC"),
        (["2020-07-01 09:30:00-04:00", "2020-07-01 11:00:00-0500"], "UTC"),
        (["2020-07-01 09:30", "2020-07-01 12:00"], "America/New_York"),
        (["1593610200", "1593619200"], "America/New_York"),
        (["1593610200000", "1593619200000"], "UTC"),
        (["1593610200000000", "1593619200000000"], "UTC"),
        (["1593610200000000000", "1593619200000000000"], "UTC"),
        (["1593610200.0", "1593619200.0"], "UTC"),
    ],
)
def test_csv_times_become_utc(texts: list[str], zone: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(times_in_csv(tmp_path, texts, zone), [MORNING, NOON])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_times_become_utc_in_every_unit(unit: str, tmp_path: Path) -> None:
    utc = np.array([MORNING, NOON]).astype(f"datetime64[{unit}]")
    new_york = np.array([MORNING, NOON]).astype(f"datetime64[{unit}]") - np.timedelta64(4, "h")
    for times, zone in (
        (pa.array(utc), "UTC"),
        (pa.array(utc, pa.timestamp(unit, "America/New_York")), "Asia/Tokyo"),
        (pa.array(new_york), "America/New_York"),
        (pa.array(utc.astype(np.int64)), "UTC"),
    ):
        np.testing.assert_array_equal(times_in_parquet(tmp_path, times, zone), [MORNING, NOON])


def test_dates_stay_dates_in_any_zone(tmp_path: Path) -> None:
    expected = np.array(["2020-07-01", "2020-07-02"], "datetime64[ns]")
    days = [date(2020, 7, 1), date(2020, 7, 2)]
    for texts in (
        ["2020-07-01", "2020-07-02"],
        ["2020-07-01 00:00:00", "2020-07-02 00:00:00"],
        ["20200701", "20200702"],
    ):
        np.testing.assert_array_equal(times_in_csv(tmp_path, texts, "America/New_York"), expected)
    for array in (
        pa.array(days),
        pa.array(expected),
        pa.array([20200701, 20200702]),
        pa.array(["2020-07-01", "2020-07-02"]),
    ):
        np.testing.assert_array_equal(times_in_parquet(tmp_path, array, "America/New_York"), expected)


@given(st.lists(st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2090-01-01")), min_size=1, max_size=5))
def test_iso_text_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, moments: list[pd.Timestamp]
) -> None:
    texts = [f"{moment.isoformat()}Z" for moment in moments]
    expected = np.array([np.datetime64(moment, "ns") for moment in moments])
    np.testing.assert_array_equal(times_in_csv(tmp_path_factory.mktemp("times"), texts), expected)


@pytest.mark.parametrize(
    ("texts", "zone", "complaint"),
    [
        (
            ["2020-07-01 09:30", "2020-07-01 09:31Z"],
            "UTC",
            "line 3: timestamp = '2020-07-01 09:31Z': times with and without",
        ),
        (
            ["2020-11-01 01:15", "2020-11-02 09:30"],
            "America/New_York",
            "line 2: timestamp = '2020-11-01 01:15': the clocks of",
        ),
        (
            ["2020-03-08 01:59", "2020-03-08 02:30"],
            "America/New_York",
            "line 3: timestamp = '2020-03-08 02:30': the clocks of",
        ),
        (["2020-07-01", "01/02/2020"], "UTC", "line 3: timestamp = '01/02/2020': expected a time such as 2020-01-31"),
        (["2020-07-01", "2020-02-30"], "UTC", "line 3: timestamp = '2020-02-30': expected a time"),
        (["2020-07-01", "9999-12-31"], "UTC", "line 3: timestamp = '9999-12-31': .* between 1900 and 2200"),
        (["2020-07-01", "soon"], "UTC", "line 3: timestamp = 'soon': expected a time"),
        (["1593610200", "1593610260000"], "UTC", "line 2: timestamp = '1593610200': most times count ms"),
        (["09:30:00", "09:31:00"], "UTC", "line 2: timestamp = '09:30:00': expected a time"),
    ],
)
def test_unclear_times_are_refused_with_their_line(texts: list[str], zone: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        times_in_csv(tmp_path, texts, zone)


def test_an_empty_time_is_not_a_time(tmp_path: Path) -> None:
    times = times_in_csv(tmp_path, ["2020-07-01", ""])
    assert np.isnat(times).tolist() == [False, True]
    times = times_in_parquet(tmp_path, pa.array([None, 1593610200]))
    assert np.isnat(times).tolist() == [True, False]
