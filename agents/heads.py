"""What the networks answer: an action, the value of a portfolio, the value of an action."""

from __future__ import annotations

import torch
from torch import nn

from agents.networks import NetworkConfig, PortfolioNet
from envs.allocation import approach, target
from envs.market import MarketTensors

_NEAR_ZERO = 0.01  # scale of an actor's last layer at first: actions near equal weight


def shown(market_assets: int, portfolio: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """portfolio [B, P] -> holdings against equal weight [B, A]; cash, drawdown (and wealth) [B] each."""
    held = portfolio[:, :market_assets] * market_assets - 1.0
    return [held], list(portfolio[:, market_assets:].unbind(1))


class ActorNet(nn.Module):
    """An envs.Actor: the action that a policy takes, in [-1, 1]. Every algorithm trains one of these."""

    def __init__(self, config: NetworkConfig, assets: int, features: int, portfolio: int) -> None:
        super().__init__()
        self.assets = assets
        self.net = PortfolioNet(config, assets, features, 1, portfolio - assets, 1, _NEAR_ZERO)

    def prepare(self, market: MarketTensors, bars: torch.Tensor | None = None) -> torch.Tensor:
        return self.net.prepare(market, bars)

    def raw(self, prepared: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """prepared [G, ...], portfolio [B, P] -> [B, A+1] before tanh, cash last."""
        each, whole = self.net.join(prepared, *shown(self.assets, portfolio))
        return torch.cat([each[:, 0], whole], dim=1)

    def forward(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        return self.raw(self.prepare(market, bar), portfolio).tanh()


class ValueNet(nn.Module):
    """The value of a portfolio at a bar."""

    def __init__(self, config: NetworkConfig, assets: int, features: int, portfolio: int) -> None:
        super().__init__()
        self.assets = assets
        self.net = PortfolioNet(config, assets, features, 1, portfolio - assets, 1)

    def prepare(self, market: MarketTensors, bars: torch.Tensor | None = None) -> torch.Tensor:
        return self.net.prepare(market, bars)

    def value(self, prepared: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:  # [B, ...], [B, P] -> [B]
        each, whole = self.net.join(prepared, *shown(self.assets, portfolio))
        return (each.mean(2) + whole)[:, 0]


class TwinNet(nn.Module):
    """Two values of an action, which they see as what it would make of the portfolio.

    The market answers to orders, not to actions, so a critic that sees the ordered weights need not
    learn what an allocation does. Whole shares have no gradient; there it sees the action itself.
    """

    OWN = 4

    def __init__(self, config: NetworkConfig, assets: int, features: int, portfolio: int) -> None:
        super().__init__()
        self.assets = assets
        self.net = PortfolioNet(config, assets, features, self.OWN, portfolio - assets + 1, 2)

    def prepare(self, market: MarketTensors, bars: torch.Tensor | None = None) -> torch.Tensor:
        return self.net.prepare(market, bars)

    def values(
        self,
        market: MarketTensors,
        prepared: torch.Tensor,  # [G, ...]
        bar: torch.Tensor,  # [B]
        portfolio: torch.Tensor,  # [B, P]
        action: torch.Tensor,  # [B, A+1]
    ) -> torch.Tensor:  # [B, 2]
        weights = portfolio[:, : self.assets + 1]
        if market.lot is None:
            wanted = target(market, bar, weights, portfolio[:, -1], action)
            ordered = approach(weights, wanted, market.trading.allocation)
        else:
            ordered = weights + action / self.assets
        (held,), common = shown(self.assets, portfolio)
        then = ordered[:, :-1] * self.assets - 1.0
        moved = then - held
        return self.net.pooled(prepared, [held, then, then * then, moved * moved], [ordered[:, -1], *common])
