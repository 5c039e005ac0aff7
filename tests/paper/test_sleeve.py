"""A canary's books and the champion's are the account's, whatever was traded, crossed or paid."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper.books import Booked, Books
from paper.broker import Activity
from paper.sleeve import (
    CanaryConfig,
    Sleeve,
    begin,
    champions,
    from_json,
    marked,
    netted,
    settled,
    to_json,
    touched,
    verdict,
)

D = Decimal
PRICES = {"A": 10.0, "B": 20.0}
BOOKS = Books(D(1000), {"A": D(50), "B": D(-10)}, {})
AT = "2024-01-02T21:00:00+00:00"


def sleeve_of(share: float = 0.2, books: Books = BOOKS) -> Sleeve:
    return begin("0123456789ab", share, books, PRICES, 1.0, AT)


def filled(quantity: str, price: str, symbol: str = "A") -> dict[str, Booked]:
    size = abs(D(quantity))
    side = "buy" if D(quantity) > 0 else "sell"
    return {"o": Booked("o", symbol, side, size, AT, D(10), "filled", size, size * D(price))}  # type: ignore[arg-type]


def test_a_canary_begins_with_its_share_of_everything():
    sleeve = sleeve_of(0.2)
    assert (sleeve.cash, sleeve.positions) == (D(200), {"A": D(10), "B": D(-2)})
    assert sleeve.begun == 200 + 100 - 40
    assert champions(BOOKS, sleeve) == replace(BOOKS, cash=D(800), positions={"A": D(40), "B": D(-8)})
    assert from_json(to_json(sleeve)) == sleeve


def test_both_that_buy_share_the_fill_by_what_they_wanted():
    sleeve = replace(sleeve_of(), wanted={"A": D(10)})
    after = settled(sleeve, {"A": D(30)}, filled("20", "11"), PRICES)  # half of 40
    assert after.positions["A"] == 10 + 5
    assert after.cash == 200 - 5 * 11
    assert after.wanted == {}


def test_who_buys_what_the_other_sells_crosses_at_the_fill():
    sleeve = replace(sleeve_of(), wanted={"A": D(-4)})
    after = settled(sleeve, {"A": D(10)}, filled("3", "11"), PRICES)  # of a net 6
    assert (after.positions["A"], after.cash) == (6, 200 + 44)
    larger = replace(sleeve_of(), wanted={"A": D(10)})
    after = settled(larger, {"A": D(-4)}, filled("3", "11"), PRICES)
    assert (after.positions["A"], after.cash) == (10 + 4 + 3, 200 - 77)


def test_a_perfect_cross_needs_no_order_and_pays_the_close():
    sleeve = replace(sleeve_of(), wanted={"A": D(4)})
    after = settled(sleeve, {"A": D(-4)}, {}, PRICES)
    assert (after.positions["A"], after.cash) == (14, 160)
    assert netted({"A": D(4)}, {"A": D(-4)}) == {}


def test_interest_and_splits_reach_it_by_what_it_holds():
    sleeve = sleeve_of()
    moment = datetime.now(UTC)
    assert touched(sleeve, Activity("i", "INT", moment, cash=D(5)), BOOKS).cash == 201
    split = touched(sleeve, Activity("s", "SPLIT", moment, symbol="A", quantity=D(50)), BOOKS)
    assert split.positions["A"] == 20
    assert touched(sleeve, Activity("s", "DIV", moment, cash=D(25), symbol="A"), BOOKS).cash == 205


def test_it_goes_back_after_a_loss_or_when_it_falls_behind():
    sleeve, config = sleeve_of(books=replace(BOOKS, positions={"A": D(100)})), CanaryConfig(0.2, 0.1, 0.05)
    books = replace(BOOKS, positions={"A": D(100)})
    assert verdict(sleeve, config, books, PRICES) == ""
    assert "since its highest" in verdict(sleeve, config, books, {"A": 7.0})
    ahead = replace(sleeve, champion=sleeve.champion / 1.06)
    assert "behind the champion" in verdict(ahead, config, books, PRICES)
    assert verdict(replace(sleeve, champion=sleeve.champion / 1.04), config, books, PRICES) == ""


def test_its_deepest_fall_is_kept():
    sleeve = marked(marked(sleeve_of(books=Books(D(0), {"A": D(10)}, {})), {"A": 5.0}), {"A": 20.0})
    assert (sleeve.deepest, sleeve.peak, sleeve.bars) == (-0.5, 40.0, 2)


amounts = st.decimals(-100, 100, places=3)


@given(amounts, amounts, st.decimals(0, 1, places=4), st.decimals("0.01", 1000, places=2))
def test_whatever_fills_the_two_add_up_and_nobody_gets_more_than_wanted(mine, other, part, price):
    net = mine + other
    done = (net * part).quantize(D("1e-9"))
    orders = {} if not done else filled(str(done), str(price))
    sleeve = replace(sleeve_of(), wanted={"A": mine} if mine else {})
    after = settled(sleeve, {"A": other}, orders, PRICES)
    got = after.positions.get("A", D(0)) - sleeve.positions["A"]
    theirs = done - got
    assert abs(got) <= abs(mine) and got * mine >= 0
    assert abs(theirs) <= abs(other) + D("1e-9") and theirs * other >= -D("1e-6")
    paid = sleeve.cash - after.cash
    used = (orders["o"].value / orders["o"].filled) if orders else D("10.0")
    assert paid == pytest.approx(got * used, abs=D("1e-9"))
