"""The Alpaca source against a loopback server, through alpaca-py's own code."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alpaca_server import KEY, SECRET, AlpacaServer, FakeClock, Reply, daily, make_bars, serving
from hypothesis import given
from hypothesis import strategies as st
from source_conformance import conforms

from kit.config import build, load, to_dict
from kit.errors import UserError
from kit.log import RedactingFormatter
from market import data
from market.data import DataConfig
from market.sources import alpaca, patience
from market.sources.alpaca import AlpacaSource
from market.sources.cache import Cache, Rows, default_cache
from market.sources.patience import RateBudget

RAW_SPAN = {"start": "2015-06-01", "end": "2023-06-01"}  # two chunks: daily bars are cut at 2020


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PODRACER_CACHE", str(tmp_path / "default"))
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    spans = {"AAPL": daily("2015-06-01", "2023-06-30"), "MSFT": daily("2017-01-02", "2023-06-30", 300)}
    with serving(AlpacaServer(spans)) as running:
        yield running


@pytest.fixture
def source_at(server: AlpacaServer, tmp_path: Path) -> Callable[..., AlpacaSource]:
    def make(**settings: Any) -> AlpacaSource:
        common = {"symbols": ["AAPL"], **RAW_SPAN, "cache": tmp_path / "cache", "url": server.url}
        return AlpacaSource(**common | settings)

    return make


def closes_of(bars: Any, symbol: str) -> list[float]:
    return bars.column("close")[bars.codes == bars.symbols.index(symbol)].tolist()


def expected_closes(server: AlpacaServer, symbol: str, first: str, stop: str) -> list[float]:
    return [bar["c"] for bar in server.bars[symbol] if first <= bar["t"] < stop]


# --- what arrives


def test_all_pages_and_chunks_arrive_in_order(server, source_at):
    server.page = 700
    bars = conforms(source_at(symbols=["MSFT", "AAPL"]))
    assert bars.symbols == ("MSFT", "AAPL")
    for symbol in bars.symbols:
        assert closes_of(bars, symbol) == expected_closes(server, symbol, "2015-06-01", "2023-06-01")
    assert sum("page_token" in query for query in server.asked) == 4  # 783 and 1197 days until 2020, 891 after


def test_the_client_sends_what_was_configured(server, source_at):
    source_at(feed="sip", adjustment="split").read(FakeClock())
    assert server.asked[0] == {
        "path": "/v2/stocks/bars", "symbols": "AAPL", "timeframe": "1Day", "feed": "sip", "adjustment": "split",
        "start": "2015-06-01T00:00:00+00:00", "end": "2019-12-31T23:59:59.999999+00:00", "limit": "10000",
    }  # fmt: skip


def test_the_end_is_not_part_of_the_span(server, source_at):
    bars = source_at(start="2023-05-30T04:00", end="2023-06-01T04:00").read(FakeClock())
    assert bars.times.astype("datetime64[h]").astype(str).tolist() == ["2023-05-30T04", "2023-05-31T04"]


def test_bars_outside_the_span_are_dropped_even_when_they_come(server, source_at):
    server.faults = [Reply(body=json.dumps({"bars": {"AAPL": server.bars["AAPL"][:5]}, "next_page_token": None}))]
    bars = source_at(start="2015-06-02T04:00", end="2015-06-04T04:00").read(FakeClock())
    assert closes_of(bars, "AAPL") == [100.5, 101.0]


def test_a_proxy_in_the_environment_gets_no_keys(server, source_at, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    clock = FakeClock()
    assert len(source_at().read(clock).times) == 2088
    assert clock.slept == []


def test_rows_point_at_symbol_and_time(source_at):
    assert source_at().read(FakeClock()).row_name(1) == "Alpaca stocks (iex), bar of AAPL at 2015-06-02T04:00Z"


def test_null_bars_are_no_bars(server, source_at):
    server.faults = [Reply(body='{"bars": null, "next_page_token": null}')]
    bars = source_at().read(FakeClock())
    assert closes_of(bars, "AAPL") == expected_closes(server, "AAPL", "2020", "2023-06-01")


def test_bars_without_count_and_vwap_are_read_as_empty(server, source_at):
    for bar in server.bars["AAPL"][1:]:
        del bar["n"], bar["vw"]
    bars = source_at(observed=["trade_count", "vwap"]).read(FakeClock())
    assert bars.names == ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    for name, first in (("trade_count", 10), ("vwap", 99.875)):
        assert bars.column(name)[0] == first
        assert np.isnan(bars.column(name)[1:]).all()


def test_a_day_is_known_after_the_late_session(server, source_at):
    """Its volume and vwap count trades until 20:00 in New York: that is when its bar closes."""
    source = source_at(start="2023-05-01", end="2023-05-06", observed=["vwap"])
    panel, _ = data.load(DataConfig(source=source))
    assert str(panel.closes[0]) == "2023-05-02T00:00:00.000000000"
    np.testing.assert_array_equal(panel.observed["vwap"].values[:, 0], panel.close[:, 0] - 0.125)
    panel, _ = data.load(DataConfig(source=source, session_close="16:00 America/New_York"))
    assert str(panel.closes[0]) == "2023-05-01T20:00:00.000000000"
    assert np.isnan(panel.observed["vwap"].values[0, 0])
    np.testing.assert_array_equal(panel.observed["vwap"].values[1:, 0], panel.close[:-1, 0] - 0.125)


def test_crypto_needs_no_keys(server, source_at, monkeypatch):
    monkeypatch.delenv("APCA_API_KEY_ID")
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    server.bars = {"BTC/USD": make_bars(pd.date_range("2020-01-01", "2020-01-31", tz="UTC"))}
    source = source_at(asset_class="crypto", symbols=["BTC/USD"], start="2020-01-01", end="2020-02-01")
    bars = conforms(source)
    assert len(bars.times) == 31
    assert {query["path"] for query in server.asked} == {"/v1beta3/crypto/us/bars"}
    assert not {"feed", "adjustment"} & set(server.asked[0])


def test_only_bars_of_the_regular_session_are_taken_unless_asked(server, source_at):
    server.timeframe = "1Min"
    labels = pd.date_range("2023-03-10 04:00", "2023-03-10 19:59", freq="min", tz="America/New_York").append(
        pd.date_range(
            "2023-03-13 04:00", "2023-03-13 19:59", freq="min", tz="America/New_York"
        )  # clocks changed between
    )
    server.bars = {"AAPL": make_bars(labels)}
    source = source_at(bar="minute", start="2023-03-10", end="2023-03-15")
    times = source.read(FakeClock()).times
    assert len(times) == 2 * 390
    assert [str(t)[11:16] for t in times[[0, 389, 390, -1]]] == ["14:30", "20:59", "13:30", "19:59"]
    assert len(replace(source, hours="extended").read(FakeClock()).times) == 2 * 960


def test_an_hour_that_overlaps_the_open_belongs_to_the_session(server, source_at):
    server.timeframe = "1Hour"
    server.bars = {"AAPL": make_bars(pd.date_range("2023-05-01 04:00", periods=16, freq="h", tz="America/New_York"))}
    times = source_at(bar="hour", start="2023-05-01", end="2023-05-03").read(FakeClock()).times
    assert [str(t)[11:13] for t in times] == ["13", "14", "15", "16", "17", "18", "19"]  # 9:00 to 15:00 there


# --- time


@pytest.mark.parametrize(("now", "last"), [("2023-06-01T23:59", "2023-05-31"), ("2023-06-02T00:00", "2023-06-01")])
def test_a_day_that_still_trades_is_left_out(source_at, now, last):
    bars = source_at(end="2023-06-01T12:00").read(FakeClock(now))
    assert str(bars.times[-1])[:10] == last


@pytest.mark.parametrize(
    ("bar", "now", "last"),
    [
        ("minute", "2024-03-01T15:00:59", "2024-03-01T14:58"),
        ("minute", "2024-03-01T15:01:00", "2024-03-01T14:59"),
        ("hour", "2024-03-01T15:00:30", "2024-03-01T13:00"),
        ("hour", "2024-03-01T15:01:00", "2024-03-01T14:00"),
        ("day", "2024-03-02T00:59:59", "2024-02-29T00:00"),
        ("day", "2024-03-02T01:00:00", "2024-03-01T00:00"),
    ],
)
def test_a_bar_that_still_grows_is_left_out(server, source_at, bar, now, last):
    code, name = {"minute": ("min", "1Min"), "hour": ("h", "1Hour"), "day": ("D", "1Day")}[bar]
    server.timeframe = name
    server.bars = {"BTC/USD": make_bars(pd.date_range("2024-02-29", "2024-03-01 15:00", freq=code, tz="UTC"))}
    source = source_at(asset_class="crypto", symbols=["BTC/USD"], bar=bar, start="2024-02-29", end="2024-03-01T15:00")
    assert str(source.read(FakeClock(now)).times[-1])[:16] == last


def test_a_change_in_the_future_moves_nothing_before(server, source_at):
    before = source_at().read(FakeClock()).column("close")
    for bar in server.bars["AAPL"]:
        if bar["t"] >= RAW_SPAN["end"]:
            bar["c"] *= 3
    again = source_at(cache=None).read(FakeClock()).column("close")  # another, empty cache
    assert len(server.asked) == 4
    np.testing.assert_array_equal(before, again)


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    assert default_cache() == tmp_path / "default"
    monkeypatch.delenv("PODRACER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "podracer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "podracer"


@given(st.integers(0, 400), st.integers(1, 4000), st.sampled_from([1, 12, 120]))
def test_chunks_cover_the_span_once(offset, hours, months):
    start = np.datetime64("2019-06-15T07", "h").astype("datetime64[ns]") + np.timedelta64(offset * 97, "h")
    end = start + np.timedelta64(hours * 13, "h")
    chunks = alpaca._chunks(start, end, months)
    assert (chunks[0][0], chunks[-1][1]) == (start, end)
    assert all(a < b for a, b in chunks)
    assert all(a[1] == b[0] for a, b in pairwise(chunks))
    for (_, cut), _ in pairwise(chunks):
        assert cut == cut.astype("datetime64[M]")
        assert cut.astype("datetime64[M]").astype(int) % months == 0
    longest = max(b.astype("datetime64[M]").astype(int) - a.astype("datetime64[M]").astype(int) for a, b in chunks)
    assert longest <= months


# --- the cache


def test_a_second_read_asks_nothing_and_gives_the_same(server, source_at):
    first = source_at(symbols=["AAPL", "MSFT"]).read(FakeClock())
    asked = len(server.asked)
    second = source_at(symbols=["AAPL", "MSFT"]).read(FakeClock("2025-01-01"))
    assert len(server.asked) == asked == 4
    for name in first.names:
        np.testing.assert_array_equal(first.column(name), second.column(name))


def test_a_cached_span_needs_neither_keys_nor_network(server, source_at, monkeypatch):
    source = source_at()
    source.read(FakeClock())
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    server.fail_at = dict.fromkeys(range(99), Reply(500))
    assert len(source.read(FakeClock()).times) == 2088


def test_a_read_that_broke_off_asks_only_for_what_is_missing(server, source_at):
    source = source_at(symbols=["AAPL", "MSFT"])
    server.fail_at = {3: Reply(400, '{"message": "no"}')}
    with pytest.raises(UserError, match="answered 400"):
        source.read(FakeClock())
    server.asked.clear()
    server.fail_at.clear()
    bars = source.read(FakeClock())
    assert [(query["symbols"], query["start"][:4]) for query in server.asked] == [("MSFT", "2015"), ("MSFT", "2020")]
    assert closes_of(bars, "AAPL") == expected_closes(server, "AAPL", "2015", "2023-06-01")


def test_a_killed_download_carries_on(server, source_at):
    source = source_at(symbols=["AAPL", "MSFT"])
    server.fail_at = {4: Reply(hang=True)}
    script = (
        "import sys, json; from kit.config import build; from market.sources.alpaca import AlpacaSource\n"
        "build(AlpacaSource, json.loads(sys.argv[1])).read()"
    )
    child = subprocess.Popen([sys.executable, "-c", script, json.dumps(to_dict(source))], env=os.environ | path_here())
    deadline = time.monotonic() + 120
    while len(server.asked) < 4 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(server.asked) == 4
    server.fail_at.clear()
    bars = source.read()
    assert len(server.asked) == 5
    assert closes_of(bars, "MSFT") == expected_closes(server, "MSFT", "2017", "2023-06-01")


def path_here() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_is_downloaded_again(server, source_at, tmp_path, caplog, suffix, damage):
    source = source_at(adjustment="raw")
    first = source.read(FakeClock())
    file = sorted((tmp_path / "cache").glob(f"*{suffix}"))[0]
    whole = file.read_bytes()
    middle = len(whole) // 2 if suffix == ".parquet" else whole.index(b"sha256") + 12
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes({"flip": flipped, "truncate": whole[:middle], "empty": b""}[damage])
    server.asked.clear()
    second = source.read(FakeClock())
    assert len(server.asked) == 1
    assert [r.getMessage() for r in caplog.records] == [
        f"{file.with_suffix('.parquet')}: the file is damaged; it is downloaded again"
    ]
    np.testing.assert_array_equal(first.column("close"), second.column("close"))
    assert file.read_bytes() == whole


def test_half_a_pair_of_files_counts_as_absent(server, source_at, tmp_path):
    source = source_at()
    source.read(FakeClock())
    next((tmp_path / "cache").glob("*.json")).unlink()
    server.asked.clear()
    source.read(FakeClock())
    assert len(server.asked) == 1


def test_every_setting_that_changes_the_answer_has_its_own_file(server, source_at):
    base = source_at()
    for settings in ({}, {"feed": "sip"}, {"adjustment": "raw"}, {"symbols": ["MSFT"]}, {"start": "2020-01-02"}):
        asked = len(server.asked)
        replace(base, **settings).read(FakeClock())
        assert len(server.asked) > asked, settings


def test_a_longer_span_reuses_whole_chunks(server, source_at):
    source_at(adjustment="raw").read(FakeClock())
    server.asked.clear()
    source_at(adjustment="raw", end="2023-06-15").read(FakeClock())
    assert [query["start"][:10] for query in server.asked] == ["2020-01-01"]


def test_a_span_that_just_ended_is_not_taken_as_final(server, source_at):
    source = source_at(start="2023-05-01", end="2023-05-31", adjustment="raw")
    source.read(FakeClock("2023-05-31T23:59"))
    server.bars["AAPL"][-24]["c"] = 7.0  # a late correction
    corrected = source.read(FakeClock("2023-06-01T00:00"))
    assert 7.0 in corrected.column("close")
    source.read(FakeClock("2023-06-01T00:01"))
    assert len(server.asked) == 2


def test_a_split_after_a_download_never_shows_as_a_jump(server, source_at):
    """The first chunk was stored before the split, the second comes after it: both must be scaled alike."""
    source_at(end="2020-01-01").read(FakeClock("2021-01-01"))
    server.splits["2022-06-01"] = 0.25
    bars = source_at().read(FakeClock())
    raw = np.array(expected_closes(server, "AAPL", "2015", "2023-06-01"))
    factor = np.where(bars.times < np.datetime64("2022-06-01"), 0.25, 1.0)
    np.testing.assert_allclose(bars.column("close"), raw * factor)


def test_without_a_split_stored_prices_are_kept_after_one_look(server, source_at):
    source_at(end="2020-01-01").read(FakeClock("2021-01-01"))
    server.asked.clear()
    source_at().read(FakeClock())
    spans = [(query["start"][:10], query["end"][:10]) for query in server.asked]
    assert spans == [("2019-08-14", "2019-12-31"), ("2020-01-01", "2023-05-31")]  # 100 bars, then the new chunk
    source_at().read(FakeClock("2024-05-01"))
    assert len(server.asked) == 2


def test_symbols_without_bars_are_named_and_asked_for_again(server, source_at):
    source = source_at(symbols=["AAPL", "TSLAA", "MSFTT"])
    with pytest.raises(UserError, match=r"no day bars of TSLAA, MSFTT from 2015-06-01 to 2023-06-01; check the sp"):
        source.read(FakeClock())
    server.bars |= {"TSLAA": server.bars["MSFT"], "MSFTT": server.bars["MSFT"]}
    assert len(source.read(FakeClock()).symbols) == 3


# --- faults


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"Retry-After": "17"}, 17.0),
        ({"Retry-After": "Fri, 01 Mar 2024 12:00:09 GMT"}, 9.0),
        ({"X-RateLimit-Limit": "200", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1709294430"}, 30.0),
        ({"X-RateLimit-Reset": "1709294000"}, 1.0),
        ({"Retry-After": "soon"}, 1.0),
        ({"Retry-After": "99999"}, patience.LONGEST_PAUSE),
        ({}, 1.0),
    ],
)
def test_too_many_requests_waits_as_long_as_the_server_says(server, source_at, headers, pause):
    clock = FakeClock()
    server.faults = [Reply(429, '{"message": "too many requests."}', headers)]
    bars = source_at().read(clock)
    assert clock.slept == [pause]
    assert closes_of(bars, "AAPL") == expected_closes(server, "AAPL", "2015", "2023-06-01")


@pytest.mark.parametrize(
    "fault",
    [
        Reply(504, "<html><body>Gateway Time-out</body></html>"),
        Reply(500, '{"message": "internal server error occurred"}'),
        Reply(200, "<html>captive portal</html>"),
        Reply(200, '{"bars": {', cut=500),
        Reply(hang=True),
    ],
    ids=["504", "500", "not-json", "cut-off", "slow"],
)
def test_a_passing_fault_on_a_later_page_costs_one_repeat(server, source_at, fault):
    server.page, clock = 700, FakeClock()
    server.fail_at = {2: fault}
    bars = source_at(timeout_s=1 if fault.hang else 30).read(clock)
    assert clock.slept == [1.0]
    assert closes_of(bars, "AAPL") == expected_closes(server, "AAPL", "2015", "2023-06-01")
    assert server.asked[1] == server.asked[2]


def test_a_server_that_is_not_there_is_one_clear_line(source_at):
    clock = FakeClock()
    with pytest.raises(UserError, match=r"^http://127.0.0.1:9: no answer \(ConnectionError\), 6 times; run it again"):
        source_at(url="http://127.0.0.1:9").read(clock)
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 16.0]


def test_lasting_faults_give_up_and_quote_no_html(server, source_at):
    server.fail_at = dict.fromkeys(range(99), Reply(503, "<html><h1>Sorry</h1></html>"))
    with pytest.raises(
        UserError, match=r"answered 503 \(Service Unavailable\), 6 times; .*finished downloads are kept"
    ):
        source_at().read(FakeClock())
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (
            Reply(403, '{"message": "subscription does not permit querying recent SIP data"}'),
            "answered 403 (subscription does not permit querying recent SIP data); check that APCA_API_KEY_ID and "
            "APCA_API_SECRET_KEY belong together, and that the subscription covers feed = iex",
        ),
        (Reply(422, '{"message": "invalid symbol: A?"}'), "answered 422 (invalid symbol: A?)"),
        (Reply(404, "<html>"), "answered 404 (Not Found)"),
        (Reply(302, "", {"Location": "http://127.0.0.1:9"}), "the answer holds no bars; check that url"),
        (Reply(200, '{"bars": [1]}'), "the answer holds no bars; check that url"),
        (Reply(200, '{"bars": {"AAPL": [{"o": 1}]}}'), "an answer for AAPL holds bars that cannot be read"),
        (Reply(200, '{"bars": {"AAPL": [{"t": "x"}]}}'), "an answer for AAPL holds bars that cannot be read"),
    ],
)
def test_faults_that_stay_are_not_repeated(server, source_at, reply, line):
    clock = FakeClock()
    server.faults = [reply]
    with pytest.raises(UserError) as refusal:
        source_at().read(clock)
    assert line in str(refusal.value)
    assert (len(server.asked), clock.slept) == (1, [])


def test_a_page_that_follows_itself_ends(server, source_at):
    loop = Reply(200, '{"bars": {}, "next_page_token": "x"}')
    server.faults = [loop, loop]
    with pytest.raises(UserError, match="names itself as its next page"):
        source_at().read(FakeClock())


@given(st.lists(st.floats(0, 5), min_size=250, max_size=260))
def test_no_minute_sees_more_calls_than_the_budget(pauses):
    clock, called = FakeClock(), []
    budget = RateBudget(clock)
    for pause in pauses:
        clock.at += pause / 100
        budget.wait()
        called.append(clock.at)
    times = np.array(called)
    inside = np.searchsorted(times, times + 60 - 1e-6, side="left") - np.arange(len(times))
    assert inside.max() <= 200


def test_a_long_download_keeps_to_the_budget(server, source_at):
    server.page, clock = 100, FakeClock()
    source_at().read(clock)
    assert len(server.asked) == 12 + 9
    assert clock.slept == [pytest.approx(1 / 3)]


def test_calls_within_the_budget_do_not_wait():
    clock = FakeClock()
    budget = RateBudget(clock)
    for _ in range(20):
        budget.wait()
    assert clock.slept == []
    budget.wait()
    assert clock.slept == [pytest.approx(1 / 3)]


# --- keys and settings


@pytest.mark.parametrize("lacking", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_a_lacking_key_is_named(source_at, monkeypatch, lacking):
    monkeypatch.delenv(lacking)
    with pytest.raises(UserError, match=f"^{lacking}: not set in the environment"):
        source_at().read(FakeClock())


def test_wrong_keys_say_what_to_check(source_at, monkeypatch):
    monkeypatch.setenv("APCA_API_SECRET_KEY", "wrong-wrong-wrong")
    with pytest.raises(UserError, match=r"answered 401 \(request is not authorized\); check that APCA_API_KEY_ID and"):
        source_at().read(FakeClock())


@pytest.mark.parametrize("bad", ["s3cr3t\u00e9s3cr3t", "s3cr3t s3cr3t", "s3cr3t\ns3cr3t"])
def test_a_key_that_was_copied_badly_is_named_and_not_shown(source_at, monkeypatch, bad):
    monkeypatch.setenv("APCA_API_SECRET_KEY", bad)
    with pytest.raises(UserError) as refusal:
        source_at().read(FakeClock())
    assert str(refusal.value) == "APCA_API_SECRET_KEY: holds characters that no key has; copy it again"
    assert refusal.value.__context__ is None


@pytest.mark.parametrize(
    "reply", [Reply(401, f'{{"message": "{KEY} and {SECRET} are wrong"}}'), Reply(500, SECRET), Reply(hang=True)]
)
def test_keys_show_nowhere(server, source_at, tmp_path, caplog, reply):
    caplog.set_level(logging.DEBUG)
    source = source_at(adjustment="raw")
    server.fail_at = dict.fromkeys(range(2, 99), reply)
    source_at(adjustment="raw", end="2020-01-01").read(FakeClock())
    with pytest.raises(UserError) as refusal:
        replace(source, timeout_s=0.1).read(FakeClock())
    chain, error = [], refusal.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    formatter = RedactingFormatter()
    said = [str(e) for e in chain] + [repr(vars(e)) for e in chain] + [formatter.format(r) for r in caplog.records]
    unformatted = [r.getMessage() for r in caplog.records]
    written = [file.read_bytes().decode("latin-1") for file in (tmp_path / "cache").iterdir()]
    kept = [repr(source), str(to_dict(source)), pickle.dumps(source).decode("latin-1")]
    server.fail_at.clear()
    bars = source.read(FakeClock())
    kept += [repr(vars(bars)), pickle.dumps(bars).decode("latin-1")]
    assert written
    for text in said + unformatted + written + kept:
        assert SECRET not in text
        assert KEY not in text


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"end": "2015-05-01"}, "end = 2015-05-01 must come after start = 2015-06-01"),
        ({"end": "2015-06-01"}, "end = 2015-06-01 must come after start"),
        ({"start": "last week"}, "'last week' is not a time"),
        ({"end": "2023-02-30"}, "'2023-02-30' is not a time"),
        ({"symbols": []}, "symbols: is empty"),
        ({"symbols": ["AAPL,MSFT"]}, "symbols: 'AAPL,MSFT' is no symbol"),
        ({"symbols": ["AAPL", "AAPL"]}, "symbols: AAPL comes twice"),
        ({"url": "http://127.0.0.1:8000/v2"}, "expected http(s)://HOST, without a path"),
        ({"observed": ["vwap", "vwap"]}, "observed: a column comes twice"),
        ({"url": "127.0.0.1"}, "expected http(s)://HOST, without a path"),
        ({"feed": "sipp"}, "expected one of iex, sip, otc; did you mean sip?"),
        ({"timeout_s": 0}, "must be above 0"),
        ({"api_key": "x"}, "unknown key"),
    ],
)
def test_bad_settings_are_refused(settings, line):
    with pytest.raises(UserError) as refusal:
        build(AlpacaSource, {"symbols": ["AAPL"], **RAW_SPAN} | settings, "alpaca.yaml")
    assert str(refusal.value).startswith("alpaca.yaml")
    assert line in str(refusal.value)


def test_a_span_that_ends_in_the_future_is_refused(source_at, server):
    with pytest.raises(UserError, match=r"^end = 2024-03-02: lies in the future; expected 2024-03-01T12:00Z or before"):
        source_at(end="2024-03-02").read(FakeClock())
    assert server.asked == []


def test_a_file_with_plain_dates_configures_it(tmp_path):
    file = tmp_path / "alpaca.yaml"
    file.write_text("source: {kind: alpaca, symbols: [AAPL], start: 2020-01-02, end: 2021-01-04}\n")
    source = load(DataConfig, file, ["source.end=2022-01-03T14:30:00-05:00"]).source
    assert source == AlpacaSource(symbols=["AAPL"], start="2020-01-02", end="2022-01-03T14:30:00-05:00")
    assert build(AlpacaSource, to_dict(source)) == source


def test_bars_become_a_panel_whose_days_close_with_the_late_session(source_at):
    panel, report = data.load(DataConfig(source=source_at(symbols=["AAPL", "MSFT"])))
    assert panel.symbols == ("AAPL", "MSFT")
    assert panel.bars_per_year == 252
    new_york = pd.DatetimeIndex(panel.closes).tz_localize("UTC").tz_convert("America/New_York")
    assert set(new_york.strftime("%H:%M")) == {"20:00"}
    assert (new_york.normalize() == pd.DatetimeIndex(panel.times).tz_localize("UTC").tz_convert(new_york.tz)).all()
    assert report.coverage[1].listed_late


def test_a_cache_that_cannot_be_written_is_a_line(source_at, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):  # which commands turn into one line
        source_at(cache=tmp_path / "file").read(FakeClock())


def test_what_is_stored_can_be_read_in_part(tmp_path):
    rows = Rows(np.array(["2020-01-02"], "datetime64[ns]"), {"close": np.array([1.5]), "vwap": np.array([np.nan])})
    cache = Cache(tmp_path)
    cache.put({"a": 1}, rows, "2024-01-01")
    found = cache.get({"a": 1}, ["vwap"])
    assert found is not None
    assert list(found.rows.columns) == ["vwap"]
    assert found.rows.same(rows)
    assert cache.get({"a": 2}, ["vwap"]) is None
