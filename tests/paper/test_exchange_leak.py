"""Nothing that the local exchange shows or books depends on a bar that has not closed."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from exchanges import HEADERS, PANEL, advance, order, serving
from panels import random_panel, with_other_future

from market.panel import Panel

WILD = random_panel(11, bars=60, symbols=4)
ROUTES = (
    "/v2/account",
    "/v2/account/activities",
    "/v2/positions",
    "/v2/clock",
    "/v2/calendar",
    "/v2/assets",
    "/v2/orders?status=all",
    "/v2/stocks/bars?symbols=S000,S001,S002,S003&timeframe=1Day&start=2000-01-01&end=2040-01-01&limit=10000",
    "/v2/stocks/bars?symbols=S000,S001&timeframe=1Day&start=2000-01-01&adjustment=all&sort=desc",
    "/v2/stocks/bars/latest?symbols=S000,S001,S002,S003",
    "/v2/stocks/quotes/latest?symbols=S000,S001,S002,S003",
    "/v2/stocks/trades/latest?symbols=S000,S001,S002,S003",
    "/v1beta3/crypto/us/latest/bars?symbols=S000",
    "/local/clock",
    "/local/observed",
)


def seen(panel: Panel, bar: int, bars: int, fill: bool) -> list[Any]:
    """What every route answers at each stage of a few bars, orders being sent; `fill`: and after the last fill."""
    answers = []
    with serving(panel, bar=bar, partial=0.5) as exchange, requests.Session() as session:
        session.headers.update(HEADERS)

        def look() -> None:
            for route in ROUTES:
                answer = session.get(exchange.url + route, timeout=10)
                assert answer.status_code == 200, answer.text
                answers.append((route, answer.json()))

        for number in range(bars):
            look()
            for symbol in panel.symbols:
                body = {"symbol": symbol, "qty": "3.5", "side": "buy", "type": "market", "time_in_force": "day"}
                session.post(f"{exchange.url}/v2/orders", json=body, timeout=10)
            look()
            if number < bars - 1:
                advance(exchange)
                look()
                advance(exchange)
        if fill:
            advance(exchange)
            look()
    return answers


@pytest.mark.parametrize("panel", [PANEL, WILD], ids=["whole", "with gaps"])
def test_another_future_changes_no_answer(panel: Panel):
    known = seen(panel, bar=30, bars=3, fill=False)
    other = seen(with_other_future(panel, 32), bar=30, bars=3, fill=False)
    for (route, now), (_, then) in zip(known, other, strict=True):
        assert now == then, route


def test_the_perturbed_future_is_seen_once_it_has_come():
    """The test above would see a leak: from the next fill on the answers differ."""
    known = seen(PANEL, bar=30, bars=3, fill=True)
    other = seen(with_other_future(PANEL, 32), bar=30, bars=3, fill=True)
    different = {route for (route, now), (_, then) in zip(known, other, strict=True) if now != then}
    assert {"/v2/account", "/v2/stocks/quotes/latest?symbols=S000,S001,S002,S003"} <= different


def test_after_a_fill_only_its_price_is_known():
    """Volume, high, low, close and columns of the bar in which orders have filled stay hidden until it closes."""
    panel = with_other_future(PANEL, 32)
    arrays = {name: getattr(panel, name).copy() for name in ("open", "tradable")}
    arrays["open"][33], arrays["tradable"][33] = PANEL.open[33], PANEL.tradable[33]
    twin = Panel(**{**{k: panel.__dict__[k] for k in panel.__dataclass_fields__}, **arrays})
    known = seen(PANEL, bar=30, bars=3, fill=True)
    other = seen(twin, bar=30, bars=3, fill=True)
    for (route, now), (_, then) in zip(known, other, strict=True):
        assert now == then, route


def test_the_fill_price_is_not_known_before_the_orders_are_sent():
    with serving() as exchange:
        quote = exchange.exchange.tape.quote("S000")
        assert quote is not None and quote[0] == PANEL.close[30, 0]
        order(exchange.exchange, "S000", "1")
        assert exchange.exchange.tape.quote("S000") == quote
        advance(exchange)
        assert exchange.exchange.tape.prices()[0] == PANEL.open[31, 0]
