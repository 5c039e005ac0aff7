"""Rewards worked by hand, alone and in the environment."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import NO_COSTS, priced, random_actions, tensors, wild_panel

from envs.config import EnvConfig, RewardConfig, TradingConfig
from envs.market import MarketTensors
from envs.rewards import TERMS, SharpeMemory, no_memory, reward
from envs.trading import TradingEnv
from envs.transition import Costs, Rates, State

NOTHING = RewardConfig(log_growth=0.0)


def state_of(wealth: list[float], peak: list[float]) -> State:
    zero = torch.zeros(len(wealth), dtype=torch.int64)
    empty = torch.zeros(len(wealth), 1, dtype=torch.float64)
    return State(zero, empty, torch.tensor(wealth, dtype=torch.float64), torch.tensor(peak, dtype=torch.float64))


def costs_of(traded: list[float]) -> Costs:
    """Of bars on which this much was bought."""
    zero = torch.zeros(len(traded), dtype=torch.float64)
    return Costs(torch.tensor(traded, dtype=torch.float64), zero, zero, zero, None, zero, Rates(0.0, 0.0, 0.0))


def of_growth(config: RewardConfig, growth: list[float], equal_weight: list[float] | None = None) -> list[float]:
    """Rewards of portfolios that traded nothing and stand at their peak."""
    flat = state_of([1.0] * len(growth), [1.0] * len(growth))
    other = None if equal_weight is None else torch.tensor(equal_weight, dtype=torch.float64)
    gained = torch.tensor(growth, dtype=torch.float64)
    memory = no_memory(len(growth), gained)
    return reward(config, flat, flat, gained, costs_of([0.0] * len(growth)), other, memory)[0].tolist()


def rewards_in(env: TradingEnv, actions: torch.Tensor) -> np.ndarray:  # [steps, N, A+1] -> [steps, N]
    return torch.stack([env.step(action)[1] for action in actions]).numpy()


def test_growth_is_its_own_reward_and_excess_takes_equal_weight_off() -> None:
    growth, standard = [0.02, -0.01], [0.015, -0.03]
    assert of_growth(RewardConfig(), growth) == growth
    assert of_growth(RewardConfig(log_growth=0.5), growth) == pytest.approx([0.01, -0.005])
    assert of_growth(RewardConfig(log_growth=2.0), growth) == pytest.approx([0.04, -0.02])
    assert of_growth(replace(NOTHING, excess=1.0), growth, standard) == pytest.approx([0.005, 0.02])
    assert of_growth(RewardConfig(excess=2.0), growth, standard) == pytest.approx([0.03, 0.03])


def test_the_drawdown_penalty_is_the_new_fall_below_the_peak() -> None:
    """Wealth 1, 1.1, .99, .88, .935: below the peak by 0, 0, .1, .2, .15; the last recovers."""
    wealth, peak = [1.0, 1.1, 0.99, 0.88, 0.935], [1.0, 1.1, 1.1, 1.1, 1.1]
    before, after = state_of(wealth[:-1], peak[:-1]), state_of(wealth[1:], peak[1:])
    nothing = torch.zeros(4, dtype=torch.float64)
    gain, _ = reward(replace(NOTHING, drawdown=2.0), before, after, nothing, costs_of([0.0] * 4), None, None)
    assert gain.tolist() == pytest.approx([0.0, -0.2, -0.2, 0.0])


def test_the_turnover_penalty_is_a_share_of_what_was_traded() -> None:
    flat = state_of([1.0, 1.0], [1.0, 1.0])
    nothing = torch.zeros(2, dtype=torch.float64)
    gain, _ = reward(replace(NOTHING, turnover=0.5), flat, flat, nothing, costs_of([0.3, 0.0]), None, None)
    assert gain.tolist() == pytest.approx([-0.15, 0.0])


def test_the_differential_sharpe_is_moody_and_saffells_for_three_bars() -> None:
    """Growth .01, -.02, .03 with decay .1.

    A 0, B 0: no variance yet. A .001, B .00001, variance 9e-6: D = -4.05e-7 / 2.7e-8 = -15, times .003.
    A -.0011, B .000049, variance 4.779e-5: (.000049 · .0311 + .00055 · .000851) / 4.779e-5.
    """
    config = replace(NOTHING, differential_sharpe=1.0, sharpe_decay=0.1)
    flat, memory = state_of([1.0], [1.0]), no_memory(1, torch.zeros(1, dtype=torch.float64))
    found = []
    for growth in (0.01, -0.02, 0.03):
        now = torch.tensor([growth], dtype=torch.float64)
        gain, moved = reward(config, flat, flat, now, costs_of([0.0]), None, memory)
        assert moved is not None
        memory = moved
        found.append(gain.item())
    assert found == pytest.approx([0.0, -0.045, 1.99195e-6 / 4.779e-5])
    assert memory.mean.item() == pytest.approx(-0.0011 + 0.1 * 0.0311)
    assert memory.square.item() == pytest.approx(0.000049 + 0.1 * 0.000851)


@given(growth=st.floats(-0.1, 0.1), mean=st.floats(-0.01, 0.01), deviation=st.floats(0.005, 0.05))
def test_the_differential_sharpe_is_the_slope_of_the_decaying_sharpe_ratio(
    growth: float, mean: float, deviation: float
) -> None:
    square = mean**2 + deviation**2

    def sharpe(decay: float) -> float:
        a, b = mean + decay * (growth - mean), square + decay * (growth**2 - square)
        return a / math.sqrt(b - a * a)

    slope = (sharpe(1e-6) - sharpe(-1e-6)) / 2e-6
    memory = SharpeMemory(*(torch.tensor([moment], dtype=torch.float64) for moment in (mean, square)))
    flat, now = state_of([1.0], [1.0]), torch.tensor([growth], dtype=torch.float64)
    gain, _ = reward(replace(NOTHING, differential_sharpe=1.0), flat, flat, now, costs_of([0.0]), None, memory)
    assert gain.item() == pytest.approx(slope * deviation, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("variance", "known"), [(0.9e-10, False), (1e-10, False), (1.1e-10, True), (1.9e-10, True)])
def test_the_differential_sharpe_is_nothing_until_the_variance_exceeds_a_ten_billionth(
    variance: float, known: bool
) -> None:
    """Around a mean of 0 Moody and Saffell's numerator is the variance times growth: .02 is left of the quotient."""
    memory = SharpeMemory(*(torch.tensor([moment], dtype=torch.float64) for moment in (0.0, variance)))
    flat, growth = state_of([1.0], [1.0]), torch.tensor([0.02], dtype=torch.float64)
    gain, moved = reward(replace(NOTHING, differential_sharpe=1.0), flat, flat, growth, costs_of([0.0]), None, memory)
    assert gain.item() == pytest.approx(0.02 if known else 0.0, rel=1e-12, abs=0)
    assert moved is not None
    assert moved.mean.item() == pytest.approx(0.0002)  # and yet it is remembered


def test_a_term_without_a_setting_of_its_name_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that was written before the term was added."""
    monkeypatch.setitem(TERMS, "novelty", lambda before, after, growth, costs: torch.full_like(growth, 7.0))
    assert of_growth(RewardConfig(), [0.02]) == [0.02]


def test_the_differential_sharpe_forgets_when_an_episode_ends() -> None:
    """The first bar of every episode has no variance to compare with."""
    config = EnvConfig(reward=replace(NOTHING, differential_sharpe=1.0), episode=10)
    env = TradingEnv(tensors(wild_panel(1)), config, num_envs=4)
    gains = rewards_in(env, random_actions(0, 30, 4, 5))
    assert not gains[::10].any()
    assert gains[[1, 11, 21]].any()
    assert np.abs(gains).max() < 10


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_a_combined_reward_is_the_weighted_sum_of_its_terms(seed: int) -> None:
    market, actions = tensors(wild_panel(seed)), random_actions(seed, 12, 3, 5)
    weights = {"log_growth": 0.5, "excess": 0.7, "differential_sharpe": 0.3, "drawdown": 0.2, "turnover": 0.01}
    alone = [
        weight * rewards_in(TradingEnv(market, EnvConfig(reward=replace(NOTHING, **{name: 1.0})), 3), actions)
        for name, weight in weights.items()
    ]
    together = rewards_in(TradingEnv(market, EnvConfig(reward=RewardConfig(**weights)), 3), actions)
    np.testing.assert_allclose(together, sum(alone), rtol=0, atol=1e-12)


EXCESS = EnvConfig(reward=replace(NOTHING, excess=1.0), episode=50)


def test_from_the_markets_first_bar_the_zero_action_has_no_excess_at_all() -> None:
    """Equal weight also starts there, in cash: both pay for getting in on the same bars."""
    env = TradingEnv(tensors(wild_panel(3)), EXCESS, 1, random_start=False)
    gains = rewards_in(env, torch.zeros(50, 1, 5, dtype=torch.float64))
    np.testing.assert_allclose(gains, 0.0, atol=1e-14)
    assert np.abs(rewards_in(env, random_actions(0, 50, 1, 5))).max() > 1e-3


def test_later_the_zero_action_pays_for_getting_in_and_then_has_no_excess() -> None:
    """Prices stand still: 40 % of the way a bar at 10 bp costs .0004 of wealth, then less."""
    costs = replace(NO_COSTS, commission_bp=10.0)
    market = tensors(priced(np.full((160, 2), 100.0)), costs=costs, rate=0.4)
    env = TradingEnv(market, EXCESS, 1, slice(100, None), random_start=False)
    gains = rewards_in(env, torch.zeros(50, 1, 3, dtype=torch.float64))[:, 0]
    assert gains[0] == pytest.approx(math.log(1 - 0.4 * 0.001), rel=1e-6)
    assert gains[1] == pytest.approx(math.log(1 - 0.24 * 0.001), rel=1e-2)
    assert gains[40] == pytest.approx(0, abs=1e-9)


def test_on_a_moving_market_that_starts_later_the_excess_of_the_zero_action_vanishes() -> None:
    market = MarketTensors.build(wild_panel(2, bars=200), TradingConfig(costs=NO_COSTS), dtype=torch.float64)
    env = TradingEnv(market, EXCESS, 1, slice(140, None), random_start=False)
    gains = rewards_in(env, torch.zeros(50, 1, 5, dtype=torch.float64))[:, 0]
    assert np.abs(gains[:3]).max() > 1e-4
    assert np.abs(gains[45:]).max() < 1e-8
