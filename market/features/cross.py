"""Features of the cross-section: a symbol among the others, and the market as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from kit.config import setting
from market.features.rolling import ratio
from market.features.transform import Transform, feature
from market.features.window import Window

BATCH_CELLS = 1 << 20  # of the largest temporary of `turbulence`


@feature("momentum_rank")
@dataclass(frozen=True)
class MomentumRank(Transform):
    """Rank of the log return among the listed symbols, from -1, the weakest, to 1; equals share a rank."""

    across: ClassVar[bool] = True
    window: int = setting(120, low=1, help="bars back to where the return starts")
    skip: int = setting(0, low=0, help="bars back to where it ends")

    def __post_init__(self) -> None:
        if self.skip >= self.window:
            raise ValueError(f"skip must be less than window, {self.window}")

    @property
    def warmup(self) -> int:
        return self.window

    @property
    def names(self) -> tuple[str, ...]:
        return (f"momentum_rank_{self.window}" + (f"_{self.skip}" if self.skip else ""),)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        log = window.log_close(self.window)
        end = len(log) - self.skip
        momentum = log[end - window.bars : end] - log[: window.bars]
        known = pd.DataFrame(np.where(window.listed, momentum, np.inf))  # the unlisted come last
        rank = known.rank(axis=1).to_numpy() - 1.0
        others = window.listed.sum(axis=1, keepdims=True) - 1.0
        share = ratio(rank, np.broadcast_to(others, rank.shape))
        yield np.where(window.listed & (others > 0), 2.0 * share - 1.0, 0.0)


@feature("turbulence")
@dataclass(frozen=True)
class Turbulence(Transform):
    """How unusual today's cross-section of log returns is: its Mahalanobis distance from the bars before today.

    The covariance is shrunk towards a multiple of the identity, so that it can be inverted with
    more symbols than bars. Divided by the root of the number of listed symbols, an ordinary day is
    about 1. One A x A system per bar: meant for tens or hundreds of symbols, not for minutes of them.
    """

    across: ClassVar[bool] = True
    window: int = setting(60, low=2, help="bars that mean and covariance come from, today's not among them")
    shrinkage: float = setting(0.2, above=0, high=1, help="weight of the identity")

    @property
    def warmup(self) -> int:
        return self.window + 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"turbulence_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        returns = window.log_return(self.window)  # [window + n, A]
        listed = window.listed.sum(axis=1)
        symbols = returns.shape[1]
        batch = max(1, BATCH_CELLS // (symbols * max(symbols, self.window)))
        distances = [
            self._distance(returns[start : start + self.window + batch], listed[start : start + batch])
            for start in range(0, window.bars, batch)
        ]
        yield np.concatenate(distances)[:, None]

    def _distance(self, returns: np.ndarray, listed: np.ndarray) -> np.ndarray:  # [window + n, A], [n] -> [n]
        past = np.lib.stride_tricks.sliding_window_view(returns[:-1], self.window, axis=0)  # [n, A, window]
        mean = past.mean(axis=2)
        past = past - mean[:, :, None]
        covariance = past @ past.swapaxes(1, 2) / self.window  # [n, A, A]
        variance = ratio(np.trace(covariance, axis1=1, axis2=2), listed.astype(np.float64))
        moved = variance > 0.0  # else nothing is unusual: distance 0
        covariance *= 1.0 - self.shrinkage
        diagonal = np.arange(returns.shape[1])
        covariance[:, diagonal, diagonal] += np.where(moved, self.shrinkage * variance, 1.0)[:, None]
        today = returns[self.window :] - mean  # [n, A]
        squared = (today * np.linalg.solve(covariance, today[:, :, None])[:, :, 0]).sum(axis=1)
        return np.sqrt(np.where(moved, ratio(squared, listed.astype(np.float64)), 0.0))
