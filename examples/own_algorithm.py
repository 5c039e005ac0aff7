"""An algorithm of one's own: evolution strategies.

    python examples/own_algorithm.py

It needs no gradient of anything: it tries changed weights side by side, and moves towards those that
earned more. Policies that are compared stand at the same bars, and each change is tried both ways, so
that what the market did falls out. docs/extending.md says how a configuration comes to name it, and a
pod to train it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from elegantrl.agents.AgentBase import AgentBase
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from agents.base import MarketAgent, split
from agents.direct import DirectActor
from agents.networks import NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated, equal_weight
from envs.trading import TradingEnv
from kit.config import setting
from market.features import FeatureSpec, Scaler
from market.synth import SynthSource, generate


@dataclass(frozen=True)
class EvolutionConfig:
    """Tries changed weights, and moves towards those that earned more."""

    kind: Literal["evolution"] = "evolution"
    samples: int = setting(524_288, low=1, help="environment steps to train for")
    num_envs: int = setting(1024, low=2, help="portfolios side by side")
    together: int = setting(64, low=2, help="policies tried at a time, of which so many start at the same bar")
    horizon: int = setting(16, low=1, help="steps that each is judged by")
    change: float = setting(0.05, above=0, help="standard deviation of what is added to every weight")
    learning_rate: float = setting(1e-2, above=0, help="at first; it falls to 0 over the training")
    reward_scale: float = setting(1.0, above=0, help="changes nothing here: tries are only compared")
    weight_decay: float = setting(0.0, low=0, help="of the network's weights")
    clip_grad_norm: float = setting(1.0, above=0, help="the largest norm of a step's direction")

    def __post_init__(self) -> None:
        if self.together % 2 or self.num_envs % self.together:
            raise ValueError(f"together must be even and divide num_envs, {self.num_envs}, not {self.together}")


class Tries(NamedTuple):
    """What each policy earned, and how it differed."""

    rewards: torch.Tensor  # [H, N]
    changes: torch.Tensor  # [P / 2, D] each tried as it is, and the other way round


class AgentEvolution(MarketAgent, AgentBase):
    """The interface of ElegantRL's agents: `explore_vec_env` tries, `update_net` learns."""

    actor_class, critic_class = DirectActor, None

    def __init__(
        self,
        market: MarketTensors,
        config: EvolutionConfig | None = None,
        network: NetworkConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(market, config or EvolutionConfig(), network, seed)

    @torch.no_grad()
    def explore_vec_env(self, env: TradingEnv, horizon_len: int, if_random: bool = False) -> Tries:
        tried = self.settings.together
        changes = self._noise(self.explorer, tried // 2, len(parameters_to_vector(self.policy.parameters())))
        weights = self._changed(self.settings.change * torch.cat([changes, -changes]))
        act = torch.vmap(lambda *given: functional_call(self.policy, given[0], (self.market, *given[1:])))
        rewards = self.last_state.new_empty(horizon_len, env.num_envs)
        for t in range(horizon_len):
            bar, portfolio = split(self.last_state.unflatten(0, (-1, tried)).transpose(0, 1).flatten(0, 1))
            action = act(weights, bar.view(tried, -1), portfolio.unflatten(0, (tried, -1)))  # [P, N / P, A+1]
            self.last_state, rewards[t], _, _ = env.step(action.transpose(0, 1).flatten(0, 1))
        return Tries(rewards * self.reward_scale, changes)

    def update_net(self, buffer: Tries) -> dict[str, torch.Tensor]:
        earned = buffer.rewards.mean(0).view(-1, self.settings.together).mean(0)  # [P]
        there, back = earned.chunk(2)
        better = (there - back) / (there - back).std().clamp_min(1e-12)
        uphill = better @ buffer.changes / len(better)  # [D]
        self._descend(-(uphill @ parameters_to_vector(self.policy.parameters())), self.act_optimizer)
        return {"actor": earned.mean(), "spread": (there - back).std()}

    def _changed(self, changes: torch.Tensor) -> dict[str, torch.Tensor]:  # [P, D]
        """The policy's parameters by name, a row for each change."""
        named = dict(self.policy.named_parameters())
        parts = changes.split([value.numel() for value in named.values()], dim=1)
        return {name: value + part.unflatten(1, value.shape) for (name, value), part in zip(named.items(), parts)}

    def _networks(self) -> tuple[str, ...]:
        return ("act",)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.act_optimizer]


def main() -> None:
    """What a pod does, in short."""
    panel = generate(SynthSource(symbols=6, bars=900, ic=0.3))
    features = FeatureSpec.from_config([{"log_return": {"horizons": [1, 5]}}, "observed"]).compute(panel)
    train, later = slice(features.warmup, 600), slice(602, None)
    market = MarketTensors.build(panel, features=Scaler.fit(features, train).apply(features))
    config = EvolutionConfig()
    agent = AgentEvolution(market, config)
    env = TradingEnv(market, num_envs=config.num_envs, span=train, together=config.together)
    agent.last_state = env.reset()
    for done in range(0, config.samples, config.num_envs * config.horizon):
        agent.anneal(done / config.samples)
        agent.learn(agent.explore_vec_env(env, config.horizon))
    ours, standard = backtest([Allocated(agent.policy), equal_weight], market, later)
    sharpe, benchmark = (track.metrics()["sharpe"] for track in (ours, standard))
    print(f"Sharpe ratio {sharpe:.2f}, equal weight {benchmark:.2f}, on {len(ours.returns)} days it has not seen")


if __name__ == "__main__":
    main()
