"""Features of traded volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.config import setting
from market.features.rolling import ratio, rolling_count, rolling_mean
from market.features.transform import Transform, feature
from market.features.window import Window

NEGLIGIBLE = 1e-6  # volumes that differ by less than one in a million are constant


@feature("volume_zscore")
@dataclass(frozen=True)
class VolumeZScore(Transform):
    """Log volume, in standard deviations from its mean over the bars that have a volume; 0 on bars without."""

    window: int = setting(64, low=2, help="in bars, today's among them")

    @property
    def warmup(self) -> int:
        return self.window - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"volume_zscore_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        volume = window.volume(self.warmup)
        traded = volume > 0.0
        log = np.log(np.where(traded, volume, 1.0))
        share = np.maximum(rolling_count(traded, self.window), 1) / self.window
        mean = rolling_mean(log, self.window) / share
        variance = rolling_mean(log * log, self.window) / share - mean * mean
        std = np.sqrt(np.maximum(variance, 0.0))
        yield ratio(log[self.warmup :] - mean, np.where(traded[self.warmup :], std, 0.0), NEGLIGIBLE)
