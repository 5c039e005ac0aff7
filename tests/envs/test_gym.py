"""Gymnasium's contract, for one environment and for many, and a learner that relies on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils import env_checker
from gymnasium.vector import AutoresetMode, VectorEnv
from panels import random_panel

from envs.config import AllocationConfig, EnvConfig, TradingConfig
from envs.flat import FlatEnv
from envs.gym import TradingGymEnv, TradingVectorEnv
from envs.market import MarketTensors

ASSETS, EPISODE = 3, 7
SPACE_WARNING = "ignore:.*Box observation space (min|max)imum value is -?infinity.*:UserWarning"
SPEC_WARNING = "ignore:.*not having a spec.*:UserWarning"


def flat_env(
    num_envs: int, episode: int = EPISODE, ruin: float = 0.05, seed: int = 0, kind: str = "softmax"
) -> FlatEnv:
    panel = random_panel(4, bars=80, symbols=ASSETS)
    features = np.random.default_rng(0).standard_normal((80, ASSETS, 2)).astype(np.float32)
    market = MarketTensors.build(panel, TradingConfig(AllocationConfig(kind)), features)
    return FlatEnv(market, EnvConfig(episode=episode, ruin=ruin), num_envs, seed=seed)


def actions_of(env: VectorEnv, steps: int, seed: int = 0) -> np.ndarray:  # [steps, N, A+1]
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


@pytest.mark.filterwarnings("error::UserWarning", SPACE_WARNING, SPEC_WARNING)
@pytest.mark.parametrize("kind", ["softmax", "shares"])
def test_the_single_environment_passes_gymnasiums_checker_without_a_warning(kind: str) -> None:
    env_checker.check_env(TradingGymEnv(flat_env(1, kind=kind)))


@pytest.mark.filterwarnings("error::UserWarning", SPACE_WARNING)
def test_the_vector_environment_passes_gymnasiums_checks() -> None:
    env = TradingVectorEnv(flat_env(5, episode=2))
    for space in (env.single_observation_space, env.observation_space):
        env_checker.check_observation_space(space)
    for space in (env.single_action_space, env.action_space):
        env_checker.check_action_space(space)
    env_checker.check_reset_return_type(env)
    env_checker.check_reset_seed_determinism(env)
    env_checker.check_reset_options(env)
    env_checker.check_returned_data_not_reused(TradingVectorEnv(flat_env(1)))  # it knows of scalars only


def test_the_vector_environment_declares_what_it_does() -> None:
    env = TradingVectorEnv(flat_env(5))
    assert isinstance(env, VectorEnv)
    assert env.num_envs == 5
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    width = ASSETS * 2 + ASSETS + ASSETS + 1 + 1
    assert env.single_observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
    assert env.single_action_space == gymnasium.spaces.Box(-1, 1, (ASSETS + 1,), np.float32)
    observation, infos = env.reset(seed=3)
    assert observation in env.observation_space
    assert infos["wealth"].tolist() == [1.0] * 5
    for action in actions_of(env, 2 * EPISODE):
        observation, reward, terminated, truncated, infos = env.step(action)
        assert observation in env.observation_space
        assert [array.shape for array in (reward, terminated, truncated)] == [(5,)] * 3
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.bool_, np.bool_)
        assert ("final_obs" in infos) == bool((terminated | truncated).any())


def test_many_environments_equal_single_ones_that_are_reset_by_hand() -> None:
    """SAME_STEP: where an episode ends, the final observation is in infos and the next episode has begun."""
    many = TradingVectorEnv(flat_env(1, seed=8))
    one = TradingGymEnv(flat_env(1, seed=8))
    start, begun = many.reset(seed=5)[0], one.reset(seed=5)[0]
    np.testing.assert_array_equal(start[0], begun)
    ends = 0
    for action in actions_of(many, EPISODE):
        observation, reward, terminated, truncated, infos = many.step(action)
        single, gain, dead, over, info = one.step(action[0])
        assert (reward[0], terminated[0], truncated[0]) == (np.float32(gain), dead, over)
        if over:
            ends += 1
            np.testing.assert_array_equal(infos["final_obs"][0], single)
            assert infos["final_info"]["wealth"][0] == np.float32(info["wealth"])
            assert infos["wealth"][0] == 1.0
            assert observation[0, -2] == 1.0  # in cash again
        else:
            np.testing.assert_array_equal(observation[0], single)
            assert infos["wealth"][0] == np.float32(info["wealth"])
    assert ends == 1


def test_an_episode_is_truncated_at_its_length_and_terminated_by_ruin() -> None:
    env = TradingVectorEnv(flat_env(6))
    env.reset(seed=1)
    results = [env.step(action) for action in actions_of(env, 2 * EPISODE)]
    truncated = np.array([result[3] for result in results])
    assert not np.array([result[2] for result in results]).any()
    np.testing.assert_array_equal(truncated, np.arange(1, 2 * EPISODE + 1)[:, None] % EPISODE == np.zeros(6))

    env = TradingVectorEnv(flat_env(64, ruin=0.995))  # a fall of half a percent is ruin
    env.reset(seed=1)
    seen = 0
    for action in actions_of(env, EPISODE - 1):
        _, _, terminated, truncated, infos = env.step(action)
        assert not truncated.any()
        if terminated.any():
            seen += int(terminated.sum())
            np.testing.assert_array_equal(infos["_final_obs"], terminated)
            np.testing.assert_array_equal(infos["final_info"]["_wealth"], terminated)
            assert (infos["final_info"]["wealth"][terminated] <= 0.995).all()
            assert [entry is not None for entry in infos["final_obs"]] == terminated.tolist()
            for entry in infos["final_obs"][terminated]:
                assert entry in env.single_observation_space
                assert entry[-1] < 0  # the drawdown that ended it
    assert seen > 0


def test_the_same_seed_gives_the_same_episodes() -> None:
    env = TradingVectorEnv(flat_env(16))
    runs = []
    for seed in (1, 1, 2):
        first, _ = env.reset(seed=seed)
        runs.append(np.stack([first] + [env.step(action)[0] for action in actions_of(env, 2 * EPISODE)]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_what_was_returned_does_not_change_later() -> None:
    env = TradingVectorEnv(flat_env(4))
    kept = [env.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for action in actions_of(env, 3):
        kept.append(env.step(action)[0])
        copies.append(kept[-1].copy())
    for array, copy in zip(kept, copies):
        np.testing.assert_array_equal(array, copy)


def test_an_action_beyond_the_space_is_its_nearest_point() -> None:
    env = TradingGymEnv(flat_env(1, kind="shares"))
    results = []
    for factor in (1.0, 50.0):
        env.reset(seed=2)
        results.append(env.step(np.full(ASSETS + 1, factor, np.float32))[0])
    np.testing.assert_array_equal(*results)


def test_gymnasiums_wrapper_counts_returns_and_lengths_of_episodes() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(TradingVectorEnv(flat_env(4)))
    env.reset(seed=0)
    rewards = []
    for action in actions_of(env, 2 * EPISODE):
        _, reward, _, truncated, infos = env.step(action)
        rewards.append(reward)
        if truncated.all():
            np.testing.assert_array_equal(infos["episode"]["l"], EPISODE)
            total = np.sum(rewards[-EPISODE:], axis=0)
            np.testing.assert_allclose(infos["episode"]["r"], total, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(np.exp(total), infos["final_info"]["wealth"], rtol=1e-5)
    assert env.episode_count == 8


def test_elegantrls_own_agent_runs_on_the_flat_environment() -> None:
    from elegantrl.agents.AgentPPO import AgentPPO
    from elegantrl.train.config import Config

    env = flat_env(8)
    arguments = {"env_name": "flat", "num_envs": 8, "state_dim": env.state_dim, "action_dim": env.action_dim}
    config = Config(AgentPPO, None, arguments | {"if_discrete": False})
    torch.manual_seed(0)
    agent = AgentPPO([16], env.state_dim, env.action_dim, gpu_id=-1, args=config)
    agent.last_state = env.reset()
    before = [parameter.clone() for parameter in agent.act.parameters()]
    with torch.no_grad():
        states, actions, _, rewards, undones = rollout = agent.explore_vec_env(env, 32)
    assert states.shape == (32, 8, env.state_dim)
    assert actions.shape == (32, 8, ASSETS + 1)
    assert rewards.std() > 0
    assert (undones == 0).sum() == 32 // EPISODE * 8
    agent.update_net(rollout)
    assert all(parameter.isfinite().all() for parameter in agent.act.parameters())
    assert any((now != then).any() for now, then in zip(agent.act.parameters(), before))


def test_stable_baselines_trains_on_it() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([lambda seed=seed: TradingGymEnv(flat_env(1, seed=seed)) for seed in range(2)])
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=2, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(128)
    assert model.num_timesteps == 128
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert any((now != then).any() for now, then in zip(model.policy.parameters(), before))
    env.seed(0)
    observation, ended = env.reset(), 0
    for _ in range(EPISODE):
        observation, _, done, infos = env.step(model.predict(observation)[0])
        ended += int(done.sum())
    assert ended == 2
    assert all(info["TimeLimit.truncated"] for info in infos)
    assert all((info["terminal_observation"] != observation[i]).any() for i, info in enumerate(infos))


@pytest.mark.filterwarnings("error::UserWarning")
def test_stable_baselines_checker_finds_no_fault() -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(TradingGymEnv(flat_env(1)))
