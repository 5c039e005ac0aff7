"""Anakin: environment and learner on one device, in one process."""

from __future__ import annotations

from typing import Any

from agents.build import Agent
from envs.rewards import SharpeMemory
from envs.trading import Account, TradingEnv
from envs.transition import State


class Anakin:
    """Where the rollouts come from."""

    def __init__(self, agent: Agent, env: TradingEnv, horizon: int) -> None:
        self.agent, self.env, self.horizon = agent, env, horizon
        self.samples_per_rollout = env.num_envs * horizon
        agent.last_state = env.reset()

    def collect(self) -> Any:
        return self.agent.explore_vec_env(self.env, self.horizon)

    def state_dict(self) -> dict[str, Any]:
        return env_state(self.env)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        restore_env(self.env, state)

    def close(self) -> None:
        """Nothing to give back."""


def env_state(env: TradingEnv) -> dict[str, Any]:
    """Everything that an environment's next step depends on."""
    account = env.account
    return {
        "state": account.state._asdict(),
        "age": account.age,
        "sharpe": account.sharpe and account.sharpe._asdict(),
        "generator": env.generator.get_state(),
    }


def restore_env(env: TradingEnv, state: dict[str, Any]) -> None:
    sharpe = state["sharpe"] and SharpeMemory(**state["sharpe"])
    env.account = Account(State(**state["state"]), state["age"], sharpe)
    env.generator.set_state(state["generator"].cpu())
