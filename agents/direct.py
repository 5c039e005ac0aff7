"""Direct: the environment is differentiable, so a policy climbs the gradient of its own reward through it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from elegantrl.agents.AgentBase import AgentBase

from agents.base import MarketAgent, StateNet, split
from agents.config import DirectConfig
from agents.heads import ActorNet
from agents.networks import NetworkConfig
from envs.market import MarketTensors
from envs.policy import portfolio_of
from envs.trading import Account, TradingEnv
from kit.errors import UserError


class DirectActor(StateNet):
    """A deterministic action: nothing needs to be tried where the gradient is known."""

    def __init__(
        self,
        net_dims: list[int],
        state_dim: int,
        action_dim: int,
        market: MarketTensors,
        network: NetworkConfig,
        config: DirectConfig,
    ) -> None:
        super().__init__(market)
        self.net = ActorNet(network, market.assets, market.features.shape[2], state_dim - 1)

    def forward(self, state: torch.Tensor) -> torch.Tensor:  # [N, S] -> [N, A+1]
        bar, portfolio = split(state)
        return self.net.raw(self.look_up(bar), portfolio).tanh()


class Unroll(NamedTuple):
    """Scaled rewards [H, N] that still know how the actions made them."""

    rewards: torch.Tensor


class AgentDirect(MarketAgent, AgentBase):
    """Analytic policy gradient over truncated unrolls; the portfolio is carried on, its history is cut.

    Same interface as ElegantRL's agents: `explore_vec_env` unrolls, `update_net` climbs.
    """

    actor_class, critic_class = DirectActor, None

    def __init__(
        self,
        market: MarketTensors,
        config: DirectConfig | None = None,
        network: NetworkConfig | None = None,
        seed: int = 0,
    ) -> None:
        if market.lot is not None:
            raise UserError("algorithm.kind = 'direct': whole shares have no gradient; expected ppo, sac or td3")
        super().__init__(market, config or DirectConfig(), network, seed)

    def explore_vec_env(self, env: TradingEnv, horizon_len: int, if_random: bool = False) -> Unroll:
        account = env.account
        bars = torch.arange(env.first, env.stop, device=self.device)  # no others: they would enter the gradient
        prepared = self.act.net.prepare(self.market, bars)
        rewards = []
        for _ in range(horizon_len):
            looked_up = prepared.index_select(0, account.state.bar - env.first)
            action = self.act.net.raw(looked_up, portfolio_of(self.market, account.state)).tanh()
            step = env.advance(account, action, env.draw())
            account = step.account
            rewards.append(step.reward)
        env.account = cut(account)
        self.last_state = env.observe(env.account.state)
        return Unroll(torch.stack(rewards) * self.reward_scale)

    def update_net(self, buffer: Unroll) -> dict[str, torch.Tensor]:
        gain = buffer.rewards.mean()
        self._descend(-gain, self.act_optimizer)
        return {"actor": gain.detach()}

    def _networks(self) -> tuple[str, ...]:
        return ("act",)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.act_optimizer]


def cut(account: Account) -> Account:
    """The same account without its history of gradients."""
    sharpe = account.sharpe and type(account.sharpe)(*(moment.detach() for moment in account.sharpe))
    return Account(type(account.state)(*(part.detach() for part in account.state)), account.age, sharpe)
