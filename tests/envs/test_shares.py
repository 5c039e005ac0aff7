"""Whole shares against ElegantRL's StockTradingEnv: equal where that is right, right where it is not."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from elegantrl.envs.StockTradingEnv import StockTradingEnv
from hypothesis import given
from hypothesis import strategies as st
from panels import price_panel, random_panel

from envs.allocation import approach, shares
from envs.config import AllocationConfig, CostConfig, EnvConfig, TradingConfig
from envs.market import MarketTensors
from envs.trading import TradingEnv
from envs.transition import State, cash_only, transition
from market.panel import Panel

FEE = 1e-3
CAPITAL = 1e6


class Peer(StockTradingEnv):
    """ElegantRL's environment on prices of ours."""

    def __init__(self, close: np.ndarray, amount: float = CAPITAL, holdings: np.ndarray | None = None) -> None:
        self.prices = close  # [T, A]
        super().__init__(initial_amount=amount, max_stock=100, cost_pct=FEE, end_idx=len(close))
        self.if_random_reset = False
        self.reset()
        if holdings is not None:
            self.shares = holdings.copy()

    def load_data_from_disk(self, tech_id_list: object = None) -> tuple[np.ndarray, np.ndarray]:
        return self.prices, np.zeros((len(self.prices), 0))


def same_market(close: np.ndarray, dtype: torch.dtype = torch.float64, capital: float = CAPITAL) -> MarketTensors:
    """Fills at the next close, 0.1 % commission, nothing else."""
    return shares_market(price_panel(close), dtype, capital, fill="close")


def shares_market(panel: Panel, dtype: torch.dtype, capital: float = CAPITAL, fill: str = "open") -> MarketTensors:
    costs = CostConfig(commission_bp=FEE * 1e4, half_spread_bp=0.0, impact=0.0, no_volume_bp=0.0)
    trading = TradingConfig(AllocationConfig("shares", max_stock=100), costs, fill=fill, capital=capital)
    return MarketTensors.build(panel, trading, dtype=dtype)


def started(market: MarketTensors, holdings: np.ndarray, amount: float, close: np.ndarray) -> TradingEnv:
    """An environment at bar 0 that holds these shares [A] and this much cash."""
    env = TradingEnv(market, EnvConfig(episode=len(market), ruin=0.0), num_envs=1, random_start=False)
    values = torch.tensor([[*(holdings * close), amount]], dtype=market.dtype)
    total = values.sum(1)
    wealth = total / market.trading.capital
    env.account = env.account._replace(state=env.account.state._replace(weights=values / total, wealth=wealth))
    return env


def books(market: MarketTensors, state: State) -> tuple[np.ndarray, np.ndarray]:
    """Counts of shares [N, A] and cash in money [N]."""
    assert market.lot is not None
    money = state.weights.double() * state.wealth.double().unsqueeze(1)
    counts = money[:, :-1] / market.lot[state.bar, :-1].double()
    return counts.numpy(), (money[:, -1] * market.trading.capital).numpy()


def act(env: TradingEnv, action: np.ndarray) -> tuple[np.ndarray, float]:  # action [A]
    """One step, cash's action being of no account: counts of shares [A] and cash in money."""
    whole = torch.tensor([[*action, 0.7]], dtype=env.market.dtype)
    state = env.step(whole)[3]["final"]
    counts, cash = books(env.market, state)
    return counts[0], float(cash[0])


def fee_overdraws(amount: float, orders: np.ndarray, prices: np.ndarray, held: np.ndarray) -> bool:
    """Fault: the count that is bought is what cash pays for without the fee."""
    for order, price, count in zip(orders, prices, held):
        if order > 0:
            amount -= min(amount // price, order) * price * (1 + FEE)
            if amount < 0:
                return True
        else:
            amount += min(-order, count) * price * (1 - FEE)
    return False


def starved_by_order(amount: float, orders: np.ndarray, prices: np.ndarray, held: np.ndarray) -> bool:
    """Fault: a buy gets less than all later sales, or a fair share among the buys, would have paid for."""
    short = False
    for index, (order, price, count) in enumerate(zip(orders, prices, held)):
        if order > 0:
            short |= amount < order * price * (1 + FEE)
            amount -= min(amount // price, order) * price * (1 + FEE)
        else:
            amount += min(-order, count) * price * (1 - FEE)
        later = orders[index + 1 :], held[index + 1 :]
        if short and ((later[0] < 0) & (later[1] > 0)).any():
            return True
    return short and (orders > 0).sum() > 1


@pytest.mark.parametrize(("capital", "scarce"), [(CAPITAL, False), (5e4, True)])
def test_a_thousand_random_steps_equal_elegantrl_where_its_faults_do_not_bite(capital: float, scarce: bool) -> None:
    rng = np.random.default_rng(0)
    close = random_panel(1, bars=1001, symbols=4, gaps=False).close
    amount = capital * rng.uniform(0.9, 1.1)  # drawn as ElegantRL's own random start draws them
    holdings = (np.abs(rng.standard_normal(4).clip(-2, 2)) * 64).astype(int)
    peer = Peer(close, amount, holdings)
    env = started(same_market(close, capital=capital), holdings, amount, close[0])
    compared, short_of_cash, bitten = 0, 0, Counter[str]()
    for day in range(1, 1001):
        action = rng.uniform(-1, 1, 4) * (rng.random(4) < 0.7)
        orders = (np.where(np.abs(action) < 0.1, 0.0, action) * 100).astype(int)
        situation = peer.amount, orders, close[day], peer.shares
        faults = {"fee": fee_overdraws(*situation), "order": starved_by_order(*situation)}
        before = peer.shares.copy()
        peer.step(action)
        counts, cash = act(env, action)
        assert np.abs(counts - counts.round()).max() < 1e-6
        assert counts.min() > -1e-6
        assert cash >= 0
        bitten.update(name for name, bites in faults.items() if bites)
        if any(faults.values()):
            peer.shares, peer.amount = counts.round(), cash  # go on from where ours is
            continue
        compared += 1
        short_of_cash += bool((peer.shares - before < orders).any())
        np.testing.assert_array_equal(counts.round(), peer.shares, err_msg=f"day {day}")
        assert cash == pytest.approx(peer.amount, abs=1e-9 * capital)
        assert counts @ close[day] + cash == pytest.approx(peer.total_asset, rel=1e-11)
    assert compared >= 500
    if scarce:
        assert bitten["fee"] > 0
        assert bitten["order"] > 0
        assert short_of_cash > 0  # and yet they agree
    else:
        assert compared == 1000


def test_each_threshold_and_truncation_of_an_action_equals_elegantrl() -> None:
    actions = np.array([-1, -0.559, -0.1001, -0.1, -0.0999, 0, 0.0999, 0.1, 0.1001, 0.29, 0.555, 0.57, 0.9999, 1])
    close = np.full((2, len(actions)), 100.0)
    holdings = np.full(len(actions), 50.0)
    peer = Peer(close, holdings=holdings)
    peer.step(actions)
    counts, cash = act(started(same_market(close), holdings, CAPITAL, close[0]), actions)
    np.testing.assert_array_equal(counts.round(6), peer.shares)
    np.testing.assert_array_equal(peer.shares - 50, [-50, -50, -10, -10, 0, 0, 0, 10, 10, 28, 55, 56, 99, 100])
    assert cash == pytest.approx(peer.amount)


def test_orders_are_decided_at_one_close_and_filled_at_the_next() -> None:
    close = np.array([[100.0], [110.0]])
    counts, cash = act(started(same_market(close), np.zeros(1), CAPITAL, close[0]), np.array([0.5]))
    assert counts == pytest.approx([50])
    assert cash == pytest.approx(CAPITAL - 50 * 110 * 1.001)


def test_elegantrl_goes_into_debt_for_the_fee_and_ours_does_not() -> None:
    close = np.full((2, 1), 100.0)
    peer = Peer(close, amount=5000.0)
    peer.step(np.array([0.5]))
    assert peer.shares[0] == 50
    assert peer.amount == pytest.approx(-5.0)  # 50 · 100 · 0.1 % that it did not have
    counts, cash = act(started(same_market(close), np.zeros(1), 5000.0, close[0]), np.array([0.5]))
    assert counts == pytest.approx([49])
    assert cash == pytest.approx(5000 - 49 * 100.1)


def test_elegantrl_turns_a_buy_in_debt_into_a_short_that_it_cannot_close_and_ours_does_not() -> None:
    close = np.full((4, 2), 100.0)
    peer = Peer(close, amount=5000.0)
    env = started(same_market(close), np.zeros(2), 5000.0, close[0])
    for action in ([0.5, 0.0], [0.0, 0.3]):  # all cash into the first; then buy the second
        peer.step(np.array(action))
        counts, cash = act(env, np.array(action))
    assert peer.shares[1] == -1  # -5 // 100
    assert counts == pytest.approx([49, 0], abs=1e-9)
    assert cash == pytest.approx(5000 - 49 * 100.1)
    peer.step(np.array([0.0, -1.0]))
    assert peer.shares[1] == -1


def test_elegantrl_misses_the_proceeds_of_a_later_sale_and_ours_spends_them() -> None:
    close = np.full((2, 2), 100.0)
    action = np.array([0.4, -0.8])
    peer = Peer(close, amount=50.0, holdings=np.array([0.0, 80.0]))
    peer.step(action)
    np.testing.assert_array_equal(peer.shares, [0, 0])
    assert peer.amount == pytest.approx(50 + 80 * 99.9)
    env = started(same_market(close), np.array([0.0, 80.0]), 50.0, close[0])
    counts, cash = act(env, action)
    assert counts == pytest.approx([40, 0], abs=1e-9)
    assert cash == pytest.approx(50 + 80 * 99.9 - 40 * 100.1)


def test_elegantrl_fills_short_cash_in_index_order_and_ours_in_proportion() -> None:
    close = np.full((2, 2), 100.0)
    action = np.array([0.6, 0.3])
    peer = Peer(close, amount=6100.0)
    peer.step(action)
    np.testing.assert_array_equal(peer.shares, [60, 0])
    counts, cash = act(started(same_market(close), np.zeros(2), 6100.0, close[0]), action)
    assert counts == pytest.approx([40, 20])  # 6100 / (90 · 100.1) of each, rounded down
    assert cash == pytest.approx(6100 - 60 * 100.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cash_that_pays_for_whole_shares_to_the_cent_buys_them(dtype: torch.dtype) -> None:
    close = np.full((2, 1), 10.0)
    for shares_paid in range(1, 100, 7):
        amount = shares_paid * 10 * (1 + FEE)
        env = started(same_market(close, dtype, capital=amount), np.zeros(1), amount, close[0])
        counts, cash = act(env, np.array([1.0]))
        assert counts == pytest.approx([shares_paid], rel=1e-5)
        assert cash == pytest.approx(0.0, abs=1e-5 * amount)


def test_a_sale_of_more_than_is_held_sells_what_is_held() -> None:
    close = np.full((2, 2), 100.0)
    env = started(same_market(close), np.array([3.0, 200.0]), CAPITAL, close[0])
    counts, cash = act(env, np.array([-1.0, -1.0]))
    assert counts == pytest.approx([0, 100], abs=1e-9)
    assert cash == pytest.approx(CAPITAL + 103 * 99.9)


def test_a_part_of_a_share_is_never_sold_into_a_short() -> None:
    action, weights = torch.tensor([[-1.0, 0.0]]), torch.tensor([[0.6e-4, 1 - 0.6e-4]])
    wanted = shares(action, weights, torch.tensor([[1e-4, 1.0]]), None, max_stock=100)
    torch.testing.assert_close(wanted, weights)


@pytest.mark.parametrize(
    ("dtype", "asked", "bought"),
    [
        (torch.float32, 2.6, 2),
        (torch.float32, 2.985, 2),
        (torch.float32, 2.993, 3),
        (torch.float32, 3.007, 3),
        (torch.float64, 2.6, 2),
        (torch.float64, 3 - 1.5e-7, 2),
        (torch.float64, 3 - 0.8e-7, 3),
        (torch.float64, 3 + 0.8e-7, 3),
    ],
)
def test_a_part_of_a_share_is_not_bought_but_what_is_whole_up_to_rounding_is(
    dtype: torch.dtype, asked: float, bought: int
) -> None:
    """A share is 1 % of wealth; float32 may be off by a hundredth of a share, float64 by 1e-7."""
    market = same_market(np.full((2, 1), 100.0), dtype, capital=1e4)
    state = cash_only(market, torch.tensor([0]))
    _, _, costs = transition(market, state, torch.tensor([[0.01 * asked, 1 - 0.01 * asked]], dtype=dtype))
    assert costs.bought.item() == pytest.approx(0.01 * bought, rel=1e-6)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 5e-8), (torch.float32, 5e-3)])
def test_a_count_that_rounding_moved_is_whole_again_after_the_next_bar(dtype: torch.dtype, off: float) -> None:
    market = same_market(np.full((2, 1), 100.0), dtype, capital=1e4)
    weights = torch.tensor([[0.01 * (7 - off), 1 - 0.01 * (7 - off)]], dtype=dtype)
    state = cash_only(market, torch.tensor([0]))._replace(weights=weights)
    after, _, costs = transition(market, state, weights)
    assert costs.traded.item() == 0
    assert books(market, after)[0][0, 0] == pytest.approx(7, abs=off / 100)


@pytest.mark.parametrize(("dtype", "whole", "cents"), [(torch.float64, 1e-6, 1e-6), (torch.float32, 1e-2, 0.05)])
@given(seed=st.integers(0, 2**31), fill=st.sampled_from(["open", "close"]))
def test_any_target_weights_trade_whole_shares_and_every_cent_is_booked(
    dtype: torch.dtype, whole: float, cents: float, seed: int, fill: str
) -> None:
    """An ensemble averages members' weights: its targets need not be whole shares."""
    rng = np.random.default_rng(seed)
    panel = random_panel(seed, bars=12, symbols=3, gaps=True)
    market = shares_market(panel, dtype, capital=2e4, fill=fill)
    state = cash_only(market, torch.zeros(8, dtype=torch.int64))
    held, money = books(market, state)
    for bar in range(1, 11):
        wanted = torch.as_tensor(rng.dirichlet(np.ones(4), 8), dtype=dtype)
        state, _, _ = transition(market, state, approach(state.weights, wanted, market.trading.allocation))
        counts, cash = books(market, state)
        np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=whole)
        traded = counts.round() - held.round()
        assert not traded[:, ~(panel.tradable[bar - 1] & panel.tradable[bar])].any()
        value = traded * np.nan_to_num(getattr(panel, fill)[bar])
        np.testing.assert_allclose(cash, money - (value + FEE * np.abs(value)).sum(1), rtol=0, atol=cents)
        assert (cash >= 0).all()
        held, money = counts, cash


def test_shares_stay_whole_and_add_up_in_float32() -> None:
    """500 steps of many thousand shares: no drift of counts, and what is held is what wealth is."""
    rng = np.random.default_rng(3)
    panel = random_panel(5, bars=502, symbols=6, gaps=True)
    market = shares_market(panel, torch.float32, capital=5e6)
    assert market.lot is not None
    env = TradingEnv(market, EnvConfig(episode=500, ruin=0.0), num_envs=16, random_start=False)
    prices = np.nan_to_num(panel.close, nan=1.0)
    lean = rng.uniform(-0.3, 0.5, (16, 1))  # some pile up shares, some keep cash
    most = 0.0
    for _ in range(500):
        action = (rng.uniform(-1, 1, (16, 7)) + lean).clip(-1, 1)
        state = env.step(torch.tensor(action, dtype=torch.float32))[3]["final"]
        counts, cash = books(market, state)
        most = max(most, float(counts.max()))
        assert np.abs(counts - counts.round()).max() < 1e-2
        assert counts.min() > -1e-2
        assert cash.min() >= 0
        worth = (counts.round() * prices[state.bar.numpy()]).sum(1) + cash
        np.testing.assert_allclose(worth, state.wealth.double().numpy() * 5e6, rtol=2e-6)
    assert most > 5000


def test_float32_and_float64_hold_the_same_shares_while_cash_is_plenty() -> None:
    rng = np.random.default_rng(4)
    panel = random_panel(6, bars=502, symbols=4, gaps=True)
    envs = [
        TradingEnv(shares_market(panel, dtype, capital=1e9), EnvConfig(episode=500), 4, random_start=False)
        for dtype in (torch.float32, torch.float64)
    ]
    for _ in range(500):
        action = torch.tensor(rng.uniform(-1, 1, (4, 5)), dtype=torch.float32)
        held = [books(env.market, env.step(action.to(env.market.dtype))[3]["final"])[0].round() for env in envs]
        np.testing.assert_array_equal(*held)
