"""Luck at the same turnover: a portfolio's own targets, at other times and over other assets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from agents.baselines import around_stuck
from envs.allocation import approach
from envs.backtest import Track
from envs.market import MarketTensors
from envs.transition import cash_only, transition


class Shuffled(NamedTuple):
    """What the shuffled paths earned, on the days of the track."""

    returns: np.ndarray  # [T, draws] simple, after costs
    traded: np.ndarray  # [T, draws] value bought and sold, as a share of wealth


def shuffled(track: Track, market: MarketTensors, seed: int, draws: int = 1000) -> Shuffled:
    """The track's targets, each time begun at another of its bars and given to the assets in another order.

    After its last bar a path goes on with its first, so that its changes from bar to bar, which are
    what costs money, stay as they are but for that one. It trades at the market's rate, band, costs
    and fill. `market` is the one that the track is of.
    """
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, len(track.returns), draws)
    orders = rng.permuted(np.tile(np.arange(market.assets), (draws, 1)), axis=1)
    return replay(targets(track, market), market, first_decision(track, market), begins, orders)


def first_decision(track: Track, market: MarketTensors) -> int:
    """The bar of the market at which the track decided first."""
    first = int(np.searchsorted(market.dates, track.dates[0])) - 1
    same = np.array_equal(market.dates[first + 1 : first + 1 + len(track.dates)], track.dates)
    assert first >= 0 and same and market.symbols == track.symbols, "the track is not of this market"
    return first


def targets(track: Track, market: MarketTensors) -> np.ndarray:  # [T, A+1]
    """The weights that the track was on its way to at each close, worked out from what it did.

    Its holdings before their drift are what its orders led to, and those went part of the way. What
    could not be bought, and what the band held back, does not count as wanted.
    """
    first = first_decision(track, market)
    bars = torch.arange(first, first + len(track.returns), device=market.device)
    drift = market.quote(bars).drift.double().cpu().numpy()
    after = track.weights * (1.0 + track.returns[:, None]) / drift
    before = np.concatenate([np.eye(1, after.shape[1], after.shape[1] - 1), track.weights[:-1]])  # cash only, at first
    allocation = market.trading.allocation
    rate = 1.0 if allocation.kind == "shares" else allocation.rate
    wanted = before + (after - before) / rate
    wanted[:, -1] = 1.0 - wanted[:, :-1].sum(axis=1)  # what costs and interest moved was not wanted
    return wanted


@torch.no_grad()
def replay(
    path: np.ndarray,  # [T, A+1] target weights
    market: MarketTensors,
    first: int,
    begins: np.ndarray,  # [draws] the row of the path to begin with
    orders: np.ndarray,  # [draws, A] for each asset, whose weights it gets
) -> Shuffled:
    """Follow a path from bar `first` on, in cash before it, once per draw."""
    steps, draws = len(path), len(begins)
    rows = torch.as_tensor(path, dtype=market.dtype).to(market.device)
    offset = torch.as_tensor(begins, device=market.device)
    cash = np.full((draws, 1), market.assets)
    columns = torch.as_tensor(np.concatenate([orders, cash], axis=1), device=market.device)
    growths = torch.empty(steps, draws, device=market.device, dtype=market.dtype)
    traded = torch.empty_like(growths)
    state = cash_only(market, torch.full((draws,), first, device=market.device))
    for step in range(steps):
        wanted = rows.index_select(0, (offset + step) % steps).gather(1, columns)
        wanted = around_stuck(market, state.bar, state.weights, wanted)
        wanted = approach(state.weights, wanted, market.trading.allocation)
        state, growths[step], costs = transition(market, state, wanted)
        traded[step] = costs.traded
    return Shuffled(np.expm1(growths.double().cpu().numpy()), traded.double().cpu().numpy())
