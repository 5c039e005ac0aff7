"""The classic indicators of trend and reversal, each free of the price's scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.config import setting
from market.features.rolling import ewma, memory, ratio, rolling_deviation, rolling_mean, rolling_mean_std
from market.features.transform import Transform, feature
from market.features.window import Window


@feature("rsi")
@dataclass(frozen=True)
class RelativeStrength(Transform):
    """Wilder's relative strength index, 0 to 100; 50 for a price that does not move."""

    window: int = setting(14, low=2, help="in bars; the last bar weighs 1 / window")

    @property
    def warmup(self) -> int:
        return memory(1 / self.window)

    @property
    def names(self) -> tuple[str, ...]:
        return (f"rsi_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        moves = np.diff(window.close(self.warmup), axis=0)
        yield 50.0 + 50.0 * ratio(ewma(moves, 1 / self.window), ewma(np.abs(moves), 1 / self.window))


@feature("macd")
@dataclass(frozen=True)
class Macd(Transform):
    """Fast less slow exponential average of the close, relative to the close; optionally less its signal line."""

    fast: int = setting(12, low=2, help="span in bars")
    slow: int = setting(26, low=3, help="span in bars, longer than fast")
    signal: int = setting(0, low=0, help="span of the average that is taken off (the histogram); 0: none (the line)")

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast must be shorter than slow, {self.slow}")
        if self.signal == 1:
            raise ValueError("signal must be 0 or at least 2")

    @property
    def warmup(self) -> int:
        return memory(2 / (self.slow + 1)) - 1 + self._signal_memory

    @property
    def _signal_memory(self) -> int:
        return memory(2 / (self.signal + 1)) - 1 if self.signal else 0

    @property
    def names(self) -> tuple[str, ...]:
        return (f"macd_{self.fast}_{self.slow}" + (f"_{self.signal}" if self.signal else ""),)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        fast, slow = 2 / (self.fast + 1), 2 / (self.slow + 1)
        line = ewma(window.close(memory(fast) - 1 + self._signal_memory), fast)
        line -= ewma(window.close(self.warmup), slow)
        if self.signal:
            line = line[self._signal_memory :] - ewma(line, 2 / (self.signal + 1))
        yield line / window.close()


@feature("bollinger")
@dataclass(frozen=True)
class Bollinger(Transform):
    """%b, the close between the bands: 0 at the lower, 1 at the upper; 0.5 for a price that does not move."""

    window: int = setting(20, low=2, help="in bars")
    width: float = setting(2.0, above=0, help="of the bands, in standard deviations")

    @property
    def warmup(self) -> int:
        return self.window - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"bollinger_{self.window}_{self.width:g}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        mean, std = rolling_mean_std(window.close(self.warmup), self.window)
        yield 0.5 + ratio(window.close() - mean, 2.0 * self.width * std)


@feature("cci")
@dataclass(frozen=True)
class CommodityChannel(Transform):
    """Typical price less its mean, over 0.015 mean absolute deviations; 0 for a price that does not move."""

    window: int = setting(14, low=2, help="in bars")

    @property
    def warmup(self) -> int:
        return self.window - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"cci_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        back = self.warmup
        typical = (window.high(back) + window.low(back) + window.close(back)) / 3.0
        mean = rolling_mean(typical, self.window)
        yield ratio(typical[back:] - mean, 0.015 * rolling_deviation(typical, mean))


@feature("adx")
@dataclass(frozen=True)
class DirectionalIndex(Transform):
    """Wilder's average directional index: the strength of a trend of either direction, 0 to 100."""

    window: int = setting(14, low=2, help="in bars; the last bar weighs 1 / window, in both averages")

    @property
    def warmup(self) -> int:
        return 2 * memory(1 / self.window) - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"adx_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        up = np.diff(window.high(self.warmup), axis=0)
        down = -np.diff(window.low(self.warmup), axis=0)
        rise = ewma(np.where((up > down) & (up > 0.0), up, 0.0), 1 / self.window)
        fall = ewma(np.where((down > up) & (down > 0.0), down, 0.0), 1 / self.window)
        # The true range, by which both are usually divided, cancels.
        yield 100.0 * ewma(ratio(np.abs(rise - fall), rise + fall), 1 / self.window)
