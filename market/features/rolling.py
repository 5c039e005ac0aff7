"""Rolling kernels along time: [n + window - 1, A] in, [n, A] out, so that no row can see further back.

Windows are joined by doubling: windows of 1, 2, 4, ... rows, then those that add up to the one
asked for. That is about log2(window) passes, nothing accumulates over the bars, and a result
depends on the rows of its own window only, bit by bit. Joins of equal values are exact: the mean of
a constant is the constant, its standard deviation 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

State = tuple[np.ndarray, ...]  # what is known of each window, [m, A] each
Join = Callable[[State, State, int, int], None]  # puts windows and those that follow them, of two sizes, into the first


def _fold(rows: State, window: int, join: Join) -> State:
    """The join of every `window` consecutive rows."""

    def side_by_side(left: State, right: State, n_left: int, n_right: int) -> State:
        left = tuple(x[: len(right[0]) - n_left] for x in left)
        join(left, tuple(x[n_left:] for x in right), n_left, n_right)
        return left

    block, size = tuple(x.copy() for x in rows), 1
    joined, done = block, 0
    while True:
        if window & size:
            joined = side_by_side(joined, block, done, size) if done else tuple(x.copy() for x in block)
            done += size
            if done == window:
                return joined
        block, size = side_by_side(block, block, size, size), 2 * size


def rolling_max(x: np.ndarray, window: int) -> np.ndarray:  # [n + window - 1, A] -> [n, A]
    def join(left: State, right: State, n_left: int, n_right: int) -> None:
        np.maximum(left[0], right[0], out=left[0])

    return _fold((x,), window, join)[0]


def rolling_mean(x: np.ndarray, window: int, decay: float = 1.0) -> np.ndarray:  # [n + window - 1, A] -> [n, A]
    """The mean; a row `k` bars old weighs `decay ** k`."""
    scratch = np.empty(x.shape)

    def weight(size: int) -> float:
        return size if decay == 1.0 else (1.0 - decay**size) / (1.0 - decay)

    def join(left: State, right: State, n_left: int, n_right: int) -> None:
        apart = np.subtract(right[0], left[0], out=scratch[: len(left[0])])
        apart *= weight(n_right) / weight(n_left + n_right)
        np.add(left[0], apart, out=left[0])

    return _fold((x,), window, join)[0]


def rolling_mean_std(
    x: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:  # [n + window - 1, A] -> [n, A] twice
    """Mean and population standard deviation, from pairwise sums of squared deviations: stable at any level."""

    def join(left: State, right: State, n_left: int, n_right: int) -> None:
        mean, squares = left
        share = n_right / (n_left + n_right)
        apart = right[0] - mean
        np.add(squares, right[1], out=squares)
        np.add(mean, apart * share, out=mean)
        apart *= apart
        apart *= n_left * share
        np.add(squares, apart, out=squares)

    mean, squares = _fold((x, np.zeros(x.shape)), window, join)
    return mean, np.sqrt(squares / window)


def rolling_count(flags: np.ndarray, window: int) -> np.ndarray:  # [n + window - 1, A] bool -> [n, A] int64
    """How many are true; exact, as whole numbers do not round."""
    count = np.cumsum(flags, axis=0)
    count[window:] -= count[:-window].copy()
    return count[window - 1 :]


def rolling_deviation(x: np.ndarray, mean: np.ndarray) -> np.ndarray:  # [n + window - 1, A], [n, A] -> [n, A]
    """Mean absolute deviation of each window from its mean."""
    window = len(x) - len(mean) + 1
    total = np.zeros_like(mean)
    for lag in range(window):
        difference = x[lag : lag + len(mean)] - mean
        total += np.abs(difference, out=difference)
    return total / window


def memory(alpha: float) -> int:
    """Bars that an exponential average of weight `alpha` on the last bar looks at.

    The weights left out, older than that, are at most e^-9 = 1.2e-4 of the whole. A multiple of 16
    takes the fewest joins.
    """
    return 16 * math.ceil(9.0 / alpha / 16)


def ewma(x: np.ndarray, alpha: float) -> np.ndarray:  # [n + memory(alpha) - 1, A] -> [n, A]
    """Exponentially weighted mean over `memory(alpha)` bars."""
    return rolling_mean(x, memory(alpha), 1.0 - alpha)


def ratio(above: np.ndarray, below: np.ndarray, negligible: float = 0.0) -> np.ndarray:
    """above / below; 0 where `below` is not above `negligible`."""
    return above / np.where(below > negligible, below, np.inf)
