"""Shuffled paths: the same trading, at other times and in other assets, and nothing of the skill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from markets import KINDS, random_actions, tensors, wild_panel

from agents.baselines import Momentum, Oracle
from agents.shuffled import first_decision, replay, shuffled, targets
from envs.backtest import backtest
from envs.config import CostConfig
from envs.market import MarketTensors
from envs.policy import Allocated, Policy
from kit.metrics import sharpe
from market.synth import SIGNAL, SynthSource, generate

BARS = 80
COSTS = CostConfig(cash_rate=0.03)


def table_policy(seed: int) -> Policy:
    actions = random_actions(seed, BARS, 5)
    return Allocated(lambda market, bar, portfolio: actions[bar])


def built_in(bars: int = 1000) -> MarketTensors:
    panel = generate(SynthSource(bars=bars))
    return MarketTensors.build(panel, features=panel.observed[SIGNAL].values[:, :, None].astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", [slice(None), slice(17, 60)])
@pytest.mark.parametrize("band", [0.0, 0.02])
def test_a_path_that_is_left_in_order_is_the_track_itself(kind: str, span: slice, band: float) -> None:
    """To the last trade: gaps, late listings, buys cut to the cash, whole shares and shorts included."""
    market = tensors(wild_panel(0, BARS), kind, COSTS, band=band)
    track = backtest([table_policy(1)], market, span)[0]
    first = first_decision(track, market)
    assert first == (span.start or 0)
    again = replay(targets(track, market), market, first, np.zeros(2, np.int64), np.tile(np.arange(4), (2, 1)))
    for column in range(2):
        np.testing.assert_allclose(again.returns[:, column], track.returns, atol=1e-9)
        np.testing.assert_allclose(again.traded[:, column], track.traded, atol=1e-9)


def test_a_draw_is_the_path_begun_elsewhere_with_its_columns_moved() -> None:
    market = tensors(wild_panel(0, BARS), costs=COSTS)
    path = targets(backtest([table_policy(1)], market)[0], market)
    order = np.array([2, 0, 3, 1])
    moved = replay(path, market, 0, np.array([7]), order[None])
    by_hand = np.roll(path, -7, axis=0)[:, [*order, 4]]
    same = replay(by_hand, market, 0, np.array([0]), np.arange(4)[None])
    np.testing.assert_array_equal(moved.returns, same.returns)


@pytest.mark.parametrize("policy", [Oracle(0), Momentum(100, 20)])
def test_shuffling_keeps_the_turnover(policy: Policy) -> None:
    market = built_in()
    track = backtest([policy], market, slice(200, None))[0]
    traded = shuffled(track, market, seed=1, draws=100).traded.sum(axis=0)
    assert traded.mean() == pytest.approx(track.traded.sum(), rel=0.05)
    assert traded.std() < 0.1 * track.traded.sum()


def test_shuffling_takes_the_skill_away() -> None:
    market = built_in()
    track = backtest([Oracle(0)], market)[0]
    draws = sharpe(shuffled(track, market, seed=1, draws=200).returns)
    assert draws.max() < sharpe(track.returns)


def test_the_seed_alone_decides_the_draws() -> None:
    market = built_in(300)
    track = backtest([Oracle(0)], market)[0]
    one, again, other = (shuffled(track, market, seed, draws=5).returns for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (299, 5)
    assert len(np.unique(np.concatenate([one, other], axis=1)[0])) > 5


def test_more_draws_do_not_change_what_one_earns() -> None:
    market = built_in(300)
    track = backtest([Oracle(0)], market)[0]
    path, orders = targets(track, market), np.stack([np.arange(10), np.arange(10)[::-1]])
    both = replay(path, market, 0, np.array([3, 50]), orders)
    for draw, begin in enumerate((3, 50)):
        alone = replay(path, market, 0, np.array([begin]), orders[draw : draw + 1])
        torch.testing.assert_close(torch.as_tensor(both.returns[:, draw]), torch.as_tensor(alone.returns[:, 0]))


def test_a_track_of_another_market_is_refused() -> None:
    market = built_in(300)
    track = backtest([Oracle(0)], market)[0]
    with pytest.raises(AssertionError, match="not of this market"):
        shuffled(track, replace(market, dates=market.dates + np.timedelta64(1, "D")), seed=0, draws=2)
