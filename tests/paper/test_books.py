"""Books follow from looks at orders and from activities; what they cannot explain is a mismatch."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper.books import Booked, Books, Mismatch, from_json, to_json
from paper.broker import Activity, Order

D = Decimal
BUY = Booked("o1", "A", "buy", D(10), "2024-01-02T21:00:00+00:00", D(7), "sent")
SELL = Booked("o2", "B", "sell", D(4), "2024-01-02T21:00:00+00:00", D(20), "sent")
BOOKS = Books(D(100), {"B": D(4)}, {"o1": BUY, "o2": SELL}, "a0")


def view(order: Booked, filled: str, price: str | None, status: str = "partial") -> Order:
    average = None if price is None else D(price)
    return Order(order.id, "b-1", order.symbol, order.side, order.quantity, status, D(filled), average)  # type: ignore[arg-type]


def test_a_fill_moves_cash_and_position_by_what_is_new():
    books, fill = BOOKS.seen(view(BUY, "4", "7.5"))
    assert (books.cash, books.positions["A"], books.traded) == (D(70), D(4), D(30))
    assert fill is not None
    assert (fill.quantity, fill.price, fill.expected) == (4, D("7.5"), 7)
    books, fill = books.seen(view(BUY, "10", "8.1", "filled"))  # six more for 51
    assert (books.cash, books.positions["A"]) == (D(19), D(10))
    assert fill is not None
    assert (fill.quantity, fill.price) == (6, D("8.5"))


def test_the_same_look_twice_changes_nothing():
    once, _ = BOOKS.seen(view(BUY, "4", "7.5"))
    twice, fill = once.seen(view(BUY, "4", "7.5"))
    assert twice == once
    assert fill is None


def test_a_sale_to_nothing_leaves_no_position():
    books, _ = BOOKS.seen(view(SELL, "4", "21", "filled"))
    assert (books.cash, books.positions) == (D(184), {})
    assert [order.id for order in books.open()] == ["o1"]


@pytest.mark.parametrize("odd", [
    view(BUY, "11", "7"),
    Order("o1", "b", "A", "sell", D(10), "partial"),
    Order("o1", "b", "C", "buy", D(10), "partial"),
    Order("o1", "b", "A", "buy", D(9), "partial"),
])  # fmt: skip
def test_an_order_that_is_not_the_one_that_was_sent_is_a_mismatch(odd: Order):
    with pytest.raises(Mismatch, match="order o1"):
        BOOKS.seen(odd)


def test_what_was_filled_cannot_be_taken_back():
    books, _ = BOOKS.seen(view(BUY, "4", "7.5"))
    with pytest.raises(Mismatch, match="4 before"):
        books.seen(view(BUY, "3", "7.5"))


def test_remaining_is_signed_and_nothing_once_ended():
    assert (BUY.remaining, SELL.remaining) == (10, -4)
    books, _ = BOOKS.seen(view(BUY, "4", "7", "canceled"))
    assert books.orders["o1"].remaining == 0


def test_activities_move_cash_and_positions():
    at = datetime.now(UTC)
    books = BOOKS.after(Activity("a1", "INT", at, cash=D("0.5"))).after(Activity("a2", "SPLIT", at, D(0), "B", D(4)))
    assert (books.cash, books.positions, books.activity) == (D("100.5"), {"B": D(8)}, "a2")


@given(st.lists(st.tuples(st.decimals("0.001", 3, places=3), st.decimals(1, 50, places=2)), max_size=6))
def test_cash_is_what_all_fills_took_however_they_came(parts):
    books, filled, value = BOOKS, D(0), D(0)
    order = BUY
    for quantity, price in parts:
        quantity = min(quantity, order.quantity - filled)
        if not quantity:
            break
        filled, value = filled + quantity, value + quantity * price
        books, _ = books.seen(Order("o1", "b", "A", "buy", D(10), "partial", filled, value / filled))
    assert abs(books.cash - (BOOKS.cash - value)) < D("1e-20")
    assert books.positions.get("A", D(0)) == filled
    assert from_json(to_json(books)) == books
