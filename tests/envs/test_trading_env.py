"""The environment around the transition: seeds, starts, episodes, ruin, observations, speed's conditions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from markets import KINDS, NO_COSTS, priced, random_actions, tensors, wild_panel
from torch.utils._python_dispatch import TorchDispatchMode

from envs.config import EnvConfig, RewardConfig
from envs.market import MarketTensors
from envs.trading import TradingEnv
from envs.transition import State, cash_only, drawdown

PANEL = wild_panel(0, bars=80)
EVERY_REWARD = RewardConfig(1.0, 1.0, 1.0, 1.0, 1.0)


def env_of(num_envs: int = 8, episode: int = 10, seed: int = 0, **options: Any) -> TradingEnv:
    return TradingEnv(tensors(PANEL), EnvConfig(episode=episode), num_envs, seed=seed, **options)


def run(env: TradingEnv, actions: torch.Tensor) -> torch.Tensor:
    """Every observation and reward of a run, from its reset on."""
    seen = [env.reset()]
    for action in actions:
        observation, reward, done, _ = env.step(action)
        seen.append(torch.cat([observation, reward.unsqueeze(1), done.unsqueeze(1)], dim=1))
    return torch.cat([seen[0].flatten(), torch.stack(seen[1:]).flatten()])


# Seeds and starts


def test_the_same_seed_is_the_same_run_and_another_is_another() -> None:
    actions = random_actions(0, 25, 8, 5)
    one, again, other = (run(env_of(seed=seed), actions) for seed in (3, 3, 4))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.equal(one, other)


def test_a_global_seed_changes_nothing() -> None:
    actions = random_actions(0, 25, 8, 5)
    torch.manual_seed(1)
    one = run(env_of(), actions)
    torch.manual_seed(2)
    torch.testing.assert_close(one, run(env_of(), actions), rtol=0, atol=0)


def test_starts_do_not_depend_on_what_was_done() -> None:
    """Draws are made every step, so that one ruined environment does not move the others' starts."""
    starts = []
    for seed in (1, 2):
        env = env_of(seed=5)
        observations = [env.step(action)[0] for action in random_actions(seed, 20, 8, 5)]
        starts.append([observations[k][:, 0].tolist() for k in (9, 19)])
    assert starts[0] == starts[1]


@pytest.mark.parametrize(("span", "episode"), [(slice(20, 50), 7), (slice(None), 10), (slice(60, None), 19)])
def test_episodes_start_anywhere_in_the_span_and_never_leave_it(span: slice, episode: int) -> None:
    first, stop, _ = span.indices(len(PANEL) - 1)
    env = env_of(2000, episode, span=span)
    starts = env.reset()[:, 0]
    assert sorted(set(starts.tolist())) == list(range(first, stop - episode + 1))
    final = starts
    for action in random_actions(0, 2 * episode, 2000, 5):
        observation, _, done, info = env.step(action)
        final = info["final"].bar
        assert int(final.min()) > first
        assert int(final.max()) <= stop
        assert first <= int(observation[:, 0].min())
        assert not done.any() or sorted(set(observation[:, 0].tolist())) == list(range(first, stop - episode + 1))


def test_without_random_starts_every_episode_begins_at_the_spans_first_bar() -> None:
    env = env_of(4, 10, span=slice(30, 60), random_start=False)
    bars = [env.reset()[:, 0].tolist()]
    bars += [env.step(action)[0][:, 0].tolist() for action in random_actions(0, 20, 4, 5)]
    assert bars == [[bar] * 4 for bar in [*range(30, 40), *range(30, 40), 30]]


def test_an_episode_longer_than_the_span_is_cut_to_it() -> None:
    env = env_of(4, 252, span=slice(30, 60))
    assert env.episode == 30
    assert env.reset()[:, 0].tolist() == [30] * 4


def test_a_span_without_a_decision_is_refused() -> None:
    with pytest.raises(AssertionError, match="no decision"):
        env_of(span=slice(79, None))


# Episodes and ruin


def test_an_episode_is_truncated_after_exactly_its_length_with_its_final_state_in_info() -> None:
    env = env_of(8, 10)
    start = env.reset()[:, 0]
    for number, action in enumerate(random_actions(0, 30, 8, 5), start=1):
        before = env.account.state
        observation, _, done, info = env.step(action)
        over = number % 10 == 0
        assert info["truncated"].tolist() == done.tolist() == [over] * 8
        assert not info["terminated"].any()
        assert torch.equal(info["final"].bar, before.bar + 1)
        torch.testing.assert_close(info["final"].wealth, before.wealth * info["growth"].exp())
        if not over:
            torch.testing.assert_close(env.observe(info["final"]), observation, rtol=0, atol=0)
            continue
        assert torch.equal(info["final"].bar, start.long() + 10)
        assert float(info["final"].weights[:, :-1].sum()) > 1
        start = observation[:, 0]
        assert observation[:, 1:].tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * 8
        assert env.account.state.wealth.tolist() == env.account.state.peak.tolist() == [1.0] * 8


def test_only_what_is_done_is_reset() -> None:
    env = env_of(6, 10)
    for action in random_actions(0, 4, 6, 5):
        env.step(action)
    ages = torch.tensor([4, 9, 4, 9, 0, 8])
    env.account = env.account._replace(age=ages)
    observation, _, done, info = env.step(random_actions(1, 6, 5))
    assert done.tolist() == [False, True, False, True, False, False]
    assert env.account.age.tolist() == [5, 0, 5, 0, 1, 9]
    torch.testing.assert_close(observation[~done], env.observe(info["final"])[~done], rtol=0, atol=0)
    assert observation[done][:, 1:].tolist() == [[0.0, 0.0, 0.0, 0.0, 1.0, 0.0]] * 2
    for field in ("wealth", "peak"):
        assert getattr(env.account.state, field)[done].tolist() == [1.0, 1.0]


def test_ruin_terminates_even_on_the_last_bar_of_an_episode() -> None:
    """The price falls to a hundredth: who was invested is ruined, who kept cash is truncated a bar later."""
    market = tensors(priced([[100.0]] * 3 + [[1.0]] * 10), costs=NO_COSTS, rate=1.0)
    env = TradingEnv(market, EnvConfig(episode=4), 3, random_start=False)
    actions = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    for number in range(1, 5):
        _, _, done, info = env.step(actions)
        assert info["terminated"].tolist() == [number == 3, False, False]
        assert info["truncated"].tolist() == [False, number == 4, number == 4]
        if number == 3:
            assert info["final"].wealth.tolist() == pytest.approx([0.01, 1.0, 0.505])
            assert done.tolist() == [True, False, False]
    env = TradingEnv(market, EnvConfig(episode=3), 3, random_start=False)
    for _ in range(3):
        info = env.step(actions)[3]
    assert info["terminated"].tolist() == [True, False, False]
    assert info["truncated"].tolist() == [False, True, True]


# Observations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_observation_is_bar_weights_cash_and_drawdown(kind: str, dtype: torch.dtype) -> None:
    """And wealth where shares are whole: there it decides what an action is worth."""
    market = tensors(PANEL, kind, dtype=dtype)
    env = TradingEnv(market, EnvConfig(episode=30), 5)
    for action in random_actions(0, 20, 5, 5, dtype=dtype):
        observation = env.step(action)[0]
    state = env.account.state
    columns = [state.bar.to(dtype), *state.weights.T, state.wealth / state.peak - 1]
    columns += [state.wealth] if kind == "shares" else []
    assert observation.dtype == dtype
    assert observation.shape == (5, env.state_dim)
    torch.testing.assert_close(observation, torch.stack(columns, dim=1), rtol=0, atol=1e-6)
    assert float(drawdown(state).min()) < 0


def test_a_bar_is_exact_in_a_float32_observation_and_more_bars_are_refused() -> None:
    market = tensors(PANEL, dtype=torch.float32)
    env = TradingEnv(market, num_envs=4)
    bars = torch.tensor([0, 2**23 + 1, 2**24 - 2, 2**24 - 1])
    observation = env.observe(State(bars, *cash_only(market, bars)[1:]))
    assert observation.dtype == torch.float32
    assert torch.equal(observation[:, 0].long(), bars)
    too_many: Any = SimpleNamespace(close=np.broadcast_to(1.0, (2**24, 1)))
    with pytest.raises(AssertionError, match="exact in float32"):
        MarketTensors.build(too_many)


def test_an_action_is_not_changed_and_an_old_observation_neither() -> None:
    env = env_of(8, 3)
    actions = random_actions(0, 10, 8, 5)
    kept = actions.clone()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for action in actions:
        observation = env.step(action)[0]
        seen.append((observation, observation.clone()))
    assert torch.equal(actions, kept)
    assert all(torch.equal(one, copy) for one, copy in seen)


# What makes it fast


class Operations(TorchDispatchMode):
    """The names of all operations that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# Each of these makes a GPU's host wait for a value.
WAITS = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique",
    "index",
    "index_put_",
}


def test_the_check_sees_an_operation_that_waits() -> None:
    x = torch.arange(4.0)
    for wait in (lambda: x[0].item(), lambda: x[x > 1], lambda: bool((x > 1).any()), lambda: x.nonzero()):
        with Operations() as operations:
            wait()
        assert operations.names & WAITS


@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_never_waits_for_the_device(kind: str, gaps: bool) -> None:
    panel = PANEL if gaps else priced(np.full((80, 4), 100.0))
    market, config = tensors(panel, kind, band=0.01), EnvConfig(reward=EVERY_REWARD, episode=3)
    here, env = TradingEnv(market, config, 8), TradingEnv(market, config, 8)
    assert here.looks
    env.looks = False  # as on a GPU
    actions = random_actions(0, 5, 8, 5)
    with Operations() as operations:
        made = [env.step(action)[:3] for action in actions]
    assert operations.names & WAITS == set()
    for action, expected in zip(actions, made, strict=True):
        assert all(map(torch.equal, here.step(action)[:3], expected))
    assert len(operations.names) > 10


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_environment_gives_the_same_numbers(kind: str, gaps: bool) -> None:
    torch._dynamo.reset()  # it allows a handful of compilations of one function in a process
    panel = PANEL if gaps else priced(100 * np.exp(np.random.default_rng(0).normal(0, 0.02, (80, 4)).cumsum(0)))
    market = tensors(panel, kind, dtype=torch.float32)
    reward = RewardConfig(1.0, 1.0, 0.01, 1.0, 1.0)  # the differential Sharpe magnifies rounding of small variances
    config = EnvConfig(reward=reward, episode=7)
    eager, compiled = (TradingEnv(market, config, 64, compile=compile) for compile in (False, True))
    actions = random_actions(0, 30, 64, 5, dtype=torch.float32)
    torch.testing.assert_close(run(compiled, actions), run(eager, actions), rtol=1e-4, atol=1e-5)
    assert torch.tensor(1e-39) * 0.5 > 0, "the compiled code switched this process to flush small numbers to zero"
