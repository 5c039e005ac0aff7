"""Direct: its gradient is the derivative of its reward, and each unroll stands on its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from markets import tensors
from panels import random_panel
from tasks import Task, delayed, task_market

from agents.config import DirectConfig
from agents.direct import AgentDirect
from agents.networks import NetworkConfig
from envs.config import EnvConfig, RewardConfig
from envs.market import MarketTensors
from envs.trading import Account, TradingEnv
from envs.transition import State
from kit.errors import UserError

EVERYTHING = EnvConfig(RewardConfig(0.5, 0.5, 0.3, 0.2, 0.01), episode=5)  # episodes end within an unroll
SETTINGS: dict[str, Any] = {
    "num_envs": 3,
    "horizon": 8,
    "learning_rate": 1e-2,
    "reward_scale": 100.0,
    "clip_grad_norm": 1e9,
}


def market_of(kind: str = "softmax") -> MarketTensors:
    features = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)
    return tensors(random_panel(0, 40, 3, gaps=False), kind, features=features)


def agent_of(market: MarketTensors, head: str = "bilinear", **settings: Any) -> AgentDirect:
    """In float64, with weights that are no longer near zero."""
    network = NetworkConfig(head=head, hidden=(6, 5))  # type: ignore[arg-type]
    agent = AgentDirect(market, DirectConfig(**{**SETTINGS, **settings}), network)
    agent.act.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in agent.act.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return agent


def environment(agent: AgentDirect, config: EnvConfig = EVERYTHING, seed: int = 3) -> TradingEnv:
    return TradingEnv(agent.market, config, 3, seed=seed)


def nudged(agent: AgentDirect, direction: list[torch.Tensor], step: float) -> None:
    with torch.no_grad():
        for parameter, way in zip(agent.act.parameters(), direction):
            parameter.add_(way, alpha=step)


def gain(agent: AgentDirect, unrolls: int = 1) -> float:
    """What an update climbs, after so many unrolls of which the last one counts."""
    env = environment(agent)
    with torch.no_grad():
        for _ in range(unrolls):
            rewards = agent.explore_vec_env(env, 8).rewards
    return float(rewards.mean())


@pytest.mark.parametrize("head", ["bilinear", "late", "joint"])
def test_the_gradient_of_an_update_equals_finite_differences_through_costs_and_resets(head: str) -> None:
    agent = agent_of(market_of(), head)
    unroll = agent.explore_vec_env(environment(agent), 8)
    assert unroll.rewards.shape == (8, 3)
    parameters = list(agent.act.parameters())
    expected = [g.clone() for g in torch.autograd.grad(unroll.rewards.mean(), parameters)]
    generator, step, slopes = torch.Generator().manual_seed(2), 1e-5, []
    for _ in range(5):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        slope = sum(float((g * way).sum()) for g, way in zip(expected, direction))
        nudged(agent, direction, step)
        up = gain(agent)
        nudged(agent, direction, -2 * step)
        down = gain(agent)
        nudged(agent, direction, step)
        assert (up - down) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-7)
        slopes.append(abs(slope))
    assert max(slopes) > 1e-2
    agent.update_net(agent.explore_vec_env(environment(agent), 8))
    for parameter, gradient in zip(parameters, expected):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, -gradient)  # the optimizer descends


def test_an_update_raises_what_it_climbs() -> None:
    agent = agent_of(market_of(), learning_rate=1e-3)
    before = gain(agent)
    agent.learn(agent.explore_vec_env(environment(agent), 8))
    assert gain(agent) > before


def test_rewards_are_scaled_from_what_the_environment_pays_for_the_policys_actions() -> None:
    agent = agent_of(market_of())
    unroll = agent.explore_vec_env(env := environment(agent), 8)
    other = environment(agent)
    state, paid = other.observe(other.account.state), []
    with torch.no_grad():
        for _ in range(8):
            state, reward, _, _ = other.step(agent.act(state))
            paid.append(reward)
    torch.testing.assert_close(unroll.rewards.detach() / agent.reward_scale, torch.stack(paid))
    torch.testing.assert_close(agent.last_state, state)
    assert torch.equal(agent.last_state, env.observe(env.account.state))


def test_history_is_cut_between_updates_and_the_portfolio_carried_on() -> None:
    agent = agent_of(market_of())
    env = environment(agent, EnvConfig(RewardConfig(0.5, 0.5, 0.3), episode=30))
    first = agent.explore_vec_env(env, 8)
    assert first.rewards.requires_grad
    sharpe = env.account.sharpe
    assert sharpe is not None
    assert not any(part.requires_grad for part in (*env.account.state, *sharpe))
    assert env.account.age.tolist() == [8, 8, 8]
    assert (env.account.state.weights[:, -1] != 1).all()
    agent.update_net(first)
    agent.update_net(agent.explore_vec_env(env, 8))  # does not need the first's graph, which is gone
    assert env.account.age.tolist() == [16, 16, 16]


def test_a_second_unrolls_gradient_takes_its_first_portfolio_as_given() -> None:
    agent = agent_of(market_of())
    config = EnvConfig(episode=30)
    env = environment(agent, config)
    agent.explore_vec_env(env, 8)
    state, age, sharpe = env.account
    given_account = Account(State(*(part.detach().clone() for part in state)), age, sharpe)
    parameters = list(agent.act.parameters())
    carried = torch.autograd.grad(agent.explore_vec_env(env, 8).rewards.mean(), parameters)
    fresh = environment(agent, config)
    fresh.account = given_account
    given = torch.autograd.grad(agent.explore_vec_env(fresh, 8).rewards.mean(), parameters)
    for one, other in zip(carried, given):
        torch.testing.assert_close(one, other)


def test_what_is_paid_a_step_later_reaches_the_action_within_an_unroll_only() -> None:
    market = task_market(dtype=torch.float64)
    agent = agent_of(market)
    for horizon, reaches in ((1, False), (2, True)):
        task = Task(delayed, market, 4)
        rewards = agent.explore_vec_env(task, horizon).rewards  # type: ignore[arg-type]
        assert rewards.requires_grad == reaches


def test_whole_shares_are_refused_in_one_line() -> None:
    with pytest.raises(UserError) as refusal:
        AgentDirect(market_of("shares"), DirectConfig(**SETTINGS))
    assert str(refusal.value).count("\n") == 0
    assert "'direct'" in str(refusal.value)
    assert "expected ppo, sac or td3" in str(refusal.value)
