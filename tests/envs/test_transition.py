"""One bar of trading: arithmetic worked by hand, and what is true of every trade."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markets import KINDS, NO_COSTS, priced, random_actions, tensors, wild_panel, with_quotes
from panels import random_panel

from envs.allocation import approach, target
from envs.config import CostConfig
from envs.market import MarketTensors
from envs.transition import Costs, State, buy_scale, cash_only, drawdown, trade_costs, transition
from market.panel import Panel

LONG_ONLY = ("softmax", "tilt", "shares")
TEN_BP = replace(NO_COSTS, commission_bp=4.0, half_spread_bp=6.0)
RISE = priced([100.0, 121.0, 121.0], open_=[100.0, 110.0, 121.0])  # +10 % to the open, +10 % to the close
WILD_COSTS = CostConfig(cash_rate=0.05, borrow_rate=0.2, no_volume_bp=20.0)
PAID = ("commission", "spread", "impact", "borrow")


def holding(*weights: float, bar: int = 0, wealth: float = 1.0) -> State:
    """One portfolio; cash is the last weight."""
    value = torch.tensor([wealth], dtype=torch.float64)
    return State(torch.tensor([bar]), torch.tensor([weights], dtype=torch.float64), value, value)


def go(market: MarketTensors, state: State, *weights: float) -> tuple[float, list[float], Costs]:
    """Growth, weights after, costs."""
    after, growth, costs = transition(market, state, torch.tensor([weights], dtype=torch.float64))
    return float(growth.exp()), after.weights[0].tolist(), costs


def many(market: MarketTensors, seed: int, count: int = 24) -> State:
    """Portfolios in the middle of a life: unlike each other, at any bar, as their allocation allows."""
    state = cash_only(market, torch.as_tensor(np.random.default_rng(seed).integers(0, len(market) - 6, count)))
    for action in random_actions(seed, 4, count, market.assets + 1):
        state = transition(market, state, ordered(market, state, action))[0]
    wealth = state.wealth * torch.as_tensor(np.random.default_rng(seed).lognormal(0, 0.5, count))
    return state if market.lot is not None else state._replace(wealth=wealth, peak=wealth)


def ordered(market: MarketTensors, state: State, action: torch.Tensor) -> torch.Tensor:
    wanted = target(market, state.bar, state.weights, state.wealth, action)
    return approach(state.weights, wanted, market.trading.allocation)


def shares_held(panel: Panel, market: MarketTensors, state: State) -> np.ndarray:  # [N, A]
    money = state.weights[:, :-1] * state.wealth.unsqueeze(1) * market.trading.capital
    return money.numpy() / np.nan_to_num(panel.close, nan=1.0)[state.bar.numpy()]


# By hand


def test_a_buy_pays_the_open_its_costs_and_then_earns_the_day() -> None:
    """Half of wealth is ordered at 100 and filled at 110: .55 bought, .00055 paid, .605 at the close."""
    growth, weights, costs = go(tensors(RISE, costs=TEN_BP), holding(0, 1), 0.5, 0.5)
    assert growth == pytest.approx(0.605 + 0.44945)
    assert weights == pytest.approx([0.605 / 1.05445, 0.44945 / 1.05445])
    assert costs.traded.item() == pytest.approx(0.55)
    assert costs.commission.item() == pytest.approx(0.00022)
    assert costs.spread.item() == pytest.approx(0.00033)
    assert costs.left.item() == pytest.approx(0.44945)


def test_a_fill_at_the_next_close_earns_nothing_yet() -> None:
    growth, weights, _ = go(tensors(RISE, costs=TEN_BP, fill="close"), holding(0, 1), 0.5, 0.5)
    assert growth == pytest.approx(1 - 0.605 * 0.001)
    assert weights[0] == pytest.approx(0.605 / growth)


def test_what_is_held_earns_the_night_too() -> None:
    growth, weights, costs = go(tensors(RISE, costs=TEN_BP), holding(0.5, 0.5), 0.5, 0.5)
    assert growth == pytest.approx(0.5 * 1.21 + 0.5)
    assert weights == pytest.approx([0.605 / 1.105, 0.5 / 1.105])
    assert costs.traded.item() == 0


def test_a_sale_at_the_open_misses_the_day() -> None:
    growth, weights, _ = go(tensors(RISE, costs=TEN_BP), holding(1, 0), 0.0, 1.0)
    assert growth == pytest.approx(1.1 * 0.999)
    assert weights == pytest.approx([0, 1])


def test_a_buy_of_everything_is_scaled_to_the_cash_and_its_fee() -> None:
    growth, weights, costs = go(tensors(RISE, costs=TEN_BP), holding(0, 1), 1.0, 0.0)
    assert growth == pytest.approx(1.1 / 1.001)
    assert weights == pytest.approx([1, 0])
    assert costs.traded.item() == pytest.approx(1 / 1.001)


def test_sales_pay_for_buys_of_the_same_bar() -> None:
    """.6 of the first sold for .54 less .00054; .6 of the second would cost .66066 and gets scaled."""
    panel = priced([[100, 100], [90, 110]])
    growth, weights, _ = go(tensors(panel, costs=TEN_BP), holding(1.0, 0.0, 0.0), 0.4, 0.6, 0.0)
    second = (0.54 - 0.00054) / 1.001
    assert growth == pytest.approx(0.36 + second)
    assert weights == pytest.approx([0.36 / growth, second / growth, 0], abs=1e-12)


def test_impact_grows_with_the_power_one_and_a_half_of_the_trade_and_the_root_of_wealth() -> None:
    market = tensors(priced([100.0, 100.0]), costs=replace(NO_COSTS, impact=1.0))
    market = with_quotes(replace(market, extra=None), impact=0.02)
    _, _, costs = go(market, holding(0, 1, wealth=4.0), 0.25, 0.75)
    assert costs.impact.item() == pytest.approx(0.02 * 2.0 * 0.125)
    _, _, costs = go(market, holding(0.36, 0.64), 0.0, 1.0)
    assert costs.impact.item() == pytest.approx(0.02 * 0.216)


def test_impact_is_daily_volatility_times_the_root_of_the_share_of_daily_volume() -> None:
    """Returns of +10 % and -10 % on two days, 1,000 shares each at 110 and 99: 104,500 a day."""
    costs = replace(NO_COSTS, impact=2.0, window_days=2, multiple=3.0)
    market = tensors(priced([100.0, 110.0, 99.0, 50.0], volume=1000.0), costs=costs, capital=1e6)
    assert market.quote(torch.tensor([2])).impact[0, 0].item() == pytest.approx(
        3.0 * 2.0 * 0.1 * (1e6 / 104_500) ** 0.5
    )


def test_without_volume_a_trade_costs_five_basis_points_in_all() -> None:
    panel = priced([100.0, 101.0, 102.0], volume=np.nan)
    _, _, costs = go(tensors(panel), holding(0.0, 1.0, bar=1), 0.4, 0.6)
    paid = costs.commission + costs.spread + costs.impact
    assert paid.item() == pytest.approx(5e-4 * costs.traded.item())
    assert costs.impact.item() == pytest.approx(3e-4 * costs.traded.item())


def test_a_price_that_never_moved_has_no_volatility_and_costs_the_flat_rate_too() -> None:
    _, _, costs = go(tensors(priced(np.full(5, 100.0))), holding(0.0, 1.0, bar=3), 0.4, 0.6)
    assert (costs.commission + costs.spread + costs.impact).item() == pytest.approx(5e-4 * 0.4)


def test_cash_earns_its_yearly_rate_in_a_year() -> None:
    market = tensors(priced(np.full(253, 100.0)), costs=replace(NO_COSTS, cash_rate=0.07))
    state = cash_only(market, torch.tensor([0]))
    for _ in range(252):
        state, _, costs = transition(market, state, state.weights)
    assert state.wealth.item() == pytest.approx(1.07)
    assert costs.interest.item() == pytest.approx(1.07 ** (1 / 252) - 1)


def test_a_short_gains_when_prices_fall_and_pays_to_borrow() -> None:
    costs = replace(NO_COSTS, borrow_rate=0.252)
    panel = priced([100.0, 80.0], open_=[100.0, 90.0])
    growth, weights, paid = go(tensors(panel, "long_short", costs), holding(0, 1), -0.5, 1.5)
    borrow = 0.5 * 0.9 * 0.001
    assert growth == pytest.approx(1 + 0.5 * 0.9 - 0.5 * 0.8 - borrow)
    assert weights[0] == pytest.approx(-0.4 / growth)
    assert paid.borrow.item() == pytest.approx(borrow)


def test_what_was_bought_and_what_was_sold_are_told_apart() -> None:
    """Of the first .3 is sold, of the second .1 is bought; 8 bp more where volume is unknown, as of the second."""
    market = with_quotes(tensors(priced(np.full((3, 2), 100.0)), costs=TEN_BP), impact=0.02)
    market = replace(market, extra=torch.tensor([[0.0, 8e-4, 0.0]] * 3, dtype=torch.float64))
    _, _, costs = go(market, holding(0.5, 0.0, 0.5, wealth=4.0), 0.2, 0.1, 0.7)
    assert costs.sold.item() == pytest.approx(0.3)
    assert costs.bought.item() == pytest.approx(0.1)
    assert costs.sold_beyond.item() == pytest.approx(0.02 * 2 * 0.3**1.5)
    assert costs.bought_beyond.item() == pytest.approx(0.02 * 2 * 0.1**1.5 + 8e-5)
    assert costs.borrow.tolist() == [0.0]


def test_what_each_trade_costs_is_proportional_impact_and_what_unknown_volume_adds() -> None:
    """.25 bought and .16 sold, at 10 bp and .02 of the power 1.5; twice that of it with four times the capital."""
    market = with_quotes(tensors(priced(np.full((3, 2), 100.0)), costs=TEN_BP), impact=0.02)
    wealth = torch.tensor([4.0, 1.0], dtype=torch.float64)
    state = State(torch.tensor([1, 1]), torch.tensor([[0.0, 0.5, 0.5]] * 2, dtype=torch.float64), wealth, wealth)
    trades = torch.tensor([[0.25, -0.16, 0.0]] * 2, dtype=torch.float64)
    expected = np.array([[0.00025 + 0.04 * 0.125, 0.00016 + 0.04 * 0.064, 0], [0.00275, 0.00016 + 0.02 * 0.064, 0]])
    np.testing.assert_allclose(trade_costs(market, state, trades), expected, rtol=1e-12)
    extra = torch.tensor([[9.0] * 3, [0.0, 8e-4, 0.0], [9.0] * 3], dtype=torch.float64)
    expected[:, 1] += 0.16 * 8e-4
    np.testing.assert_allclose(trade_costs(replace(market, extra=extra), state, trades), expected, rtol=1e-12)


def test_a_scaled_buy_pays_its_own_flat_cost_and_impact_not_those_of_what_was_ordered() -> None:
    """All of wealth at 10 bp and 8 more, then at 10 bp and 2 % of the power 1.5, of which some cash is left."""
    unknown = tensors(priced(np.full(3, 100.0), volume=np.nan), costs=replace(TEN_BP, impact=1.0, no_volume_bp=18.0))
    growth, weights, costs = go(unknown, holding(0, 1), 1.0, 0.0)
    assert growth == pytest.approx(1 / 1.0018)
    assert weights == pytest.approx([1.0, 0.0])
    assert costs.impact.item() == pytest.approx(8e-4 / 1.0018)
    known = with_quotes(tensors(priced(np.full(3, 100.0)), costs=TEN_BP), impact=0.02)
    growth, _, costs = go(known, holding(0, 1), 1.0, 0.0)
    bought = 1 / 1.021
    assert costs.bought.item() == pytest.approx(bought)
    assert costs.impact.item() == pytest.approx(0.02 * bought**1.5)
    assert costs.left.item() == pytest.approx(1 - 1.001 * bought - 0.02 * bought**1.5)
    assert growth == pytest.approx(1 - 0.001 * bought - 0.02 * bought**1.5)


def test_cash_buys_its_share_of_what_was_ordered_never_more_and_debt_buys_nothing() -> None:
    at_hand = torch.tensor([0.5, 2.0, 1.0, -0.1, 1.0], dtype=torch.float64)
    needed = torch.tensor([2.0, 0.5, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert buy_scale(at_hand, needed).tolist() == [0.25, 1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_portfolio_of_cash_has_the_markets_precision_and_its_wealth_and_peak_are_two_tensors(
    dtype: torch.dtype,
) -> None:
    state = cash_only(tensors(RISE, dtype=dtype), torch.tensor([0, 1, 1]))
    assert state.weights.tolist() == [[0.0, 1.0]] * 3
    assert state.wealth.tolist() == state.peak.tolist() == [1.0] * 3
    assert [part.dtype for part in state] == [torch.int64, dtype, dtype, dtype]
    assert state.wealth.data_ptr() != state.peak.data_ptr()


def test_the_peak_only_rises_and_drawdown_is_the_share_of_it_that_was_lost() -> None:
    """From wealth 2 at a peak of 2.5: +21 %, below the peak still; then from 2 at 2 a new one."""
    market = tensors(RISE, costs=NO_COSTS)
    for peak, highest, fallen in ((2.5, 2.5, 2.42 / 2.5 - 1), (2.0, 2.42, 0.0)):
        state = holding(1.0, 0.0, wealth=2.0)._replace(peak=torch.tensor([peak], dtype=torch.float64))
        after, _, _ = transition(market, state, state.weights)
        assert after.peak.item() == pytest.approx(highest)
        assert drawdown(after).item() == pytest.approx(fallen)


def test_a_debt_that_shorts_have_left_is_not_forgiven_and_buys_nothing() -> None:
    """Long 1.6, short .5 and a tenth of wealth owed, at 100 % a year: a bar's interest is paid on it."""
    costs = replace(NO_COSTS, cash_rate=1.0)
    market = tensors(priced(np.full((3, 2), 100.0)), "long_short", costs)
    interest = 0.1 * (2 ** (1 / 252) - 1)
    for wanted in ((1.6, -0.5, -0.1), (1.9, -0.5, -0.4)):
        growth, weights, paid = go(market, holding(1.6, -0.5, -0.1), *wanted)
        assert paid.traded.item() == 0
        assert growth == pytest.approx(1 - interest)
        assert weights == pytest.approx([1.6 / growth, -0.5 / growth, (-0.1 - interest) / growth])


def test_a_price_that_falls_to_nothing_leaves_a_growth_whose_logarithm_exists() -> None:
    market = with_quotes(tensors(RISE, costs=NO_COSTS), hold=0.0, drift=0.0)
    state = holding(1.0, 0.0)
    after, growth, _ = transition(market, state, state.weights)
    assert growth.item() == pytest.approx(np.log(1e-6))
    assert after.wealth.item() == pytest.approx(1e-6)


# Of every trade


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS), fill=st.sampled_from(["open", "close"]))
def test_wealth_moves_by_profit_less_costs_plus_interest(seed: int, kind: str, fill: str) -> None:
    panel = wild_panel(seed)
    market = tensors(panel, kind, WILD_COSTS, fill=fill, capital=2e5)
    before = many(market, seed)
    after, growth, costs = transition(market, before, ordered(market, before, random_actions(seed, 24, 5)))
    prices, bar = np.nan_to_num(panel.close, nan=1.0), before.bar.numpy()
    filled = np.nan_to_num(getattr(panel, fill), nan=1.0)[bar + 1]
    held = shares_held(panel, market, before)
    traded = shares_held(panel, market, after) - held
    profit = (held * (prices[bar + 1] - prices[bar])).sum(1) + (traded * (prices[bar + 1] - filled)).sum(1)
    wealth = before.wealth.numpy() * 2e5
    amounts = {name: amount.numpy() * wealth for name, amount in costs.by_kind().items()}
    expected = wealth + profit - sum(amounts[name] for name in PAID) + amounts["interest"]
    np.testing.assert_allclose(after.wealth.numpy() * 2e5, expected, rtol=1e-12)
    np.testing.assert_allclose(growth.exp().numpy(), after.wealth / before.wealth, rtol=1e-12)
    np.testing.assert_allclose((np.abs(traded) * filled).sum(1), costs.traded.numpy() * wealth, rtol=1e-9, atol=1e-6)


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS))
def test_weights_with_cash_sum_to_one(seed: int, kind: str) -> None:
    market = tensors(wild_panel(seed), kind, WILD_COSTS)
    state = many(market, seed)
    torch.testing.assert_close(state.weights.sum(1), torch.ones(24, dtype=torch.float64))


@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(LONG_ONLY),
    multiple=st.sampled_from([0.0, 1.0, 30.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_without_shorts_neither_cash_nor_a_holding_is_ever_negative(
    seed: int, kind: str, multiple: float, dtype: torch.dtype
) -> None:
    market = tensors(wild_panel(seed), kind, CostConfig(multiple=multiple), dtype, capital=1e5)
    if kind != "shares":
        market = replace(
            market, trading=replace(market.trading, allocation=replace(market.trading.allocation, rate=1.0))
        )
    state = cash_only(market, torch.zeros(16, dtype=torch.int64))
    for action in random_actions(seed, 58, 16, 5, dtype=dtype):
        state, _, costs = transition(market, state, ordered(market, state, action))
        assert bool((costs.left >= 0).all())
        assert bool((state.weights[:, -1] >= 0).all())
        assert float(state.weights.min()) > -1e-6
        assert float(state.wealth.min()) > 0


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS))
def test_no_trade_costs_nothing_and_prices_alone_move_wealth(seed: int, kind: str) -> None:
    panel = wild_panel(seed)
    market = tensors(panel, kind, replace(WILD_COSTS, borrow_rate=0.0, cash_rate=0.0))
    before = many(market, seed)
    after, growth, costs = transition(market, before, before.weights)
    for amount in costs.by_kind().values():
        assert not amount.any()
    prices = np.nan_to_num(panel.close, nan=1.0)
    relative = prices[before.bar.numpy() + 1] / prices[before.bar.numpy()]
    expected = (before.weights[:, :-1].numpy() * relative).sum(1) + before.weights[:, -1].numpy()
    np.testing.assert_allclose(growth.exp().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(shares_held(panel, market, after), shares_held(panel, market, before), rtol=1e-9)


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS))
def test_nobody_trades_what_is_not_tradable_at_the_order_or_at_the_fill(seed: int, kind: str) -> None:
    panel = wild_panel(seed)
    market = tensors(panel, kind, WILD_COSTS)
    state = many(market, seed)
    anything = torch.as_tensor(np.random.default_rng(seed).dirichlet(np.ones(5), 24))
    after = transition(market, state, anything)[0]
    bar = state.bar.numpy()
    trades = np.abs(shares_held(panel, market, after) - shares_held(panel, market, state))
    fills = panel.tradable[bar] & panel.tradable[bar + 1]
    assert trades[~fills].max() < 1e-6
    assert (trades[fills] > 1.0).any()


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["softmax", "tilt", "long_short"]))
def test_twice_the_capital_holds_the_same_weights_without_impact(seed: int, kind: str) -> None:
    weights = []
    for capital in (1e5, 2e5):
        market = tensors(wild_panel(seed), kind, replace(WILD_COSTS, impact=0.0), capital=capital)
        weights.append(many(market, seed).weights)
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@given(seed=st.integers(0, 2**31), multiple=st.floats(0.1, 5))
def test_the_multiple_scales_commission_spread_and_impact_alike(seed: int, multiple: float) -> None:
    """Of sales, which are not scaled: the same trade, dearer."""
    panel = wild_panel(seed)
    once = tensors(panel, costs=WILD_COSTS)
    more = tensors(panel, costs=replace(WILD_COSTS, multiple=multiple))
    state = many(once, seed)
    everything = torch.zeros_like(state.weights)
    everything[:, -1] = 1.0
    (_, _, one), (_, _, other) = (transition(market, state, everything) for market in (once, more))
    torch.testing.assert_close(one.traded, other.traded, rtol=0, atol=0)
    for kind in ("commission", "spread", "impact"):
        torch.testing.assert_close(getattr(one, kind) * multiple, getattr(other, kind))


@given(seed=st.integers(0, 2**31), fill=st.sampled_from(["open", "close"]))
def test_too_many_buys_are_all_scaled_alike_and_sales_are_not(seed: int, fill: str) -> None:
    panel = random_panel(seed, bars=60, symbols=4, gaps=False)
    market = tensors(panel, costs=replace(WILD_COSTS, multiple=5.0), fill=fill)
    state = many(market, seed)
    wanted = torch.as_tensor(np.random.default_rng(seed).dirichlet(np.ones(4), 24))
    wanted = torch.cat([wanted, torch.zeros(24, 1, dtype=torch.float64)], dim=1)  # all of the cash is to go
    after, _, costs = transition(market, state, wanted)
    money = state.wealth.numpy()[:, None] * market.trading.capital
    quantities = (wanted - state.weights)[:, :-1].numpy() * money / panel.close[state.bar.numpy()]
    traded = shares_held(panel, market, after) - shares_held(panel, market, state)
    sells = quantities < -1e-6
    np.testing.assert_allclose(traded[sells], quantities[sells], rtol=1e-6)
    scaled = 0
    for row in range(24):
        buys = quantities[row] > 1e-3
        if buys.any():
            shares = traded[row, buys] / quantities[row, buys]
            assert shares.max() == pytest.approx(shares.min(), rel=1e-6)
            assert shares.max() < 1 + 1e-9
            scaled += shares.max() < 1 - 1e-6
    assert scaled > 0
    assert bool((costs.left >= 0).all())


def test_ruin_leaves_next_to_nothing_in_cash() -> None:
    """Short all of wealth, and the price triples: the loss is twice what there was."""
    market = tensors(priced([100.0, 100.0, 300.0, 100.0]), "long_short", NO_COSTS)
    state = holding(-1.0, 2.0, bar=1)
    state, growth, _ = transition(market, state, state.weights)
    assert growth.item() == pytest.approx(np.log(1e-6))
    assert state.weights.tolist() == [[0.0, 1.0]]
    state, growth, _ = transition(market, state, state.weights)  # the price comes back, the wealth does not
    assert growth.item() == 0
    assert state.wealth.item() == pytest.approx(1e-6)
