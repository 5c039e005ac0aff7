"""PPO by hand: advantages, what is drawn together, probabilities, and where the gradient stops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks import Task, constant, holding, task_market, tracking
from torch.distributions import Normal

from agents.base import split
from agents.config import PPOConfig
from agents.networks import NetworkConfig
from agents.ppo import AgentPPO, Rollout, whole_bars

SMALL = NetworkConfig(hidden=(8, 8))


def agent_of(**settings: object) -> AgentPPO:
    values = {
        "num_envs": 6,
        "horizon": 4,
        "batch_size": 1000,
        "epochs": 1,
        "learning_rate": 1e-3,
        "gamma": 0.5,
        "gae_lambda": 0.5,
        "noise": 0.4,
        "reward_scale": 10.0,
        "clip_grad_norm": 1e9,
    }
    return AgentPPO(task_market(), PPOConfig(**{**values, **settings}), SMALL)  # type: ignore[arg-type]


def rolled_out(agent: AgentPPO, task: Task | None = None) -> Rollout:
    task = task or Task(tracking, agent.market, agent.settings.num_envs, episode=3)
    agent.last_state = task.reset()
    return agent.explore_vec_env(task, agent.settings.horizon)


def gradients(agent: AgentPPO, rollout: Rollout) -> list[dict[str, torch.Tensor]]:
    """The gradient of each minibatch of an update: of the actor's parameters and of the critic's."""
    seen, descend = [], agent._descend

    def spy(loss: torch.Tensor, *optimizers: torch.optim.Optimizer) -> None:
        descend(loss, *optimizers)
        named = [*agent.act.named_parameters("act"), *agent.cri.named_parameters("cri")]
        seen.append({name: parameter.grad.clone() for name, parameter in named})

    agent._descend = spy  # type: ignore[method-assign]
    agent.learn(rollout)
    return seen


def test_advantages_equal_hand_arithmetic_through_an_end_and_a_time_limit() -> None:
    agent = agent_of()  # gamma 1/2, lambda 1/2: an advantage counts a quarter of the next
    agent.cri = lambda state: torch.full((3,), 8.0)  # what the last states are worth
    rewards = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 7.0], [3.0, 3.0, 3.0], [4.0, 4.0, 4.0]])
    undones = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    values = torch.tensor([2.0, 4.0, 6.0, 8.0]).unsqueeze(1).expand(4, 3)
    agent.last_state = torch.zeros(3, 1)
    # errors of the first column: 1 + 2 - 2, 2 + 3 - 4, 3 + 4 - 6, 4 + 4 - 8
    # the second ends at its second step: 2 - 4; the third's time is up there: 2 and half of 10, less 4
    by_hand = [[1.3125, 0.5, 1.75], [1.25, -2.0, 3.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert agent.get_advantages(rewards, undones, values).tolist() == by_hand


def test_at_a_time_limit_the_reward_holds_what_the_final_state_is_worth_and_not_the_next_episodes_first() -> None:
    agent = agent_of(horizon=7)
    task = Task(constant, agent.market, 6, episode=3)
    agent.cri = lambda state: state[:, 0] * 100.0  # a bar is worth a hundred times its number
    rollout = rolled_out(agent, task)
    bars = rollout.states[:, :, 0]
    assert (rollout.undones == 0).nonzero()[:, 0].unique().tolist() == [2, 5]
    expected = torch.full_like(bars, 10.0)  # reward 1 times the scale
    for t in (2, 5):
        expected[t] += 0.5 * 100.0 * (bars[t] + 1)
        assert (bars[t + 1] != bars[t] + 1).any()  # the next episode begins elsewhere
    assert torch.equal(rollout.rewards, expected)


def test_the_first_gradient_is_that_of_the_objective_written_out_with_global_normalisation() -> None:
    agent = agent_of(entropy=0.3)
    with torch.no_grad():
        agent.act.action_std_log.copy_(torch.tensor([-0.5, 0.2]))
    rollout = rolled_out(agent)
    states, actions = rollout.states.flatten(0, 1), rollout.actions.flatten(0, 1)
    values = agent.cri(states).detach()
    advantages = agent.get_advantages(rollout.rewards, rollout.undones, values.view(4, 6)).flatten()
    assert advantages.view(4, 6).std(0).std() > 0.1  # columns differ, so that their own spreads would show
    standard = (advantages - advantages.mean()) / advantages.std(correction=0)
    spread = agent.act.action_std_log[[0, 0, 1]].exp()
    bar, portfolio = split(states)
    chosen = Normal(agent.policy(agent.market, bar, portfolio).atanh(), spread)
    logprob = chosen.log_prob(actions).sum(1)
    ratio = (logprob - logprob.detach()).exp()
    critic = torch.nn.functional.smooth_l1_loss(agent.cri(states), values + advantages)
    loss = critic - (ratio * standard).mean() - 0.3 * chosen.entropy().sum(1).mean()
    agent.act.zero_grad()
    agent.cri.zero_grad()
    loss.backward()
    named = [*agent.act.named_parameters("act"), *agent.cri.named_parameters("cri")]
    expected = {name: parameter.grad.clone() for name, parameter in named}
    (made,) = gradients(agent, rollout)
    assert made.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(made[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@settings(max_examples=200)
@given(
    bars=st.lists(st.integers(0, 12), min_size=1, max_size=80),
    size=st.integers(1, 40),
    seed=st.integers(0, 5),
)
def test_minibatches_hold_every_sample_once_and_whole_bars_up_to_the_two_at_their_edges(
    bars: list[int], size: int, seed: int
) -> None:
    samples = torch.tensor(bars)
    batches = list(whole_bars(samples, size, torch.Generator().manual_seed(seed)))
    assert torch.cat([batch.rows for batch in batches]).sort().values.tolist() == list(range(len(bars)))
    sizes = [len(batch.rows) for batch in batches]
    assert sizes[:-1] == [size] * (len(sizes) - 1)
    if len(sizes) > 1:
        assert size // 2 <= sizes[-1] < size + size // 2 + 1
    else:
        assert sizes == [len(bars)]
        assert len(bars) < 1.5 * size or size == 1
    for batch in batches:
        assert torch.equal(batch.bars[batch.place], samples[batch.rows])
        assert len(batch.bars.unique()) == len(batch.bars)
        held = batch.place.bincount(minlength=len(batch.bars))
        assert held.min() > 0
        whole = (samples.unsqueeze(1) == batch.bars).sum(0)
        assert (held < whole).sum() <= 2


def test_minibatches_come_in_another_order_every_epoch() -> None:
    samples, generator = torch.arange(50).repeat(4), torch.Generator().manual_seed(0)
    first, second = ([batch.bars.tolist() for batch in whole_bars(samples, 20, generator)] for _ in range(2))
    assert first != second
    assert sorted(first[0]) != first[0]


def test_every_epoch_updates_on_every_sample_once() -> None:
    agent = agent_of(num_envs=16, horizon=8, batch_size=30, epochs=3)
    rollout, drawn, logprob = rolled_out(agent), [], agent.act.logprob

    def spy(mean: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        drawn.append(action)
        return logprob(mean, action)

    agent.act.logprob = spy
    agent.learn(rollout)
    assert len(drawn) == 3 * 4  # 128 samples: three of 30, and the rest with the last
    actions = torch.cat(drawn)
    epochs = actions.view(3, 128, 3).sort(1).values
    assert torch.equal(epochs, rollout.actions.view(1, 128, 3).sort(1).values.expand(3, -1, -1))


def test_log_probabilities_and_entropy_are_those_of_a_normal_distribution() -> None:
    agent = agent_of()
    with torch.no_grad():
        agent.act.action_std_log.copy_(torch.tensor([-1.0, 0.5]))
    generator = torch.Generator().manual_seed(0)
    mean, action = torch.randn(2, 20, 3, generator=generator)
    normal = Normal(mean, torch.tensor([-1.0, -1.0, 0.5]).exp())
    torch.testing.assert_close(agent.act.logprob(mean, action), normal.log_prob(action).sum(1))
    torch.testing.assert_close(agent.act.entropy(), normal.entropy().sum(1)[0])


def test_a_rollouts_log_probabilities_are_its_actions_so_the_ratio_is_one_before_the_first_update() -> None:
    agent = agent_of()
    with torch.no_grad():
        agent.act.action_std_log.copy_(torch.tensor([-1.0, 0.5]))
    rollout = rolled_out(agent)
    again, _ = agent.act.get_logprob_entropy(rollout.states.flatten(0, 1), rollout.actions.flatten(0, 1))
    torch.testing.assert_close(again.view_as(rollout.logprobs), rollout.logprobs)


def test_the_environment_is_sent_the_tanh_of_the_action_that_is_stored() -> None:
    agent = agent_of(horizon=5, noise=2.0)
    rollout = rolled_out(agent, Task(tracking, agent.market, 6, episode=100))
    sent = holding(rollout.actions[:-1, :, :2].tanh().flatten(0, 1))
    assert torch.equal(rollout.states[1:, :, 1:4].flatten(0, 1), sent)
    assert rollout.actions.abs().max() > 1


@pytest.mark.parametrize("clipped", [True, False])
def test_a_sample_that_moved_too_far_the_right_way_has_no_gradient_and_one_that_moved_the_wrong_way_has(
    clipped: bool,
) -> None:
    agent = agent_of()
    rollout = rolled_out(agent)
    values = agent.cri(rollout.states.flatten(0, 1)).detach().view(4, 6)
    advantages = agent.get_advantages(rollout.rewards, rollout.undones, values)
    good = (advantages > advantages.mean()).float() * 2 - 1
    moved = good if clipped else -good  # the log of the ratio: up for good actions is the right way
    before = {name: value.clone() for name, value in agent.act.state_dict().items()}
    (made,) = gradients(agent, rollout._replace(logprobs=rollout.logprobs - moved))
    size = max(float(gradient.abs().max()) for name, gradient in made.items() if name.startswith("act"))
    same = all(torch.equal(value, before[name]) for name, value in agent.act.state_dict().items())
    assert (size == 0.0) == clipped
    assert same == clipped
    assert max(float(gradient.abs().max()) for name, gradient in made.items() if name.startswith("cri")) > 0


def test_the_learning_rate_falls_to_nothing_in_a_straight_line() -> None:
    agent = agent_of(learning_rate=0.5)
    rates = []
    for share in (0.0, 0.25, 1.0, 1.5):
        agent.anneal(share)
        rates.append([group["lr"] for optimizer in agent._optimizers() for group in optimizer.param_groups])
    assert rates == [[0.5, 0.5], [0.375, 0.375], [0.0, 0.0], [0.0, 0.0]]


def test_a_single_sample_does_not_turn_the_networks_into_no_numbers() -> None:
    agent = agent_of(num_envs=1, horizon=1)
    agent.learn(rolled_out(agent))
    assert all(value.isfinite().all() for net in (agent.act, agent.cri) for value in net.state_dict().values())
