"""What SAC and TD3 share: twin critics, a rollout that remembers where steps led, updates per sample."""

from __future__ import annotations

import copy
from typing import Any

import torch

from agents.base import MarketAgent, StateNet, split
from agents.config import SACConfig, TD3Config
from agents.heads import TwinNet
from agents.networks import NetworkConfig
from agents.replay import ReplayBuffer, Transitions
from envs.market import MarketTensors


class TwinCritic(StateNet):
    """Two values of an action; the lower one is believed."""

    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: SACConfig | TD3Config,
    ) -> None:
        super().__init__(market)
        self.net = TwinNet(network, market.assets, market.features.shape[2], state_dim - 1)

    def get_q_values(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:  # [B, 2]
        bar, portfolio = split(state)
        return self.net.values(self.market, self.look_up(bar), bar, portfolio, action)

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:  # [B]
        return self.get_q_values(state, action).mean(1)

    def get_q_min(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:  # [B]
        return self.get_q_values(state, action).min(1).values

    def judge(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """The lower value [B], with a gradient for the action alone."""
        bar, portfolio = split(state)
        with torch.no_grad():
            prepared = self.look_up(bar)
        return self.net.values(self.market, prepared, bar, portfolio, action).min(1).values


class OffPolicyAgent(MarketAgent):
    """Mixed in before ElegantRL's SAC or TD3."""

    critic_class = TwinCritic
    criterion: Any  # ElegantRL's

    def __init__(self, market: MarketTensors, config: Any, network: NetworkConfig | None, seed: int) -> None:
        super().__init__(market, config, network, seed)
        self.act.together = self.cri.together = config.together
        self.cri_target = copy.deepcopy(self.cri)
        self.buffer = ReplayBuffer(
            config.buffer, self.state_dim, self.action_dim, self.device, market.dtype, config.together
        )
        self._owed = 0.0  # updates that past samples still ask for

    def _explore(self, prepared: torch.Tensor, portfolio: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The action that is tried, in [-1, 1]."""
        raise NotImplementedError

    @torch.no_grad()
    def explore_vec_env(self, env: Any, horizon_len: int, if_random: bool = False) -> Transitions:
        states = self.last_state.new_empty(horizon_len, *self.last_state.shape)
        next_states = torch.empty_like(states)
        noise = self._noise(self.explorer, horizon_len, env.num_envs, self.action_dim)
        rewards = states.new_empty(horizon_len, env.num_envs)
        terminated = torch.empty_like(rewards, dtype=torch.bool)
        prepared, state = self.act.net.prepare(self.market), self.last_state
        for t in range(horizon_len):
            bar, portfolio = split(state)
            action = noise[t].tanh() if if_random else self._explore(prepared.index_select(0, bar), portfolio, noise[t])
            states[t], noise[t] = state, action
            state, rewards[t], _, info = env.step(action)
            terminated[t], next_states[t] = info["terminated"], env.observe(info["final"])
        self.last_state = state
        rewards *= self.reward_scale
        return Transitions(states, noise, rewards, 1.0 - terminated.to(rewards.dtype), next_states)

    def learn(self, rollout: Transitions) -> dict[str, torch.Tensor]:
        self.buffer.update(rollout)
        return self.update_net(self.buffer)

    def _updates(self, buffer: ReplayBuffer) -> range:
        """As many as make each transition be drawn `reuse` times on average, however many environments there are."""
        self._owed += buffer.add_size * self.settings.reuse / self.batch_size
        times = int(self._owed)
        self._owed -= times
        return range(times)

    def _error(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # [B, 2], [B] -> []
        """Of both critics; that in telling apart those who stood together at a bar weighs `contrast` times.

        What the bar brought to all of them is mostly luck, and large. How they differ is what their
        actions did, and that is what the actor climbs.
        """
        errors = (values - labels.unsqueeze(1)).unflatten(0, (-1, self.settings.together))  # [B/K, K, 2]
        common = errors.mean(1, keepdim=True)
        none = torch.zeros_like(errors)
        apart = self.criterion(errors - common, none)
        return 2.0 * (self.criterion(common, none[:, :1]) + self.settings.contrast * apart)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"buffer": self.buffer.state_dict(), "owed": self._owed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.buffer.load_state_dict(state["buffer"])
        self._owed = state["owed"]
