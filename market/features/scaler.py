"""Features on a common scale, fitted on one span and kept for every other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.errors import UserError
from market.features.spec import Features

CLIP = 10.0
CONSTANT = 1e-6  # a standard deviation below this share of the mean is float32 rounding
BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class Scaler:
    """Subtracts the mean, divides by the standard deviation, clips to ±10. A constant feature becomes 0."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]  # 0: the feature was constant

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.mean) == len(self.std):
            raise ValueError("names, mean and std must have the same length")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=0.0) < 0.0:
            raise ValueError("mean must be finite, std finite and at least 0")

    @classmethod
    def fit(cls, features: Features, span: slice) -> Scaler:
        """From the bars of `span` that are warmed up, where the symbol was listed."""
        start, stop, _ = span.indices(len(features.values))
        start = max(start, features.warmup)
        width = len(features.names)
        rows = max(1, BLOCK_VALUES // features.values[0].size)
        count, mean, squares = 0, np.zeros(width), np.zeros(width)  # squares: of deviations from the mean
        for first in range(start, stop, rows):
            block = slice(first, min(first + rows, stop))
            cells = features.values[block][features.listed[block]].astype(np.float64)  # [n, F]
            if not len(cells):
                continue
            apart = cells.mean(axis=0) - mean
            squares += ((cells - cells.mean(axis=0)) ** 2).sum(axis=0) + apart**2 * count * len(cells) / (
                count + len(cells)
            )
            count += len(cells)
            mean += apart * len(cells) / count
        if not count:
            raise UserError(f"features: bars {start} to {stop}, where the scaler is fitted, hold no listed symbol")
        std = np.sqrt(squares / count)
        std[std <= CONSTANT * np.abs(mean)] = 0.0
        return cls(features.names, tuple(mean.tolist()), tuple(std.tolist()))

    def apply(self, features: Features) -> np.ndarray:  # [T, A, F] float32
        """Exactly 0 where a symbol is not yet listed."""
        if features.names != self.names:
            raise ValueError(f"the scaler was fitted on {', '.join(self.names)}; these are {', '.join(features.names)}")
        bars, symbols, width = features.values.shape
        values = features.values.reshape(bars, symbols * width)
        mean = np.tile(np.array(self.mean, np.float32), symbols)  # one long row: short inner loops are slow
        std = np.tile(np.array(self.std, np.float32), symbols)
        inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0.0)
        scaled = np.empty_like(values)
        rows = max(1, BLOCK_VALUES // max(1, symbols * width))
        for first in range(0, bars, rows):
            out = scaled[first : first + rows]
            np.subtract(values[first : first + rows], mean, out=out)
            out *= inverse
            np.clip(out, -CLIP, CLIP, out=out)
            out.reshape(-1, symbols, width)[~features.listed[first : first + rows]] = 0.0
        return scaled.reshape(bars, symbols, width)

    def to_config(self) -> dict[str, list[Any]]:
        return {"names": list(self.names), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_config(cls, value: Any) -> Scaler:
        if not isinstance(value, dict) or set(value) != {"names", "mean", "std"}:
            raise ValueError("expected the keys names, mean and std")
        if not all(isinstance(items, list) for items in value.values()):
            raise ValueError("names, mean and std must be lists")
        try:
            mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
        except (TypeError, ValueError):
            raise ValueError("mean and std must be numbers") from None
        return cls(tuple(map(str, value["names"])), mean, std)
