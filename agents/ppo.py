"""ElegantRL's PPO, mended for many environments, on minibatches of whole bars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from elegantrl.agents.AgentPPO import AgentPPO as ElegantPPO
from torch import nn

from agents.base import MarketAgent, StateNet, split
from agents.config import PPOConfig
from agents.heads import ActorNet, ValueNet
from agents.networks import NetworkConfig
from envs.market import MarketTensors

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class PPOActor(StateNet):
    """A normal distribution over actions before tanh; one spread for the assets, one for cash."""

    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: PPOConfig,
    ) -> None:
        super().__init__(market)
        self.net = ActorNet(network, market.assets, market.features.shape[2], state_dim - 1)
        self.action_std_log = nn.Parameter(torch.full((2,), math.log(config.noise)))
        self.assets = market.assets

    def forward(self, state: torch.Tensor) -> torch.Tensor:  # [N, S] -> [N, A+1] in [-1, 1]
        bar, portfolio = split(state)
        return self.net.raw(self.look_up(bar), portfolio).tanh()

    def std_log(self) -> torch.Tensor:  # [A+1]
        return torch.cat([self.action_std_log[:1].expand(self.assets), self.action_std_log[1:]])

    def logprob(self, mean: torch.Tensor, action: torch.Tensor) -> torch.Tensor:  # [B, A+1] each -> [B]
        spread = self.std_log()
        return -(((action - mean) * (-spread).exp()).square().sum(-1) * 0.5 + spread.sum() + self._constant())

    def entropy(self) -> torch.Tensor:
        return self.std_log().sum() + self._constant() + 0.5 * (self.assets + 1)

    def _constant(self) -> float:
        return (self.assets + 1) * _HALF_LOG_TWO_PI

    def get_action(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """An action before tanh, and its log-probability; the agent draws its own, from its own generator."""
        bar, portfolio = split(state)
        mean = self.net.raw(self.look_up(bar), portfolio)
        action = mean + torch.randn_like(mean) * self.std_log().exp()
        return action, self.logprob(mean, action)

    def get_logprob_entropy(self, state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bar, portfolio = split(state)
        mean = self.net.raw(self.look_up(bar), portfolio)
        return self.logprob(mean, action), self.entropy().expand(len(mean))

    @staticmethod
    def convert_action_for_env(action: torch.Tensor) -> torch.Tensor:
        return action.tanh()


class PPOCritic(StateNet):
    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: PPOConfig,
    ) -> None:
        super().__init__(market)
        self.net = ValueNet(network, market.assets, market.features.shape[2], state_dim - 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:  # [N, S] -> [N]
        bar, portfolio = split(state)
        return self.net.value(self.look_up(bar), portfolio)


class Rollout(NamedTuple):
    """What ElegantRL's PPO returns; rewards are scaled, and hold what truncated episodes were still worth."""

    states: torch.Tensor  # [H, N, S]
    actions: torch.Tensor  # [H, N, A+1] before tanh
    logprobs: torch.Tensor  # [H, N]
    rewards: torch.Tensor  # [H, N]
    undones: torch.Tensor  # [H, N]


class Minibatch(NamedTuple):
    rows: torch.Tensor  # [B] which samples
    bars: torch.Tensor  # [U] the bars they stand at, each once
    place: torch.Tensor  # [B] each sample's bar among them


class AgentPPO(MarketAgent, ElegantPPO):
    """True epochs over horizon x environments, advantages normalised over all, truncation bootstrapped."""

    actor_class, critic_class = PPOActor, PPOCritic

    def __init__(
        self,
        market: MarketTensors,
        config: PPOConfig | None = None,
        network: NetworkConfig | None = None,
        seed: int = 0,
    ) -> None:
        config = config or PPOConfig()
        super().__init__(market, config, network, seed)
        self.ratio_clip, self.lambda_gae_adv, self.lambda_entropy = config.ratio_clip, config.gae_lambda, config.entropy

    @torch.no_grad()
    def explore_vec_env(self, env: Any, horizon_len: int, if_random: bool = False) -> Rollout:
        states = self.last_state.new_empty(horizon_len, *self.last_state.shape)
        actions = self._noise(self.explorer, horizon_len, env.num_envs, self.action_dim)
        spread = self.act.std_log()
        logprobs = actions.square().sum(2).mul_(-0.5) - (spread.sum() + self.act._constant())
        actions *= spread.exp()
        rewards = states.new_empty(horizon_len, env.num_envs)
        dones = torch.empty_like(rewards, dtype=torch.bool)
        truncated, finals = torch.empty_like(dones), []
        prepared, state = self.act.net.prepare(self.market), self.last_state
        for t in range(horizon_len):
            bar, portfolio = split(state)
            actions[t] += self.act.net.raw(prepared.index_select(0, bar), portfolio)
            states[t] = state
            state, rewards[t], dones[t], info = env.step(self.act.convert_action_for_env(actions[t]))
            truncated[t] = info["truncated"]
            finals.append(info["final"])
        self.last_state = state
        rewards *= self.reward_scale
        self._bootstrap(env, rewards, truncated, finals)
        return Rollout(states, actions, logprobs, rewards, 1.0 - dones.to(rewards.dtype))

    def _bootstrap(self, env: Any, rewards: torch.Tensor, truncated: torch.Tensor, finals: list[Any]) -> None:
        """A time limit ends the episode, not the world: add what the final states were still worth."""
        when, who = truncated.nonzero(as_tuple=True)
        for t in when.unique().tolist():
            rows = who[when == t]
            final = env.observe(type(finals[t])(*(part[rows] for part in finals[t])))
            rewards[t, rows] += self.gamma * self.cri(final)

    def update_net(self, buffer: Rollout) -> dict[str, torch.Tensor]:
        states, actions, logprobs, rewards, undones = buffer
        bars, portfolios = split(states.flatten(0, 1))
        with torch.no_grad():
            prepared = self.cri.net.prepare(self.market)
            values = self.cri.net.value(prepared.index_select(0, bars), portfolios).view_as(rewards)
            advantages = self.get_advantages(rewards, undones, values)
            returns = (advantages + values).flatten()
            advantages = ((advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-6)).flatten()
        actions, logprobs = actions.flatten(0, 1), logprobs.flatten()
        errors, gains = [], []
        for _ in range(self.settings.epochs):
            for rows, these, place in whole_bars(bars, self.batch_size, self.generator):
                portfolio = portfolios.index_select(0, rows)
                value = self.cri.net.value(self.cri.net.prepare(self.market, these).index_select(0, place), portfolio)
                error = self.criterion(value, returns.index_select(0, rows))
                mean = self.act.net.raw(self.act.net.prepare(self.market, these).index_select(0, place), portfolio)
                change = self.act.logprob(mean, actions.index_select(0, rows)) - logprobs.index_select(0, rows)
                ratio, advantage = change.exp(), advantages.index_select(0, rows)
                clipped = ratio.clamp(1 - self.ratio_clip, 1 + self.ratio_clip)
                gain = torch.minimum(advantage * ratio, advantage * clipped).mean()
                loss = error - gain - self.lambda_entropy * self.act.entropy()
                self._descend(loss, self.act_optimizer, self.cri_optimizer)
                errors.append(error.detach())
                gains.append(gain.detach())
        return {"critic": torch.stack(errors).mean(), "actor": torch.stack(gains).mean()}


def whole_bars(bars: torch.Tensor, size: int, generator: torch.Generator) -> Iterator[Minibatch]:
    """bars [M] -> minibatches of `size` samples in which nearly every bar is whole, in a random order of bars."""
    distinct, inverse = bars.unique(return_inverse=True)
    shuffled = torch.randperm(len(distinct), generator=generator, device=bars.device)
    rank, order = (
        torch.empty_like(shuffled)
        .scatter_(0, shuffled, torch.arange(len(distinct), device=bars.device))[inverse]
        .sort()
    )
    starts = list(range(0, len(bars), size))
    if len(starts) > 1 and len(bars) - starts[-1] < size // 2:
        starts.pop()  # the rest joins the last one
    edges = list(pairwise([*starts, len(bars)]))
    bounds = rank[torch.tensor([[a, b - 1] for a, b in edges], device=bars.device)].tolist()
    for (a, b), (low, high) in zip(edges, bounds):
        yield Minibatch(order[a:b], distinct[shuffled[low : high + 1]], rank[a:b] - low)
