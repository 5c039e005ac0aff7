"""Nothing sees the future: whatever happens after bar t, all that was decided, traded and paid by then stays."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import KINDS, NO_COSTS, looked_up, random_actions, tensors, wild_panel
from panels import random_panel, with_arrays, with_other_future

from envs.allocation import approach
from envs.backtest import Track, backtest
from envs.config import CostConfig, EnvConfig, RewardConfig
from envs.growth import equal_weight_growth
from envs.market import MarketTensors, Quote
from envs.policy import Allocated, Policy, equal_weight
from envs.trading import TradingEnv
from envs.transition import cash_only, transition
from market.features import FeatureSpec
from market.panel import FIELDS, Panel

SPEC = FeatureSpec.from_config([{"log_return": {"horizons": [1, 5]}}, "observed"])
BARS, SYMBOLS = 70, 4
KNOWN_AT_CLOSE = ("features", "impact", "open_now", "extra", "lot")
COSTS = CostConfig(window_days=5, cash_rate=0.03)
# The same operations on the same numbers; only a market without any gap takes a shorter way.
ROUNDING = {"rtol": 1e-12, "atol": 1e-14}


def market_of(panel: Panel, kind: str, fill: str = "open") -> MarketTensors:
    return tensors(panel, kind, COSTS, fill=fill, features=SPEC.compute(panel).values, band=0.01)


def by_features(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    """An actor that uses everything it is given: features, drawdown, weights."""
    seen = torch.tanh(5 * market.features[bar]).mean(2)
    own = torch.cos(3 * portfolio[:, : market.assets + 1]) + portfolio[:, -1:]
    return torch.tanh(torch.cat([seen, seen.mean(1, keepdim=True)], dim=1) * 3 + 0.3 * own)


class Recorder:
    """A policy that writes down what it wanted and what was then ordered, bar by bar."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.orders: list[torch.Tensor] = []

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        wanted = self.policy(market, bar, portfolio)
        self.orders += [wanted, approach(portfolio[:, : market.assets + 1], wanted, market.trading.allocation)]
        return wanted


def decided(panel: Panel, kind: str, fill: str) -> tuple[list[list[torch.Tensor]], list[Track]]:
    recorders = [Recorder(policy) for policy in (equal_weight, Allocated(by_features))]
    tracks = backtest(recorders, market_of(panel, kind, fill))
    return [recorder.orders for recorder in recorders], tracks


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    last=st.integers(21, BARS - 3),
    kind=st.sampled_from(KINDS),
    fill=st.sampled_from(["open", "close"]),
)
def test_nothing_decided_or_earned_by_bar_t_moves_when_the_bars_after_it_do(
    seed: int, last: int, kind: str, fill: str
) -> None:
    panel = wild_panel(seed, BARS, SYMBOLS)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        (orders, tracks), (others, changed) = (decided(p, kind, fill) for p in (panel, with_other_future(panel, last)))
    for policy in range(2):
        for bar in range(2 * last + 2):  # the order at close `last` included
            torch.testing.assert_close(orders[policy][bar], others[policy][bar], **ROUNDING)
        one, other = tracks[policy], changed[policy]
        for name in ("returns", "weights", "traded"):  # row t ends at close t + 1
            np.testing.assert_allclose(getattr(one, name)[:last], getattr(other, name)[:last], **ROUNDING)
        for cost in one.costs:
            np.testing.assert_allclose(one.costs[cost][:last], other.costs[cost][:last], **ROUNDING)
    assert not np.allclose(tracks[1].returns[last:], changed[1].returns[last:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [25, 44, 66])
def test_what_a_decision_may_look_up_at_t_does_not_know_of_t_plus_one(kind: str, last: int) -> None:
    panel = wild_panel(5, BARS, SYMBOLS)
    one, other = (market_of(p, kind) for p in (panel, with_other_future(panel, last)))
    for name in KNOWN_AT_CLOSE:
        known, changed = looked_up(one, name), looked_up(other, name)
        assert (known is None) == (changed is None)
        if known is not None:
            torch.testing.assert_close(known[: last + 1], changed[: last + 1], rtol=0, atol=0)
            assert not torch.equal(known[last + 1 :], changed[last + 1 :])
    for name in ("fill", "hold", "drift"):  # row t tells how t + 1 came out: only the transition may look
        met, changed = looked_up(one, name), looked_up(other, name)
        torch.testing.assert_close(met[:last], changed[:last], rtol=0, atol=0)
        assert not torch.equal(met[last], changed[last])


def test_every_field_of_the_market_is_either_known_at_the_close_or_for_the_transition_only() -> None:
    """A new field must choose its side here."""
    constant = {"trading", "ones", "interest", "bars_per_year", "dates", "symbols"}
    looked_up = {f.name for f in fields(MarketTensors)} - {"table"} | set(Quote._fields)
    assert looked_up == {*KNOWN_AT_CLOSE, "fill", "hold", "drift", *constant}


@pytest.mark.parametrize("field", [*FIELDS, "tradable"])
def test_each_field_of_the_next_bar_alone_moves_no_order(field: str) -> None:
    panel = wild_panel(9, BARS, SYMBOLS)
    last = 40
    array = getattr(panel, field).copy()
    array[last + 1] = ~array[last + 1] if field == "tradable" else array[last + 1] * 1.7
    (orders, tracks), (others, changed) = (
        decided(p, "softmax", "open") for p in (panel, with_arrays(panel, **{field: array}))
    )
    for policy in range(2):
        for order, other in zip(orders[policy][: 2 * last + 2], others[policy][: 2 * last + 2]):
            torch.testing.assert_close(order, other, **ROUNDING)
        np.testing.assert_allclose(tracks[policy].returns[:last], changed[policy].returns[:last], **ROUNDING)


def test_a_policy_that_cheats_would_be_caught() -> None:
    """One that looks a bar ahead in the features decides otherwise when the future is another."""

    def peeking(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return by_features(market, bar + 1, portfolio)

    panel, last = wild_panel(5, BARS, SYMBOLS), 40
    tracks = [
        backtest([Allocated(peeking)], market_of(p, "softmax"), slice(0, 60))[0]
        for p in (panel, with_other_future(panel, last))
    ]
    assert not np.allclose(tracks[0].traded[: last + 1], tracks[1].traded[: last + 1])


@pytest.mark.parametrize("jump", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("fill", ["open", "close"])
def test_an_order_earns_only_what_follows_its_fill(fill: str, jump: float) -> None:
    """Whatever the close was at which it was decided, a share ordered there earns next close less fill price."""
    panel = random_panel(2, bars=30, symbols=3, gaps=False)
    close = panel.close.copy()
    close[20] *= jump
    moved = with_arrays(panel, close=close)
    market = tensors(moved, costs=NO_COSTS, fill=fill)
    state = cash_only(market, torch.tensor([20]))
    weights = torch.tensor([[0.2, 0.1, 0.0, 0.7]], dtype=torch.float64) * min(jump, 1)
    after, _, _ = transition(market, state, weights)
    shares = weights[0, :-1].numpy() * market.trading.capital / close[20]
    earned = shares @ (panel.close[21] - getattr(panel, fill)[21])
    assert (after.wealth.item() - 1) * market.trading.capital == pytest.approx(earned, rel=1e-9, abs=1e-6)
    assert (fill == "close") == (abs(earned) < 1e-6)


def test_a_jump_of_the_close_itself_is_earned_by_no_order_placed_there() -> None:
    """The first price after the order is where it fills: a night's gap goes to those who held."""
    panel = random_panel(2, bars=30, symbols=3, gaps=False)
    arrays = {name: getattr(panel, name).copy() for name in FIELDS}
    for name in ("open", "high", "low", "close"):
        arrays[name][21:] *= 2.0  # overnight, after close 20
    plain, doubled = (tensors(p, costs=NO_COSTS) for p in (panel, with_arrays(panel, **arrays)))
    weights = torch.tensor([[0.2, 0.1, 0.1, 0.6]], dtype=torch.float64)
    grown = []
    for market in (plain, doubled):
        cash = cash_only(market, torch.tensor([20]))
        buyer = transition(market, cash, weights)[0].wealth.item() - 1
        holder = transition(market, cash._replace(weights=weights), weights)[0].wealth.item() - 1
        grown.append((buyer, holder))
    assert grown[1][0] == pytest.approx(2 * grown[0][0])  # each share's day is worth twice, the night nothing
    assert grown[1][1] == pytest.approx(2 * grown[0][1] + 0.4)


EVERY_REWARD = RewardConfig(1.0, 1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_of_episodes_know_no_more_than_the_bar_they_are_paid_for(kind: str) -> None:
    panel, last = wild_panel(6, BARS, SYMBOLS), 50
    runs = []
    for each in (panel, with_other_future(panel, last)):
        config = EnvConfig(reward=EVERY_REWARD, episode=BARS)
        env = TradingEnv(tensors(each, kind, COSTS), config, 3, random_start=False)
        runs.append([env.step(action)[:2] for action in random_actions(0, last + 1, 3, SYMBOLS + 1)])
    for (seen, gain), (other, changed) in zip(runs[0][:last], runs[1][:last]):
        torch.testing.assert_close(seen, other, **ROUNDING)
        torch.testing.assert_close(gain, changed, **ROUNDING)
    assert not torch.allclose(runs[0][last][1], runs[1][last][1])


def test_the_benchmark_in_the_reward_moves_rewards_and_nothing_else() -> None:
    market = tensors(wild_panel(6), costs=COSTS)
    envs = [TradingEnv(market, EnvConfig(reward=EVERY_REWARD, episode=9), 4, seed=1) for _ in range(2)]
    assert envs[1].equal_weight is not None
    torch.testing.assert_close(envs[1].equal_weight, equal_weight_growth(market), rtol=0, atol=0)
    envs[1].equal_weight = envs[1].equal_weight + 0.25
    for action in random_actions(0, 25, 4, 5):
        (seen, gain, done, info), (other, changed, done_too, info_too) = (env.step(action) for env in envs)
        torch.testing.assert_close(seen, other, rtol=0, atol=0)
        torch.testing.assert_close(info["final"].weights, info_too["final"].weights, rtol=0, atol=0)
        torch.testing.assert_close(gain - 0.25, changed, rtol=0, atol=1e-12)
        assert torch.equal(done, done_too)


def test_a_market_without_gaps_until_t_decides_the_same_whether_or_not_gaps_follow() -> None:
    """Without any gap the mask is left out: a shorter way to the same numbers."""
    panel, last = random_panel(4, BARS, SYMBOLS, gaps=False), 40
    later = with_other_future(panel, last)
    one, other = (market_of(p, "softmax") for p in (panel, replace(later, volume=panel.volume)))
    assert one.open_now is None
    assert other.open_now is not None
    tracks = [backtest([Allocated(by_features)], market)[0] for market in (one, other)]
    np.testing.assert_allclose(tracks[0].weights[:last], tracks[1].weights[:last], **ROUNDING)
