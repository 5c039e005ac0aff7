"""What equal weight earns, bar by bar: what an excess reward is measured against.

Folds begin with the same bars, so the walk through one market goes on from where that through a shorter one ended.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch

from envs.allocation import approach
from envs.market import MarketTensors
from envs.policy import equal_weight, portfolio_of
from envs.transition import State, cash_only, transition


class Walk(NamedTuple):
    """From cash at the first bar to the last one."""

    market: MarketTensors
    growth: torch.Tensor  # [T - 1] log
    state: State


_KNOWN: WeakKeyDictionary[MarketTensors, torch.Tensor] = WeakKeyDictionary()  # seconds to make, never changed
_last: Walk | None = None


def equal_weight_growth(market: MarketTensors) -> torch.Tensor:
    """[T] log growth of the zero action through the whole market, costs included; 0 at the last bar."""
    global _last
    if market not in _KNOWN:
        _last = _walk(market, _last if _last and begins_as(market, _last.market) else None)
        _KNOWN[market] = torch.cat([_last.growth, _last.growth.new_zeros(1)])
    return _KNOWN[market]


def begins_as(market: MarketTensors, earlier: MarketTensors) -> bool:
    """Whether portfolios fare alike in both, up to the last decision of the earlier one."""
    decisions = len(earlier) - 1
    names = ("trading", "interest", "bars_per_year", "device", "dtype")
    if decisions >= len(market) or any(getattr(market, name) != getattr(earlier, name) for name in names):
        return False

    def same(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> bool:  # both [..., T, A+1]
        if ours is None or theirs is None:
            return ours is theirs
        return torch.equal(ours[..., :decisions, :], theirs[..., :decisions, :])

    return all(same(getattr(market, name), getattr(earlier, name)) for name in ("table", "open_now", "extra", "lot"))


@torch.no_grad()
def _walk(market: MarketTensors, before: Walk | None) -> Walk:
    first = len(before.growth) if before else 0
    growth = market.ones.new_empty(len(market) - 1)
    state = cash_only(market, torch.zeros(1, dtype=torch.int64, device=market.device))
    if before:
        growth[:first], state = before.growth, before.state
    for bar in range(first, len(market) - 1):
        wanted = equal_weight(market, state.bar, portfolio_of(market, state))
        orders = approach(state.weights, wanted, market.trading.allocation)
        state, growth[bar : bar + 1], _ = transition(market, state, orders)
    return Walk(market, growth, state)
