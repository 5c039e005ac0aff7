"""What a result is measured against: simple policies, through the same rate, costs and fill as any other.

Most of them do not look at their portfolio: what they want is a path of weights, computed once per
market and looked up by bar. Row t of a path knows closes up to t. An asset whose history is too
short for a rule is held at 1/N, and the rule shares out the rest. What does not trade gets nothing new.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch

from agents.covariance import ledoit_wolf, long_only
from envs.allocation import project
from envs.market import MarketTensors
from envs.policy import Policy
from kit.config import setting
from market.clock import TRADING_DAYS
from market.features.rolling import rolling_count, rolling_mean, rolling_mean_std
from market.oracle import OracleRule

LEAST_VOLATILITY = 1e-6  # per bar; an asset that moves less tells a rule nothing
LEAST_TRADED = 0.5  # share of a window's bars on which an asset must have traded for its risk to be known


@dataclass(frozen=True)
class History:
    """Row t is known at close t."""

    returns: np.ndarray  # [T, A] float64, from close t - 1 to close t; 0 where there was no price
    tradable: np.ndarray  # [T, A] bool
    age: np.ndarray  # [T, A] bars since the first on which the asset traded; negative before
    bars_per_year: float
    interest: float  # of cash, per bar

    @classmethod
    def of(cls, market: MarketTensors) -> History:
        drift = market.quote(torch.arange(len(market), device=market.device)).drift
        returns = np.zeros((len(market), market.assets))
        returns[1:] = drift[:-1, :-1].double().cpu().numpy() - 1.0
        tradable = np.ones(returns.shape, bool)
        if market.open_now is not None:
            tradable = market.open_now[:, :-1].cpu().numpy() > 0
        listed = np.logical_or.accumulate(tradable, axis=0)
        return cls(returns, tradable, np.cumsum(listed, axis=0) - 1, market.bars_per_year, market.interest)

    def bars(self, days: int) -> int:
        return round(days * max(1.0, self.bars_per_year / TRADING_DAYS))

    def log_price(self) -> np.ndarray:  # [T, A]
        return np.cumsum(np.log1p(self.returns), axis=0)

    def volatility(self, window: int) -> tuple[np.ndarray, np.ndarray]:  # [T, A] twice
        """Per bar over the last `window` returns, and where it is known."""
        deviation = rolling_mean_std(_from_before(self.returns, window), window)[1]
        traded = rolling_count(_from_before(self.tradable, window), window)
        known = (self.age >= window) & (traded >= LEAST_TRADED * window) & (deviation > LEAST_VOLATILITY)
        return deviation, known


class WeightPath(ABC):
    """A policy whose weights do not depend on its portfolio, but for what it cannot trade."""

    @abstractmethod
    def weights(self, market: MarketTensors) -> np.ndarray:
        """[T, A] at each close, known there; what is left of 1 is cash. Nothing for what does not trade."""

    def path(self, market: MarketTensors) -> torch.Tensor:  # [T, A+1]
        """The weights with cash, on the market's device; computed once for as long as the market lives."""
        paths = _PATHS.setdefault(market, {})
        if self not in paths:
            assets = self.weights(market)
            cash = np.maximum(1.0 - assets.sum(axis=1, keepdims=True), 0.0)
            whole = np.concatenate([assets, cash], axis=1)
            paths[self] = torch.as_tensor(whole, dtype=market.dtype).to(market.device)
        return paths[self]

    def __call__(self, market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        wanted = self.path(market).index_select(0, bar)
        return around_stuck(market, bar, portfolio[:, : market.assets + 1], wanted)


_PATHS: WeakKeyDictionary[MarketTensors, dict[WeightPath, torch.Tensor]] = WeakKeyDictionary()


def around_stuck(
    market: MarketTensors, bar: torch.Tensor, weights: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:  # [N], [N, A+1], [N, A+1] -> [N, A+1]
    """What is wanted, as far as it trades: stuck holdings stay, the others share the gross exposure they leave."""
    if market.open_now is None:
        return wanted
    open_now = market.open_now.index_select(0, bar)[:, :-1]
    assets = wanted[:, :-1]
    stuck = weights[:, :-1] * (1.0 - open_now)
    moving = assets * open_now
    room = (assets.abs().sum(1) - stuck.abs().sum(1)).clamp_min(0.0)
    assets = stuck + moving * (room / moving.abs().sum(1).clamp_min(1e-12)).unsqueeze(1)
    return torch.cat([assets, 1.0 - assets.sum(1, keepdim=True)], dim=1)


def hold(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    """Equal weight bought once: cash is spent in equal parts on what trades, and nothing is ever sold."""
    weights = portfolio[:, : market.assets + 1]
    open_now = torch.ones_like(weights) if market.open_now is None else market.open_now.index_select(0, bar)
    parts = open_now[:, :-1]
    spent = weights[:, -1:] * parts / parts.sum(1, keepdim=True).clamp_min(1.0)
    return torch.cat([weights[:, :-1] + spent, weights[:, -1:] - spent.sum(1, keepdim=True)], dim=1)


@dataclass(frozen=True)
class EqualWeight(WeightPath):
    """1/N of what trades: the zero action where that is equal weight (`softmax`, `tilt`), and the same elsewhere."""

    def weights(self, market: MarketTensors) -> np.ndarray:
        return _equal(History.of(market).tradable)


@dataclass(frozen=True)
class Cash(WeightPath):
    """Nothing but cash."""

    def weights(self, market: MarketTensors) -> np.ndarray:
        return np.zeros((len(market), market.assets))


@dataclass(frozen=True)
class InverseVolatility(WeightPath):
    """Weights in inverse proportion to trailing volatility."""

    window_days: int = setting(60, low=2, help="days of returns behind a volatility")

    def weights(self, market: MarketTensors) -> np.ndarray:
        history = History.of(market)
        volatility, known = history.volatility(history.bars(self.window_days))
        return _share(1.0 / np.where(known, volatility, 1.0), known, history.tradable)


@dataclass(frozen=True)
class Optimised(WeightPath):
    """Weights that are best under the Ledoit-Wolf covariance of a trailing window, estimated now and then."""

    window_days: int = setting(252, low=2, help="days of returns behind an estimate")
    every_days: int = setting(21, low=1, help="days from one estimate to the next")

    @abstractmethod
    def reward(self, returns: np.ndarray, interest: float) -> np.ndarray:
        """[n, A] -> [A] what a unit of each asset is worth, some of it positive."""

    def weights(self, market: MarketTensors) -> np.ndarray:
        history = History.of(market)
        window, every = history.bars(self.window_days), history.bars(self.every_days)
        known_now = history.volatility(window)[1]
        weights, known = np.zeros(history.returns.shape), np.zeros(history.returns.shape, bool)
        for start in range(window, len(weights), every):
            chosen = known_now[start]
            if not chosen.any():
                continue
            returns = history.returns[start + 1 - window : start + 1, chosen]
            best = long_only(ledoit_wolf(returns)[0], self.reward(returns, history.interest))
            weights[start : start + every, chosen] = best
            known[start : start + every] = chosen
        return _share(weights, known, history.tradable)


@dataclass(frozen=True)
class MinimumVariance(Optimised):
    """The long-only portfolio of least variance."""

    def reward(self, returns: np.ndarray, interest: float) -> np.ndarray:
        return np.ones(returns.shape[1])


@dataclass(frozen=True)
class MaximumSharpe(Optimised):
    """The long-only portfolio of the highest past Sharpe ratio; of least variance where no asset beat cash."""

    def reward(self, returns: np.ndarray, interest: float) -> np.ndarray:
        excess = returns.mean(axis=0) - interest
        return excess if (excess > 0).any() else np.ones(len(excess))


@dataclass(frozen=True)
class Momentum(WeightPath):
    """Time-series momentum: each asset's 1/N is held while the asset rose over the past year, and else cash."""

    window_days: int = setting(252, low=1, help="days since the first price compared")
    skip_days: int = setting(21, low=0, help="days since the last price compared")

    def __post_init__(self) -> None:
        if self.skip_days >= self.window_days:
            raise ValueError(f"skip_days must be below window_days, which is {self.window_days}")

    def weights(self, market: MarketTensors) -> np.ndarray:
        history = History.of(market)
        window, skip = history.bars(self.window_days), history.bars(self.skip_days)
        price, row = history.log_price(), np.arange(len(market))
        rose = price[np.maximum(row - skip, 0)] > price[np.maximum(row - window, 0)]
        return _in_or_out(rose, history.age >= window, history.tradable)


@dataclass(frozen=True)
class MovingAverage(WeightPath):
    """Each asset's 1/N is held while its short moving average is above the long one, and else cash."""

    short_days: int = setting(50, low=1, help="days of the short average")
    long_days: int = setting(200, low=2, help="days of the long average")

    def __post_init__(self) -> None:
        if self.short_days >= self.long_days:
            raise ValueError(f"short_days must be below long_days, which is {self.long_days}")

    def weights(self, market: MarketTensors) -> np.ndarray:
        history = History.of(market)
        short, long = history.bars(self.short_days), history.bars(self.long_days)
        price = np.exp(history.log_price())
        above = rolling_mean(_from_before(price, short), short) > rolling_mean(_from_before(price, long), long)
        return _in_or_out(above, history.age >= long - 1, history.tradable)


@dataclass(frozen=True)
class VolatilityTarget(WeightPath):
    """Equal weight, with as much in cash as brings its trailing volatility down to the target; no leverage."""

    volatility: float = setting(0.10, above=0, help="yearly volatility aimed at")
    window_days: int = setting(60, low=2, help="days of equal weight's returns behind its volatility")

    def weights(self, market: MarketTensors) -> np.ndarray:
        history = History.of(market)
        window = history.bars(self.window_days)
        held = history.age >= 1
        index = (history.returns * held).sum(axis=1, keepdims=True) / np.maximum(held.sum(axis=1, keepdims=True), 1)
        deviation = rolling_mean_std(_from_before(index, window), window)[1] * math.sqrt(history.bars_per_year)
        known = history.age.max(axis=1, keepdims=True) >= window
        exposure = np.where(known, self.volatility / np.maximum(deviation, self.volatility), 1.0)
        return _equal(history.tradable) * exposure


@dataclass(frozen=True, eq=False)
class Oracle(WeightPath):
    """The rule of `market.oracle`: equal weight tilted by the built-in market's signal, projected on the simplex."""

    signal: int | np.ndarray  # the index of the feature that is the signal, or [T, A] itself
    tilt: float = OracleRule.tilt

    def weights(self, market: MarketTensors) -> np.ndarray:
        signal = self.signal
        if not isinstance(signal, np.ndarray):
            signal = market.features[:, :, signal].double().cpu().numpy()
        assert signal.shape == (len(market), market.assets), f"a signal of shape {signal.shape} for another market"
        points = torch.as_tensor(self.tilt * np.nan_to_num(signal))  # a shift of all, such as 1/N, moves no projection
        tradable = torch.as_tensor(History.of(market).tradable).double()
        return project(points, tradable).numpy()


BASELINES: dict[str, Callable[[], Policy]] = {
    "equal_weight": EqualWeight,
    "hold": lambda: hold,
    "inverse_volatility": InverseVolatility,
    "minimum_variance": MinimumVariance,
    "maximum_sharpe": MaximumSharpe,
    "momentum": Momentum,
    "moving_average": MovingAverage,
    "volatility_target": VolatilityTarget,
    "cash": Cash,
}


def _equal(tradable: np.ndarray) -> np.ndarray:  # [T, A]
    return tradable / np.maximum(tradable.sum(axis=1, keepdims=True), 1)


def _in_or_out(wanted: np.ndarray, known: np.ndarray, tradable: np.ndarray) -> np.ndarray:  # all [T, A]
    return _equal(tradable) * (wanted | ~known)


def _share(weights: np.ndarray, known: np.ndarray, tradable: np.ndarray) -> np.ndarray:  # all [T, A]
    """1/N for what is not known yet; the known share the rest in proportion to their weights."""
    known = known & tradable
    parts = np.where(known, weights, 0.0)
    wanted = (parts > 0).any(axis=1, keepdims=True)
    parts = np.where(wanted, parts, known)  # where nothing that a rule wants trades now, the known alike
    total = parts.sum(axis=1, keepdims=True)
    equal = _equal(tradable)
    rest = (equal * known).sum(axis=1, keepdims=True)
    return np.where(known, parts * (rest / np.where(total > 0, total, 1.0)), equal)


def _from_before(rows: np.ndarray, window: int) -> np.ndarray:  # [T, A] -> [T + window - 1, A]
    """With empty rows in front, so that the first row has a whole window too."""
    return np.concatenate([np.zeros((window - 1, rows.shape[1]), rows.dtype), rows])
