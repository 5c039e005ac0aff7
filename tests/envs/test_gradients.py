"""Gradients through the market against finite differences, and finite where a rule has a kink."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from markets import NO_COSTS, priced, random_actions, tensors, wild_panel, with_quotes
from panels import random_panel

from envs.allocation import approach, target
from envs.config import CostConfig, EnvConfig, RewardConfig
from envs.market import MarketTensors
from envs.trading import TradingEnv
from envs.transition import cash_only, transition

DIFFERENTIABLE = ("softmax", "tilt", "long_short")
COSTS = CostConfig(cash_rate=0.04, no_volume_bp=10.0)


def total_growth(market: MarketTensors, actions: torch.Tensor, first: int = 0) -> torch.Tensor:
    """[T, N, A+1] actions from cash at a bar -> the sum of all log growth."""
    state = cash_only(market, torch.full(actions.shape[1:2], first))
    total = actions.new_zeros(())
    for action in actions:
        wanted = target(market, state.bar, state.weights, state.wealth, action)
        state, growth, _ = transition(market, state, approach(state.weights, wanted, market.trading.allocation))
        total = total + growth.sum()
    return total


def slope(market: MarketTensors, actions: torch.Tensor, direction: torch.Tensor, step: float = 1e-6) -> float:
    with torch.no_grad():
        up, down = (total_growth(market, actions + sign * step * direction) for sign in (1, -1))
    return float(up - down) / (2 * step)


def finite(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and bool(tensor.isfinite().all())


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("fill", ["open", "close"])
@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_fifty_chained_bars_have_the_slope_of_finite_differences(kind: str, fill: str, gaps: bool) -> None:
    """Along random directions over all actions; nowhere is a random portfolio exactly on a kink."""
    panel = wild_panel(4, bars=60) if gaps else random_panel(4, 60, 4, gaps=False)
    market = tensors(panel, kind, COSTS, fill=fill, capital=1e7, strength=0.1)
    actions = random_actions(2, 50, 3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(total_growth(market, actions), actions)
    for seed in range(6):
        direction = torch.as_tensor(np.random.default_rng(seed).standard_normal(actions.shape))
        expected = slope(market, actions.detach(), direction)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert abs(expected) > 1e-4


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_every_entry_of_a_short_chains_gradient_is_right(kind: str) -> None:
    market = tensors(random_panel(1, 20, 3, gaps=False), kind, COSTS, capital=1e7, strength=0.1)
    actions = random_actions(3, 4, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: total_growth(market, x), (actions,), eps=1e-7, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_every_one_of_fifty_actions_matters(kind: str) -> None:
    market = tensors(random_panel(4, 60, 4, gaps=False), kind, COSTS)
    actions = random_actions(2, 50, 3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(total_growth(market, actions), actions)
    assert bool((gradient.flatten(1).abs().sum(1) > 1e-7).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_where_nothing_is_traded(dtype: torch.dtype) -> None:
    """Commission has a kink there and the root of impact no derivative."""
    market = tensors(wild_panel(4), costs=replace(COSTS, multiple=3.0), dtype=dtype)
    state = cash_only(market, torch.arange(20, 40))
    for action in random_actions(0, 3, 20, 5, dtype=dtype):
        wanted = target(market, state.bar, state.weights, state.wealth, action)
        state = transition(market, state, wanted)[0]
    for start in (state, cash_only(market, state.bar)):
        weights = start.weights.clone().requires_grad_()
        after, growth, costs = transition(market, start, weights)
        assert not costs.traded.any()
        (growth.sum() + after.weights.square().sum() + costs.impact.sum()).backward()
        assert finite(weights.grad)


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_at_the_actions_where_rules_have_kinks(kind: str, dtype: torch.dtype) -> None:
    """All cash, no action at all, all the same, and each asset alone."""
    market = tensors(wild_panel(4), kind, COSTS, dtype=dtype)
    corners = torch.cat([torch.eye(5), -torch.eye(5), torch.zeros(1, 5), torch.ones(1, 5), -torch.ones(1, 5)])
    actions = corners.to(dtype).expand(20, -1, -1).clone().requires_grad_()
    total_growth(market, actions, first=10).backward()
    assert finite(actions.grad)


def test_a_market_where_nothing_can_be_traded_has_a_finite_gradient() -> None:
    market = tensors(wild_panel(4), costs=COSTS)
    assert market.open_now is not None
    market = with_quotes(replace(market, open_now=torch.zeros_like(market.open_now)), fill=0.0)
    actions = random_actions(0, 5, 3, 5).requires_grad_()
    total_growth(market, actions).backward()
    assert actions.grad is not None
    assert not actions.grad.any()


EVERY_REWARD = RewardConfig(1.0, 1.0, 1.0, 1.0, 1.0, sharpe_decay=0.1)


def rewards_of(env: TradingEnv, actions: torch.Tensor) -> torch.Tensor:  # [T, N, A+1] -> [T, N]
    return torch.stack([env.step(action)[1] for action in actions])


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_no_gradient_crosses_the_end_of_an_episode(kind: str) -> None:
    env = TradingEnv(tensors(wild_panel(4), kind, COSTS), EnvConfig(reward=EVERY_REWARD, episode=5), 4)
    actions = random_actions(0, 12, 4, 5).requires_grad_()
    rewards = rewards_of(env, actions)
    for bar, first in ((4, 0), (6, 5), (9, 5), (11, 10)):
        (gradient,) = torch.autograd.grad(rewards[bar].sum(), actions, retain_graph=True)
        assert finite(gradient)
        assert not gradient[:first].any()
        assert not gradient[bar + 1 :].any()
        assert bool((gradient[first : bar + 1].flatten(1).abs().sum(1) > 0).all())


def test_no_gradient_crosses_ruin_and_others_keep_theirs() -> None:
    market = tensors(priced([[100.0]] * 3 + [[1.0]] * 3 + [[1.1]] * 4), costs=NO_COSTS, rate=1.0)
    env = TradingEnv(market, EnvConfig(episode=8), 2, random_start=False)
    actions = torch.tensor([[0.5, -0.5], [0.5, 0.4]], dtype=torch.float64).repeat(6, 1, 1).requires_grad_()
    rewards = rewards_of(env, actions)
    (gradient,) = torch.autograd.grad(rewards[5].sum(), actions)
    assert finite(gradient)
    assert not gradient[:3, 0].any()  # ruined on the third bar
    assert gradient[4, 1].any()


@pytest.mark.parametrize("kind", DIFFERENTIABLE)
def test_rewards_have_the_slope_of_finite_differences(kind: str) -> None:
    """All terms together, over two episodes, by the environment's own step."""
    market = tensors(wild_panel(4), kind, COSTS, strength=0.1)
    actions = random_actions(5, 16, 3, 5).requires_grad_()

    def total(moved: torch.Tensor) -> torch.Tensor:
        return rewards_of(TradingEnv(market, EnvConfig(reward=EVERY_REWARD, episode=9), 3), moved).sum()

    (gradient,) = torch.autograd.grad(total(actions), actions)
    direction = torch.as_tensor(np.random.default_rng(0).standard_normal(actions.shape))
    with torch.no_grad():
        expected = float(total(actions + 1e-6 * direction) - total(actions - 1e-6 * direction)) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-7)
