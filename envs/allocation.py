"""Actions in [-1, 1] to target weights: pure functions, differentiable but for `shares`.

An action has A + 1 entries, cash last. `target` says what the portfolio should become; `approach`
says how far of that is ordered this bar: the rate, then the no-trade band, both on the weights at
close t. Assets that do not trade at t keep their holding, and the others share what is left.
"""

from __future__ import annotations

import torch

from envs.config import AllocationConfig
from envs.market import MarketTensors, total

_LOG2_E = 1.4426950408889634


def target(
    market: MarketTensors, bar: torch.Tensor, weights: torch.Tensor, wealth: torch.Tensor, action: torch.Tensor
) -> torch.Tensor:
    """[N, A+1] weights that the action asks for; bar [N], weights [N, A+1], wealth [N], action [N, A+1]."""
    config = market.trading.allocation
    open_now = None if market.open_now is None else market.open_now.index_select(0, bar)
    if config.kind == "softmax":
        return softmax(action, weights, open_now, market.ones, config.kappa)
    if config.kind == "tilt":
        return tilt(action, weights, open_now, market.ones, config.strength)
    if config.kind == "long_short":
        return long_short(action, weights, open_now, config.gross_cap, config.name_cap)
    assert market.lot is not None
    share = market.lot.index_select(0, bar) / wealth.unsqueeze(1)
    return shares(action, weights, share, open_now, config.max_stock)


def approach(weights: torch.Tensor, wanted: torch.Tensor, config: AllocationConfig) -> torch.Tensor:
    """[N, A+1] what is ordered this bar: part of the way there, and no change smaller than the band."""
    if config.kind == "shares":
        return wanted
    if config.band == 0.0:
        return torch.lerp(weights, wanted, config.rate)
    change = (wanted - weights) * config.rate
    return weights + torch.where(change.abs() < config.band, torch.zeros_like(change), change)


def softmax(
    action: torch.Tensor, weights: torch.Tensor, open_now: torch.Tensor | None, ones: torch.Tensor, kappa: float
) -> torch.Tensor:  # all [N, A+1]
    """softmax(kappa · action) over the assets times what is not cash; zero action is equal weight."""
    # Eager, powers of 2 are three times as fast; compiled, those of e are kept, but those of 2 worked out twice.
    compiling = torch.compiler.is_compiling()
    powers = action * (kappa if compiling else kappa * _LOG2_E)
    if open_now is None:
        powers[:, -1] = -torch.inf  # cash has no odds
    odds = powers.exp() if compiling else powers.exp2_()  # actions are bounded, so this cannot overflow
    return _spread(odds, weights, open_now, action[:, -1].relu(), ones)


def tilt(
    action: torch.Tensor, weights: torch.Tensor, open_now: torch.Tensor | None, ones: torch.Tensor, strength: float
) -> torch.Tensor:  # all [N, A+1]
    """Equal weight plus a tilt, projected on the simplex, times what is not cash."""
    assets = action[:, :-1]
    available = torch.ones_like(assets) if open_now is None else open_now[:, :-1]
    odds = project(strength * assets, available)  # adding equal weight to every point would change nothing
    odds = torch.cat([odds, torch.zeros_like(odds[:, :1])], dim=1)
    return _spread(odds, weights, open_now, action[:, -1].relu(), ones)


def long_short(
    action: torch.Tensor, weights: torch.Tensor, open_now: torch.Tensor | None, gross_cap: float, name_cap: float
) -> torch.Tensor:  # all [N, A+1]
    """Signed weights within a cap per name and a cap on their gross sum; cash is what they leave."""
    wanted = action[:, :-1].clamp(-1.0, 1.0) * name_cap
    stuck = torch.zeros_like(wanted)
    if open_now is not None:
        stuck = weights[:, :-1] * (1.0 - open_now[:, :-1])
        wanted = wanted * open_now[:, :-1]
    room = (gross_cap - stuck.abs().sum(1, keepdim=True)).clamp_min(0.0)
    gross = wanted.abs().sum(1, keepdim=True)
    assets = stuck + wanted * (room / gross.clamp_min(1e-12)).clamp_max(1.0)
    return torch.cat([assets, 1.0 - assets.sum(1, keepdim=True)], dim=1)


def shares(
    action: torch.Tensor, weights: torch.Tensor, share: torch.Tensor, open_now: torch.Tensor | None, max_stock: int
) -> torch.Tensor:  # all [N, A+1]; share: one share's weight
    """ElegantRL's StockTradingEnv: |action| times `max_stock` whole shares, none below a tenth, no shorts."""
    wanted = torch.where(action.abs() < 0.1, torch.zeros_like(action), action * max_stock).trunc()
    if open_now is not None:
        wanted = wanted * open_now
    held = (weights / share + 1e-2).floor()  # whole shares that rounding may have moved
    orders = torch.maximum(wanted, -held) * share
    orders[:, -1] = 0.0
    orders[:, -1] = -orders.sum(1)
    return weights + orders


def project(points: torch.Tensor, available: torch.Tensor) -> torch.Tensor:  # [N, A], [N, A]
    """The nearest point of the simplex over the available assets (Held, Wolfe and Crowder's sort)."""
    points = torch.where(available > 0, points, torch.full_like(points, -1e9))
    ordered = points.sort(dim=1, descending=True).values
    ranks = torch.arange(1, points.shape[1] + 1, device=points.device, dtype=points.dtype)
    excess = (ordered.cumsum(1) - 1.0) / ranks
    count = (ordered > excess).sum(1, keepdim=True).clamp_min(1)
    return (points - excess.gather(1, count - 1)).clamp_min(0.0) * available


def _spread(
    odds: torch.Tensor, weights: torch.Tensor, open_now: torch.Tensor | None, cash: torch.Tensor, ones: torch.Tensor
) -> torch.Tensor:  # [N, A+1], [N, A+1], [N, A+1], [N], [A+1]
    """Wealth over the assets by their odds (cash has none); what cannot trade keeps its weight and shrinks the rest."""
    if open_now is None:
        wanted = odds * ((1.0 - cash) / total(odds, ones)).unsqueeze(1)
        wanted[:, -1] = cash
        return wanted
    odds = odds * open_now
    sum_of_odds = total(odds, ones)
    stuck = torch.addcmul(weights, weights, open_now, value=-1.0)  # and cash, which is not
    free = (weights[:, -1] - total(stuck, ones)).add_(1.0)
    unit = torch.addcmul(free, free, cash, value=-1.0) / sum_of_odds.clamp_min(1e-12)
    wanted = torch.addcmul(stuck, odds, unit.unsqueeze(1))
    wanted[:, -1] = torch.addcmul(free, unit, sum_of_odds, value=-1.0)
    return wanted
