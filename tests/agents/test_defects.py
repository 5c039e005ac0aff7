"""ElegantRL 0.3.6's defects, each shown by running its own agent the way its own loop does, and ours without it.

The networks of the stock agents see the bar and the portfolio as plain numbers; that does not matter here.
"""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from elegantrl.agents.AgentPPO import AgentPPO as StockPPO
from elegantrl.agents.AgentSAC import AgentModSAC as StockModSAC
from elegantrl.agents.AgentSAC import AgentSAC as StockSAC
from elegantrl.agents.AgentTD3 import AgentTD3 as StockTD3
from elegantrl.train.config import Config
from elegantrl.train.replay_buffer import ReplayBuffer as StockBuffer
from tasks import Task, constant, practise, task_market, tracking
from torch.distributions import Normal, TanhTransform, TransformedDistribution
from torch.utils._python_dispatch import TorchDispatchMode

from agents.build import AGENTS
from agents.config import DirectConfig, PPOConfig, SACConfig, TD3Config
from agents.networks import NetworkConfig
from agents.ppo import AgentPPO, Rollout
from agents.replay import ReplayBuffer, Transitions
from envs.transition import State

STATE, ACTION = 5, 3  # of the tasks
CONFIGS: dict[str, Any] = {"ppo": PPOConfig, "sac": SACConfig, "td3": TD3Config, "direct": DirectConfig}
STOCK = {"ppo": StockPPO, "sac": StockSAC, "td3": StockTD3}
SHARED: dict[str, Any] = {"learning_rate": 1e-3, "reward_scale": 1.0, "clip_grad_norm": 1.0}
VALUED: dict[str, Any] = {**SHARED, "gamma": 0.9, "batch_size": 64, "noise": 0.3}
OURS: dict[str, dict[str, Any]] = {
    "ppo": {**VALUED, "epochs": 2, "gae_lambda": 0.5},
    "sac": {**VALUED, "together": 1, "reuse": 4.0, "buffer": 4000, "tau": 0.02, "temperature": 0.01},
    "td3": {**VALUED, "together": 1, "reuse": 4.0, "buffer": 4000, "tau": 0.02, "target_noise": 0.1},
    "direct": SHARED,
}


def ours(kind: str, num_envs: int = 8, horizon: int = 8, **settings: Any) -> Any:
    config = CONFIGS[kind](**{**OURS[kind], **settings}, num_envs=num_envs, horizon=horizon)
    return AGENTS[kind](task_market(), config, NetworkConfig(hidden=(8, 8)), 0)


def stock(kind: str, num_envs: int = 8, agent_class: Any = None, **settings: Any) -> Any:
    agent_class = agent_class or STOCK[kind]
    shape = {"env_name": "task", "num_envs": num_envs, "max_step": 16, "state_dim": STATE, "action_dim": ACTION}
    args = Config(agent_class, None, shape | {"if_discrete": False})
    for name, value in {"learning_rate": 1e-3, "gamma": 0.9, "batch_size": 64, **settings}.items():
        setattr(args, name, value)
    torch.manual_seed(0)
    return agent_class((8, 8), STATE, ACTION, gpu_id=-1, args=args)


def task_for(agent: Any, num_envs: int = 8, pay: Any = tracking, episode: int = 16) -> Task:
    """An environment that stands at its first state, which the agent knows."""
    task = Task(pay, task_market(), num_envs, episode)
    agent.last_state = task.reset()
    return task


def stock_rollout(agent: Any, task: Task, horizon: int) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return tuple(agent.explore_vec_env(task, horizon))


def stock_replay(agent: Any, task: Task, horizon: int, size: int = 4000) -> StockBuffer:
    buffer = StockBuffer(size, STATE, ACTION, -1, task.num_envs)
    buffer.update(stock_rollout(agent, task, horizon))
    return buffer


def spied(owner: Any, name: str, seen: list[tuple[Any, Any]]) -> None:
    """Note every call of owner.name: its arguments and what it answered."""
    call = getattr(owner, name)

    def spy(*args: Any) -> Any:
        seen.append((args, answer := call(*args)))
        return answer

    setattr(owner, name, spy)


def times_drawn(seen: list[tuple[Any, Any]], actions: torch.Tensor) -> torch.Tensor:
    """How often an update saw each action of a rollout [H, N, A+1] -> [H, N]; no two actions are alike."""
    drawn = torch.cat([args[1] for args, _ in seen])[:, 0].detach().contiguous()
    keys, order = actions[..., 0].flatten().sort()
    counts = torch.searchsorted(keys, drawn).bincount(minlength=len(keys))
    return torch.empty_like(counts).scatter_(0, order, counts).view(actions.shape[:2])


def update_counting(agent: Any, num_envs: int, horizon: int) -> torch.Tensor:
    """How often one update of a PPO drew each sample, [H, N]."""
    task, seen = task_for(agent, num_envs), list[Any]()
    if isinstance(agent, AgentPPO):
        spied(agent.act, "logprob", seen)
        rollout: Rollout = agent.explore_vec_env(task, horizon)
        agent.learn(rollout)
    else:
        rollout = Rollout(*stock_rollout(agent, task, horizon))
        spied(agent.act, "get_logprob_entropy", seen)
        agent.update_net(rollout)
    return times_drawn(seen, rollout.actions)


# 1. The number of updates


@pytest.mark.parametrize("num_envs", [4, 64])
def test_updates_draw_every_sample_as_often_however_many_environments(num_envs: int) -> None:
    epochs, horizon = 8, 32
    theirs = update_counting(stock("ppo", num_envs, repeat_times=float(epochs)), num_envs, horizon)
    assert theirs.sum() == epochs * horizon  # of all its environments together
    counts = update_counting(ours("ppo", num_envs, horizon, epochs=epochs), num_envs, horizon)
    assert (counts == epochs).all()


@pytest.mark.parametrize("kind", ["sac", "td3"])
@pytest.mark.parametrize("num_envs", [4, 64])
def test_replay_draws_every_sample_as_often_however_many_environments(kind: str, num_envs: int) -> None:
    seen: list[tuple[Any, Any]] = []
    agent = stock(kind, num_envs, repeat_times=1.0)
    buffer = stock_replay(agent, task_for(agent, num_envs), 16)
    spied(buffer, "sample", seen)
    agent.update_net(buffer)
    assert len(seen) == 16  # batches of 64, for 64 samples and for 1,024
    seen.clear()
    agent = ours(kind, num_envs, 16)  # each transition is to be drawn four times
    spied(agent.buffer, "sample", seen)
    agent.learn(agent.explore_vec_env(task_for(agent, num_envs), 16))
    assert sum(len(answer.rewards) for _, answer in seen) == 4 * 16 * num_envs


# 2. Normalised advantages


def uneven(task: Task, before: State, action: torch.Tensor) -> torch.Tensor:
    """Rewards that vary, except in the first environment."""
    return torch.where(torch.arange(len(action)) == 0, 0.5, action[:, 0])


def first_advantages(agent: Any) -> torch.Tensor:
    """Those of the first minibatch, from the gradient of the objective: its ratios are still 1."""
    task, seen = task_for(agent, 16, uneven), list[torch.Tensor]()
    name = "logprob" if isinstance(agent, AgentPPO) else "get_logprob_entropy"
    with torch.no_grad():
        for parameter in agent.cri.net.parameters():
            parameter.zero_()  # it knows nothing yet
    rollout = agent.explore_vec_env(task, 32) if name == "logprob" else stock_rollout(agent, task, 32)
    call = getattr(agent.act, name)

    def retain(*args: Any) -> Any:
        answer = call(*args)
        first = answer[0] if isinstance(answer, tuple) else answer
        first.retain_grad()
        seen.append(first)
        return answer

    setattr(agent.act, name, retain)
    agent.update_net(rollout)
    assert seen[0].grad is not None
    return -seen[0].grad * len(seen[0])


def test_one_constant_reward_environment_does_not_blow_up_advantages() -> None:
    theirs = first_advantages(stock("ppo", 16, batch_size=512, repeat_times=16.0, lambda_gae_adv=0.0))
    assert theirs.abs().max() > 1000
    advantages = first_advantages(ours("ppo", 16, 32, batch_size=512, gae_lambda=0.0))
    assert len(advantages) == 512
    assert advantages.abs().max() < 10
    assert advantages.mean().abs() < 1e-5
    assert advantages.std() == pytest.approx(1.0, rel=0.01)


# 3. The critic, the last step, the shortest rollout


@pytest.mark.parametrize("num_envs", [4, 32])
def test_the_critic_values_a_rollout_in_one_batch_however_many_environments(num_envs: int) -> None:
    """And the last states in another; what is asked with a gradient is asked by minibatches."""
    asked: list[tuple[Any, Any]] = []
    agent = stock("ppo", num_envs, repeat_times=4.0)
    rollout = stock_rollout(agent, task_for(agent, num_envs), 16)
    spied(agent.cri, "forward", asked)
    agent.update_net(rollout)
    assert sum(not answer.requires_grad for _, answer in asked) == num_envs + 1
    asked.clear()
    agent = ours("ppo", num_envs, 16)
    rollout = agent.explore_vec_env(task_for(agent, num_envs), 16)
    spied(agent.cri.net, "value", asked)
    agent.learn(rollout)
    assert sum(not answer.requires_grad for _, answer in asked) == 2


def test_the_last_step_of_a_rollout_is_learnt_from() -> None:
    theirs = update_counting(stock("ppo", 8, repeat_times=400.0), 8, 16)
    assert (theirs[:-1] > 0).all()
    assert (theirs[-1] == 0).all()
    assert (update_counting(ours("ppo", 8, 16), 8, 16)[-1] == 2).all()


@pytest.mark.filterwarnings("ignore:std")  # stock's
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_rollout_of_one_step_is_learnt_from(kind: str) -> None:
    if kind == "ppo":
        agent = stock("ppo", 8, repeat_times=64.0)
        rollout = stock_rollout(agent, task_for(agent), 1)
        with pytest.raises(RuntimeError):
            agent.update_net(rollout)
    agent = ours(kind, 64, 1)
    before = copy.deepcopy(agent.act.state_dict())
    agent.learn(agent.explore_vec_env(task_for(agent, 64), 1))
    assert all(value.isfinite().all() for value in agent.act.state_dict().values())
    if kind != "direct":
        assert any((value != before[name]).any() for name, value in agent.act.state_dict().items())


# 4. V-trace


def test_the_last_states_value_is_never_dropped_from_advantages() -> None:
    """Rewards 0, values 0, and 10 after the last step: a step back it is worth 9, two steps back half of 8.1."""
    rewards, undones, values = torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1)
    by_hand = [[0.9 * 0.5 * 9.0], [9.0]]
    switched = stock("ppo", 1, if_use_vtrace=True)  # as its own configuration calls it
    assert switched.get_advantages.__name__ == "get_advantages_origin"
    theirs = stock("ppo", 1, if_use_v_trace=True)
    assert theirs.get_advantages.__name__ == "get_advantages_vtrace"
    agent = ours("ppo", 1)
    made = []
    for one in (theirs, agent):
        one.cri, one.last_state = lambda state: torch.full((1,), 10.0), torch.zeros(1, STATE)
        made.append(one.get_advantages(rewards, undones, values))
    assert made[0].tolist() == [[0.0], [0.0]]
    torch.testing.assert_close(made[1], torch.tensor(by_hand))


# 5. State normalisation


def test_the_bar_index_survives_an_update() -> None:
    theirs = stock("ppo", 8, repeat_times=8.0, state_value_tau=0.1)
    rollout = stock_rollout(theirs, task_for(theirs), 16)
    theirs.update_net(rollout)
    assert not torch.equal(theirs.act.state_std, theirs.cri.state_std)  # assigned to itself
    bars = rollout[0].flatten(0, 1)[:, 0]
    assert not torch.equal(theirs.act.state_norm(rollout[0].flatten(0, 1))[:, 0].round(), bars)
    agent = ours("ppo", 8, 16)
    states = (rollout := agent.explore_vec_env(task_for(agent), 16)).states.flatten(0, 1)
    agent.learn(rollout)
    assert agent.state_value_tau == 0
    with torch.no_grad():
        assert torch.equal(agent.act(states), agent.policy(agent.market, states[:, 0].long(), states[:, 1:]))


# 6. Time limits


def test_stock_takes_a_time_limit_for_the_end_of_the_world() -> None:
    """Of 1 for ever at a discount of .9, 10; of at most 5 steps, 2.63 where the age cannot be seen."""
    agent = stock("ppo", 64, repeat_times=64.0, batch_size=128, learning_rate=3e-3, lambda_gae_adv=1.0)
    task = task_for(agent, 64, constant, episode=5)
    for _ in range(40):
        agent.update_net(stock_rollout(agent, task, 15))
    with torch.no_grad():
        worth = agent.cri(agent.last_state).mean()
    limited = np.mean([(1 - 0.9**left) / (1 - 0.9) for left in range(1, 6)])
    assert worth == pytest.approx(limited, abs=0.5)


@pytest.mark.parametrize("kind", ["ppo", "sac", "td3"])
def test_a_time_limit_is_not_the_end(kind: str) -> None:
    more: dict[str, dict[str, Any]] = {
        "ppo": {"samples": 64 * 8 * 40, "epochs": 4},
        "td3": {"samples": 64 * 8 * 10, "reuse": 16.0},
    }
    more["sac"] = more["td3"] | {"temperature": 1e-4, "entropy_per_action": -50.0}  # entropy is worth nothing
    if kind != "ppo":
        more[kind]["tau"] = 0.2
    agent = ours(kind, 64, 8, learning_rate=1e-2, **{"batch_size": 256, **more[kind]})
    task = Task(constant, task_market(), 64, episode=5)
    practise(agent, task)
    state = agent.last_state
    with torch.no_grad():
        worth = agent.cri(state) if kind == "ppo" else agent.cri(state, agent.act(state))
    assert worth.mean() == pytest.approx(10.0, abs=0.5)


# 7. The replay buffer


def counted(first: int, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A rollout of one environment whose states count up: states, actions, rewards, undones."""
    column = torch.arange(first, first + steps, dtype=torch.float32).view(steps, 1)
    return column.unsqueeze(2), column.unsqueeze(2), column, torch.ones_like(column)


def our_buffer(size: int) -> ReplayBuffer:
    return ReplayBuffer(size, 1, 1, torch.device("cpu"), torch.float32)


def test_a_next_state_is_the_next_state_at_the_seam_too() -> None:
    theirs, buffer, size = StockBuffer(10, 1, 1, -1, 1), our_buffer(10), 10
    for first in (0, 6):  # the second rollout wraps around
        items = counted(first, 6)
        theirs.update(items)
        buffer.update(Transitions(*items, items[0] + 1))
    torch.manual_seed(0)
    states, _, _, _, following = theirs.sample(9000)
    wrong = (following != states + 1).squeeze(1)
    assert states[wrong].unique().tolist() == [11.0]  # its next one is the oldest
    assert wrong.float().mean() == pytest.approx(1 / (size - 1), rel=0.1)
    states, _, _, _, following = buffer.sample(9000, torch.Generator().manual_seed(0))
    assert torch.equal(following, states + 1)
    assert states.unique().tolist() == [float(n) for n in range(2, 12)]


def test_a_rollout_may_be_longer_than_the_buffer() -> None:
    items = counted(0, 25)
    with pytest.raises(RuntimeError):
        StockBuffer(10, 1, 1, -1, 1).update(items)
    (buffer := our_buffer(10)).update(Transitions(*items, items[0] + 1))
    assert buffer.cur_size == 10
    assert buffer.rows[:, 0].sort().values.tolist() == [float(n) for n in range(15, 25)]


# 8. One environment


@pytest.mark.parametrize("kind", CONFIGS)
def test_one_environment_may_be_made_of_tensors(kind: str) -> None:
    if kind != "direct":
        agent = stock(kind, 1)
        task = task_for(agent, 1)
        with torch.no_grad(), pytest.raises((TypeError, IndexError)):
            agent.explore_env(task, 8)
    agent = ours(kind, 1, 8, **({} if kind == "direct" else {"batch_size": 8}))
    task = task_for(agent, 1)
    before = copy.deepcopy(agent.act.state_dict())
    agent.learn(agent.explore_vec_env(task, 8))
    assert any((value != before[name]).any() for name, value in agent.act.state_dict().items())


# 9. SAC's probabilities, and two speeds


def squashed(mean: torch.Tensor, spread: torch.Tensor) -> TransformedDistribution:
    return TransformedDistribution(Normal(mean, spread), [TanhTransform()])


def test_sacs_log_probability_is_that_of_a_squashed_normal() -> None:
    states = torch.zeros(4000, STATE)
    torch.manual_seed(0)
    for agent_class in (StockSAC, StockModSAC):
        theirs = stock("sac", agent_class=agent_class).act.double()
        with torch.no_grad():
            action, logprob = theirs.get_action_logprob(states.double())
            mean, spread = theirs.net_a(theirs.net_s(states.double())).chunk(2, dim=1)
        bias = logprob - squashed(mean, spread.exp()).log_prob(action).sum(1)
        assert bias.mean() == pytest.approx(ACTION / 2, rel=0.1)  # half the square of each noise, which is forgotten
    act = ours("sac").act.double()
    with torch.no_grad():
        act.action_std_log.copy_(torch.tensor([-0.7, 0.2]))
    raw, noise = torch.randn(2, 4000, ACTION, dtype=torch.float64)
    action, logprob = act.squash(raw, noise)
    exact = squashed(raw, torch.tensor([-0.7, -0.7, 0.2], dtype=torch.float64).exp()).log_prob(action).sum(1)
    torch.testing.assert_close(logprob, exact, rtol=1e-6, atol=1e-6)


def test_sacs_probabilities_sum_to_one() -> None:
    """Over two of the entries of an action, by the rectangles between actions; what the third adds is divided out."""
    act = ours("sac").act.double()
    raw = torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64)
    ticks = torch.linspace(-7, 7, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(ticks, ticks)
    noise = torch.cat([grid, torch.zeros_like(grid[:, :1])], dim=1)
    with torch.no_grad():
        action, logprob = act.squash(raw.expand_as(noise), noise)
        third = squashed(raw[2], act.std_log()[2].exp()).log_prob(action[0, 2])
    density = (logprob - third).exp().view(401, 401)
    first, second = action[:, 0].view(401, 401)[:, 0], action[:, 1].view(401, 401)[0]
    whole = torch.trapezoid(torch.trapezoid(density, second, dim=1), first, dim=0)
    assert float(whole) == pytest.approx(1.0, abs=1e-3)


def test_the_slower_of_two_speeds_is_slower() -> None:
    theirs = stock("sac", agent_class=StockModSAC, repeat_times=1.0)
    buffer = stock_replay(theirs, task_for(theirs), 16)
    theirs.update_net(buffer)
    assert steps_of(theirs.act_optimizer) == steps_of(theirs.cri_optimizer) == 16  # its rule never holds the actor back
    agent = ours("td3", 8, 16, reuse=8.0)
    agent.learn(agent.explore_vec_env(task_for(agent), 16))
    assert (steps_of(agent.act_optimizer), steps_of(agent.cri_optimizer)) == (8, 16)


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    return int(next(iter(optimizer.state.values()))["step"])


# 10. Checkpoints


def held_by(optimizer: torch.optim.Optimizer, net: torch.nn.Module) -> bool:
    """Whether the optimizer moves what the network computes with."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return held == {id(parameter) for parameter in net.parameters() if parameter.requires_grad}


def stock_load(agent: Any, folder: Any) -> None:
    agent.save_or_load_agent(str(folder), if_save=False)


def test_stock_checkpoints_do_not_load_and_when_forced_to_stop_learning(tmp_path: Any, monkeypatch: Any) -> None:
    saved = stock("sac")
    with torch.no_grad():
        saved.alpha_log.fill_(-5.0)
    saved.save_or_load_agent(str(tmp_path), if_save=True)
    agent = stock("sac")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        stock_load(agent, tmp_path)
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **more: load(*args, **more, weights_only=False))
    agent = stock("sac", repeat_times=1.0)
    stock_load(agent, tmp_path)
    assert agent.alpha_log.item() == -1.0  # was -5
    assert not held_by(agent.act_optimizer, agent.act)
    buffer = stock_replay(agent, task_for(agent), 16)
    before = copy.deepcopy(agent.act.state_dict())
    agent.update_net(buffer)
    assert all(torch.equal(value, before[name]) for name, value in agent.act.state_dict().items())


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_checkpoint_loads_and_learning_goes_on_to_the_last_bit(kind: str) -> None:
    agent, other = ours(kind), ours(kind)
    task = task_for(agent)
    for _ in range(2):
        agent.learn(agent.explore_vec_env(task, 8))
    torch.save(agent.state_dict(), file := io.BytesIO())
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    other_task = copy.copy(task)
    other_task.generator = torch.Generator().set_state(task.generator.get_state())
    for one, its in ((agent, task), (other, other_task)):
        one.learn(one.explore_vec_env(its, 8))
        assert held_by(one.act_optimizer, one.act)
        assert kind == "direct" or held_by(one.cri_optimizer, one.cri)
    here, there = agent.state_dict(), other.state_dict()
    for name in ("act", "cri", "act_target", "cri_target"):
        for key, value in here.get(name, {}).items():
            assert torch.equal(value, there[name][key]), (name, key)
    if kind == "sac":
        assert torch.equal(agent.alpha_log, other.alpha_log)
        assert agent.alpha_log.item() != pytest.approx(math.log(0.01), abs=1e-6)


# 11. Waiting for the device


class Waits(TorchDispatchMode):
    """Counts what a device would have to be waited for: numbers read by Python."""

    READS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero)

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in self.READS
        return func(*args, **(kwargs or {}))


def waits(learn: Callable[[Any], Any], rollout: Any) -> int:
    with Waits() as counter:
        learn(rollout)
    return counter.count


@pytest.mark.parametrize("kind", ["ppo", "sac", "td3"])
def test_an_update_waits_for_the_device_as_often_however_many_minibatches(kind: str) -> None:
    theirs, own = [], []
    for minibatches in (2, 8):
        agent = stock(kind, 8, repeat_times=64.0 * minibatches / 16 if kind == "ppo" else minibatches / 16)
        task = task_for(agent)
        rollout = stock_rollout(agent, task, 16) if kind == "ppo" else stock_replay(agent, task, 16)
        theirs.append(waits(agent.update_net, rollout))
        agent = ours(kind, 8, 16, **({"epochs": 1} if kind == "ppo" else {}), batch_size=128 // minibatches)
        if kind != "ppo":
            agent.settings = type(agent.settings)(**{**vars(agent.settings), "reuse": 1.0})
        rollout = agent.explore_vec_env(task_for(agent), 16)
        own.append(waits(agent.learn, rollout))
    assert theirs[1] - theirs[0] >= 12  # two for each minibatch
    assert own[0] == own[1]
