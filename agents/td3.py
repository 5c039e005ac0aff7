"""ElegantRL's TD3, mended for many environments."""

from __future__ import annotations

import copy

import torch
from elegantrl.agents.AgentTD3 import AgentTD3 as ElegantTD3

from agents.base import StateNet, split
from agents.config import TD3Config
from agents.heads import ActorNet
from agents.networks import NetworkConfig
from agents.off_policy import OffPolicyAgent
from agents.replay import ReplayBuffer
from envs.market import MarketTensors


class TD3Actor(StateNet):
    """A deterministic action; noise is added where it is wanted."""

    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: TD3Config,
    ) -> None:
        super().__init__(market)
        self.net = ActorNet(network, market.assets, market.features.shape[2], state_dim - 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:  # [N, S] -> [N, A+1]
        bar, portfolio = split(state)
        return self.net.raw(self.look_up(bar), portfolio).tanh()

    def get_action(self, state: torch.Tensor) -> torch.Tensor:
        return self(state)


class AgentTD3(OffPolicyAgent, ElegantTD3):
    actor_class = TD3Actor

    def __init__(
        self,
        market: MarketTensors,
        config: TD3Config | None = None,
        network: NetworkConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(market, config or TD3Config(), network, seed)
        self.act_target = copy.deepcopy(self.act)

    def _explore(self, prepared: torch.Tensor, portfolio: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        action = self.act.net.raw(prepared, portfolio).tanh()
        return (action + noise * self.settings.noise).clamp(-1.0, 1.0)

    def update_net(self, buffer: ReplayBuffer) -> dict[str, torch.Tensor]:
        errors, gains = [], []
        for turn in self._updates(buffer):
            states, actions, rewards, undones, next_states = buffer.sample(self.batch_size, self.generator)
            with torch.no_grad():
                next_actions = self.act_target(next_states)
                noise = self._noise(self.generator, *next_actions.shape) * self.settings.target_noise
                next_actions = (next_actions + noise.clamp(-0.5, 0.5)).clamp(-1.0, 1.0)
                labels = rewards + undones * self.gamma * self.cri_target.get_q_min(next_states, next_actions)
            error = self._error(self.cri.get_q_values(states, actions), labels)
            self._descend(error, self.cri_optimizer)
            self.soft_update(self.cri_target, self.cri, self.soft_update_tau)
            errors.append(error.detach())
            if turn % self.settings.policy_delay == 0:
                gain = self.cri.judge(states, self.act(states)).mean()
                self._descend(-gain, self.act_optimizer)
                self.soft_update(self.act_target, self.act, self.soft_update_tau)
                gains.append(gain.detach())
        return {"critic": torch.stack(errors).mean(), "actor": torch.stack(gains).mean()} if errors else {}

    def _networks(self) -> tuple[str, ...]:
        return ("act", "cri", "act_target", "cri_target")
