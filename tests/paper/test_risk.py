"""The risk engine, limit by limit, worked by hand: what is at a limit passes, what is beyond it does not."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from kit.config import build
from kit.errors import UserError
from paper.exposure import Book, value_at_risk
from paper.limits import Limits
from paper.risk import Breach, Distance, Proposed, Ruling, State, check, distances, watch

NOW = datetime(2024, 3, 5, 21, tzinfo=UTC)
WHOLE = Decimal(1)
OFF = {field.name: None for field in fields(Limits) if field.name != "var_bars"}
RETURNS = np.random.default_rng(3).normal(0.0005, 0.01, (300, 4))


def only(**limits: Any) -> Limits:
    """All limits off but these."""
    return Limits(**(OFF | limits))


def book(cash: float = 0.0, traded: float = 0.0, **positions: int | str) -> Book:
    """100,000 in all, at 100 each; what is neither held nor in cash lies in Z."""
    held = {symbol: Decimal(quantity) for symbol, quantity in positions.items()}
    rest = (100_000 - Decimal(cash)) / 100 - sum(held.values())
    prices = dict.fromkeys("ABCZ", 100.0)
    return Book(
        equity=100_000.0,
        cash=cash,
        positions=held | ({"Z": rest} if rest else {}),
        prices=prices,
        day_start_equity=100_000.0,
        peak_equity=100_000.0,
        average_prices=prices,
        traded_today=traded,
        symbols=tuple("ABCZ"),
        returns=RETURNS,
    )


def order(symbol: str, quantity: int | str, price: float = 100.0, forced: bool = False) -> Proposed:
    return Proposed(symbol, Decimal(quantity), price, forced)


def rule(held: Book, limits: Limits, *orders: Proposed, state: State = State.ACTIVE) -> list[Ruling]:
    rulings = check(orders, held, limits, state, NOW, WHOLE)
    for asked, ruling in zip(orders, rulings):
        assert (ruling.quantity == asked.quantity) == (not ruling.findings)
    return rulings


def allowed(held: Book, limits: Limits, *orders: Proposed, state: State = State.ACTIVE) -> list[int]:
    return [int(ruling.quantity) for ruling in rule(held, limits, *orders, state=state)]


def named(ruling: Ruling) -> list[tuple[str, str]]:
    return [(finding.limit, finding.action) for finding in ruling.findings]


# -- each limit, by hand


@pytest.mark.parametrize(("quantity", "passes"), [(300, 300), (301, 300), (-300, -300), (-301, -300)])
def test_a_position_may_come_to_its_limit_and_no_farther(quantity: int, passes: int) -> None:
    assert allowed(book(100_000), only(per_name=0.3), order("A", quantity)) == [passes]


def test_the_limit_per_name_counts_what_is_held_and_what_is_on_order() -> None:
    held = replace(book(80_000, A=200), open_orders={"A": Decimal(50)})
    assert allowed(held, only(per_name=0.3), order("A", 80)) == [50]


def test_a_position_past_its_limit_may_shrink_and_may_not_grow() -> None:
    limits, held = only(per_name=0.3), book(A=500)
    assert allowed(held, limits, order("A", 1)) == [0]
    assert allowed(held, limits, order("A", -100)) == [-100]


def test_an_order_through_zero_is_bound_on_the_other_side() -> None:
    assert allowed(book(A=200), only(per_name=0.3), order("A", -600)) == [-500]


def test_a_clipped_order_says_which_limit_and_by_how_much() -> None:
    (ruling,) = rule(book(100_000), only(per_name=0.3), order("A", 400))
    (finding,) = ruling.findings
    assert (finding.limit, finding.action, finding.value, finding.bound) == ("per_name", "clip", 40_000, 30_000)
    assert finding.why == "A: an order of 40000.00, per_name leaves room for 30000.00"


def test_clipping_rounds_toward_zero_to_a_step() -> None:
    held = replace(book(100_000), prices={"A": 70.0})  # 30,000 / 70 = 428.5714285714...
    orders = [order("A", 1000, price=70.0)]
    for step, passes in (("1", "428"), ("0.25", "428.5"), ("0.000000001", "428.571428571")):
        (ruling,) = check(orders, held, only(per_name=0.3), State.ACTIVE, NOW, Decimal(step))
        assert ruling.quantity == Decimal(passes)


def test_what_is_less_than_a_step_is_vetoed() -> None:
    (ruling,) = rule(book(100_000), only(order_notional=99.0), order("A", 5))
    assert ruling.quantity == 0
    assert named(ruling) == [("order_notional", "veto")]


@pytest.mark.parametrize(("quantity", "passes"), [(100, 100), (101, 100), (-101, -100)])
def test_one_order_may_come_to_so_much_money(quantity: int, passes: int) -> None:
    assert allowed(book(100_000), only(order_notional=10_000), order("A", quantity)) == [passes]


def test_gross_counts_longs_and_shorts() -> None:
    held = book(100_000, A=300, Z=-300)
    assert allowed(held, only(gross=1.0), order("B", 400)) == [400]
    assert allowed(held, only(gross=1.0), order("B", 401)) == [400]
    assert allowed(held, only(gross=1.0), order("B", -401)) == [-400]


def test_gross_counts_a_short_at_its_largest_whichever_open_orders_fill() -> None:
    held = book(100_000, A=-300, Z=300)
    for open, room in ((200, 400), (-100, 300)):  # a purchase may not come, a sale may
        beside = replace(held, open_orders={"A": Decimal(open)})
        assert allowed(beside, only(gross=1.0), order("B", 500)) == [room]


def test_orders_beyond_gross_are_shrunk_in_equal_proportion() -> None:
    limits = only(gross=1.0)  # 500 of 1000 fit
    rulings = rule(book(50_000), limits, order("A", 600), order("B", 400))
    assert [int(ruling.quantity) for ruling in rulings] == [300, 200]
    assert [named(ruling) for ruling in rulings] == [[("gross", "clip")]] * 2
    assert rulings[0].findings[0].value == 1.5
    assert rulings[0].findings[0].bound == 1.0
    assert rulings[0].findings[0].why == "A: gross would be 1.5 of equity, beyond 1.0"


def test_shrunk_orders_are_whole_steps_and_those_left_whole_need_not_be() -> None:
    assert allowed(book(50_000), only(gross=1.0), order("A", 400), order("B", 200)) == [333, 166]
    held = replace(book(), prices={"A": 10.0, "Z": 100.0})  # half a share of Z pays for 5 of A
    rulings = rule(held, only(gross=1.0), order("Z", "-0.5"), order("A", 10, price=10.0))
    assert [ruling.quantity for ruling in rulings] == [Decimal("-0.5"), 5]


def test_each_clipped_order_names_only_the_limits_that_hold_it_up() -> None:
    """What reduces is not held up by what the rest would come to, nor the rest by what the reductions would."""
    held, limits = book(traded=150_000), only(turnover=2.0, gross=1.0)
    sale, purchase = rule(held, limits, order("Z", -600), order("A", 600))
    assert (int(sale.quantity), named(sale)) == (-500, [("turnover", "clip")])
    assert (int(purchase.quantity), named(purchase)) == (0, [("gross", "veto"), ("turnover", "veto")])
    neutral, limits = book(100_000, A=500, Z=-500), only(net_low=-0.1, gross=1.0)
    sale, purchase = rule(neutral, limits, order("A", -500), order("B", 2000))
    assert (int(sale.quantity), named(sale)) == (-100, [("net_low", "clip")])
    assert (int(purchase.quantity), named(purchase)) == (100, [("gross", "clip")])


def test_a_whole_exchange_of_the_portfolio_passes_in_any_order() -> None:
    sale, purchase = order("Z", -1000), order("A", 1000)
    for orders in ((sale, purchase), (purchase, sale)):
        assert sorted(allowed(book(), Limits(), *orders)) == [-1000, 1000]


def test_what_reduces_passes_in_full_before_the_rest_is_clipped() -> None:
    assert allowed(book(), only(gross=1.0), order("A", 1000), order("Z", -500)) == [500, -500]


def test_open_orders_count_as_filled_to_the_worse() -> None:
    selling = replace(book(), open_orders={"Z": Decimal(-1000)})  # it may never fill: there is no room yet
    assert allowed(selling, only(gross=1.0), order("A", 1000)) == [0]
    buying = replace(book(50_000), open_orders={"A": Decimal(400)})
    assert allowed(buying, only(gross=1.0), order("B", 200)) == [100]
    assert allowed(buying, only(min_cash=0.0), order("B", 200)) == [100]
    assert allowed(buying, only(turnover=0.5), order("B", 200)) == [100]


def test_a_book_past_a_limit_may_come_nearer_or_stay_but_not_go_farther() -> None:
    held, limits = book(-30_000, A=300), only(gross=1.0)  # 1.3
    assert allowed(held, limits, order("A", -100), order("B", 100)) == [-100, 100]
    assert allowed(held, limits, order("A", -100), order("B", 101)) == [-100, 100]
    assert allowed(held, limits, order("B", 1)) == [0]


def test_net_is_bound_above_and_below() -> None:
    held = book(100_000, A=300, Z=-300)
    limits = only(net_low=-0.1, net_high=0.2)
    assert allowed(held, limits, order("B", 200)) == [200]
    assert allowed(held, limits, order("B", 201)) == [200]
    assert allowed(held, limits, order("B", -100)) == [-100]
    (ruling,) = rule(held, limits, order("B", -101))
    assert ruling.quantity == -100
    assert (ruling.findings[0].limit, ruling.findings[0].value, ruling.findings[0].bound) == ("net_low", -0.101, -0.1)


def test_a_neutral_book_may_be_exchanged_though_either_half_alone_would_pass_net() -> None:
    held, limits = book(100_000, A=500, Z=-500), only(net_low=-0.1, net_high=0.1, gross=1.0)
    orders = [order("A", -500), order("Z", 500), order("B", 500), order("C", -500)]
    assert allowed(held, limits, *orders) == [-500, 500, 500, -500]
    assert allowed(held, limits, *orders[:1]) == [-100]  # what reduces can be too much as well


def test_leverage_counts_what_is_owned_on_credit() -> None:
    held = book(20_000)  # 800 in Z; 200 more take the cash, 100 more are borrowed
    assert allowed(held, only(leverage=1.1), order("A", 300)) == [300]
    assert allowed(held, only(leverage=1.1), order("A", 301)) == [300]
    assert allowed(book(), only(leverage=1.2), order("A", -201)) == [-200]  # borrowed shares


def test_orders_leave_the_least_cash() -> None:
    limits = only(min_cash=0.1)
    assert allowed(book(30_000), limits, order("A", 200)) == [200]
    assert allowed(book(30_000), limits, order("A", 201)) == [200]
    assert allowed(book(30_000), limits, order("A", 400), order("Z", -100)) == [300, -100]
    assert rule(book(30_000), limits, order("A", 201))[0].findings[0].bound == 0.1


def test_turnover_counts_the_day_and_goes_to_what_reduces_first() -> None:
    held, limits = book(50_000, traded=150_000), only(turnover=2.0)
    assert allowed(held, limits, order("A", 300), order("Z", -200)) == [300, -200]
    assert allowed(held, limits, order("A", 300), order("Z", -300)) == [200, -300]
    assert allowed(held, limits, order("A", 300), order("Z", -400)) == [100, -400]
    assert allowed(book(traded=150_000), limits, order("A", 300), order("Z", -600)) == [0, -500]


@pytest.mark.parametrize(("price", "passes"), [(110.0, 5), (110.01, 0), (90.0, 5), (89.99, 0)])
def test_an_order_whose_price_is_no_longer_so_is_vetoed(price: float, passes: int) -> None:
    (ruling,) = rule(replace(book(100_000), prices={"A": 100.0}), only(collar=0.1), order("A", 5, price))
    assert ruling.quantity == passes
    if not passes:
        (finding,) = ruling.findings
        assert (finding.limit, finding.bound) == ("collar", 0.1)
        assert finding.value == pytest.approx(abs(price - 100) / 100)
        assert f"{price}" in finding.why
        assert "100.0" in finding.why


def test_the_order_rate_counts_a_minute_and_lets_what_reduces_go_first() -> None:
    ages = [60.0, 59.9, 30.0, -5.0]  # seconds; the first is out of the minute, the last by a clock ahead
    held = replace(book(50_000), order_times=[NOW - timedelta(seconds=age) for age in ages])
    orders = [order("A", 1), order("B", 1), order("Z", -1)]
    assert allowed(held, only(orders_per_minute=6), *orders) == [1, 1, -1]
    assert allowed(held, only(orders_per_minute=5), *orders) == [1, 0, -1]
    assert allowed(held, only(orders_per_minute=4), *orders) == [0, 0, -1]
    assert allowed(held, only(orders_per_minute=3), *orders) == [0, 0, 0]
    assert allowed(book(A=-10), only(orders_per_minute=1), order("B", -1), order("A", 1)) == [0, 1]


def test_an_order_beyond_the_rate_says_which_it_would_have_been() -> None:
    orders = [order("A", 1), order("B", 1)]
    _, ruling = rule(book(50_000), only(orders_per_minute=1), *orders)
    (finding,) = ruling.findings
    assert (finding.limit, finding.action, finding.value, finding.bound) == ("orders_per_minute", "veto", 2, 1)
    assert finding.why == "B: order number 2 in a minute, more than 1"


def test_no_digit_is_lost() -> None:
    """A billionth of a share at 1e-15 is 1e-24 beyond the limit: in 28 digits, at it."""
    full = replace(book(), prices={"Z": 100.0, "A": 1e-15})
    assert [r.quantity for r in check([order("A", "1e-9", 1e-15)], full, only(gross=1.0), State.ACTIVE, NOW)] == [0]
    held = replace(full, positions={"Z": Decimal(1000), "A": Decimal("1e-9")})
    assert breaches(held, only(gross=1.0)) == [("gross", State.REDUCING, "")]


def test_the_decimal_context_of_the_caller_changes_nothing() -> None:
    held, limits = book(12_345, A="123.456789", B="-23.456789"), Limits(gross=0.7, per_name=0.3)

    def all_of() -> tuple[list[Ruling], list[Breach], list[Distance]]:
        orders = [order("A", "200.123456789"), order("B", "11.123456789"), order("Z", "-9.87654321")]
        return check(orders, held, limits, State.ACTIVE, NOW), watch(held, limits), distances(held, limits)

    expected = all_of()
    with localcontext(Context(prec=3)):
        assert all_of() == expected


def test_an_account_of_less_than_a_dollar_is_ruled_on_like_any_other() -> None:
    cents = replace(book(0.5), equity=0.5, day_start_equity=0.5, peak_equity=0.5, positions={})
    (ruling,) = check([order("A", "0.006")], cents, only(gross=1.0), State.ACTIVE, NOW)
    assert (ruling.quantity, named(ruling)) == (Decimal("0.005"), [("gross", "clip")])
    assert watch(cents, Limits()) == []


def test_an_order_may_meet_two_limits() -> None:
    (ruling,) = rule(book(50_000), only(order_notional=60_000, gross=1.0), order("A", 700))
    assert (int(ruling.quantity), named(ruling)) == (500, [("order_notional", "clip"), ("gross", "clip")])


# -- value at risk


def test_value_at_risk_is_the_worse_of_quantile_and_normal() -> None:
    weights = np.array([0.5, 0.3, -0.2, 0.0])
    profits = RETURNS[-250:] @ weights
    historical = -np.percentile(profits, 5)
    normal = -NormalDist(profits.mean(), profits.std(ddof=1)).inv_cdf(0.05)
    assert value_at_risk(dict(zip("ABCZ", weights)), book(), 250) == pytest.approx(max(historical, normal), rel=1e-12)


def test_either_half_of_value_at_risk_may_be_the_worse() -> None:
    calm = np.full((100, 1), 0.001)
    crash, skewed = calm.copy(), calm.copy()
    crash[-1] = -0.5  # one in a hundred: beyond the quantile, but the deviation knows
    skewed[::16] = -0.1  # seven in a hundred: the quantile is all of it
    for returns in (crash, skewed):
        held = replace(book(), symbols=("A",), returns=returns)
        profits = returns[:, 0]
        halves = -np.percentile(profits, 5), 1.6448536269514722 * profits.std(ddof=1) - profits.mean()
        assert value_at_risk({"A": 1.0}, held, 100) == pytest.approx(max(halves), rel=1e-12)
        assert (halves[0] > halves[1]) == (returns is skewed)


def test_value_at_risk_counts_the_newest_bars_that_all_names_have() -> None:
    returns = RETURNS.copy()
    returns[-7, 1] = np.nan
    held, weights = replace(book(), returns=returns), {"A": 0.5, "B": 0.5}
    newest = np.delete(RETURNS[-40:], 40 - 7, axis=0)
    expected = value_at_risk(weights, replace(book(), returns=newest), 40)
    assert value_at_risk(weights, held, 40) == expected
    assert value_at_risk({"A": 0.5, "B": 0.0}, held, 40) != value_at_risk({"A": 0.5, "B": 0.0}, held, 39)


def test_value_at_risk_of_a_day_grows_with_the_root_of_its_bars() -> None:
    hourly = replace(book(), bars_per_day=9.0)
    assert value_at_risk({"A": 1.0}, hourly, 250) == pytest.approx(3 * value_at_risk({"A": 1.0}, book(), 250))


def test_value_at_risk_of_nothing_is_nothing_and_of_the_unknown_without_bound() -> None:
    assert value_at_risk({"A": 0.0}, book(), 250) == 0.0
    assert value_at_risk({"A": 1.0}, replace(book(), returns=np.full((20, 4), 0.01)), 250) == 0.0  # it only ever gains
    assert value_at_risk({"X": 0.1}, book(), 250) == math.inf
    assert value_at_risk({"A": 0.1}, replace(book(), returns=RETURNS[:20]), 250) < 1
    assert value_at_risk({"A": 0.1}, replace(book(), returns=RETURNS[:19]), 250) == math.inf


def test_orders_stay_under_the_value_at_risk() -> None:
    of_all = value_at_risk({"A": 1.0}, book(), 250)
    fits = int(1000 * 0.01 / of_all)  # of 1000 shares, which are all of equity
    assert 0 < fits < 1000
    held, limits = book(100_000), only(var=0.01)
    assert allowed(held, limits, order("A", fits)) == [fits]
    assert allowed(held, limits, order("A", fits + 1)) == [fits]
    (ruling,) = rule(held, limits, order("A", 1000))
    assert named(ruling) == [("var", "clip")]
    assert ruling.findings[0].value == pytest.approx(of_all)


def test_a_name_without_history_is_vetoed_and_leaves_the_others_be() -> None:
    held = replace(book(100_000), symbols=tuple("AZ"), returns=RETURNS[:, :2])
    rulings = rule(held, only(var=0.1), order("A", 100), order("B", 100))
    assert [int(ruling.quantity) for ruling in rulings] == [100, 0]
    assert named(rulings[1]) == [("var", "veto")]
    assert rulings[1].findings[0].why == "B: its risk is not known: it has fewer than 20 returns"


def test_names_whose_histories_do_not_meet_are_vetoed_together() -> None:
    returns = RETURNS[:40].copy()
    returns[:20, 0] = returns[20:, 1] = np.nan
    held = replace(book(100_000), returns=returns)
    rulings = rule(held, only(var=0.1), order("A", 100), order("B", 100))
    assert [ruling.quantity for ruling in rulings] == [0, 0]
    assert rulings[0].findings[0].why == "A: var would not be known"
    assert rulings[0].findings[0].value is None


# -- states


@pytest.mark.parametrize("state", [State.REDUCING, State.HALTED])
def test_a_restricted_desk_only_reduces_up_to_zero_and_no_limit_holds_that_up(state: State) -> None:
    held = book(traded=1e9, A=300, B=-200)
    none = Limits(order_notional=1.0, turnover=0.001, collar=0.0001, orders_per_minute=1)
    orders = [order("A", -301, price=150.0), order("B", 150), order("Z", 1), order("C", -1)]
    rulings = rule(held, none, *orders, state=state)
    assert [int(ruling.quantity) for ruling in rulings] == [-300, 150, 0, 0]
    assert [named(ruling) for ruling in rulings] == [[("state", "clip")], [], [("state", "veto")], [("state", "veto")]]
    assert rulings[2].findings[0].why == f"Z: the desk is {state}: orders may only reduce"
    assert [(found.value, found.bound) for found in rulings[0].findings + rulings[2].findings] == [(-301, -300), (1, 0)]


def test_a_clipped_reduction_is_whole_steps_and_one_that_fits_passes_as_it_is() -> None:
    held = book(A="2.5")
    for asked, passes in ((-3, "-2"), ("-2.5", "-2.5"), ("-0.5", "-0.5")):
        (ruling,) = rule(held, Limits(), order("A", asked), state=State.REDUCING)
        assert ruling.quantity == Decimal(passes)


def test_what_is_being_sold_already_cannot_be_sold_again() -> None:
    held = replace(book(A=300, B=-300), open_orders={"A": Decimal(-200), "B": Decimal(300)})
    assert allowed(held, Limits(), order("A", -300), order("B", 1), state=State.REDUCING) == [-100, 0]
    grown = replace(book(A=300), open_orders={"A": Decimal(200)})  # the purchase may not come
    assert allowed(grown, Limits(), order("A", -400), state=State.REDUCING) == [-300]


def test_a_forced_order_reduces_whatever_the_limits_and_never_more() -> None:
    held, tight = book(traded=1e9, A=300), Limits(order_notional=1.0, orders_per_minute=1)
    sale = order("A", -301, price=math.nan, forced=True)
    (ruling,) = rule(held, tight, sale)
    assert (int(ruling.quantity), named(ruling)) == (-300, [("forced", "clip")])
    assert ruling.findings[0].why == "A: the order is forced: orders may only reduce"
    assert allowed(held, tight, order("B", 10, forced=True)) == [0]


def test_a_forced_order_takes_its_place_in_the_order_rate() -> None:
    orders = [order("Z", -10, forced=True), order("A", 1), order("B", 1)]
    assert allowed(book(50_000), only(orders_per_minute=2), *orders) == [-10, 1, 0]


# -- failing closed


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"equity": math.nan}, "equity = nan: expected money above 0"),
        ({"equity": 0.0}, "equity = 0.0: expected money above 0"),
        ({"equity": -1.0}, "equity = -1.0: expected money above 0"),
        ({"peak_equity": math.inf}, "peak_equity = inf: expected money above 0"),
        ({"day_start_equity": 0.0}, "day_start_equity = 0.0: expected money above 0"),
        ({"cash": math.nan}, "cash = nan: expected money"),
        ({"traded_today": math.nan}, "traded_today = nan: expected money"),
        ({"prices": {"A": 100.0}}, "Z: its last quote is None, and it is held or on order"),
        ({"prices": {"A": 100.0, "Z": math.nan}}, "Z: its last quote is nan, and it is held or on order"),
        ({"open_orders": {"Q": Decimal(1)}}, "Q: its last quote is None, and it is held or on order"),
        ({"open_orders": {"B": Decimal("NaN")}}, "B = NaN: expected a quantity, held or on order"),
        ({"average_prices": {"A": 0.0}}, "A: its average price is 0.0, and it is held"),
        (
            {"symbols": ("A",), "returns": RETURNS[:, :1]},
            "the value at risk is not known: fewer than 20 bars have a return of all that is held",
        ),
    ],
)
def test_a_book_that_cannot_be_valued_may_only_be_reduced(change: dict[str, Any], why: str) -> None:
    held, limits = replace(book(50_000, A=300), **change), Limits(stop_loss=0.5)
    rulings = rule(held, limits, order("A", -300), order("B", 1))
    assert [int(ruling.quantity) for ruling in rulings] == [-300, 0]
    assert [named(ruling) for ruling in rulings] == [[], [("book", "veto")]]
    assert rulings[1].findings[0].why == f"B: {why}: orders may only reduce"
    assert ("book", why) in [(breach.limit, breach.why) for breach in watch(held, limits)]


def test_a_position_of_unknown_size_cannot_be_reduced() -> None:
    held = replace(book(100_000), positions={"A": Decimal("NaN"), "B": Decimal(10)})
    assert allowed(held, Limits(), order("A", -1), order("B", -1)) == [0, -1]


@pytest.mark.parametrize(
    ("bad", "limit", "why"),
    [
        (order("X", 1), "price", "its last quote is None"),  # unknown
        (order("Y", 1), "price", "its last quote is nan"),
        (order("A", 1, price=math.nan), "price", "its expected price is nan"),
        (order("A", 1, price=0.0), "price", "its expected price is 0.0"),
        (order("A", 1, price=math.inf), "price", "its expected price is inf"),
        (order("A", "NaN"), "quantity", "NaN is no quantity"),
        (order("A", "Infinity"), "quantity", "Infinity is no quantity"),
    ],
)
def test_an_order_that_makes_no_sense_is_vetoed_alone(bad: Proposed, limit: str, why: str) -> None:
    held = book(100_000)
    rulings = rule(replace(held, prices={**held.prices, "Y": math.nan}), only(), bad, order("B", 7))
    assert [int(ruling.quantity) for ruling in rulings] == [0, 7]
    assert named(rulings[0]) == [(limit, "veto")]
    assert rulings[0].findings[0].why == f"{bad.symbol}: {why}"


def test_a_second_order_for_a_symbol_is_vetoed() -> None:
    rulings = rule(book(100_000), only(), order("A", 5), order("A", 5))
    assert [ruling.quantity for ruling in rulings] == [5, 0]
    assert [named(ruling) for ruling in rulings] == [[], [("repeated", "veto")]]


# -- the watch


def breaches(held: Book, limits: Limits) -> list[tuple[str, State | None, str]]:
    return [(breach.limit, breach.state, breach.symbol) for breach in watch(held, limits)]


@pytest.mark.parametrize(
    ("limits", "at", "beyond", "state"),
    [
        (only(daily_loss=0.1), {"day_start_equity": 111_111.0}, {"day_start_equity": 111_112.0}, State.HALTED),
        (only(drawdown=0.2), {"peak_equity": 125_000.0}, {"peak_equity": 125_000.01}, State.HALTED),
        (only(turnover=1.5), {"traded_today": 150_000.0}, {"traded_today": 150_000.01}, None),
        (only(min_cash=0.1), {"cash": 10_000.0}, {"cash": 9_999.99}, None),
        (only(gross=1.0), {}, {"prices": {"Z": 100.01}}, State.REDUCING),
        (only(net_high=1.0), {}, {"prices": {"Z": 100.01}}, State.REDUCING),
        (only(leverage=1.0), {}, {"cash": 0.01}, State.REDUCING),
        (only(net_low=-0.5), {"positions": {"Z": Decimal(-500)}}, {"positions": {"Z": Decimal(-501)}}, State.REDUCING),
    ],
)
def test_the_watch_sees_what_is_beyond_a_limit_and_says_what_follows(
    limits: Limits, at: dict[str, Any], beyond: dict[str, Any], state: State | None
) -> None:
    assert watch(replace(book(), **at), limits) == []
    ((limit, follows, _),) = breaches(replace(book(), **beyond), limits)
    assert getattr(limits, limit) is not None
    assert follows == state


def test_a_loss_is_measured_from_the_highest_equity_even_if_that_is_now() -> None:
    assert watch(replace(book(), peak_equity=90_000.0), only(drawdown=0.01)) == []


def test_the_watch_names_the_position_that_is_too_large() -> None:
    held = book(A=400, B=300)
    for positions in (held.positions, {"C": Decimal(0), **held.positions}):
        assert breaches(replace(held, positions=positions), only(per_name=0.3)) == [("per_name", None, "A")]


def test_a_breach_says_how_much_there_is_and_how_much_there_may_be() -> None:
    held = replace(book(A=400, B=-100), peak_equity=160_000.0)
    assert [breach.why for breach in watch(held, only(drawdown=0.35, per_name=0.3, gross=1.1))] == [
        "drawdown is 0.375, beyond 0.35",
        "gross is 1.2, beyond 1.1",
        "per_name of A is 0.4, beyond 0.3",
        "per_name of Z is 0.7, beyond 0.3",
    ]
    (breach,) = watch(replace(held, positions={"Z": Decimal(-500)}), only(net_low=-0.4))
    assert breach.why == "net_low is -0.5, beyond -0.4"


def test_the_watch_sees_the_value_at_risk() -> None:
    now = value_at_risk({"Z": 1.0}, book(), 250)
    assert breaches(book(), only(var=now * 1.001)) == []
    assert breaches(book(), only(var=now * 0.999)) == [("var", State.REDUCING, "")]


@pytest.mark.parametrize(
    ("held", "at", "beyond"),
    [(300, 80.0, 79.99), (-300, 120.0, 120.01), ("0.5", 80.0, 79.99), ("-0.5", 120.0, 120.01)],
)
def test_a_stop_loss_names_the_position_to_flatten(held: int | str, at: float, beyond: float) -> None:
    limits = only(stop_loss=0.2)
    for price, expected in ((at, []), (beyond, [("stop_loss", None, "A")]), (100.0, [])):
        position = book(A=held)
        assert breaches(replace(position, prices={**position.prices, "A": price}), limits) == expected


def test_open_orders_do_not_alarm_the_watch() -> None:
    held = replace(book(), open_orders={"A": Decimal(1000), "Z": Decimal(-1000)})
    assert watch(held, Limits()) == []


def test_ruin_halts_and_a_missing_quote_does_not() -> None:
    assert ("book", State.HALTED, "") in breaches(replace(book(), equity=0.0), Limits())
    assert breaches(replace(book(), prices={}), Limits()) == [("book", None, "")]
    poor = replace(book(), equity=1.0, day_start_equity=1.0, peak_equity=1.0, prices={})
    assert breaches(poor, Limits()) == [("book", None, "")], "a dollar is not ruin"
    assert breaches(replace(book(), equity=math.nan), Limits()) == [("book", None, "")]


def test_losses_halt_even_where_the_positions_cannot_be_valued() -> None:
    held = replace(book(), prices={}, day_start_equity=200_000.0)
    assert breaches(held, only(daily_loss=0.4)) == [("book", None, ""), ("daily_loss", State.HALTED, "")]


def test_distances_say_how_much_of_each_limit_is_used() -> None:
    held = replace(
        book(25_000, traded=50_000, A=300, B=150),
        day_start_equity=125_000.0,
        peak_equity=200_000.0,
        average_prices={"A": 125.0, "B": 50.0, "Z": 100.0},
    )
    limits = Limits(min_cash=0.0, stop_loss=0.8, var=None)
    told = {d.name: (d.value, d.limit, d.used, d.symbol) for d in distances(held, limits)}
    assert told == {
        "daily_loss": (0.2, 0.15, pytest.approx(4 / 3), ""),
        "drawdown": (0.5, 0.35, pytest.approx(10 / 7), ""),
        "gross": (0.75, 1.1, pytest.approx(75 / 110), ""),
        "net_low": (0.75, -0.1, 0.0, ""),
        "net_high": (0.75, 1.1, pytest.approx(75 / 110), ""),
        "leverage": (1.0, 1.1, pytest.approx(10 / 11), ""),
        "min_cash": (0.25, 0.0, 0.75, ""),
        "turnover": (0.5, 2.0, 0.25, ""),
        "per_name": (0.3, 1.1, pytest.approx(3 / 11), "A"),  # as much as Z, which comes later
        "stop_loss": (0.2, 0.8, 0.25, "A"),
    }


def test_of_a_book_that_cannot_be_valued_only_the_losses_are_told() -> None:
    held = replace(book(), prices={}, day_start_equity=125_000.0)
    assert [(d.name, d.value) for d in distances(held, Limits())] == [("daily_loss", 0.2), ("drawdown", 0.0)]


def test_a_book_of_which_nothing_more_is_told_has_used_only_what_its_cash_uses() -> None:
    empty = Book(equity=1.0, cash=1.0, positions={}, prices={}, day_start_equity=1.0, peak_equity=1.0)
    told = {d.name: d.value for d in distances(empty, Limits())}
    assert told.pop("leverage") == 1.0
    assert set(told.values()) == {0.0}
    assert watch(empty, Limits()) == []


def test_distances_and_the_watch_agree() -> None:
    held = book(-30_000, A=600)
    passed = {d.name for d in distances(held, Limits(per_name=0.5)) if d.used > 1}
    assert passed == {breach.limit for breach in watch(held, Limits(per_name=0.5))}
    assert passed == {"per_name", "gross", "net_high", "leverage"}


# -- settings


def test_limits_are_read_strictly_and_null_turns_one_off() -> None:
    assert build(Limits, {"per_name": None, "collar": "5e-2"}) == Limits(per_name=None, collar=0.05)
    for name, value in (("net_low", 0.1), ("leverage", 0.9), ("drawdown", 1.0), ("var_bars", 19), ("gross", -1.0)):
        with pytest.raises(UserError, match=f"{name} = {value}: must be"):
            build(Limits, {name: value})


@pytest.mark.parametrize(
    ("names", "within", "beyond"),
    [
        (("per_name", "gross", "net_high", "turnover", "order_notional", "collar", "var", "stop_loss"), 1e-9, 0.0),
        (("daily_loss", "drawdown"), 1e-9, 0.0),
        (("daily_loss", "drawdown", "min_cash"), 0.999, 1.0),
        (("min_cash",), 0.0, -1e-9),
        (("net_low",), -1e-9, 0.0),
        (("leverage",), 1.0, 0.999),
        (("orders_per_minute",), 1, 0),
        (("var_bars",), 20, 19),
    ],
)
def test_a_limit_that_could_not_be_kept_or_would_bound_nothing_is_refused(
    names: tuple[str, ...], within: float, beyond: float
) -> None:
    for name in names:
        assert getattr(build(Limits, {name: within}), name) == within
        with pytest.raises(UserError, match=f"{name} = "):
            build(Limits, {name: beyond})


def test_no_default_is_loosened_by_accident() -> None:
    shares = {"per_name": 1.1, "gross": 1.1, "net_low": -0.1, "net_high": 1.1, "leverage": 1.1, "turnover": 2.0}
    halting = {"daily_loss": 0.15, "drawdown": 0.35}
    assert Limits() == only(orders_per_minute=180, collar=0.1, var=0.1, var_bars=250, **shares, **halting)


def test_what_was_ruled_and_by_which_limits_cannot_be_changed_afterwards() -> None:
    held, limits, asked = book(A=400), only(per_name=0.3), order("A", 1)
    (ruling,) = rule(held, limits, asked)
    for made in (asked, ruling, ruling.findings[0], watch(held, limits)[0], distances(held, limits)[0], limits, held):
        with pytest.raises(FrozenInstanceError):
            setattr(made, fields(made)[0].name, None)


@pytest.mark.parametrize("field", [field for field in fields(Limits) if field.name != "var_bars"])
def test_the_defaults_are_within_their_bounds_and_explained(field: Any) -> None:
    assert field.metadata["help"]
    if field.default is not None:
        assert build(Limits, {field.name: field.default}) == Limits()
