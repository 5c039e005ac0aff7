"""ElegantRL's SAC, mended for many environments."""

from __future__ import annotations

import math
from typing import Any

import torch
from elegantrl.agents.AgentSAC import AgentSAC as ElegantSAC
from torch import nn

from agents.base import StateNet, split
from agents.config import SACConfig
from agents.heads import ActorNet
from agents.networks import NetworkConfig
from agents.off_policy import OffPolicyAgent
from agents.replay import ReplayBuffer
from envs.market import MarketTensors

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_TEMPERATURE_SPEED = 4.0  # learning rate of the temperature beside the networks', as in ElegantRL


class SACActor(StateNet):
    """A normal distribution squashed by tanh; one spread for the assets, one for cash."""

    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: SACConfig,
    ) -> None:
        super().__init__(market)
        self.net = ActorNet(network, market.assets, market.features.shape[2], state_dim - 1)
        self.action_std_log = nn.Parameter(torch.full((2,), math.log(config.noise)))
        self.assets = market.assets

    def forward(self, state: torch.Tensor) -> torch.Tensor:  # [N, S] -> [N, A+1]
        bar, portfolio = split(state)
        return self.net.raw(self.look_up(bar), portfolio).tanh()

    def std_log(self) -> torch.Tensor:  # [A+1]
        return torch.cat([self.action_std_log[:1].expand(self.assets), self.action_std_log[1:]])

    def squash(self, raw: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """raw and noise [B, A+1] -> action [B, A+1] and its log-probability [B], the tanh accounted for."""
        spread = self.std_log()
        drawn = raw + noise * spread.exp()
        stretch = 2.0 * (math.log(2.0) - drawn - nn.functional.softplus(-2.0 * drawn))  # log(1 - tanh²)
        normal = -0.5 * noise.square() - spread - _HALF_LOG_TWO_PI
        return drawn.tanh(), (normal - stretch).sum(1)

    def get_action(self, state: torch.Tensor) -> torch.Tensor:
        return self.get_action_logprob(state)[0]

    def get_action_logprob(
        self, state: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bar, portfolio = split(state)
        raw = self.net.raw(self.look_up(bar), portfolio)
        return self.squash(raw, torch.randn_like(raw) if noise is None else noise)


class AgentSAC(OffPolicyAgent, ElegantSAC):
    actor_class = SACActor

    def __init__(
        self,
        market: MarketTensors,
        config: SACConfig | None = None,
        network: NetworkConfig | None = None,
        seed: int = 0,
    ) -> None:
        config = config or SACConfig()
        super().__init__(market, config, network, seed)
        self.target_entropy = config.entropy_per_action * self.action_dim
        with torch.no_grad():
            self.alpha_log.fill_(math.log(config.temperature))
        self.alpha_optimizer = torch.optim.Adam(
            (self.alpha_log,), config.learning_rate * _TEMPERATURE_SPEED, fused=True
        )

    def _explore(self, prepared: torch.Tensor, portfolio: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        raw = self.act.net.raw(prepared, portfolio)
        return torch.tanh(raw + noise * self.act.std_log().exp())

    def update_net(self, buffer: ReplayBuffer) -> dict[str, torch.Tensor]:
        errors, gains = [], []
        for _ in self._updates(buffer):
            states, actions, rewards, undones, next_states = buffer.sample(self.batch_size, self.generator)
            noise = self._noise(self.generator, 2, *actions.shape)
            alpha = self.alpha_log.detach().exp()
            with torch.no_grad():
                next_actions, next_logprob = self.act.get_action_logprob(next_states, noise[0])
                worth = self.cri_target.get_q_min(next_states, next_actions) - alpha * next_logprob
                labels = rewards + undones * self.gamma * worth
            error = self._error(self.cri.get_q_values(states, actions), labels)
            self._descend(error, self.cri_optimizer)
            self.soft_update(self.cri_target, self.cri, self.soft_update_tau)
            tried, logprob = self.act.get_action_logprob(states, noise[1])
            gain = (self.cri.judge(states, tried) - alpha * logprob).mean()
            self._descend(-gain, self.act_optimizer)
            surplus = -logprob.detach().mean() - self.target_entropy
            self._descend((self.alpha_log * surplus).sum(), self.alpha_optimizer)
            errors.append(error.detach())
            gains.append(gain.detach())
        return {"critic": torch.stack(errors).mean(), "actor": torch.stack(gains).mean()} if errors else {}

    def _networks(self) -> tuple[str, ...]:
        return ("act", "cri", "cri_target")

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [*super()._optimizers(), self.alpha_optimizer]

    def take_over(self, state: dict[str, Any]) -> None:
        super().take_over(state)
        with torch.no_grad():
            self.alpha_log.copy_(state["alpha_log"])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"alpha_log": self.alpha_log.detach()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            self.alpha_log.copy_(state["alpha_log"])
