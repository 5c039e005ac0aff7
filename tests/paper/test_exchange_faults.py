"""Scripted faults of the local exchange do what its table says, and the stream tells what happens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderStatus
from alpaca.trading.requests import MarketOrderRequest
from alpaca.trading.stream import TradingStream
from exchanges import HEADERS, PANEL, advance, script, serving
from websockets.sync.client import connect

from paper.exchange.faults import Fault
from paper.exchange.run import FOR_ANYONE, Running

WAIT = 20


@pytest.fixture
def exchange() -> Iterator[Running]:
    with serving() as running:
        yield running


def client_of(exchange: Running) -> TradingClient:
    client = TradingClient(*FOR_ANYONE, url_override=exchange.url)
    client._retry = 0
    return client


def buy(client: TradingClient, id: str, symbol: str = "S000", qty: float = 10) -> Any:
    wanted = MarketOrderRequest(symbol=symbol, qty=qty, side="buy", time_in_force="day", client_order_id=id)
    return client.submit_order(wanted)


@contextmanager
def heard(exchange: Running) -> Iterator[queue.Queue[Any]]:
    """What alpaca-py's stream hears, once it listens."""
    told: queue.Queue[Any] = queue.Queue()
    stream = TradingStream(*FOR_ANYONE, url_override=exchange.stream_url)

    async def put(update: Any) -> None:
        told.put(update)

    stream.subscribe_trade_updates(put)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    probe = client_of(exchange)
    for number in range(100):
        buy(probe, f"probe-{number}", "S003", 1)
        probe.cancel_orders()
        try:
            while told.get(timeout=0.3).event != "canceled":
                pass
            break
        except queue.Empty:
            pass
    while not told.empty():
        told.get()
    yield told
    stream._should_run = False
    stream._loop.call_soon_threadsafe(stream._stop_stream_event.set)
    stream._loop.call_soon_threadsafe(lambda: stream._ws and stream._loop.create_task(stream._ws.close()))
    thread.join(WAIT)


@pytest.mark.parametrize(
    ("kind", "status"), [("429", 429), ("500", 500), ("504", 504), ("502_html", 502), ("reject_buying_power", 403)]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_bad_answer_books_nothing_unless_it_comes_after(exchange: Running, kind: str, status: int, after: bool):
    if after and kind == "reject_buying_power":
        return
    script(exchange, {"route": "POST /v2/orders", "nth": 2, "kind": kind + ("_after" if after else "")})
    client = client_of(exchange)
    buy(client, "one")
    with pytest.raises(APIError) as error:
        buy(client, "two")
    assert error.value.status_code == status
    buy(client, "three")
    assert {o.client_order_id for o in client.get_orders()} == {"one", "three"} | ({"two"} if after else set())
    if kind == "502_html":
        assert "<html>" in str(error.value)


@pytest.mark.parametrize("kind", ["drop", "drop_after", "hang", "hang_after"])
def test_no_answer_at_all(exchange: Running, kind: str):
    script(exchange, {"route": "POST /v2/orders", "kind": kind, "seconds": 0.2})
    client = client_of(exchange)
    with pytest.raises(requests.exceptions.ConnectionError):
        buy(client, "lost")
    assert [o.client_order_id for o in client.get_orders()] == (["lost"] if kind.endswith("after") else [])


def test_a_hanging_request_does_not_keep_the_server_from_stopping():
    with serving() as exchange:
        script(exchange, {"route": "GET /v2/account", "kind": "hang", "seconds": 600})
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(f"{exchange.url}/v2/account", headers=HEADERS, timeout=0.3)
        assert requests.get(f"{exchange.url}/v2/account", headers=HEADERS, timeout=10).status_code == 200


def test_faults_strike_as_often_as_they_say_and_can_be_cleared(exchange: Running):
    script(exchange, {"route": "GET /v2/*", "nth": 2, "times": 2, "kind": "500"})

    def ask() -> int:
        return requests.get(f"{exchange.url}/v2/account", headers=HEADERS, timeout=10).status_code

    assert [ask() for _ in range(5)] == [200, 500, 500, 200, 200]
    script(exchange, {"route": "GET /v2/*", "times": 9, "kind": "500"})
    assert ask() == 500
    assert len(requests.get(f"{exchange.url}/local/faults", timeout=10).json()) == 2
    requests.delete(f"{exchange.url}/local/faults", headers=HEADERS, timeout=10)
    assert ask() == 200


def test_a_status_that_no_client_knows_breaks_the_list(exchange: Running):
    client = client_of(exchange)
    buy(client, "one")
    script(exchange, {"route": "GET /v2/orders*", "kind": "unknown_enum", "times": 2})
    with pytest.raises(ValueError):
        client.get_orders()
    with pytest.raises(ValueError):
        client.get_order_by_client_id("one")
    assert client.get_order_by_client_id("one").status == OrderStatus.NEW


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({}, "exactly one of route, stream and market"),
        ({"route": "GET /", "kind": "503"}, "expected one of 429"),
        ({"stream": "late"}, "expected one of silent"),
        ({"market": "split"}, "needs a symbol"),
        ({"market": "halt", "symbol": "NONE"}, "not of this market"),
        ({"market": "halt", "when": 3}, "unknown key"),
        (7, "expected keys with values"),
    ],
)
def test_a_script_that_cannot_be_is_refused(exchange: Running, fault: Any, words: str):
    answer = requests.post(f"{exchange.url}/local/faults", json=[fault], headers=HEADERS, timeout=10)
    assert (answer.status_code, words in answer.json()["message"]) == (422, True), answer.text


def test_the_stream_tells_of_every_event_with_its_execution(exchange: Running):
    client = client_of(exchange)
    with heard(exchange) as told:
        buy(client, "whole")
        assert told.get(timeout=WAIT).event == "new"
        buy(client, "canceled", "S001")
        client.cancel_orders()
        events = [told.get(timeout=WAIT).event for _ in range(3)]
        assert events == ["new", "canceled", "canceled"]
        script(exchange, {"market": "reject", "symbol": "S002"})
        buy(client, "rejected", "S002")
        buy(client, "filled", "S000")
        advance(exchange)
        updates = [told.get(timeout=WAIT) for _ in range(4)]
        assert [u.event for u in updates] == ["new", "new", "rejected", "fill"]
        fill = updates[-1]
        truth = client.get_order_by_client_id("filled")
        assert (fill.order.id, fill.qty, fill.position_qty) == (truth.id, 10, 10)
        assert repr(fill.price) == truth.filled_avg_price
        assert len({u.execution_id for u in updates}) == 4


def test_two_executions_come_one_after_the_other():
    with serving(partial=1.0) as exchange:
        client = client_of(exchange)
        with heard(exchange) as told:
            buy(client, "two", qty=10)
            advance(exchange)
            assert [told.get(timeout=WAIT).event for _ in range(2)] == ["new", "partial_fill"]
            assert client.get_order_by_client_id("two").status == OrderStatus.PARTIALLY_FILLED
            assert told.get(timeout=WAIT).event == "fill"
            assert client.get_order_by_client_id("two").status == OrderStatus.FILLED


def test_a_partial_fill_that_stays_can_be_canceled_or_expires(exchange: Running):
    client = client_of(exchange)
    script(exchange, {"market": "partial", "times": 2, "share": 0.3})
    one, two = buy(client, "one"), buy(client, "two", "S001")
    advance(exchange)
    for _ in range(2):
        order = client.get_order_by_id(one.id)
        assert (order.status, order.filled_qty) == (OrderStatus.PARTIALLY_FILLED, "3")
    client.cancel_order_by_id(one.id)
    advance(exchange)
    assert client.get_order_by_id(one.id).status == OrderStatus.CANCELED
    assert client.get_order_by_id(two.id).status == OrderStatus.EXPIRED
    assert {p.qty for p in client.get_all_positions()} == {"3"}


def test_silence_and_doubles_on_the_stream(exchange: Running):
    client = client_of(exchange)
    with heard(exchange) as told:
        script(exchange, {"stream": "silent", "event": "new"}, {"stream": "duplicate", "event": "fill"})
        buy(client, "one")
        advance(exchange)
        first, second = told.get(timeout=WAIT), told.get(timeout=WAIT)
        assert (first.event, second.event) == ("fill", "fill")
        assert first.execution_id == second.execution_id


def test_a_stream_that_drops_and_is_found_again(exchange: Running):
    client = client_of(exchange)
    with heard(exchange) as told:
        script(exchange, {"stream": "drop", "event": "new"})
        buy(client, "unheard")
        for number in range(60):  # until alpaca-py has come back
            buy(client, str(number), "S002", 1)
            client.cancel_order_by_id(client.get_order_by_client_id(str(number)).id)
            try:
                update = told.get(timeout=0.5)
                break
            except queue.Empty:
                pass
        assert update.order.client_order_id != "unheard", "what was missed is not told again"


def test_a_fill_may_leave_before_the_answer(exchange: Running):
    client = client_of(exchange)
    with heard(exchange) as told:
        script(exchange, {"stream": "before_answer"})
        answer = buy(client, "quick")
        assert answer.status == OrderStatus.PENDING_NEW
        assert [told.get(timeout=WAIT).event for _ in range(2)] == ["new", "fill"]
        order = client.get_order_by_client_id("quick")
        assert (order.status, order.filled_qty) == (OrderStatus.FILLED, "10")
        assert float(order.filled_avg_price) == pytest.approx(PANEL.close[30, 0], rel=1e-3)
        assert buy(client, "slow", "S001").status == OrderStatus.PENDING_NEW
        advance(exchange)
        assert client.get_open_position("S000").qty == "10"


def test_who_is_not_authorised_hears_nothing(exchange: Running):
    with connect(exchange.stream_url) as socket:
        socket.send('{"action": "listen", "data": {"streams": ["trade_updates"]}}')
        assert b"not authorized" in socket.recv(timeout=WAIT)
        for wrong in ("no json", "[1]", '{"action": 5, "data": 7}'):
            socket.send(wrong)
            assert b"not authorized" in socket.recv(timeout=WAIT)
        socket.send('{"action": "authenticate", "data": {"key_id": "local", "secret_key": "guess"}}')
        assert b'"unauthorized"' in socket.recv(timeout=WAIT)
        buy(client_of(exchange), "one")
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.2)


def test_a_wrong_clock_and_a_late_bar(exchange: Running):
    client = client_of(exchange)
    right = client.get_clock().timestamp
    script(exchange, {"market": "clock_skew", "seconds": -300}, {"market": "late", "bar": 30, "times": 2})
    assert (right - client.get_clock().timestamp).total_seconds() == 300

    def bars() -> int:
        wanted = {"symbols": "S000", "timeframe": "1Day", "start": "2019-01-01"}
        answer = requests.get(f"{exchange.url}/v2/stocks/bars", wanted, headers=HEADERS, timeout=10).json()
        return len(answer["bars"]["S000"])

    assert [bars() for _ in range(3)] == [30, 30, 31]


def test_a_script_in_the_configuration_is_played():
    with serving(faults=[Fault(route="GET /v2/account", kind="500")]) as exchange:
        codes = [requests.get(f"{exchange.url}/v2/account", headers=HEADERS, timeout=10).status_code for _ in range(2)]
        assert codes == [500, 200]
