"""The one call that decides, in training, backtest and serving alike."""

from __future__ import annotations

from typing import Protocol

import torch

from envs.allocation import target
from envs.market import MarketTensors
from envs.transition import State, drawdown


class Policy(Protocol):
    """Where a portfolio should go. A policy sees the market up to `bar` and its own portfolio, nothing else."""

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """bar [B], portfolio [B, P] -> target weights [B, A+1], cash last, before rate and band."""
        ...


class Actor(Protocol):
    """What learning makes: an action in [-1, 1]."""

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        """bar [B], portfolio [B, P] -> action [B, A+1], cash last."""
        ...


def portfolio_of(market: MarketTensors, state: State) -> torch.Tensor:
    """[N, A+2] what a policy may see: weights with cash, and drawdown; with whole shares wealth too."""
    return torch.cat(portfolio_columns(market, state), dim=1)


def portfolio_columns(market: MarketTensors, state: State) -> list[torch.Tensor]:
    columns = [state.weights, drawdown(state).unsqueeze(1)]
    if market.lot is not None:  # a share is a smaller part of a larger portfolio
        columns.append(state.wealth.unsqueeze(1))
    return columns


def portfolio_width(market: MarketTensors) -> int:
    return market.assets + (2 if market.lot is None else 3)


class Allocated:
    """A policy made of an actor: its action through the market's allocation."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        weights = portfolio[:, : market.assets + 1]
        return target(market, bar, weights, portfolio[:, -1], self.actor(market, bar, portfolio))


def equal_weight(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    """The zero action: what every result is compared with."""
    weights = portfolio[:, : market.assets + 1]
    return target(market, bar, weights, portfolio[:, -1], torch.zeros_like(weights))
