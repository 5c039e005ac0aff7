"""SAC and TD3 by hand: targets, how often they learn, what a step led to, and who is drawn together."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from markets import NO_COSTS, priced, tensors
from panels import random_panel
from tasks import ASSETS, Task, constant, holding, task_market, tracking

from agents.base import split
from agents.config import SACConfig, TD3Config
from agents.networks import NetworkConfig
from agents.replay import ReplayBuffer, Transitions
from agents.sac import AgentSAC
from agents.td3 import AgentTD3
from envs.config import EnvConfig
from envs.market import MarketTensors
from envs.trading import TradingEnv

SMALL = NetworkConfig(hidden=(8, 8))
KINDS = ["sac", "td3"]


def agent_of(kind: str, market: MarketTensors | None = None, **settings: Any) -> AgentSAC | AgentTD3:
    values: dict[str, Any] = {
        "num_envs": 8,
        "together": 1,
        "horizon": 4,
        "batch_size": 32,
        "reuse": 1.0,
        "buffer": 1000,
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "tau": 0.25,
        "noise": 0.3,
        "reward_scale": 10.0,
        **settings,
    }
    market = market or task_market()
    if kind == "sac":
        return AgentSAC(market, SACConfig(**{"temperature": 0.01, **values}), SMALL)
    return AgentTD3(market, TD3Config(**{"target_noise": 0.4, **values}), SMALL)


def remembered(undone: float = 1.0) -> Transitions:
    """One transition, from bar 5 to bar 6, rewarded with 3."""
    state = torch.tensor([[5.0, 0.1, 0.2, 0.7, 0.0]])
    after = torch.tensor([[6.0, 0.3, 0.4, 0.3, 0.0]])
    return Transitions(state, torch.tensor([[0.3, 0.4, 0.9]]), torch.tensor([3.0]), torch.tensor([undone]), after)


def rolled_out(agent: AgentSAC | AgentTD3, task: Any = None) -> Transitions:
    task = task or Task(tracking, agent.market, agent.settings.num_envs, episode=3)
    agent.last_state = task.reset()
    return agent.explore_vec_env(task, agent.settings.horizon)


def labels_of(agent: AgentSAC | AgentTD3, transition: Transitions) -> torch.Tensor:
    """What both critics are pulled to in an update on nothing but one transition, [B]."""
    seen, error = [], agent._error

    def spy(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(labels.clone())
        return error(values, labels)

    agent._error = spy
    agent.settings = type(agent.settings)(**{**vars(agent.settings), "reuse": 32.0})
    agent.learn(transition)
    assert len(seen) == 1  # one update of both
    return seen[0]


def critic_steps(agent: AgentSAC | AgentTD3) -> int:
    return int(max((state["step"] for state in agent.cri_optimizer.state.values()), default=0))


def actor_steps(agent: AgentSAC | AgentTD3) -> int:
    return int(max((state["step"] for state in agent.act_optimizer.state.values()), default=0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("undone", [1.0, 0.0])
def test_targets_equal_hand_arithmetic(kind: str, undone: float) -> None:
    agent = agent_of(kind)
    asked = []

    def lower(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        asked.append(state)
        return torch.full((32,), 10.0)

    agent.cri_target.get_q_min = lower
    if isinstance(agent, AgentSAC):
        draw = agent.act.get_action_logprob
        agent.act.get_action_logprob = lambda s, noise: (draw(s, noise)[0], draw(s, noise)[1] * 0 + 2.0)
    label = labels_of(agent, remembered(undone))
    entropy = 0.01 * 2.0 if kind == "sac" else 0.0  # the temperature times the log-probability
    by_hand = 3.0 + 0.9 * (10.0 - entropy) if undone else 3.0
    torch.testing.assert_close(label, torch.full((32,), by_hand))
    assert torch.equal(asked[0], remembered().next_states.expand(32, -1))


def test_td3_asks_its_targets_with_noise_that_is_cut_off() -> None:
    agent = agent_of("td3")
    assert isinstance(agent, AgentTD3)
    agent.act_target = copy.deepcopy(agent.act)
    with torch.no_grad():
        agent.act_target.net.net.whole.bias.add_(0.3)
    asked, lower = [], agent.cri_target.get_q_min

    def spy(state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        asked.append(action)
        return lower(state, action)

    agent.cri_target.get_q_min = spy
    wanted = agent.act_target(remembered().next_states).detach()
    labels_of(agent, remembered())
    noise = asked[0] - wanted
    assert 0.3 < noise.std() < 0.45  # 0.4, but for what is cut off
    assert noise.abs().max() <= 0.5 + 1e-6
    assert (noise.abs() > 0.499).any()
    assert asked[0].abs().max() <= 1


def test_the_lower_of_two_values_is_believed() -> None:
    agent = agent_of("sac")
    two = [[1.0, 2.0], [3.0, 0.0]]
    agent.cri.net.values = lambda *asked: torch.tensor(two)
    states, actions = torch.zeros(2, 5), torch.zeros(2, 3)
    assert agent.cri.get_q_min(states, actions).tolist() == [1.0, 0.0]
    assert agent.cri.judge(states, actions).tolist() == [1.0, 0.0]
    assert agent.cri.get_q_values(states, actions).tolist() == two


def test_telling_apart_who_stood_at_the_same_bar_weighs_contrast_times() -> None:
    agent = agent_of("td3", together=2, contrast=3.0)
    values = torch.tensor([[0.6, 0.1], [1.0, 0.1], [0.0, 0.0], [0.0, 0.4]])  # two bars, two environments each
    # common: .8 and 0 of the first critic, .1 and .2 of the second; apart: .2, .2, 0, 0 and 0, 0, .2, .2
    common, apart = (0.64 + 0.0 + 0.01 + 0.04) / 4, (4 * 0.04) / 8
    assert agent._error(values, torch.zeros(4)).item() == pytest.approx(common + 3.0 * apart)


def test_without_neighbours_the_error_is_elegantrls() -> None:
    agent = agent_of("sac", contrast=100.0)
    values, labels = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0.5, 1.0])
    theirs = agent.criterion(values[:, 0], labels) + agent.criterion(values[:, 1], labels)
    assert agent._error(values, labels).item() == pytest.approx(theirs.item())


@pytest.mark.parametrize("kind", KINDS)
def test_updates_that_do_not_come_out_even_are_owed(kind: str) -> None:
    agent = agent_of(kind, horizon=3, reuse=1.0, batch_size=32)  # 24 samples: three quarters of an update
    task = Task(tracking, agent.market, 8)
    agent.last_state, steps = task.reset(), []
    for _ in range(8):
        agent.learn(agent.explore_vec_env(task, 3))
        steps.append(critic_steps(agent))
    assert steps == [0, 1, 2, 3, 3, 4, 5, 6]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_owed_is_in_the_checkpoint(kind: str) -> None:
    agent, other = agent_of(kind, horizon=3), agent_of(kind, horizon=3)
    assert agent.learn(rolled_out(agent)) == {}
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    other.learn(rolled_out(other))
    assert critic_steps(other) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_target_networks_go_a_quarter_of_the_way_per_update(kind: str) -> None:
    agent = agent_of(kind)  # one update on 32 samples; tau is 1/4
    with torch.no_grad():
        for parameter in agent.cri_target.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in agent.cri_target.parameters()]
    agent.learn(rolled_out(agent))
    assert critic_steps(agent) == 1
    for old, now, current in zip(before, agent.cri_target.parameters(), agent.cri.parameters()):
        torch.testing.assert_close(now, old * 0.75 + current * 0.25)
        assert not torch.equal(now, old)


def test_td3s_actor_and_its_target_move_every_second_time() -> None:
    agent = agent_of("td3", reuse=6.0)
    assert isinstance(agent, AgentTD3)
    before = [parameter.clone() for parameter in agent.act_target.parameters()]
    agent.learn(rolled_out(agent))
    assert (critic_steps(agent), actor_steps(agent)) == (6, 3)
    moved = [not torch.equal(old, now) for old, now in zip(before, agent.act_target.parameters())]
    assert any(moved)


def test_sac_values_entropy_more_when_it_has_too_little_of_it() -> None:
    for per_action, rises in ((5.0, True), (-5.0, False)):
        agent = agent_of("sac", entropy_per_action=per_action)
        assert isinstance(agent, AgentSAC)
        agent.learn(rolled_out(agent))
        assert (agent.alpha_log.item() > math.log(0.01)) == rises


@pytest.mark.parametrize("kind", KINDS)
def test_next_states_are_where_steps_led_and_not_where_the_next_episode_begins(kind: str) -> None:
    agent = agent_of(kind, horizon=8)
    rollout = rolled_out(agent, Task(tracking, agent.market, 8, episode=3))
    assert torch.equal(rollout.next_states[..., 0], rollout.states[..., 0] + 1)
    led = rollout.next_states[..., 1 : ASSETS + 2].flatten(0, 1)
    assert torch.equal(led, holding(rollout.actions[..., :-1].flatten(0, 1)))
    over = torch.tensor([False, False, True, False, False, True, False])
    differs = (rollout.next_states[:-1] != rollout.states[1:]).any(2)
    assert torch.equal(differs, over.unsqueeze(1).expand(-1, 8))
    assert (rollout.undones == 1).all()  # a time limit is not an end


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_scaled_and_belong_to_their_action(kind: str) -> None:
    agent = agent_of(kind)
    rollout = rolled_out(agent)
    bars, _ = split(rollout.states.flatten(0, 1))
    off = rollout.actions[..., :-1].flatten(0, 1) - agent.market.features[bars, :, 0]
    torch.testing.assert_close(rollout.rewards.flatten(), -10.0 * off.square().mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_ruin_is_an_end_and_a_time_limit_is_not(kind: str) -> None:
    """All invested, everything falls to a hundredth at bar 6; episodes are four bars long."""
    closes = np.where(np.arange(12) < 6, 100.0, 1.0)[:, None].repeat(2, axis=1)
    features = np.zeros((12, 2, 1), np.float32)
    market = tensors(priced(closes), costs=NO_COSTS, features=features, dtype=torch.float32, rate=1.0)
    agent = agent_of(kind, market, num_envs=16, horizon=20, noise=0.01)
    env = TradingEnv(market, EnvConfig(episode=4), 16, seed=0)
    rollout = rolled_out(agent, env)
    before, after = rollout.states[..., 0], rollout.next_states[..., 0]
    assert torch.equal(after, before + 1)
    invested = rollout.states[..., 1:3].sum(-1) > 0.5  # the fill is at the next open, already fallen
    assert torch.equal(rollout.undones == 0, (after == 6) & invested)
    restarted = (rollout.states[1:] != rollout.next_states[:-1]).any(2)
    assert (restarted & (rollout.undones[:-1] == 1)).any()  # time limits there were
    assert (rollout.undones == 0).any()


def test_groups_that_start_together_are_drawn_together() -> None:
    features = np.zeros((60, 3, 2), np.float32)
    market = tensors(random_panel(0, 60, 3, gaps=False), features=features, dtype=torch.float32)
    agent = agent_of("sac", market, num_envs=16, together=4, horizon=7, buffer=150)
    assert agent.buffer.max_size == 148  # whole groups
    env = TradingEnv(market, EnvConfig(episode=5), 16, seed=0, together=4)
    agent.last_state = env.reset()
    for _ in range(4):  # the ring wraps around
        agent.buffer.update(agent.explore_vec_env(env, 7))
    generator, bars = torch.Generator().manual_seed(0), []
    for _ in range(40):
        states, _, _, _, after = agent.buffer.sample(32, generator)
        groups = states.view(8, 4, -1)
        assert (groups[:, :, 0] == groups[:, :1, 0]).all()
        assert torch.equal(after[:, 0], states[:, 0] + 1)
        assert (groups[:, 0, 1:] != groups[:, 1, 1:]).any()
        bars.append(groups[:, 0, 0])
    assert len(torch.cat(bars).unique()) > 10


def test_every_transition_kept_is_drawn_and_alike_often() -> None:
    buffer = ReplayBuffer(12, 1, 1, torch.device("cpu"), torch.float32, together=2)
    column = torch.arange(20.0).view(10, 2, 1)
    buffer.update(Transitions(column, column, column[..., 0], column[..., 0], column))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([buffer.sample(60, generator).rewards for _ in range(200)]).long().bincount(minlength=20)
    assert (drawn[:8] == 0).all()
    assert (drawn[8:] > 850).all()  # 1,000 each, give or take five deviations
    assert (drawn[8:] < 1150).all()


def test_the_critic_learns_nothing_from_judging_for_the_actor() -> None:
    """What the actor's gradient leaves at the critic's weights is gone before the critic descends."""
    agent = agent_of("td3", reuse=1.0)
    rollout = rolled_out(agent)
    other = agent_of("td3", reuse=1.0)
    other.cri.judge = lambda state, action: (action * 1e3).sum(1)  # another actor's gradient altogether
    for one in (agent, other):
        one.last_state = rollout.states[-1]
        for _ in range(3):
            one.act_target.load_state_dict(agent_of("td3").act_target.state_dict())
            one.learn(rollout)
    assert all(torch.equal(a, b) for a, b in zip(agent.cri.parameters(), other.cri.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(agent.act.parameters(), other.act.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_actor_climbs_what_the_critic_says(kind: str) -> None:
    """A critic that likes the first asset's action: after an update it is larger."""
    agent = agent_of(kind)
    agent.cri.judge = lambda state, action: action[:, 0] * 100.0
    rollout = rolled_out(agent, Task(constant, agent.market, 8))
    states = rollout.states.flatten(0, 1)
    before = agent.act(states)[:, 0].detach()
    agent.learn(rollout)
    assert agent.act(states)[:, 0].mean() > before.mean()
