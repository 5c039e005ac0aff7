"""The broker at Alpaca, against a server that answers like Alpaca and fails as Alpaca does."""

from __future__ import annotations

import json
import logging
import pickle
import queue
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from alpaca_server import FakeClock
from broker_conformance import BrokerConformance
from broker_server import HTML, KEY, NOW, SECRET, BrokerServer, Fault, asset, daily, serving
from hypothesis import given
from hypothesis import strategies as st

from kit.config import build
from kit.errors import UserError
from paper import alpaca, alpaca_answers, alpaca_stream
from paper.alpaca import AlpacaBroker, AlpacaConfig, LocalBroker, LocalConfig
from paper.broker import BrokerError, OutcomeUnknown, Rejected, Request, Unreachable

BUY = Request("desk-1-AAPL-buy-0", "AAPL", "buy", Decimal("0.3"))
ORDERS, LOOK_UP = "POST /v2/orders", "GET /v2/orders:by_client_order_id"
NO_ANSWER = {
    "hang": Fault(hang=True),
    "dropped": Fault(drop=True),
    "502 with a page": Fault(502, HTML),
    "500": Fault(500, '{"message": "internal server error"}'),
    "504": Fault(504, '{"message": "gateway timeout"}'),
    "200 with a page": Fault(200, HTML),
    "200 with nothing": Fault(200, ""),
    "200 with other JSON": Fault(200, '{"ok": true}'),
    "200 with a list": Fault(200, "[]"),
    "a redirect": Fault(302, "", {"Location": "/v2/account"}),
    "403 of a proxy": Fault(403, HTML),
    "429": Fault(429, '{"message": "too many requests"}'),
    "408": Fault(408, '{"message": "request timeout"}'),
}


PASSING = {name: fault for name, fault in NO_ANSWER.items() if fault.status not in (403, 408)}  # asking again may help
UNHEARD = {name: fault for name, fault in NO_ANSWER.items() if fault.hang or fault.drop or fault.status >= 400}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_KEY_ID", KEY)
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)


@pytest.fixture
def server() -> Iterator[BrokerServer]:
    weekdays = [NOW.date() + timedelta(days=i) for i in range(-10, 5) if (NOW + timedelta(days=i)).weekday() < 5]
    calendar = [{"date": str(day), "open": "09:30", "close": "16:00"} for day in weekdays]
    bars = {"AAPL": daily("2024-02-20", 8), "MSFT": daily("2024-02-20", 8, 400.0)}
    with serving(BrokerServer(calendar=calendar, bars=bars)) as started:
        yield started


def config_of(server: BrokerServer, **settings: Any) -> AlpacaConfig:
    usual: dict[str, Any] = {"url": server.url, "data_url": server.url, "stream_url": server.stream_url}
    return AlpacaConfig(**usual | {"timeout_s": 0.5, "attempts": 3} | settings)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW.isoformat())


@pytest.fixture
def make(server: BrokerServer, clock: FakeClock) -> Iterator[Callable[..., AlpacaBroker]]:
    made: list[AlpacaBroker] = []

    def broker(**settings: Any) -> AlpacaBroker:
        made.append(AlpacaBroker(config_of(server, **settings), clock))
        return made[-1]

    yield broker
    for each in made:
        each.close()


@pytest.fixture
def broker(make: Callable[..., AlpacaBroker]) -> AlpacaBroker:
    return make()


class TestAlpacaConforms(BrokerConformance):
    @pytest.fixture
    def symbols(self) -> list[str]:
        return ["AAPL", "MSFT"]

    @pytest.fixture
    def span(self) -> tuple[datetime, datetime]:
        return datetime(2024, 2, 20, tzinfo=UTC), datetime(2024, 2, 28, tzinfo=UTC)

    @pytest.fixture
    def settle(self, server: BrokerServer) -> Callable[[], None]:
        server.activities = [
            {"id": f"2024030{i}::x", "activity_type": kind, "date": f"2024-03-0{i}", "net_amount": "1.5"}
            for i, kind in enumerate(["INT", "FILL", "DIV"], 1)
        ]
        return server.fill_all


# --- an order whose outcome is not clear


@pytest.mark.parametrize("fault", NO_ANSWER.values(), ids=NO_ANSWER)
def test_an_order_booked_without_an_answer_is_found_and_sent_once(server, broker, fault):
    server.faults[ORDERS] = [replace(fault, after=True)]
    order = broker.submit(BUY)
    assert (order.id, order.quantity, order.status) == (BUY.id, BUY.quantity, "open")
    assert server.times_asked(ORDERS) == 1
    assert len(server.orders) == 1


@pytest.mark.parametrize("fault", NO_ANSWER.values(), ids=NO_ANSWER)
def test_an_order_that_was_not_booked_is_unknown_and_sent_once(server, broker, clock, fault):
    server.faults[ORDERS] = [fault]
    with pytest.raises(OutcomeUnknown, match=rf"{BUY.id}.*did not know it, 3 times"):
        broker.submit(BUY)
    assert server.times_asked(ORDERS) == 1
    assert server.times_asked(LOOK_UP) == 3
    assert clock.slept == [0.0, 1.0, 3.0]


def test_an_order_that_shows_late_is_found(server, broker):
    server.faults = {ORDERS: [Fault(504, HTML, after=True)], LOOK_UP: [Fault(404, '{"message": "not found"}')] * 2}
    assert broker.submit(BUY).id == BUY.id
    assert server.times_asked(ORDERS) == 1


def test_an_order_that_cannot_be_looked_up_is_unknown(server, broker):
    server.faults = {ORDERS: [Fault(504, HTML, after=True)], LOOK_UP: [Fault(503, HTML)] * 3}
    with pytest.raises(OutcomeUnknown, match=r"Gateway Timeout.*Service Unavailable"):
        broker.submit(BUY)
    assert server.times_asked(ORDERS) == 1


def test_a_page_that_says_404_does_not_say_that_an_order_is_absent(server, broker):
    server.faults = {ORDERS: [Fault(504, HTML, after=True)], LOOK_UP: [Fault(404, HTML)]}
    with pytest.raises(OutcomeUnknown, match="when it was looked up"):
        broker.submit(BUY)
    with pytest.raises(Unreachable):
        server.faults[LOOK_UP] = [Fault(404, HTML)]
        broker.order(BUY.id)


def test_the_answer_of_another_order_is_none(server, broker):
    broker.submit(BUY)
    other = json.dumps(server.orders[BUY.id])
    server.faults = {ORDERS: [Fault(200, other, after=True)]}
    assert broker.submit(replace(BUY, id="desk-2")).id == "desk-2"
    server.faults = {LOOK_UP: [Fault(200, other)] * 3}
    with pytest.raises(Unreachable):
        broker.order("desk-2")


def test_an_id_that_is_known_gives_its_order_not_a_refusal(server, broker):
    first = broker.submit(BUY)
    server.fill(BUY.id)
    again = broker.submit(BUY)
    assert (again.broker_id, again.status, again.filled) == (first.broker_id, "filled", BUY.quantity)
    assert len(server.orders) == 1


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, 40310000, "insufficient buying power"),
        (403, 40310000, "potential wash trade detected"),
        (403, 40310100, "trade denied due to pattern day trading protection"),
        (422, 42210000, "fractional orders must be DAY orders"),
        (422, 40010001, "cost basis must be >= minimal amount of order 1"),
        (400, 40010000, "request body format is invalid"),
        (401, 40110000, "request is not authorized"),
    ],
)
def test_a_refusal_is_one_line_in_the_brokers_words(server, broker, status, code, words):
    server.faults[ORDERS] = [Fault(status, json.dumps({"code": code, "message": words.replace(" ", " \n", 1)}))]
    with pytest.raises(Rejected) as caught:
        broker.submit(BUY)
    assert str(caught.value) == f"order {BUY.id}: {words} ({status})"
    assert server.times_asked(LOOK_UP) == 0


@given(st.integers(1, 10**18), st.integers(0, 9))
def test_any_quantity_goes_over_the_wire_exactly(digits, places):
    quantity = Decimal(digits).scaleb(-places)
    sent = alpaca._market_order()(
        symbol="AAPL", qty=f"{quantity.normalize():f}", side="buy", time_in_force="day", client_order_id="x"
    )
    wire = json.loads(json.dumps(sent.to_request_fields()))["qty"]
    assert isinstance(wire, str)
    assert Decimal(wire) == quantity


def test_what_is_sent_is_a_market_order_for_the_day(server, broker):
    broker.submit(replace(BUY, quantity=Decimal("0.1") + Decimal("0.2")))
    broker.submit(Request("big", "MSFT", "sell", Decimal("1E+2")))
    bodies = [json.loads(body) for method, _, _, body in server.asked if method == "POST"]
    usual = {"type": "market", "time_in_force": "day"}
    assert bodies == [
        usual | {"symbol": "AAPL", "qty": "0.3", "side": "buy", "client_order_id": BUY.id},
        usual | {"symbol": "MSFT", "qty": "100", "side": "sell", "client_order_id": "big"},
    ]


@pytest.mark.parametrize("quantity", ["0", "-1", "0.0000000001"])
def test_a_quantity_that_no_broker_takes_is_not_sent(server, broker, quantity):
    with pytest.raises(Rejected, match="expected one above 0"):
        broker.submit(replace(BUY, quantity=Decimal(quantity)))
    assert server.asked == []


# --- cancellations


@pytest.mark.parametrize("fault", UNHEARD.values(), ids=UNHEARD)
def test_a_cancellation_is_sent_once_and_looked_up(server, broker, fault):
    placed = broker.submit(BUY)
    route = f"DELETE /v2/orders/{placed.broker_id}"
    server.faults[route] = [fault]
    with pytest.raises(OutcomeUnknown, match="the order has not ended"):
        broker.cancel(placed)
    assert server.times_asked(route) == 1
    server.faults[route] = [replace(fault, after=True)]
    broker.cancel(placed)
    assert server.times_asked(route) == 2
    assert broker.order(placed.id).status == "canceled"


def test_nothing_left_to_cancel_is_no_error(server, broker):
    placed = broker.submit(BUY)
    server.fill(BUY.id)
    broker.cancel(placed)
    del server.orders[BUY.id]
    broker.cancel(placed)


def test_a_cancellation_that_is_refused_says_so(server, broker):
    placed = broker.submit(BUY)
    server.faults[f"DELETE /v2/orders/{placed.broker_id}"] = [Fault(401, '{"message": "request is not authorized"}')]
    with pytest.raises(Rejected, match="not authorized"):
        broker.cancel(placed)


def test_a_partial_fill_before_the_cancellation_stays(server, broker):
    placed = broker.submit(replace(BUY, quantity=Decimal(3)))
    server.fill(BUY.id, Decimal(1))
    partial = broker.order(BUY.id)
    assert (partial.status, partial.filled, partial.average_price) == ("partial", 1, Decimal("180.50"))
    broker.cancel(placed)
    order = broker.order(BUY.id)
    assert (order.status, order.filled, order.ended) == ("canceled", 1, True)


# --- questions


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_question_is_asked_again(server, broker, fault):
    server.faults["GET /v2/account"] = [fault, fault]
    assert broker.account().cash == 100_000
    assert server.times_asked("GET /v2/account") == 3


@pytest.mark.parametrize("fault", NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_question_has_its_attempts_and_no_more(server, broker, fault):
    server.faults["GET /v2/account"] = [fault] * 10
    with pytest.raises(BrokerError) as caught:
        broker.account()
    assert server.times_asked("GET /v2/account") == (3 if fault in PASSING.values() else 1)
    assert isinstance(caught.value, Unreachable) == (fault.status != 408)
    assert str(caught.value).startswith("account: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, 0.5),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "9999"}, alpaca.LONGEST_PAUSE),
        ({"Retry-After": "?"}, 0.5),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 12)}, 12),
        ({"X-RateLimit-Reset": "1"}, 0.5),
    ],
)
def test_it_waits_as_long_as_the_server_asks_within_reason(server, broker, clock, headers, pause):
    server.faults["GET /v2/clock"] = [Fault(429, '{"message": "too many requests"}', headers)]
    assert broker.now() == NOW
    assert clock.slept == [pytest.approx(pause)]


def test_wrong_keys_are_refused_at_once(server, broker, monkeypatch):
    monkeypatch.setenv("APCA_API_SECRET_KEY", "another-secret")
    wrong = AlpacaBroker(config_of(server), FakeClock(NOW.isoformat()))
    with pytest.raises(Rejected, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY belong together"):
        wrong.account()
    assert server.times_asked("GET /v2/account") == 1


def test_calls_keep_to_the_rate_budget(server, make, clock):
    broker = make(per_minute=60)
    for _ in range(7):
        broker.now()
    assert clock.slept == [pytest.approx(60 / 54)]  # six at once, then 54 a minute


# --- what is not known yet


def test_an_order_of_unknown_status_is_unknown_and_spoils_no_list(server, broker):
    broker.submit(BUY)
    broker.submit(replace(BUY, id="other"))
    server.orders[BUY.id] |= {"status": "under_the_moon", "order_class": "bouquet", "type": "wish"}
    assert [(order.id, order.status) for order in broker.open_orders()] == [(BUY.id, "unknown"), ("other", "open")]
    assert not broker.order(BUY.id).ended


@pytest.mark.parametrize(("theirs", "ours"), alpaca_answers.STATUSES.items())
def test_every_known_status_has_a_meaning(server, broker, theirs, ours):
    broker.submit(BUY)
    server.orders[BUY.id]["status"] = theirs
    assert broker.order(BUY.id).status == ours


def test_every_status_of_alpaca_py_is_known():
    from alpaca.trading.enums import OrderStatus

    assert {status.value for status in OrderStatus} <= set(alpaca_answers.STATUSES)


def test_an_order_that_waits_for_its_cancellation_is_partial_once_something_is_filled(server, broker):
    broker.submit(BUY)
    server.fill(BUY.id, Decimal("0.1"))
    server.orders[BUY.id]["status"] = "pending_cancel"
    assert broker.order(BUY.id).status == "partial"


def test_an_order_for_an_amount_of_money_is_read(server, broker):
    broker.submit(BUY)
    server.orders[BUY.id] |= {"qty": None, "notional": "500", "client_order_id": "by-hand"}
    order = broker.open_orders()[0]
    assert (order.id, order.quantity, order.filled) == ("by-hand", 0, 0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"trading_blocked": True}, "trading is blocked"),
        ({"account_blocked": True}, "the account is blocked"),
        ({"trade_suspended_by_user": True}, "trading is suspended by the account's owner"),
        ({"status": "ACCOUNT_ON_MARS"}, "the account is ACCOUNT_ON_MARS"),
        ({"pattern_day_trader": True, "daytrade_count": 9}, ""),
    ],
)
def test_an_account_that_may_not_trade_says_why(server, broker, fields, reason):
    server.account = fields
    assert broker.account().blocked == reason


def test_money_keeps_every_digit(server, broker):
    server.account = {"cash": "12345678901234567.123456789", "equity": "0.1", "buying_power": "-3.30"}
    account = broker.account()
    assert [str(x) for x in (account.cash, account.equity, account.buying_power)] == [
        "12345678901234567.123456789", "0.1", "-3.30",
    ]  # fmt: skip


@pytest.mark.parametrize("broken", [None, "NaN", "Infinity", "a lot", {}])
def test_money_that_is_no_number_is_no_answer(server, broker, broken):
    server.account = {"cash": broken}
    with pytest.raises(Unreachable, match="cannot be read"):
        broker.account()


def test_a_short_position_is_below_zero(server, broker):
    server.positions = {"AAPL": Decimal("-2.5"), "MSFT": Decimal(1)}
    assert {s: p.quantity for s, p in broker.positions().items()} == {"AAPL": Decimal("-2.5"), "MSFT": 1}


# --- lists longer than a page


def test_open_orders_beyond_a_page_are_all_there_once(server, broker, monkeypatch):
    monkeypatch.setattr(alpaca, "ORDERS_PAGE", 4)
    for i in range(11):
        broker.submit(replace(BUY, id=f"desk-{i}"))
    for i in (3, 4, 5):  # around the end of a page, of one moment
        server.orders[f"desk-{i}"]["submitted_at"] = server.orders["desk-3"]["submitted_at"]
    assert [order.id for order in broker.open_orders()] == [f"desk-{i}" for i in range(11)]


def test_more_orders_of_one_moment_than_a_page_are_no_silent_loss(server, broker, monkeypatch):
    monkeypatch.setattr(alpaca, "ORDERS_PAGE", 4)
    for i in range(5):
        broker.submit(replace(BUY, id=f"desk-{i}"))
        server.orders[f"desk-{i}"]["submitted_at"] = "2024-03-01T18:00:00.123456789Z"
    with pytest.raises(Unreachable, match="of one moment"):
        broker.open_orders()


def test_activities_beyond_a_page_come_without_fills(server, broker):
    kinds = ["FILL" if i % 3 else "INT" for i in range(400)]
    server.activities = [
        {"id": f"{20240301000000000 + i}::x", "activity_type": kind, "date": "2024-03-01", "net_amount": str(i)}
        for i, kind in enumerate(kinds)
    ]
    found = broker.activities("")
    assert [activity.cash for activity in found] == list(range(0, 400, 3))
    assert broker.activities(found[50].id) == found[51:]


def test_activities_are_read_by_what_they_change(server, broker):
    server.activities = [
        {"id": "1", "activity_type": "DIV", "date": "2024-02-29", "net_amount": "1.02", "symbol": "T", "qty": "2"},
        {"id": "2", "activity_type": "SPLIT", "date": "2024-03-01", "symbol": "AAPL", "qty": "30", "net_amount": "0"},
        {"id": "3", "activity_type": "JUBILEE", "created_at": "2024-03-01T09:00:00.5-05:00", "net_amount": "-7"},
    ]
    dividend, split, unknown = broker.activities("")
    assert (dividend.kind, dividend.cash, dividend.symbol, dividend.quantity) == ("DIV", Decimal("1.02"), "T", 0)
    assert dividend.at == datetime(2024, 2, 29, tzinfo=UTC)
    assert (split.cash, split.symbol, split.quantity) == (0, "AAPL", 30)
    assert (unknown.kind, unknown.cash) == ("JUBILEE", -7)
    assert unknown.at == datetime(2024, 3, 1, 14, 0, 0, 500_000, tzinfo=UTC)


def test_bars_come_in_pages_and_are_whole(server, broker):
    span = datetime(2024, 2, 20, tzinfo=UTC), datetime(2024, 2, 28, tzinfo=UTC)
    whole = broker.rows(["AAPL", "MSFT"], *span)
    assert len(whole) == 16
    assert (whole[0].symbol, whole[1].symbol) == ("AAPL", "MSFT")
    assert whole[0].time == np.datetime64("2024-02-20T05:00")
    assert (whole[0].open, whole[0].high, whole[0].low, whole[0].close) == (100.0, 102.0, 98.0, 101.0)
    server.bars_page = 3
    assert broker.rows(["AAPL", "MSFT"], *span) == whole


def test_no_bars_are_no_error(server, broker):
    server.bars = {}
    span = datetime(2024, 2, 20, tzinfo=UTC), datetime(2024, 2, 28, tzinfo=UTC)
    assert broker.rows(["AAPL"], *span) == []
    server.bars = {"AAPL": daily("2024-02-20", 2)}
    server.faults["GET /v2/stocks/bars"] = [Fault(200, '{"bars": {"AAPL": null}, "next_page_token": null}')]
    assert broker.rows(["AAPL"], *span) == []
    lean = [{k: v for k, v in bar.items() if k not in ("n", "vw")} for bar in server.bars["AAPL"]]
    server.bars = {"AAPL": lean}
    assert len(broker.rows(["AAPL"], *span)) == 2


def test_a_page_that_follows_itself_ends(server, broker):
    server.faults["GET /v2/stocks/bars"] = [Fault(200, '{"bars": {}, "next_page_token": "x"}')] * 3
    with pytest.raises(Unreachable, match="names itself"):
        broker.rows(["AAPL"], NOW - timedelta(days=3), NOW)


# --- bars and quotes: only what has been


@pytest.mark.parametrize(
    ("now", "closes", "seen"),
    [
        ("2024-03-01T20:59:59Z", "16:00", False),
        ("2024-03-01T21:00:00Z", "16:00", True),
        ("2024-03-01T18:00:00Z", "13:00", True),  # half a day
        ("2024-03-01T17:59:59Z", "13:00", False),
    ],
)
def test_a_day_is_seen_once_its_session_is_over(server, broker, now, closes, seen):
    server.now, server.bars = datetime.fromisoformat(now), {"AAPL": daily("2024-02-29", 2)}
    server.calendar = [{"date": "2024-03-01", "open": "09:30", "close": closes}]
    rows = broker.rows(["AAPL"], datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC))
    assert len(rows) == 1 + seen


def test_a_minute_is_seen_once_it_is_over_and_within_the_session(server, make):
    minutes = ["14:29", "14:30", "17:58", "17:59", "18:00"]  # New York opens at 14:30 UTC
    server.bars = {"AAPL": [daily("2024-03-01", 1)[0] | {"t": f"2024-03-01T{at}:00Z"} for at in minutes]}
    span = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    for hours, expected in (("regular", minutes[1:4]), ("extended", minutes[:4])):
        rows = make(bar="minute", hours=hours).rows(["AAPL"], *span)
        assert [str(row.time)[11:16] for row in rows] == expected


def test_the_future_changes_no_row_that_is_seen(server, broker):
    server.bars = {"AAPL": daily("2024-02-20", 30)}
    span = datetime(2024, 2, 20, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)
    seen = broker.rows(["AAPL"], *span)
    assert len(seen) == 10  # up to 29 February: of 1 March the session is open
    for bar in server.bars["AAPL"][10:]:
        bar |= {"o": 1.0, "h": 9.0, "l": 0.5, "c": 2.0, "v": 1}
    assert broker.rows(["AAPL"], *span) == seen


def test_a_quote_is_the_last_trade_or_the_middle(server, broker):
    del server.prices["MSFT"]
    server.quotes = {
        "MSFT": {"t": "2024-03-01T17:59:59.123456789Z", "bp": 410.1, "ap": 410.4},
        "TSLA": {"t": "2024-03-01T17:59:59Z", "bp": 0, "ap": 200.0},  # nobody bids
    }
    quotes = broker.quotes(["AAPL", "MSFT", "TSLA"])
    assert {symbol: quote.price for symbol, quote in quotes.items()} == {
        "AAPL": Decimal("180.5"),
        "MSFT": Decimal("410.25"),
    }
    assert quotes["MSFT"].at == datetime(2024, 3, 1, 17, 59, 59, 123456, tzinfo=UTC)
    server.prices = {}
    assert broker.quotes(["NOSUCH"]) == {}


def test_a_halted_symbol_has_a_reason(server, broker):
    server.assets = {
        "HALT": asset("HALT") | {"tradable": False},
        "GONE": asset("GONE") | {"status": "inactive"},
        "ODD": asset("ODD") | {"exchange": "AMSTERDAM", "attributes": ["rare"]},
    }
    reasons = broker.tradable(["AAPL", "HALT", "GONE", "ODD"])
    assert {symbol: bool(reason) for symbol, reason in reasons.items()} == {
        "AAPL": False, "HALT": True, "GONE": True, "ODD": False,
    }  # fmt: skip


def test_sessions_of_new_york_are_told_in_utc(server, broker):
    server.calendar = [
        {"date": "2024-03-08", "open": "09:30", "close": "16:00"},
        {"date": "2024-03-11", "open": "09:30", "close": "13:00"},  # after the clocks went forward
    ]
    before, after = broker.sessions(date(2024, 3, 8), date(2024, 3, 11))
    assert [f"{at:%H:%M %Z}" for at in (before.open, before.close)] == ["14:30 UTC", "21:00 UTC"]
    assert [f"{at:%H:%M %Z}" for at in (after.open, after.close)] == ["13:30 UTC", "17:00 UTC"]


# --- crypto


def test_crypto_is_open_around_the_clock(server, make):
    sessions = make(asset_class="crypto").sessions(date(2024, 2, 28), date(2024, 3, 2))
    assert [session.day.day for session in sessions] == [28, 29, 1, 2]
    assert sessions[0].open == datetime(2024, 2, 28, tzinfo=UTC)
    assert all(later.open == earlier.close for earlier, later in pairwise(sessions))
    assert server.asked == []


def test_crypto_goes_its_own_ways(server, make):
    broker = make(asset_class="crypto", bar="hour")
    server.prices = {"BTC/USD": "61000.5"}
    server.bars = {"BTC/USD": [daily("2024-03-01", 1)[0] | {"t": f"2024-03-01T{h}:00:00Z"} for h in (16, 17, 18)]}
    rows = broker.rows(["BTC/USD"], datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC))
    assert [str(row.time)[11:13] for row in rows] == ["16", "17"]
    assert broker.quotes(["BTC/USD"])["BTC/USD"].price == Decimal("61000.5")
    broker.submit(Request("c", "BTC/USD", "buy", Decimal("0.5")))
    assert server.orders["c"]["time_in_force"] == "gtc"
    assert {path for _, path, _, _ in server.asked if "crypto" in path} == {
        "/v1beta3/crypto/us/bars", "/v1beta3/crypto/us/latest/trades",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("BTCUSD", "BTC/USD"),
        ("ETHUSDT", "ETH/USDT"),
        ("ETHBTC", "ETH/BTC"),
        ("USDTUSD", "USDT/USD"),
        ("A/USD", "A/USD"),
    ],
)
def test_a_position_in_crypto_has_the_name_of_its_pair(theirs, ours):
    raw = {"symbol": theirs, "qty": "1", "side": "long", "avg_entry_price": "2", "asset_class": "crypto"}
    assert alpaca_answers.position(raw).symbol == ours
    assert alpaca_answers.position(raw | {"asset_class": "us_equity"}).symbol == theirs


# --- order events


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_stream, "FIRST_PAUSE", 0.01)


def connected(server: BrokerServer, logins: int = 1) -> None:
    until = time.monotonic() + 10
    while not (server.logins >= logins and server.streams):
        assert time.monotonic() < until, "nobody listens"
        time.sleep(0.005)


def event(id: str, kind: str = "fill") -> str:
    order = {"client_order_id": id, "status": "under_the_moon"}
    return json.dumps({"stream": "trade_updates", "data": {"event": kind, "order": order}})


def test_events_of_any_kind_are_handed_on(server, broker):
    heard: queue.Queue[str] = queue.Queue()
    broker.listen(heard.put)
    connected(server)
    for i, kind in enumerate(["new", "fill", "moon_landing"]):
        server.send(event(f"desk-{i}", kind))
    assert [heard.get(timeout=10) for _ in range(3)] == ["desk-0", "desk-1", "desk-2"]


def test_it_connects_again_by_itself(server, broker, quick, caplog):
    heard: queue.Queue[str] = queue.Queue()
    broker.listen(heard.put)
    for logins, last_words in enumerate([None, "no JSON", "[1]"], 1):
        connected(server, logins)
        server.send(event(f"desk-{logins}"))
        assert heard.get(timeout=10) == f"desk-{logins}"
        if last_words:
            server.send(last_words)
        server.hang_up()
    connected(server, 4)
    assert sum("connecting again" in line for line in caplog.messages) == 3


def test_pauses_between_connections_grow(make, monkeypatch, caplog):
    monkeypatch.setattr(alpaca_stream, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(alpaca_stream, "LONGEST_PAUSE", 0.08)
    with socket.socket() as nobody:  # bound, but it does not listen
        nobody.bind(("127.0.0.1", 0))
        broker = make(stream_url=f"ws://127.0.0.1:{nobody.getsockname()[1]}/stream")
        broker.listen(lambda id: None)
        until = time.monotonic() + 10
        while len(pauses := re.findall("connecting again in (.*) s", caplog.text)) < 6:
            assert time.monotonic() < until
            time.sleep(0.01)
        broker.close()
    assert pauses[:6] == ["0.01", "0.02", "0.04", "0.08", "0.08", "0.08"]


def test_wrong_keys_end_it_with_one_line(server, make, quick, monkeypatch, caplog):
    monkeypatch.setenv("APCA_API_SECRET_KEY", "another-secret")
    broker = make()
    broker.listen(lambda id: None)
    broker._stream._thread.join(10)
    assert not broker._stream._thread.is_alive()
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"{server.stream_url}: the keys are refused; order events are not heard any more"
    ]
    assert server.logins == 1
    broker.close()


def test_an_event_that_names_no_order_is_told_in_the_log(server, broker, caplog):
    heard: queue.Queue[str] = queue.Queue()
    broker.listen(heard.put)
    connected(server)
    for broken in ({"stream": "trade_updates"}, {"stream": "trade_updates", "data": {"order": None}}):
        server.send(json.dumps(broken))
    server.send(event("desk-1"))
    assert heard.get(timeout=10) == "desk-1"
    assert sum("names no order" in line for line in caplog.messages) == 2
    assert server.logins == 1


def test_a_listener_that_fails_hears_the_next_event(server, broker, caplog):
    heard: queue.Queue[str] = queue.Queue()

    def listener(id: str) -> None:
        heard.put(id)
        raise KeyError("its own mistake")

    broker.listen(listener)
    connected(server)
    server.send(event("desk-1"))
    server.send(event("desk-2"))
    assert [heard.get(timeout=10), heard.get(timeout=10)] == ["desk-1", "desk-2"]
    assert "its own mistake" in caplog.text


def test_one_listens_at_a_time(broker):
    broker.listen(lambda id: None)
    with pytest.raises(RuntimeError):
        broker.listen(lambda id: None)


# --- secrets


def test_no_key_in_any_error_log_or_text(server, make, quick, caplog):
    caplog.set_level(logging.DEBUG)
    told: list[BaseException] = []
    broker = make()
    quoting = json.dumps({"message": f"keys {KEY} and {SECRET} are odd"})
    for fault in [*UNHEARD.values(), Fault(401, quoting), Fault(422, quoting)]:
        quoted = replace(fault, body=quoting) if fault.body.startswith("{") else fault
        server.faults = {"GET /v2/account": [quoted] * 3, ORDERS: [quoted]}
        for call in (broker.account, lambda: broker.submit(BUY)):
            with pytest.raises(BrokerError) as caught:
                call()
            told.append(caught.value)
    broker.listen(lambda id: None)
    connected(server)
    server.hang_up()
    connected(server, 2)
    broker.close()
    assert sum("are odd" in str(error) for error in told) >= 10
    assert "asking again" in caplog.text
    said = [caplog.text, repr(broker), repr(config_of(server))]
    while told:
        said += map(repr, told)
        told = [cause for error in told for cause in (error.__cause__, error.__context__) if cause]
    pieces = (KEY[:8], KEY[-8:], SECRET[:8], SECRET[-8:])  # a long frame is logged without its middle
    assert sum(piece in text for text in said for piece in pieces) == 0


def test_a_proxy_in_the_environment_gets_no_keys(server, make, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert make().now() == NOW


def test_without_keys_it_says_which_are_lacking(server, monkeypatch):
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    with pytest.raises(UserError, match=r"^APCA_API_SECRET_KEY: not set"):
        AlpacaBroker(config_of(server))


# --- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "https://api.alpaca.markets"},
        {"url": "https://paper-api.alpaca.markets/v2"},
        {"url": "https://paper-api.alpaca.markets/"},
        {"url": "http://paper-api.alpaca.markets"},
        {"url": "https://paper-api.alpaca.markets@evil.example"},
        {"url": "https://paper-api.alpaca.markets.evil.example"},
        {"url": "https://user:word@127.0.0.1:1"},
        {"url": "ftp://127.0.0.1"},
        {"url": ""},
        {"stream_url": "wss://api.alpaca.markets/stream"},
        {"data_url": "https://data.evil.example"},
    ],
)
def test_an_address_that_is_not_paper_is_refused(settings):
    ((name, url),) = settings.items()
    with pytest.raises(UserError) as caught:
        build(AlpacaConfig, settings)
    assert f"{name} = {url!r}: expected" in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8701", "http://localhost:1", "http://[::1]:8701"])
def test_an_address_on_this_machine_is_taken(url):
    assert build(AlpacaConfig, {"url": url}).order_events == f"ws{url.removeprefix('http')}/stream"
    assert build(LocalConfig, {"url": url}).url == url


def test_the_usual_addresses_are_those_of_paper():
    usual = AlpacaConfig()
    assert (usual.url, usual.order_events) == (
        "https://paper-api.alpaca.markets",
        "wss://paper-api.alpaca.markets/stream",
    )


@pytest.mark.parametrize("url", ["http://192.168.1.7:8701", "https://paper-api.alpaca.markets", "127.0.0.1:8701"])
def test_a_local_exchange_elsewhere_is_refused(url):
    with pytest.raises(UserError, match="expected a server on this machine"):
        build(LocalConfig, {"url": url})


# --- the local exchange


@pytest.fixture
def local(server: BrokerServer, clock: FakeClock) -> Iterator[LocalBroker]:
    server.local = {
        "now": "2024-03-01T21:00:00+00:00", "bar": 7, "stage": "closed", "bars": 100, "ended": False,
        "symbols": ["AAPL", "MSFT"], "bars_per_year": 252.0,
        "times": "2024-03-01T05:00:00+00:00", "close": "2024-03-01T21:00:00+00:00",
    }  # fmt: skip
    broker = LocalBroker(LocalConfig(url=server.url, timeout_s=0.5), clock)
    yield broker
    broker.close()


def test_the_local_clock_is_read(local):
    clock = local.local_clock()
    assert (clock.bar, clock.stage, clock.bars, clock.ended) == (7, "closed", 100, False)
    assert (clock.symbols, clock.bars_per_year) == (("AAPL", "MSFT"), 252.0)
    assert clock.now == clock.close == datetime(2024, 3, 1, 21, tzinfo=UTC)
    assert clock.start == datetime(2024, 3, 1, 5, tzinfo=UTC)


def test_a_stage_is_left_once_however_often_it_is_said(server, local):
    server.faults["POST /local/advance"] = [Fault(502, HTML, after=True), Fault(drop=True, after=True)]
    assert (local.advance(7, "closed").bar, local.local_clock().stage) == (7, "filled")
    assert local.advance(7, "closed").stage == "filled"
    assert [local.advance(7, "filled").bar, local.advance(7, "filled").bar] == [8, 8]
    assert server.times_asked("POST /local/advance") == 6


def test_observed_columns_are_handed_on_as_they_are(server, local):
    assert local.observed("2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z") == {
        "times": ["2024-03-01T00:00:00Z"],
        "columns": {},
    }
    server.faults["GET /local/observed"] = [Fault(200, "[1]")] * 4
    with pytest.raises(Unreachable):
        local.observed("2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z")


def test_the_local_exchange_lists_its_assets_of_every_kind(server, local, broker):
    server.assets = {"BTC/USD": asset("BTC/USD") | {"class": "crypto"}}
    assert local.tradable(["AAPL", "BTC/USD"]) == {"AAPL": "", "BTC/USD": ""}
    assert broker.tradable(["BTC/USD"])["BTC/USD"]


def test_the_local_exchange_is_asked_without_a_budget(server, local, clock):
    for _ in range(300):
        local.now()
    assert clock.slept == []


def test_the_local_exchange_needs_no_keys_of_alpaca(server, monkeypatch):
    monkeypatch.delenv("APCA_API_KEY_ID")
    broker = LocalBroker(LocalConfig(url=server.url), FakeClock(NOW.isoformat()))
    with pytest.raises(Rejected):  # this server wants others than "local"
        broker.account()


def test_a_broker_is_not_sent_to_another_process(broker):
    with pytest.raises(TypeError):
        pickle.dumps(broker)
