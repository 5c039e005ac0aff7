"""Tasks with a known answer, in the shape of our environment: where an algorithm should end is known before it starts.

Nothing is traded. The market's allocation is the identity, so that a portfolio's weights are the last
action; a bar's first feature is what the action should be there, its second what it should have been
one bar earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from markets import tensors
from panels import random_panel

from envs.market import MarketTensors
from envs.policy import Actor, portfolio_of
from envs.trading import Account
from envs.transition import State

BARS, ASSETS = 128, 2


class TaskStep(NamedTuple):
    account: Account
    reward: torch.Tensor  # [N]
    truncated: torch.Tensor  # [N]
    final: State


def task_market(seed: int = 0, dtype: torch.dtype = torch.float32) -> MarketTensors:
    """What is to be tracked lies in [-0.8, 0.8], independent from bar to bar and asset to asset."""
    wanted = np.random.default_rng(seed).uniform(-0.8, 0.8, (BARS, ASSETS)).astype(np.float32)
    features = np.stack([wanted, np.roll(wanted, 1, axis=0)], axis=2)
    identity: dict[str, Any] = {"name_cap": 1.0, "gross_cap": float(ASSETS), "rate": 1.0}
    return tensors(
        random_panel(seed, BARS, ASSETS, gaps=False), "long_short", features=features, dtype=dtype, **identity
    )


class Task:
    """N environments, each at a bar of its own; a time limit ends their episodes, and nothing else does.

    An episode begins as though the last action had been the right one.
    """

    def __init__(self, pay: Pay, market: MarketTensors, num_envs: int = 64, episode: int = 16, seed: int = 0) -> None:
        self.pay, self.market, self.num_envs, self.episode = pay, market, num_envs, episode
        self.state_dim, self.action_dim = 1 + ASSETS + 2, ASSETS + 1
        self.first, self.stop = 0, BARS
        self.wanted = market.features[:, :, 0]  # [T, A]
        self.generator = torch.Generator().manual_seed(seed)
        self.account = self._begin()

    def reset(self) -> torch.Tensor:
        self.account = self._begin()
        return self.observe(self.account.state)

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        made = self.advance(self.account, action, self.draw())
        self.account = made.account
        info = {"terminated": torch.zeros_like(made.truncated), "truncated": made.truncated, "final": made.final}
        return self.observe(made.account.state), made.reward, made.truncated, info

    def observe(self, state: State) -> torch.Tensor:  # [N, S]
        return torch.cat([state.bar.to(self.market.dtype).unsqueeze(1), portfolio_of(self.market, state)], dim=1)

    def draw(self) -> torch.Tensor:  # [N]
        return torch.randint(1, BARS - self.episode, (self.num_envs,), generator=self.generator)

    def advance(self, account: Account, action: torch.Tensor, starts: torch.Tensor) -> TaskStep:
        before, done = account.state, account.age + 1 >= self.episode
        final = before._replace(bar=before.bar + 1, weights=holding(action[:, :-1]))
        after = before._replace(
            bar=torch.where(done, starts, final.bar),
            weights=torch.where(done.unsqueeze(1), holding(self.wanted[starts - 1]), final.weights),
        )
        age = (account.age + 1).masked_fill(done, 0)
        return TaskStep(Account(after, age, None), self.pay(self, before, action[:, :-1]), done, final)

    def _begin(self) -> Account:
        bar = self.draw()
        one = self.wanted.new_ones(self.num_envs)
        return Account(State(bar, holding(self.wanted[bar - 1]), one, one), torch.zeros_like(bar), None)


Pay = Callable[[Task, State, torch.Tensor], torch.Tensor]  # state, actions on the assets [N, A] -> reward [N]


def tracking(task: Task, before: State, action: torch.Tensor) -> torch.Tensor:
    """Be where the bar says; the best reward is 0."""
    return -(action - task.wanted[before.bar]).square().mean(1)


def delayed(task: Task, before: State, action: torch.Tensor) -> torch.Tensor:
    """The same, paid one step later, so that no reward is for the action before it; the best is 0."""
    return -(before.weights[:, :-1] - task.wanted[before.bar - 1]).square().mean(1)


def constant(task: Task, before: State, action: torch.Tensor) -> torch.Tensor:
    """1 whatever is done: every state is worth 1 / (1 - gamma)."""
    return torch.ones_like(before.wealth)


def holding(assets: torch.Tensor) -> torch.Tensor:  # [N, A] -> [N, A+1]
    return torch.cat([assets, 1.0 - assets.sum(1, keepdim=True)], dim=1)


def practise(agent: Any, task: Task) -> None:
    """The loop that a pod runs, for as many samples as the agent's settings say."""
    settings = agent.settings
    agent.last_state = task.reset()
    updates = settings.samples // (task.num_envs * settings.horizon)
    for update in range(updates):
        agent.anneal(update / updates)
        agent.learn(agent.explore_vec_env(task, settings.horizon))


@torch.no_grad()
def mastery(actor: Actor, task: Task) -> float:
    """The mean reward of an episode of the policy without noise, in every environment."""
    task.reset()
    rewards = []
    for _ in range(task.episode):
        state = task.account.state
        rewards.append(task.step(actor(task.market, state.bar, portfolio_of(task.market, state)))[1])
    return float(torch.stack(rewards).mean())
