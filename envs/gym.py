"""Gymnasium's interface, for learners that speak it: many environments in NumPy, or a single one.

Both wrap a FlatEnv. Nothing is registered anywhere; make the environment and hand it over.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.flat import FlatEnv
from envs.transition import State


def _spaces(env: FlatEnv) -> tuple[Box, Box]:
    """What one environment shows, and the actions it takes."""
    return Box(-np.inf, np.inf, (env.state_dim,), np.float32), Box(-1.0, 1.0, (env.action_dim,), np.float32)


def _array(values: torch.Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _action(env: FlatEnv, action: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(action).to(env.device, env.market.dtype).clamp(-1.0, 1.0)


class TradingVectorEnv(VectorEnv):
    """N environments that start anew in the step that ends them, as the metadata says.

    `infos` holds each wealth over its start; where an episode ended, `final_obs` and `final_info`
    hold what the step led to, and observation and wealth are those of the next episode.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  as the base class

    def __init__(self, env: FlatEnv) -> None:
        self.env, self.num_envs = env, env.num_envs
        self.single_observation_space, self.single_action_space = _spaces(env)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.env.generator.manual_seed(seed)
        return _array(self.env.reset()), self._wealth(self.env.account.state, np.ones(self.num_envs, bool))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, reward, done, info = self.env.step(_action(self.env, actions))
        infos = self._wealth(self.env.account.state, np.ones(self.num_envs, bool))
        ended = done.cpu().numpy()
        if ended.any():
            final: State = info["final"]
            infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
            rows = _array(self.env.observe(State(*(part[done] for part in final))))
            for place, row in zip(np.flatnonzero(ended), rows):
                infos["final_obs"][place] = row
            infos["final_info"] = self._wealth(final, ended)
            infos["_final_obs"], infos["_final_info"] = ended, ended.copy()
        terminated, truncated = info["terminated"].cpu().numpy(), info["truncated"].cpu().numpy()
        return _array(observation), _array(reward), terminated, truncated, infos

    def _wealth(self, state: State, where: np.ndarray) -> dict[str, Any]:  # where [N] bool
        return {"wealth": np.where(where, _array(state.wealth), np.float32(0.0)), "_wealth": where.copy()}


class TradingGymEnv(gymnasium.Env):
    """One environment, which its user resets when an episode has ended."""

    def __init__(self, env: FlatEnv) -> None:
        assert env.num_envs == 1, f"a single environment wraps one, not {env.num_envs}"
        self.env = env
        self.observation_space, self.action_space = _spaces(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.env.generator.manual_seed(seed)
        return _array(self.env.reset())[0], {"wealth": 1.0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, _, info = self.env.step(_action(self.env, np.asarray(action)[None]))
        final: State = info["final"]
        observation = _array(self.env.observe(final))[0]
        ended = bool(info["terminated"]), bool(info["truncated"])
        return observation, float(reward), *ended, {"wealth": float(final.wealth)}
