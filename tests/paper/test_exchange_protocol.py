"""alpaca-py, unchanged, drives the local exchange: shapes, errors, pages, keys and limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment
from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
from alpaca.data.requests import (
    CryptoBarsRequest,
    CryptoLatestBarRequest,
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
)
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, OrderStatus, PositionSide, QueryOrderStatus, TimeInForce
from alpaca.trading.models import NonTradeActivity, TradeActivity
from alpaca.trading.requests import (
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
)
from exchanges import HEADERS, PANEL, advance, script, serving, trading
from panels import random_panel

from envs.config import CostConfig
from paper.exchange.run import FOR_ANYONE, Running

START = datetime(2019, 1, 1)


@pytest.fixture
def exchange() -> Iterator[Running]:
    with serving(trading=trading(costs=CostConfig(cash_rate=0.05))) as running:
        yield running


@pytest.fixture
def client(exchange: Running) -> TradingClient:
    return TradingClient(*FOR_ANYONE, url_override=exchange.url)


@pytest.fixture
def data(exchange: Running) -> StockHistoricalDataClient:
    return StockHistoricalDataClient(*FOR_ANYONE, url_override=exchange.url)


def market(symbol: str = "S000", qty: float = 10, side: OrderSide = OrderSide.BUY, **more: Any) -> MarketOrderRequest:
    given = {"symbol": symbol, "qty": qty, "side": side, "time_in_force": TimeInForce.DAY} | more
    return MarketOrderRequest(**given)


def refused(error: pytest.ExceptionInfo[APIError], status: int, code: int, words: str) -> None:
    assert (error.value.status_code, error.value.code) == (status, code)
    assert words in error.value.message


def test_an_order_from_posting_to_position(exchange: Running, client: TradingClient):
    placed = client.submit_order(market(qty=10.123456789, client_order_id="one"))
    assert (placed.status, placed.filled_qty, placed.filled_avg_price) == (OrderStatus.PENDING_NEW, "0", None)
    assert client.get_order_by_id(placed.id).status == OrderStatus.NEW
    assert [o.id for o in client.get_orders()] == [placed.id]
    advance(exchange)
    filled = client.get_order_by_client_id("one")
    assert (filled.status, filled.filled_qty, filled.qty) == (OrderStatus.FILLED, "10.123456789", "10.123456789")
    assert client.get_orders() == []
    (position,) = client.get_all_positions()
    assert position == client.get_open_position("S000")
    assert (position.qty, position.side) == ("10.123456789", PositionSide.LONG)
    assert (position.avg_entry_price, position.current_price) == (filled.filled_avg_price, str(PANEL.open[31, 0]))
    account = client.get_account()
    with localcontext(prec=50):
        assert Decimal(account.cash) == 1_000_000 - Decimal(filled.filled_qty) * Decimal(filled.filled_avg_price)
        assert Decimal(account.equity) == Decimal(account.cash) + Decimal(position.market_value)
    advance(exchange)
    assert Decimal(client.get_account().cash) > Decimal(account.cash), "no interest"
    assert client.get_open_position("S000").current_price == str(PANEL.close[31, 0])


def test_activities_are_fills_and_interest(exchange: Running, client: TradingClient):
    placed = client.submit_order(market())
    advance(exchange)
    advance(exchange)
    newest, oldest = client.get("/account/activities")
    trade, interest = TradeActivity(**oldest), NonTradeActivity(**newest)
    assert (trade.order_id, trade.qty, trade.order_status) == (placed.id, 10, OrderStatus.FILLED)
    assert (interest.activity_type.value, interest.net_amount > 0) == ("INT", True)
    assert client.get("/account/activities/FILL") == [oldest]
    assert client.get("/account/activities", {"activity_types": "INT"}) == [newest]
    forward = {"direction": "asc", "page_size": 1}
    assert client.get("/account/activities", forward) == [oldest]
    assert client.get("/account/activities", forward | {"page_token": oldest["id"]}) == [newest]
    assert client.get("/account/activities", forward | {"page_token": newest["id"]}) == []
    assert client.get("/account/activities", {"after": trade.transaction_time.isoformat()}) == [newest]


def test_bought_money_is_a_quantity_at_the_last_close(exchange: Running, client: TradingClient):
    placed = client.submit_order(market(qty=None, notional=5000))
    assert (placed.notional, placed.qty) == ("5000", None)
    advance(exchange)
    filled = client.get_order_by_id(placed.id)
    assert float(filled.filled_qty) == pytest.approx(5000 / PANEL.close[30, 0], abs=1e-9)


def test_clock_and_calendar(exchange: Running, client: TradingClient):
    clock = client.get_clock()
    assert clock.timestamp == datetime(2019, 2, 18, 21, tzinfo=UTC)
    assert not clock.is_open
    assert clock.next_open == datetime(2019, 2, 19, 14, 30, tzinfo=UTC)
    assert clock.next_close == datetime(2019, 2, 19, 21, tzinfo=UTC)
    advance(exchange)
    assert client.get_clock().is_open
    days = client.get_calendar(GetCalendarRequest(start=date(2019, 2, 15), end=date(2019, 2, 19)))
    assert [d.date for d in days] == [date(2019, 2, 15), date(2019, 2, 18), date(2019, 2, 19)]
    assert (days[0].open, days[0].close) == (datetime(2019, 2, 15, 9, 30), datetime(2019, 2, 15, 16))


def test_minutes_trade_within_their_session():
    with serving(random_panel(3, bars=800, symbols=2, gaps=False, minutes=True), bar=388) as exchange:
        client = TradingClient(*FOR_ANYONE, url_override=exchange.url)
        assert client.get_clock().is_open
        assert len(client.get_calendar()) == 3
        for _ in range(2):
            advance(exchange)
        shut = client.get_clock()
        assert (shut.timestamp, shut.is_open) == (datetime(2019, 1, 7, 21, tzinfo=UTC), False)
        assert shut.next_open == datetime(2019, 1, 8, 14, 30, tzinfo=UTC)
        data = StockHistoricalDataClient(*FOR_ANYONE, url_override=exchange.url)
        wanted = StockBarsRequest(symbol_or_symbols="S000", timeframe=TimeFrame.Minute, start=START)
        assert len(data.get_stock_bars(wanted)["S000"]) == 390


def test_assets(client: TradingClient):
    assets = client.get_all_assets(GetAssetsRequest())
    assert [a.symbol for a in assets] == list(PANEL.symbols)
    assert client.get_asset("S001") == client.get_asset(assets[1].id) == assets[1]
    assert (assets[0].tradable, assets[0].fractionable, assets[0].shortable) == (True, True, False)
    with pytest.raises(APIError) as error:
        client.get_asset("NONE")
    refused(error, 404, 40410000, "not found")


@pytest.mark.parametrize("limit", [None, 7, 40])
def test_bars_are_the_panels(data: StockHistoricalDataClient, limit: int | None):
    wanted = StockBarsRequest(symbol_or_symbols=["S000", "S002"], timeframe=TimeFrame.Day, start=START, limit=limit)
    bars = data.get_stock_bars(wanted).data
    flat = [bar for symbol in ("S000", "S002") for bar in bars.get(symbol, [])]
    assert len(flat) == (limit or 62), "the limit counts bars of all symbols together"
    for number, bar in enumerate(flat):
        t, a = (number, 0) if number < 31 else (number - 31, 2)
        assert bar.timestamp.replace(tzinfo=None) == PANEL.times[t].astype("datetime64[us]").astype(object)
        assert (bar.open, bar.high, bar.low) == (PANEL.open[t, a], PANEL.high[t, a], PANEL.low[t, a])
        assert (bar.close, bar.volume) == (PANEL.close[t, a], PANEL.volume[t, a])


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_pages_of_bars_follow_one_another(exchange: Running, sort: str):
    whole = {"symbols": "S000,S001,S003", "timeframe": "1Day", "start": "2019-01-10", "sort": sort}

    def get(**more: Any) -> dict[str, Any]:
        return requests.get(f"{exchange.url}/v2/stocks/bars", whole | more, headers=HEADERS, timeout=10).json()

    everything, pages, token = get(), [], ""
    assert everything["next_page_token"] is None
    while token is not None:
        page = get(limit=9, page_token=token)
        token = page["next_page_token"]
        pages += [(symbol, bar["t"]) for symbol, bars in page["bars"].items() for bar in bars]
    assert pages == [(symbol, bar["t"]) for symbol, bars in everything["bars"].items() for bar in bars]


def test_newest_bar_quote_and_trade(exchange: Running, data: StockHistoricalDataClient):
    def newest() -> list[float]:
        bar = data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="S000"))["S000"]
        quote = data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="S000"))["S000"]
        trade = data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="S000"))["S000"]
        assert quote.timestamp == trade.timestamp
        return [bar.close, quote.bid_price, quote.ask_price, trade.price]

    assert newest() == [PANEL.close[30, 0]] * 4
    advance(exchange)
    assert newest() == [PANEL.close[30, 0]] + [PANEL.open[31, 0]] * 3


def test_bars_of_crypto_come_by_their_own_route(exchange: Running):
    client = CryptoHistoricalDataClient(*FOR_ANYONE, url_override=exchange.url)
    wanted = CryptoBarsRequest(symbol_or_symbols="S000", timeframe=TimeFrame.Day, start=START)
    assert len(client.get_crypto_bars(wanted)["S000"]) == 31
    assert client.get_crypto_latest_bar(CryptoLatestBarRequest(symbol_or_symbols="S000"))["S000"].close


def test_bars_are_adjusted_for_splits_where_that_is_asked(exchange: Running, data: StockHistoricalDataClient):
    script(exchange, {"market": "split", "symbol": "S000", "bar": 31, "ratio": 2})
    advance(exchange)
    advance(exchange)

    def closes(adjustment: Adjustment) -> list[float]:
        wanted = StockBarsRequest(symbol_or_symbols="S000", timeframe=TimeFrame.Day, start=START, adjustment=adjustment)
        return [bar.close for bar in data.get_stock_bars(wanted)["S000"]]

    now = PANEL.close[:32, 0]
    assert closes(Adjustment.SPLIT) == list(now / 2)
    assert closes(Adjustment.RAW) == [*now[:31], now[31] / 2]


def test_canceling(exchange: Running, client: TradingClient):
    one, two, three = (client.submit_order(market(f"S00{n}")) for n in range(3))
    client.cancel_order_by_id(one.id)
    assert client.get_order_by_id(one.id).status == OrderStatus.CANCELED
    assert {answer.id for answer in client.cancel_orders()} == {two.id, three.id}
    with pytest.raises(APIError) as error:
        client.cancel_order_by_id(one.id)
    refused(error, 422, 42210000, "canceled")
    advance(exchange)
    assert client.get_all_positions() == []


def test_lists_of_orders(exchange: Running, client: TradingClient):
    placed = [client.submit_order(market(f"S00{n % 4}", client_order_id=str(n))) for n in range(60)]

    def ids(**wanted: Any) -> list[str]:
        return [o.client_order_id for o in client.get_orders(GetOrdersRequest(**wanted))]

    assert ids() == [str(n) for n in range(59, 9, -1)], "the newest 50"
    assert ids(direction="asc", limit=3) == ["0", "1", "2"]
    assert ids(direction="asc", limit=500, after=placed[57].submitted_at) == ["58", "59"]
    assert ids(direction="asc", limit=2, symbols=["S003"]) == ["3", "7"]
    assert ids(status=QueryOrderStatus.CLOSED) == []
    advance(exchange)
    assert len(ids(status=QueryOrderStatus.CLOSED, limit=500)) == 60
    assert ids() == []


@pytest.mark.parametrize(
    ("asked", "status", "code", "words"),
    [
        (market(client_order_id="used"), 422, 40010001, "client_order_id must be unique"),
        (market("NONE"), 422, 42210000, "could not find asset"),
        (market(side=OrderSide.SELL), 403, 40310000, "insufficient qty available"),
        (market(qty=1e6), 403, 40310000, "insufficient buying power"),
        (market("S003", side=OrderSide.SELL, qty=1), 403, 40310000, "wash trade"),
        (market(qty=0.1 + 0.2), 422, 42210000, "9 decimal places"),
        (market(qty=1.5, time_in_force=TimeInForce.GTC), 422, 42210000, "must be day"),
        (market(qty=1.5, time_in_force=TimeInForce.OPG), 422, 42210000, "fractional orders must be DAY"),
        (market(time_in_force=TimeInForce.CLS), 422, 42210000, "fill at the open"),
        (market(qty=None, notional=0.5), 422, 40010001, "notional must be at least 1"),
        (market(client_order_id="x" * 129), 422, 40010001, "128 characters"),
        (
            LimitOrderRequest(symbol="S000", qty=1, side="buy", time_in_force="day", limit_price=5),
            422,
            42210000,
            "only simple market orders",
        ),
    ],
)
def test_what_is_refused(
    exchange: Running, client: TradingClient, asked: MarketOrderRequest, status: int, code: int, words: str
):
    client.submit_order(market("S003", client_order_id="used"))
    with pytest.raises(APIError) as error:
        client.submit_order(asked)
    refused(error, status, code, words)
    assert len(client.get_orders()) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"symbol": "S000"}', b'{"symbol": "S000", "qty": "much"}', b'{"qty": true}', b'"a"',
     b'{"symbol": 5, "qty": -1, "side": "buy"}', b'{"symbol": "S000", "qty": "NaN", "side": "buy"}',
     b'{"symbol": "S000", "qty": "1e400", "side": "buy"}', b"\xff"],
)  # fmt: skip
def test_nonsense_is_refused_and_books_nothing(exchange: Running, body: bytes):
    answer = requests.post(f"{exchange.url}/v2/orders", data=body, headers=HEADERS, timeout=10)
    assert answer.status_code in (400, 422), answer.text
    assert isinstance(answer.json()["message"], str)
    assert not exchange.exchange.book.orders


def test_what_is_not_there(exchange: Running, client: TradingClient):
    for ask in (
        lambda: client.get_open_position("S000"),
        lambda: client.get_order_by_client_id("none"),
        lambda: client.get_order_by_id("4b3cd4bf-1c0e-4a93-a49f-5c5a0b7c1f00"),
    ):
        with pytest.raises(APIError) as error:
            ask()
        refused(error, 404, 40410000, "")
    with pytest.raises(APIError) as error:
        client.get("/nowhere")
    assert error.value.status_code == 404
    answer = requests.get(f"{exchange.url}/v2/stocks/bars?symbols=S000&timeframe=1Min", headers=HEADERS, timeout=10)
    assert (answer.status_code, "1Day" in answer.json()["message"]) == (400, True)


def test_wrong_keys_are_refused_everywhere_but_for_reading_the_clock(exchange: Running):
    stranger = TradingClient("local", "guess", url_override=exchange.url)
    for ask in (stranger.get_account, stranger.get_clock, lambda: stranger.submit_order(market())):
        with pytest.raises(APIError) as error:
            ask()
        refused(error, 401, 40110000, "not authorized")
    told = {"bar": 30, "stage": "closed"}
    assert requests.post(f"{exchange.url}/local/advance", json=told, timeout=10).status_code == 401
    assert requests.post(f"{exchange.url}/local/faults", json=[], timeout=10).status_code == 401
    assert requests.get(f"{exchange.url}/local/clock", timeout=10).json()["stage"] == "closed"
    assert not exchange.exchange.book.orders


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APCA_API_KEY_ID", "PKMINE")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "my-own-secret")
    with serving() as exchange:
        TradingClient("PKMINE", "my-own-secret", url_override=exchange.url).get_account()
        with pytest.raises(APIError):
            TradingClient(*FOR_ANYONE, url_override=exchange.url).get_account()


def test_more_than_the_limit_a_minute_are_refused():
    with serving(requests_per_minute=3) as exchange:
        answers = [requests.get(f"{exchange.url}/v2/account", headers=HEADERS, timeout=10) for _ in range(8)]
        codes = [answer.status_code for answer in answers]
        assert codes[:3] == [200, 200, 200]
        assert 429 in codes, "a minute may end in between, but not twice"
        assert answers[0].headers["X-RateLimit-Limit"] == "3"
        assert answers[codes.index(429)].headers["X-RateLimit-Remaining"] == "0"
        assert int(answers[0].headers["X-RateLimit-Reset"]) % 60 == 0


def test_the_clock_of_the_lock_step(exchange: Running):
    now = requests.get(f"{exchange.url}/local/clock", timeout=10).json()
    assert now == {
        "now": "2019-02-18T21:00:00Z",
        "bar": 30,
        "stage": "closed",
        "bars": 60,
        "ended": False,
        "symbols": list(PANEL.symbols),
        "bars_per_year": 252.0,
        "times": "2019-02-18T00:00:00Z",
        "close": "2019-02-18T21:00:00Z",
    }
    assert advance(exchange)["stage"] == "filled"
    repeated = requests.post(
        f"{exchange.url}/local/advance", json={"bar": 30, "stage": "closed"}, headers=HEADERS, timeout=10
    ).json()
    assert (repeated["bar"], repeated["stage"]) == (30, "filled")
    then = advance(exchange)
    assert (then["bar"], then["stage"], then["now"]) == (31, "closed", "2019-02-19T21:00:00Z")
    wrong = requests.post(f"{exchange.url}/local/advance", json={"bar": "x"}, headers=HEADERS, timeout=10)
    assert wrong.status_code == 422


def test_observed_columns_of_closed_bars(exchange: Running):
    def get(query: str = "") -> dict[str, Any]:
        return requests.get(f"{exchange.url}/local/observed{query}", timeout=10).json()

    whole = get()
    assert (len(whole["times"]), whole["times"][-1]) == (31, "2019-02-18T00:00:00Z")
    signal = whole["columns"]["signal"]
    assert signal["values"] == PANEL.observed["signal"].values[:31].T.tolist()
    assert signal["known_at"][0][-1] == "2019-02-18T21:00:00Z"
    part = get("?start=2019-02-14T00:00:00Z&stop=2019-02-18T00:00:00%2B00:00")
    assert part["times"] == ["2019-02-14T00:00:00Z", "2019-02-15T00:00:00Z"]
    assert part["columns"]["signal"]["values"][2] == PANEL.observed["signal"].values[28:30, 2].tolist()


def test_a_clock_with_a_pace_moves_by_itself():
    with serving(pace=0.1) as exchange:
        seen = set()
        while exchange.exchange.tape.bar < 33:
            now = requests.get(f"{exchange.url}/local/clock", timeout=10).json()
            seen.add((now["bar"], now["stage"]))
        assert seen
        told = {"bar": 33, "stage": "closed"}
        answer = requests.post(f"{exchange.url}/local/advance", json=told, headers=HEADERS, timeout=10)
        assert (answer.status_code, "by itself" in json.dumps(answer.json())) == (422, True)
