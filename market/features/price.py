"""Features of a symbol's own prices: returns, volatility, range, distance from the high."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.config import setting
from market.features.rolling import ewma, memory, rolling_max
from market.features.transform import Transform, feature
from market.features.window import Window


@feature("log_return")
@dataclass(frozen=True)
class LogReturn(Transform):
    """Log return over each horizon."""

    horizons: tuple[int, ...] = setting((1, 5, 20), low=1, help="in bars")

    def __post_init__(self) -> None:
        if not self.horizons:
            raise ValueError("horizons must name at least one, e.g. [1, 5, 20]")

    @property
    def warmup(self) -> int:
        return max(self.horizons)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"log_return_{horizon}" for horizon in self.horizons)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        for horizon in self.horizons:
            log = window.log_close(horizon)
            yield log[horizon:] - log[:-horizon]


@feature("ewma_volatility")
@dataclass(frozen=True)
class EwmaVolatility(Transform):
    """Root of the exponentially weighted mean of squared log returns, per bar."""

    span: int = setting(20, low=2, help="in bars; the last bar weighs 2 / (span + 1)")

    @property
    def warmup(self) -> int:
        return memory(2 / (self.span + 1))

    @property
    def names(self) -> tuple[str, ...]:
        return (f"ewma_volatility_{self.span}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        squares = window.log_return(self.warmup - 1) ** 2
        yield np.sqrt(ewma(squares, 2 / (self.span + 1)))


@feature("atr")
@dataclass(frozen=True)
class AverageTrueRange(Transform):
    """Wilder's average true range, relative to the close."""

    window: int = setting(14, low=2, help="in bars; the last bar weighs 1 / window")

    @property
    def warmup(self) -> int:
        return memory(1 / self.window)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"atr_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        before = window.close(self.warmup)[:-1]
        high, low = window.high(self.warmup - 1), window.low(self.warmup - 1)
        yield ewma(np.maximum(high, before) - np.minimum(low, before), 1 / self.window) / window.close()


@feature("distance_from_high")
@dataclass(frozen=True)
class DistanceFromHigh(Transform):
    """Close relative to the highest high, less 1: 0 at the high, else negative."""

    window: int = setting(120, low=2, help="in bars, today's among them")

    @property
    def warmup(self) -> int:
        return self.window - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"distance_from_high_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        yield window.close() / rolling_max(window.high(self.warmup), self.window) - 1.0
