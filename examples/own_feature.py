"""A feature of one's own: where in their range bars close.

    python examples/own_feature.py

To name it in a configuration, put this file into market/features/: what lies there is registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kit.config import setting
from market.features import FeatureSpec
from market.features.rolling import ratio, rolling_mean
from market.features.transform import Transform, feature
from market.features.window import Window
from market.synth import SynthSource, generate


@feature("close_location")
@dataclass(frozen=True)
class CloseLocation(Transform):
    """From -1, closes at the low, to 1, at the high; the mean over some bars, 0 for bars without a range."""

    window: int = setting(10, low=1, help="in bars, today's among them")

    @property
    def warmup(self) -> int:
        return self.window - 1

    @property
    def names(self) -> tuple[str, ...]:
        return (f"close_location_{self.window}",)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        high, low, close = (price(self.warmup) for price in (window.high, window.low, window.close))
        place = ratio((close - low) - (high - close), high - low)  # [warmup + n, A]
        yield rolling_mean(place, self.window)  # [n, A]


def main() -> None:
    spec = FeatureSpec.from_config(["rsi", {"close_location": {"window": 5}}])
    features = spec.compute(generate(SynthSource(symbols=4, bars=500)))
    after = features.values[features.warmup :]
    for place, name in enumerate(features.names):
        print(f"{name:<20} mean {after[..., place].mean():+.3f}  std {after[..., place].std():.3f}")


if __name__ == "__main__":
    main()
