"""The backtest: the same transition as in training, deterministic, many policies at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from envs.allocation import approach
from envs.market import MarketTensors
from envs.policy import Policy, portfolio_of
from envs.transition import cash_only, transition
from kit.metrics import summary


@dataclass(frozen=True)
class Track:
    """What one policy did over T bars; row t is the bar that ends at dates[t]."""

    dates: np.ndarray  # [T] datetime64[ns]
    returns: np.ndarray  # [T] simple, after costs
    weights: np.ndarray  # [T, A+1] at the close of the bar, cash last
    traded: np.ndarray  # [T] value bought and sold, as a share of wealth
    costs: dict[str, np.ndarray]  # kind -> [T], as a share of wealth; interest is a gain
    symbols: tuple[str, ...]
    bars_per_year: float

    def metrics(self) -> dict[str, float]:
        """The usual figures, and what trading took per year."""
        years = len(self.returns) / self.bars_per_year
        paid = sum(float(self.costs[kind].sum()) for kind in ("commission", "spread", "impact", "borrow"))
        figures = summary(self.returns, self.bars_per_year)
        return figures | {"turnover": float(self.traded.sum()) / years, "cost": paid / years}


def backtest(
    policies: Sequence[Policy],
    market: MarketTensors,
    span: slice | None = None,
    dtype: torch.dtype | None = None,
) -> list[Track]:
    """A track for each policy, all starting in cash at the first bar of `span` (default: every bar).

    `span` counts decisions: a decision at its last bar fills one bar later. In the market's own dtype
    unless told otherwise; float64 is for checking.
    """
    if dtype is not None:
        market = market.to(dtype=dtype)
    start, stop, _ = (span or slice(None)).indices(len(market) - 1)
    assert start < stop, f"the span {span} holds no decision of {len(market)} bars"
    count, steps = len(policies), stop - start
    growths = torch.empty(steps, count, device=market.device, dtype=market.dtype)
    weights = torch.empty(steps, count, market.assets + 1, device=market.device, dtype=market.dtype)
    traded = torch.empty_like(growths)
    paid: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        state = cash_only(market, torch.full((count,), start, device=market.device))
        for step in range(steps):
            portfolio = portfolio_of(market, state)
            wanted = [policy(market, state.bar[k : k + 1], portfolio[k : k + 1]) for k, policy in enumerate(policies)]
            orders = approach(state.weights, torch.cat(wanted), market.trading.allocation)
            state, growths[step], costs = transition(market, state, orders)
            weights[step] = state.weights
            traded[step] = costs.traded
            for kind, amount in costs.by_kind().items():
                paid.setdefault(kind, torch.empty_like(growths))[step] = amount
    returns = np.expm1(growths.double().cpu().numpy())
    held, volume = weights.cpu().numpy(), traded.double().cpu().numpy()
    took = {kind: amounts.double().cpu().numpy() for kind, amounts in paid.items()}
    return [
        Track(
            dates=market.dates[start + 1 : stop + 1],
            returns=returns[:, k],
            weights=held[:, k],
            traded=volume[:, k],
            costs={kind: amounts[:, k] for kind, amounts in took.items()},
            symbols=market.symbols,
            bars_per_year=market.bars_per_year,
        )
        for k in range(count)
    ]
