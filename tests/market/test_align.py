"""Rows become a panel by hand-worked examples, and no path lets the future through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bar_files import FIELDS, folder_of, long_frame, wide_frame, write
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UserError
from market.align import as_of, known_at_close
from market.data import DataConfig, load, load_file
from market.panel import Observed, Panel
from market.sources.files import FileSource
from market.sources.observed import ObservedFile
from market.synth import SynthSource

NAN = np.nan
NAT = np.datetime64("NaT", "ns")


def at(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[ns]")


def load_with(path: Path, *observed: ObservedFile) -> Panel:
    return load(DataConfig(source=FileSource(path), observed=list(observed)))[0]


def test_gaps_repeat_the_close_and_cannot_be_traded(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(
        "timestamp,symbol,open,high,low,close,volume\n"
        "2020-01-02,B,10,12,9,11,100\n"
        "2020-01-03,A,1,1,1,1,5\n"
        "2020-01-06,A,2,2,2,2,6\n"
        "2020-01-06,B,20,22,19,21,200\n"
    )
    panel, _ = load_file(tmp_path / "bars.csv")
    assert panel.symbols == ("A", "B"), "alphabetical, whatever comes first in the file"
    np.testing.assert_array_equal(panel.times, at("2020-01-02", "2020-01-03", "2020-01-06"))
    np.testing.assert_array_equal(panel.open, [[NAN, 10], [1, 11], [2, 20]])
    np.testing.assert_array_equal(panel.high, [[NAN, 12], [1, 11], [2, 22]])
    np.testing.assert_array_equal(panel.low, [[NAN, 9], [1, 11], [2, 19]])
    np.testing.assert_array_equal(panel.close, [[NAN, 11], [1, 11], [2, 21]])
    np.testing.assert_array_equal(panel.volume, [[NAN, 100], [5, 0], [6, 200]])
    np.testing.assert_array_equal(panel.tradable, [[False, True], [True, False], [True, True]])
    np.testing.assert_array_equal(panel.listed, [[False, True], [True, True], [True, True]])


@given(st.permutations(range(24)))
def test_the_order_of_rows_and_symbols_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("order")
    config = DataConfig(source=FileSource(write(long_frame().iloc[order], folder / "bars.parquet")))
    panel, report = load(replace(config, quality=replace(config.quality, unordered="repair")))
    rows = pd.Series(order)
    symbols = rows.groupby(rows % 3)
    assert report.faults.keys() == ({"unordered"} if any((s.diff() < 0).any() for _, s in symbols) else set())
    np.testing.assert_array_equal(panel.close, long_frame()["close"].to_numpy().reshape(8, 3))


@given(st.sets(st.integers(0, 23), max_size=20))
def test_rows_that_are_there_are_kept_as_they_are(tmp_path_factory: pytest.TempPathFactory, gone: set[int]) -> None:
    frame = long_frame()
    panel, report = load_file(write(frame.drop(index=list(gone)), tmp_path_factory.mktemp("gaps") / "bars.parquet"))
    assert panel.tradable.sum() == 24 - len(gone) == sum(c.bars for c in report.coverage)
    for name in FIELDS:
        kept = np.delete(frame[name].to_numpy(), list(gone))
        np.testing.assert_array_equal(getattr(panel, name)[panel.tradable], kept)
    assert (panel.volume[panel.listed & ~panel.tradable] == 0).all()
    assert np.isnan(panel.close[~panel.listed]).all()


def test_bars_per_year_and_the_session_close_can_be_given(tmp_path: Path) -> None:
    source = FileSource(write(long_frame(), tmp_path / "bars.csv"))
    panel, _ = load(DataConfig(source=source))
    assert panel.bars_per_year == 252
    panel, _ = load(DataConfig(source=source, bars_per_year=250, session_close="17:30 Europe/Berlin"))
    assert panel.bars_per_year == 250
    assert panel.closes[0] == np.datetime64("2020-01-02T16:30")


def test_symbols_without_bars_are_said_and_unknown_ones_refused(tmp_path: Path) -> None:
    frame = long_frame()
    late = frame[(frame["symbol"] != "MSFT") | (frame["timestamp"] > "2020-01-08")]
    config = DataConfig(source=FileSource(write(late, tmp_path / "bars.csv")), end="2020-01-08")
    panel, report = load(config)
    assert panel.symbols == ("AAPL", "BRK.B")
    assert report.notes == ["1 symbols have no bars in the span and are left out: MSFT"]
    with pytest.raises(UserError, match="no bars of MSFT in the span"):
        load(replace(config, symbols=["AAPL", "MSFT"]))
    with pytest.raises(UserError, match=r"symbols: 'TSLA' is not in .*bars.csv; it has AAPL, BRK.B, MSFT"):
        load(replace(config, symbols=["TSLA"]))
    with pytest.raises(UserError, match=r"no bars of AAPL, BRK.B, MSFT from 2030"):
        load(replace(config, start="2030-01-01", end=None))


def test_the_built_in_market_loads_like_a_file() -> None:
    panel, report = load(DataConfig(source=SynthSource(symbols=3, bars=50)))
    assert panel.close.shape == (50, 3)
    assert panel.tradable.all()
    assert "signal" in panel.observed
    assert not {"non_positive", "missing_bars"} & report.faults.keys()


def test_values_known_at_the_close_cost_no_memory_and_late_ones_wait() -> None:
    closes = at("2020-01-02", "2020-01-03", "2020-01-06")
    full = known_at_close(np.ones((3, 2)), closes)
    assert full.known_at.strides[1] == 0
    gappy = known_at_close(np.array([[NAN, 1], [2, NAN], [NAN, NAN]]), closes)
    np.testing.assert_array_equal(gappy.values, [[NAN, 1], [2, 1], [2, 1]])
    np.testing.assert_array_equal(gappy.known_at, [[NAT, closes[0]], [closes[1], closes[0]], [closes[1], closes[0]]])


def test_as_of_takes_the_last_value_known_at_or_before_the_close() -> None:
    closes = at("2020-01-02T21", "2020-01-03T21", "2020-01-06T21")
    known_at = at("2020-01-03T21:00:00.000000001", "2020-01-02T21", "2020-01-01", "2020-01-02T21", "2020-01-02")
    values = np.array([5.0, 3.0, 2.0, 4.0, NAN])
    result = as_of(closes, np.zeros(5, int), known_at, values, 2)
    np.testing.assert_array_equal(result.values, [[4, NAN], [4, NAN], [5, NAN]])
    np.testing.assert_array_equal(result.known_at, [[known_at[3], NAT], [known_at[3], NAT], [known_at[0], NAT]])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(0, 9)), max_size=30), st.data())
def test_as_of_agrees_with_a_naive_search(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    closes = np.unique(data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=8))).astype("datetime64[ns]")
    codes, known, values = (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.empty(0, int)] * 3
    result = as_of(closes, codes, known.astype("datetime64[ns]"), values.astype(float), 3)
    for t, close in enumerate(closes.astype(int)):
        for a in range(3):
            candidates = [(k, i) for i, (code, k, _) in enumerate(rows) if code == a and k <= close]
            expected = rows[max(candidates)[1]][2] if candidates else NAN
            np.testing.assert_equal(result.values[t, a], expected)


def test_a_value_that_became_known_late_is_used_when_it_was_known(tmp_path: Path) -> None:
    frame = long_frame(4)
    frame["signal_known_at"] = ""
    late = (frame["symbol"] == "AAPL") & (frame["timestamp"] == "2020-01-03")
    frame.loc[late, "signal_known_at"] = "2020-01-06T21:00:00.000001Z"  # a microsecond after the third close
    frame.loc[9, "signal"] = NAN  # nothing new of AAPL on the fourth day
    observed = load_file(write(frame, tmp_path / "bars.csv"))[0].observed["signal"]
    first, second, third, _ = frame.loc[frame["symbol"] == "AAPL", "signal"]
    assert observed.values[:, 0].tolist() == [first, first, third, second]
    assert observed.values[:, 1].tolist() == frame.loc[frame["symbol"] == "BRK.B", "signal"].tolist()


def test_files_of_observations_join_by_symbol_and_for_the_whole_market(tmp_path: Path) -> None:
    bars = write(long_frame(4), tmp_path / "bars.csv")  # closes at 21:00 UTC on 2, 3, 6 and 7 January
    (tmp_path / "news.csv").write_text(
        "known_at,symbol,sentiment\n2020-01-03T21:00Z,MSFT,0.5\n2020-01-03T21:00Z,TSLA,0.9\n2020-01-07T20:59Z,AAPL,-1\n"
    )
    (tmp_path / "macro.csv").write_text("published,vix\n2020-01-02,12\n2020-01-06,14\n")
    config = DataConfig(
        source=FileSource(bars),
        observed=[ObservedFile(tmp_path / "news.csv"), ObservedFile(tmp_path / "macro.csv", known_at="published")],
    )
    panel, report = load(config)
    sentiment = panel.observed["sentiment"]
    np.testing.assert_array_equal(sentiment.values[:, 2], [NAN, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(sentiment.values[:, 0], [NAN, NAN, NAN, -1])
    assert np.isnan(sentiment.values[:, 1]).all()
    assert sentiment.known_at[3, 2] == np.datetime64("2020-01-03T21:00")
    vix = panel.observed["vix"]
    np.testing.assert_array_equal(vix.values, np.repeat([[NAN], [12], [12], [14]], 3, axis=1))
    assert vix.known_at[1, 0] == np.datetime64("2020-01-03"), "a bare date is known at the end of its day"
    assert any("TSLA" in note for note in report.notes)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("date,vix\n2020-01-02,12\n", "has no column 'known_at'; found date, vix; say which with known_at: NAME"),
        ("known_at,vix\n,12\n", "line 2: known_at = '': expected when the values became known"),
        ("known_at,vix\n2020-01-02,twelve\n", ""),
        ("known_at,vix\n2020-01-02,1\n2020-01-03,x\n", "line 3: vix = 'x': expected a number"),
        ("known_at,close\n2020-01-02,1\n", "'close' is also a column of"),
        ("known_at,signal\n2020-01-02,1\n", "'signal' is also a column of"),
        ("known_at,vix,vix\n2020-01-02,1,1\n", "two columns are named 'vix'"),
        ("known_at,vix\n", "holds a header but no"),
        ("known_at,vix\n2020-01-02,inf\n", "line 2: vix = 'inf': expected a finite number"),
    ],
)
def test_damaged_observations_are_refused(text: str, complaint: str, tmp_path: Path) -> None:
    bars = write(long_frame(4), tmp_path / "bars.csv")
    (tmp_path / "more.csv").write_text(text)
    with pytest.raises(UserError) as refusal:
        load_with(bars, ObservedFile(tmp_path / "more.csv"))
    assert (complaint or "holds no column of numbers") in str(refusal.value)


def test_missing_observations_are_refused(tmp_path: Path) -> None:
    bars = write(long_frame(4), tmp_path / "bars.csv")
    with pytest.raises(UserError, match=r"more.csv: no such file"):
        load_with(bars, ObservedFile(tmp_path / "more.csv"))


LAST = 4  # the bar up to which nothing may move


def other_future(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows up to bar LAST; later ones have other values, and some are gone."""
    other = frame.copy()
    later = other["timestamp"] > sorted(set(other["timestamp"]))[LAST]
    for name in FIELDS:
        other.loc[later, name] = 77.0
    other.loc[later, "signal"] *= -3
    return other.drop(index=other.index[later][::4])


def past_of(panel: Panel) -> str:
    return replace(panel[: LAST + 1], bars_per_year=1.0).hash


@pytest.mark.parametrize("layout", ["long.csv", "long.parquet", "wide.csv", "wide.parquet", "folder.csv"])
def test_the_future_of_a_file_does_not_reach_into_the_past(layout: str, tmp_path: Path) -> None:
    hashes = []
    for i, make in enumerate((lambda frame: frame, other_future)):
        frame = long_frame(10)
        frame = make(frame[frame.index % 7 != 2])  # with gaps
        kind, _, suffix = layout.partition(".")
        (tmp_path / str(i)).mkdir()
        path = tmp_path / str(i) / f"bars.{suffix}"
        if kind == "folder":
            path = folder_of(frame, path)
        else:
            write(frame if kind == "long" else wide_frame(frame), path)
        hashes.append(past_of(load_file(path)[0]))
    assert hashes[0] == hashes[1]


def test_what_became_known_later_does_not_reach_into_the_past(tmp_path: Path) -> None:
    bars = long_frame(10)
    bars["signal_known_at"] = bars["timestamp"].dt.tz_localize("UTC") + pd.Timedelta("45h")
    now = load_file(write(bars, tmp_path / "bars.parquet"))[0].closes[LAST]
    rng = np.random.default_rng(0)
    news = pd.DataFrame({
        "known_at": pd.Timestamp("2020-01-02", tz="UTC") + pd.to_timedelta(rng.integers(0, 12 * 24 * 60, 200), "min"),
        "symbol": rng.choice(["AAPL", "BRK.B", "MSFT"], 200),
        "mood": rng.normal(size=200),
    })  # fmt: skip
    pasts = []
    for i in range(2):
        if i:
            later = bars["signal_known_at"] > pd.Timestamp(now, tz="UTC")
            bars.loc[later, "signal"] += 100
            news.loc[news["known_at"] > pd.Timestamp(now, tz="UTC"), "mood"] += 100
        panel = load_with(
            write(bars, tmp_path / f"bars{i}.parquet"), ObservedFile(write(news, tmp_path / f"news{i}.parquet"))
        )
        pasts.append((past_of(panel), panel[LAST + 1 :].hash))
    assert pasts[0][0] == pasts[1][0]
    assert pasts[0][1] != pasts[1][1], "the change was seen once it was known"


def test_every_observed_value_of_a_loaded_panel_was_known(tmp_path: Path) -> None:
    panel = load_with(write(long_frame(), tmp_path / "bars.csv"))
    assert isinstance(panel.observed["signal"], Observed)
    assert (panel.observed["signal"].known_at <= panel.closes[:, None]).all()
