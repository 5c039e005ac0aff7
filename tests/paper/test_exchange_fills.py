"""The local exchange's fills are those of the backtest, to the ninth decimal of a share."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from exchanges import PANEL, Follower, made, next_bar, order, step, tensors_of, trading
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_actions, wild_panel
from panels import price_panel, random_panel

from envs.backtest import backtest
from envs.config import CostConfig
from envs.policy import Allocated, equal_weight
from envs.transition import State, buy_scale, trade_costs, transition
from kit.errors import UserError
from market.panel import Panel
from paper.exchange.core import Exchange
from paper.exchange.faults import Fault
from paper.exchange.ticket import Refusal

COSTS = CostConfig(commission_bp=5, half_spread_bp=10, impact=3, cash_rate=0.05, borrow_rate=0.2)


def changing(panel: Panel, seed: int = 3) -> Allocated:
    """Another action every bar."""
    actions = random_actions(seed, len(panel), len(panel.symbols) + 1)
    return Allocated(lambda market, bar, portfolio: actions[bar])


def signed_sum(exchange: Exchange, symbol: str) -> Decimal:
    return sum((o.sign * o.filled for o in exchange.book.orders.values() if o.symbol == symbol), Decimal(0))


@pytest.mark.parametrize("fill", ["open", "close"])
@pytest.mark.parametrize("kind", ["softmax", "tilt", "long_short"])
@pytest.mark.parametrize("policy", ["equal weight", "changing"])
def test_a_policy_ends_where_its_backtest_ends(kind: str, fill: str, policy: str):
    panel = wild_panel(7, bars=70, symbols=5)
    chosen = equal_weight if policy == "equal weight" else changing(panel)
    rules = trading(
        kind, fill, COSTS, rate=0.7, **({"gross_cap": 1.5, "name_cap": 0.6} if kind == "long_short" else {})
    )
    exchange = made(panel, trading=rules, bar=10)
    track = backtest([chosen], tensors_of(exchange), slice(10, None), torch.float64)[0]
    desk = Follower(exchange, chosen)
    for t in range(len(track.weights)):
        desk.bar()
        np.testing.assert_allclose(desk.weights(), track.weights[t], rtol=0, atol=1e-9)
    assert exchange.tape.ended
    assert desk.wealth == pytest.approx(np.prod(1 + track.returns), rel=1e-9)
    if policy == "changing" or kind != "long_short":  # whose zero action is cash
        assert len(exchange.book.orders) > 20, "it hardly traded"


def test_whole_shares_end_where_their_backtest_ends():
    panel = random_panel(2, bars=50, symbols=4, gaps=False)
    exchange = made(panel, trading=trading("shares", costs=COSTS, max_stock=900), bar=5)
    policy = changing(panel)
    track = backtest([policy], tensors_of(exchange), slice(5, None), torch.float64)[0]
    desk = Follower(exchange, policy)
    for t in range(len(track.weights)):
        desk.bar()
        np.testing.assert_allclose(desk.weights(), track.weights[t], rtol=0, atol=1e-9)
    assert all(o.filled % 1 == 0 for o in exchange.book.orders.values())


def test_half_the_capital_pays_the_impact_of_half_the_money():
    """What an order costs depends on its size in money, whatever the account holds."""
    poor, rich = (made(cash=cash, bar=30) for cash in (2e5, 3e6))
    for exchange in (poor, rich):
        order(exchange, "S001", "500")
        step(exchange)
    price = [next(iter(e.book.orders.values())).average for e in (poor, rich)]
    assert float(price[0]) == pytest.approx(float(price[1]), rel=1e-14)


def test_trade_costs_are_those_that_the_transition_charges():
    market = tensors_of(made(wild_panel(1), trading=trading(costs=COSTS)))
    generator = torch.Generator().manual_seed(0)
    for bar in range(0, len(market) - 1, 7):
        held = torch.rand(1, market.assets + 1, generator=generator, dtype=torch.float64)
        weights, wanted = held / held.sum(), torch.rand(1, market.assets + 1, generator=generator, dtype=torch.float64)
        wealth = torch.tensor([1.7], dtype=torch.float64)
        state = State(torch.tensor([bar]), weights, wealth, wealth)
        _, _, costs = transition(market, state, wanted / wanted.sum())
        trades = (wanted / wanted.sum() - weights) * market.quote(state.bar).fill
        each = trade_costs(market, state, trades)
        sells, buys = trades < 0, trades > 0
        at_hand = weights[:, -1] - trades[sells].sum() - each[sells].sum()
        scale = buy_scale(at_hand, trades[buys].sum() + each[buys].sum())
        scaled = torch.where(buys, trades * scale, trades)
        charged = trade_costs(market, state, scaled).sum()
        assert float(charged) == pytest.approx(float((costs.commission + costs.spread + costs.impact).sum()), rel=1e-12)


def test_a_fill_worked_by_hand():
    """100 shares at an open of 51, with 10 basis points and no impact: 51.051 each."""
    panel = price_panel(np.full((5, 2), 50.0))
    opens = panel.open.copy()
    opens[2] = 51.0
    flat = CostConfig(commission_bp=4, half_spread_bp=6, impact=0, cash_rate=0.0)
    panel = Panel(**{**panel.__dict__, "open": opens, "high": np.maximum(opens, panel.high)})
    exchange = made(panel, trading=trading(costs=flat), bar=1, cash=10_000)
    bought = order(exchange, "S000", "100")
    assert (bought.status, exchange.book.cash) == ("new", 10_000)
    step(exchange)
    assert (bought.status, bought.filled) == ("filled", 100)
    assert float(bought.average) == pytest.approx(51.051, abs=1e-12)
    assert float(exchange.book.cash) == pytest.approx(10_000 - 5105.1, abs=1e-9)
    assert float(exchange.equity()) == pytest.approx(10_000 - 5105.1 + 5100, abs=1e-9)
    step(exchange)
    assert float(exchange.equity()) == pytest.approx(10_000 - 5105.1 + 5000, abs=1e-9)
    sold = order(exchange, "S000", "-40")
    step(exchange)
    assert float(sold.average) == pytest.approx(49.95, abs=1e-12)
    assert exchange.book.held("S000") == 60


def test_buys_beyond_the_cash_fill_in_part_and_the_rest_is_canceled():
    exchange = made(bar=30, cash=10_000, trading=trading(costs=CostConfig(impact=0.0)))
    price = exchange.tape.prices()[0]
    bought = order(exchange, "S000", f"{20_000 / price:.6f}")
    step(exchange)
    assert bought.status == "canceled"
    assert Decimal("0.4") * bought.quantity < bought.filled < bought.quantity
    assert 0 <= exchange.book.cash < Decimal("1e-6")
    assert [event.kind for event in exchange.book.events] == ["new", "partial_fill", "canceled"]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-4_000_000, 4_000_000)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5]),
    st.booleans(),
)
def test_cash_is_never_negative_and_positions_are_sums_of_fills(
    orders: list[tuple[int, int]], partial: float, whole: bool
):
    exchange = made(bar=30, cash=50_000, partial=partial, whole=whole, trading=trading(costs=COSTS))
    for round in range(3):
        for number, (symbol, thousandths) in enumerate(orders):
            size = Decimal(thousandths * (-1) ** round) / 1000
            quantity = size.to_integral_value() if whole else size
            if quantity:
                with suppress(Refusal):  # a sale of more than is held, or of what is also bought
                    order(exchange, f"S00{symbol}", str(quantity), f"{round}-{number}")
        next_bar(exchange)
        assert exchange.book.cash >= 0
        assert not exchange.book.open
        for symbol in PANEL.symbols:
            assert exchange.book.held(symbol) == signed_sum(exchange, symbol) >= 0
            assert exchange.book.held(symbol) % (1 if whole else Decimal("1e-9")) == 0
        with localcontext(prec=80):
            spent = sum(o.sign * o.spent for o in exchange.book.orders.values())
            paid = sum(a.cash for a in exchange.book.activities)
            assert exchange.book.cash == 50_000 - spent + paid


def test_interest_is_paid_once_a_bar_on_the_cash_left():
    exchange = made(bar=30, trading=trading(costs=CostConfig(cash_rate=0.1)))
    order(exchange, "S000", "1000")
    step(exchange)
    left = float(exchange.book.cash)
    step(exchange)
    step(exchange)
    (paid,) = [a for a in exchange.book.activities if a.kind == "INT"]
    assert float(paid.cash) == pytest.approx(left * (1.1 ** (1 / 252) - 1), rel=1e-12)


def test_a_short_pays_the_fee_on_its_value_at_the_fill():
    exchange = made(bar=30, trading=trading("long_short", costs=CostConfig(borrow_rate=0.252, cash_rate=0.0)))
    order(exchange, "S001", "-100")
    step(exchange)
    value = 100 * exchange.tape.prices()[1]
    step(exchange)
    (paid,) = [a for a in exchange.book.activities if a.kind == "FEE"]
    assert float(paid.cash) == pytest.approx(-value * 0.001, rel=1e-12)
    assert exchange.book.held("S001") == -100


def test_orders_in_two_executions_end_as_those_in_one():
    ends = []
    for partial in (0.0, 1.0):
        exchange = made(bar=20, partial=partial, trading=trading(costs=COSTS))
        desk = Follower(exchange, changing(PANEL))
        for _ in range(15):
            desk.bar()
        ends.append((exchange.book.cash, {s: p.quantity for s, p in exchange.book.positions.items()}))
        several = [o for o in exchange.book.orders.values() if o.executions == 2]
        assert bool(several) == bool(partial)
    assert ends[0] == ends[1]


def test_the_rest_of_a_fill_comes_after_it_was_looked_at():
    exchange = made(bar=30, partial=1.0)
    bought = order(exchange, "S000", "10", "a")
    step(exchange)
    assert bought.status == "partially_filled"
    price = bought.average
    exchange.look(bought)
    assert (bought.status, bought.filled, bought.average) == ("filled", 10, price)
    other = order(exchange, "S001", "10", "b")
    next_bar(exchange)
    step(exchange)
    assert other.filled == 10


def test_advancing_from_elsewhere_changes_nothing():
    exchange = made(bar=30)
    for bar, stage in ((30, "filled"), (29, "closed"), (31, "closed")):
        exchange.advance(bar, stage)
        assert (exchange.tape.bar, exchange.tape.stage) == (30, "closed")
    exchange.advance(30, "closed")
    exchange.advance(30, "closed")  # said again
    assert (exchange.tape.bar, exchange.tape.stage) == (30, "filled")
    exchange.advance(30, "filled")
    exchange.advance(30, "filled")
    assert (exchange.tape.bar, exchange.tape.stage) == (31, "closed")


def test_after_the_last_bar_the_clock_stands():
    exchange = made(bar=len(PANEL) - 2)
    next_bar(exchange)
    assert exchange.tape.ended
    before = exchange.tape.now
    exchange.advance(exchange.tape.bar, exchange.tape.stage)
    assert exchange.tape.now == before


def test_what_is_ordered_after_the_fill_waits_for_the_next():
    exchange = made(bar=30)
    step(exchange)
    late = order(exchange, "S000", "5")
    step(exchange)
    assert late.status == "new"
    step(exchange)
    assert (late.status, late.updated.date()) == ("filled", PANEL.times[32].astype("datetime64[D]").astype(object))


def test_a_split_changes_shares_and_price_and_not_the_worth():
    split = Fault(market="split", symbol="S000", bar=32, ratio=4.0)
    plain, exchange = (made(bar=30, faults=faults) for faults in ([], [split]))
    for each in (plain, exchange):
        order(each, "S000", "10.5")
        next_bar(each)
        queued = order(each, "S000", "1")
        step(each)
    assert (queued.status, exchange.book.held("S000")) == ("canceled", 42)
    assert exchange.tape.prices()[0] == pytest.approx(plain.tape.prices()[0] / 4)
    (told,) = [a for a in exchange.book.activities if a.kind == "SPLIT"]
    assert (told.symbol, told.quantity, told.price) == ("S000", Decimal("31.5"), 4)
    before = exchange.book.cash + 42 * Decimal(repr(float(PANEL.open[32, 0]))) / 4
    assert float(exchange.equity()) == pytest.approx(float(before), rel=1e-12)
    assert exchange.tape.row("S000", 31, adjusted=False) != exchange.tape.row("S000", 31, adjusted=True)


def test_a_halted_symbol_takes_no_order_and_rejects_those_that_wait():
    exchange = made(bar=30, faults=[Fault(market="halt", symbol="S001", bar=31, until=33)])
    queued, other = order(exchange, "S001", "5"), order(exchange, "S000", "5")
    step(exchange)
    assert (queued.status, other.status) == ("rejected", "filled")
    step(exchange)
    with pytest.raises(Refusal, match="not tradable"):
        order(exchange, "S001", "5")
    next_bar(exchange)
    next_bar(exchange)
    assert order(exchange, "S001", "5").status == "new"


def test_a_start_without_a_bar_after_it_is_refused():
    for late in ({"bar": 59}, {"start": "2031-01-01"}):
        with pytest.raises(UserError, match="one of the first 59 bars"):
            made(**late)
    assert made(start=str(PANEL.times[40])).tape.bar == 40
