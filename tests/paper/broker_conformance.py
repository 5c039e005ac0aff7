"""What the desk relies on, whichever broker it trades at.

A test module derives a class from BrokerConformance and gives the fixtures `broker`, `symbols` (two
that can be traded), `span` (from when and until when there are bars of them) and `settle`, which
lets the market fill what is open. The account has money for a few shares and holds none.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count, pairwise

import numpy as np
import pytest

from paper.broker import SMALLEST, Broker, Order, Rejected, Request

Settle = Callable[[], None]
Span = tuple[datetime, datetime]
_numbers = count(1)
WITHIN = 10.0  # seconds for an event to arrive


def request(symbol: str, quantity: str = "2", side: str = "buy") -> Request:
    return Request(f"conform-{next(_numbers)}", symbol, side, Decimal(quantity))


def found(broker: Broker, id: str) -> Order:
    order = broker.order(id)
    assert order is not None
    return order


class BrokerConformance:
    # --- the market

    def test_its_clock_is_in_utc_and_does_not_go_back(self, broker: Broker):
        first, second = broker.now(), broker.now()
        assert first.tzinfo is not None
        assert first.utcoffset() == timedelta(0)
        assert second >= first

    def test_sessions_are_days_in_order_each_open_before_its_close(self, broker: Broker, span: Span):
        first, last = span[0].date(), span[1].date()
        sessions = broker.sessions(first, last)
        assert sessions
        assert [s.day for s in sessions] == sorted({s.day for s in sessions})
        assert all(first <= s.day <= last and s.open < s.close for s in sessions)
        assert all(later.open >= earlier.close for earlier, later in pairwise(sessions))

    def test_rows_are_those_asked_for_in_the_order_of_time(self, broker: Broker, symbols: list[str], span: Span):
        rows = broker.rows(symbols, *span)
        assert {row.symbol for row in rows} == set(symbols)
        times = np.array([row.time for row in rows])
        assert times.dtype == np.dtype("datetime64[ns]")
        assert (np.diff(times) >= np.timedelta64(0)).all()
        assert len({(row.symbol, row.time) for row in rows}) == len(rows)
        first, stop = (np.datetime64(at.astimezone(UTC).replace(tzinfo=None)) for at in span)
        assert (times >= first).all() and (times < stop).all()
        for row in rows:
            assert 0 < row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high
            assert row.volume >= 0

    def test_a_part_of_the_span_gives_that_part_of_the_rows(self, broker: Broker, symbols: list[str], span: Span):
        rows = broker.rows(symbols, *span)
        cut = rows[len(rows) // 2].time
        middle = cut.astype("datetime64[us]").item().replace(tzinfo=UTC)
        assert list(broker.rows(symbols, span[0], middle)) == [row for row in rows if row.time < cut]
        assert list(broker.rows(symbols, middle, span[1])) == [row for row in rows if row.time >= cut]
        assert list(broker.rows(symbols, middle, middle)) == []

    def test_no_row_is_of_the_future(self, broker: Broker, symbols: list[str], span: Span):
        now = broker.now()
        rows = broker.rows(symbols, span[0], now + timedelta(days=30))
        assert all(row.time < np.datetime64(now.replace(tzinfo=None)) for row in rows)

    def test_every_symbol_has_a_quote(self, broker: Broker, symbols: list[str]):
        quotes = broker.quotes(symbols)
        assert set(quotes) == set(symbols)
        assert all(quote.symbol == symbol and quote.price > 0 for symbol, quote in quotes.items())

    def test_what_cannot_be_traded_has_a_reason(self, broker: Broker, symbols: list[str]):
        reasons = broker.tradable([*symbols, "NOSUCH"])
        assert [reasons[symbol] for symbol in symbols] == ["", ""]
        assert reasons["NOSUCH"]

    # --- orders

    def test_an_id_that_was_never_used_has_no_order(self, broker: Broker):
        assert broker.order("conform-never") is None

    def test_an_order_is_found_by_its_id_and_among_the_open(self, broker: Broker, symbols: list[str]):
        asked = request(symbols[0])
        placed = broker.submit(asked)
        assert not placed.ended
        assert placed.filled == 0
        order = found(broker, asked.id)
        assert (order.id, order.symbol, order.side, order.quantity) == (asked.id, asked.symbol, "buy", asked.quantity)
        assert asked.id in [order.id for order in broker.open_orders()]

    def test_the_ninth_decimal_of_a_quantity_arrives(self, broker: Broker, symbols: list[str]):
        asked = request(symbols[0], "1.123456789")
        broker.submit(asked)
        assert found(broker, asked.id).quantity == Decimal("1.123456789")
        small = request(symbols[1], str(Decimal(1) + SMALLEST))
        broker.submit(small)
        assert found(broker, small.id).quantity == 1 + SMALLEST

    def test_the_same_request_twice_is_one_order(self, broker: Broker, symbols: list[str], settle: Settle):
        asked = request(symbols[0])
        first, second = broker.submit(asked), broker.submit(asked)
        assert first.broker_id == second.broker_id
        assert [order.id for order in broker.open_orders()].count(asked.id) == 1
        settle()
        assert broker.positions()[asked.symbol].quantity == asked.quantity
        assert broker.submit(asked).broker_id == first.broker_id
        assert broker.positions()[asked.symbol].quantity == asked.quantity

    def test_a_fill_changes_position_and_cash_by_what_the_order_says(
        self, broker: Broker, symbols: list[str], settle: Settle
    ):
        before = broker.account().cash
        asked = request(symbols[0], "2.5")
        broker.submit(asked)
        settle()
        order = found(broker, asked.id)
        assert (order.status, order.filled) == ("filled", asked.quantity)
        assert order.average_price is not None
        assert order.ended
        assert asked.id not in [order.id for order in broker.open_orders()]
        assert broker.positions()[asked.symbol].quantity == asked.quantity
        assert abs(before - broker.account().cash - order.filled * order.average_price) < Decimal("0.0001")

    def test_what_is_sold_again_is_a_position_no_more(self, broker: Broker, symbols: list[str], settle: Settle):
        bought = request(symbols[0], "3")
        broker.submit(bought)
        settle()
        broker.submit(request(symbols[0], "1", "sell"))
        settle()
        assert broker.positions()[symbols[0]].quantity == 2
        broker.submit(request(symbols[0], "2", "sell"))
        settle()
        assert symbols[0] not in broker.positions()

    def test_a_cancelled_order_ends_without_a_fill(self, broker: Broker, symbols: list[str], settle: Settle):
        placed = broker.submit(request(symbols[0]))
        broker.cancel(placed)
        settle()
        order = found(broker, placed.id)
        assert (order.status, order.filled) == ("canceled", 0)
        assert symbols[0] not in broker.positions()
        broker.cancel(order)  # there is nothing left to cancel: no harm

    def test_a_filled_order_stays_filled_when_it_is_cancelled(self, broker: Broker, symbols: list[str], settle: Settle):
        placed = broker.submit(request(symbols[0]))
        settle()
        broker.cancel(placed)
        assert found(broker, placed.id).status == "filled"

    def test_a_refused_order_leaves_nothing_behind(self, broker: Broker, symbols: list[str]):
        refused = [request("NOSUCH"), replace(request(symbols[0]), quantity=Decimal(0))]
        for asked in refused:
            with pytest.raises(Rejected, match=asked.id):
                broker.submit(asked)
            assert broker.order(asked.id) is None
        assert list(broker.open_orders()) == []

    # --- the account

    def test_money_is_exact(self, broker: Broker):
        account = broker.account()
        assert all(isinstance(x, Decimal) for x in (account.cash, account.equity, account.buying_power))
        assert account.equity == account.cash > 0  # it holds nothing yet
        assert account.blocked == ""
        assert broker.positions() == {}

    def test_activities_follow_the_one_that_is_named(self, broker: Broker):
        every = list(broker.activities(""))
        ids = [activity.id for activity in every]
        assert len(set(ids)) == len(ids)
        assert "FILL" not in {activity.kind for activity in every}
        for place, id in enumerate(ids):
            assert list(broker.activities(id)) == every[place + 1 :]

    # --- events

    def test_whoever_listens_hears_of_a_fill(self, broker: Broker, symbols: list[str], settle: Settle):
        heard: queue.Queue[str] = queue.Queue()
        broker.listen(heard.put)
        for _ in range(100):  # what happens before it is connected is not told
            broker.submit(request(symbols[1], "0.01"))
            with suppress(queue.Empty):
                heard.get(timeout=0.1)
                break
        asked = request(symbols[0])
        broker.submit(asked)
        while heard.get(timeout=WITHIN) != asked.id:
            pass
        assert not found(broker, asked.id).ended
        settle()
        while heard.get(timeout=WITHIN) != asked.id:
            pass
        assert found(broker, asked.id).status == "filled"

    def test_it_may_be_closed_twice(self, broker: Broker):
        broker.listen(lambda id: None)
        broker.close()
        broker.close()
