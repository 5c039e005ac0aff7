"""Our vector environment as Stable-Baselines3 wants one; it has an interface of its own. Extra `bench`."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from envs.gym import TradingVectorEnv


class StableVecEnv(VecEnv):
    def __init__(self, env: TradingVectorEnv, reward_scale: float) -> None:
        self.env, self.reward_scale = env, reward_scale
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:  # [N, D]
        return self.env.reset()[0]

    def step_async(self, actions: np.ndarray) -> None:  # [N, A]
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, terminated, truncated, found = self.env.step(self.actions)
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for place in np.flatnonzero(done):
            last = found["final_obs"][place]
            infos[place] = {"terminal_observation": last, "TimeLimit.truncated": bool(not terminated[place])}
        return observation, reward * self.reward_scale, done, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **options: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
