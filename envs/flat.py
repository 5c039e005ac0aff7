"""The observation for a network that knows nothing of look-ups: everything in one flat vector."""

from __future__ import annotations

from typing import Any

import torch

from envs.market import MarketTensors
from envs.policy import portfolio_width
from envs.trading import TradingEnv
from envs.transition import State


class FlatView:
    """Turns the compact observation [bar, portfolio] into [features, tradable now, portfolio].

    The market's part lies in one table on the device, a row per bar with room for the portfolio at
    its end, so that an observation is one gather and one small write.
    """

    def __init__(self, market: MarketTensors) -> None:
        features = market.features.flatten(1)
        open_now = torch.ones_like(market.table[0]) if market.open_now is None else market.open_now
        self.portfolio = portfolio_width(market)
        room = features.new_zeros(len(market), self.portfolio)
        self.table = torch.cat([features, open_now[:, :-1], room], dim=1)  # [T, D]
        self.width = self.table.shape[1]

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:  # [N, 1 + P] -> [N, D]
        flat = self.table.index_select(0, observation[:, 0].long())
        flat[:, -self.portfolio :] = observation[:, 1:]
        return flat


class FlatEnv(TradingEnv):
    """A trading environment with flat observations, for ElegantRL's own agents and other plain networks."""

    def __init__(self, market: MarketTensors, *args: Any, **options: Any) -> None:
        super().__init__(market, *args, **options)
        self.view = FlatView(market)
        self.state_dim = self.view.width

    def observe(self, state: State) -> torch.Tensor:
        """[N, D] features of every asset at the bar, which can be traded, weights with cash, drawdown."""
        return self.view(super().observe(state))
