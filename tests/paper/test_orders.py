"""Orders are the difference to what is wanted, in exact quantities, and never sell more than there is."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper.config import OrderConfig
from paper.orders import changes, requests

D = Decimal
ALL = OrderConfig(least=0.0)
BAR = np.datetime64("2024-03-01T21:00:00", "ns")


def test_an_order_is_the_difference_in_weight_times_equity_over_price():
    found = changes({"A": 0.5, "B": 0.2}, {"B": D(30)}, {"A": 8.0, "B": 10.0}, 1000.0, ALL)
    assert found == {"A": D("62.5"), "B": D(-10)}


def test_quantities_have_nine_places_and_never_exceed_what_was_wanted():
    found = changes({"A": 1 / 3}, {}, {"A": 7.0}, 1000.0, ALL)
    assert found == {"A": D("47.619047619")}


def test_whole_shares_are_rounded_toward_what_is_held():
    whole = OrderConfig(fractional=False, least=0.0)
    held = {"A": D(10)}
    assert changes({"A": 0.999}, held, {"A": 50.0}, 1000.0, whole) == {"A": D(9)}
    assert changes({"A": 0.001}, held, {"A": 50.0}, 1000.0, whole) == {"A": D(-9)}


def test_a_name_that_is_wanted_at_nothing_is_sold_to_the_last_digit():
    for config in (ALL, OrderConfig(least=1e6), OrderConfig(band=0.5), OrderConfig(fractional=False)):
        assert changes({"A": 0.0}, {"A": D("0.123456789")}, {"A": 8.0}, 1000.0, config) == {"A": D("-0.123456789")}


def test_small_changes_are_left_alone():
    assert changes({"A": 0.5}, {"A": D("49.9")}, {"A": 10.0}, 1000.0, OrderConfig(band=0.01)) == {}
    assert changes({"A": 0.5}, {"A": D("49.9")}, {"A": 10.0}, 1000.0, OrderConfig(least=1.01)) == {}
    assert changes({"A": 0.5}, {"A": D("49.9")}, {"A": 10.0}, 1000.0, OrderConfig(least=0.99)) == {"A": D("0.1")}


def test_what_is_not_named_is_not_touched():
    assert changes({}, {"A": D(5)}, {"A": 10.0}, 1000.0, ALL) == {}


@given(
    st.floats(0, 1), st.decimals("0.000000001", 1000, places=9), st.floats(0.01, 1e4), st.floats(1.0, 1e7),
    st.booleans(),
)  # fmt: skip
def test_a_long_position_never_goes_short(weight, held, price, equity, fractional):
    config = OrderConfig(fractional=fractional, least=0.0)
    change = changes({"A": weight}, {"A": held}, {"A": price}, equity, config).get("A", D(0))
    assert held + change >= 0
    most = max(weight * equity / price, float(held))
    assert float(held + change) <= most * (1 + 1e-9) + 1e-9


def test_names_of_orders_tell_run_bar_symbol_side_and_number_and_sells_come_first():
    made = requests("desk", BAR, {"B": D(1), "A": D(2), "C": D(-3), "X/Y": D(-1)})
    assert [one.id for one in made] == [
        "desk-20240301210000-C-sell-0",
        "desk-20240301210000-X_Y-sell-0",
        "desk-20240301210000-A-buy-0",
        "desk-20240301210000-B-buy-0",
    ]
    assert [(one.side, one.quantity) for one in made[::2]] == [("sell", D(3)), ("buy", D(2))]
    assert requests("desk", BAR, {"A": D(2)}) == requests("desk", BAR, {"A": D(2)})
    assert max(len(one.id) for one in requests("twelveletter", BAR, {"LONGSYMBOL": D(1)})) <= 48


@pytest.mark.parametrize("sequence", [0, 7])
def test_another_number_is_another_order(sequence: int):
    (one,) = requests("desk", BAR, {"A": D(2)}, sequence)
    assert one.id.endswith(f"-{sequence}")
