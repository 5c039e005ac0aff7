"""A feature specification, which is data, and the features that it makes of a panel."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.config import build, to_dict
from kit.errors import UserError
from market.features.observed import ObservedColumn
from market.features.oscillators import Macd, RelativeStrength
from market.features.price import DistanceFromHigh, EwmaVolatility, LogReturn
from market.features.transform import REGISTRY, Transform
from market.features.volume import VolumeZScore
from market.features.window import Window
from market.panel import Panel

BLOCK_CELLS = 1 << 15  # bars x symbols worked on at a time: temporaries of a quarter megabyte stay in the cache
BLOCK_BARS = 1024
BLOCK_SYMBOLS = 16
BLOCK_WARMUPS = 4  # and at least as many bars as that many warm-ups, which every block reads again


@dataclass(frozen=True)
class Features:
    """What agents see of the market. Exactly 0 where a symbol is not yet listed, finite everywhere.

    The first `warmup` bars are computed as if prices had been constant before the panel's start.
    """

    values: np.ndarray  # [T, A, F] float32
    listed: np.ndarray  # [T, A] bool
    spec: FeatureSpec  # with every observed column named
    names: tuple[str, ...]
    warmup: int

    def __post_init__(self) -> None:
        self.values.flags.writeable = False


@dataclass(frozen=True)
class FeatureSpec:
    """An ordered list of transforms, e.g. in YAML `[{log_return: {horizons: [1, 5]}}, rsi]`."""

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        if not self.transforms:
            raise ValueError("expected at least one feature, e.g. [rsi]")
        for name, count in Counter(self.names()).items():
            if count > 1:
                raise ValueError(f"the feature {name} is given twice")

    @classmethod
    def default(cls) -> FeatureSpec:
        """Eight features of prices and volume, for daily and for minute bars, and every observed column."""
        prices = (LogReturn(), EwmaVolatility(), RelativeStrength(), Macd(), DistanceFromHigh(), VolumeZScore())
        return cls((*prices, ObservedColumn()))

    @classmethod
    def from_config(cls, value: Any) -> FeatureSpec:
        if not isinstance(value, list):
            raise ValueError("expected a list of features, e.g. [{log_return: {horizons: [1, 5]}}, rsi]")
        return cls(tuple(_transform(item) for item in value))

    def to_config(self) -> list[dict[str, Any]]:
        """With every parameter, so that it means the same once a default changes."""
        return [{transform.name: to_dict(transform)} for transform in self.transforms]

    @property
    def warmup(self) -> int:
        """Bars needed before the first valid one."""
        return max(transform.warmup for transform in self.transforms)

    def names(self, panel: Panel | None = None) -> tuple[str, ...]:
        """In the order of the values; those of `observed` without a column are known only with a panel."""
        spec = self if panel is None else self.for_panel(panel)
        return tuple(name for transform in spec.transforms for name in transform.names)

    def for_panel(self, panel: Panel) -> FeatureSpec:
        """The same with every observed column named."""
        try:
            return FeatureSpec(tuple(part for transform in self.transforms for part in transform.for_panel(panel)))
        except ValueError as error:
            raise UserError(f"features: on this panel, {error}") from None

    def compute(self, panel: Panel) -> Features:
        spec = self.for_panel(panel)
        warmup, names = spec.warmup, spec.names()
        bars, symbols = panel.close.shape
        if bars <= warmup:
            raise UserError(
                f"features: the panel has {bars} bars; at least {warmup + 1} are needed, {warmup} to warm up"
            )
        values = np.empty((bars, symbols, len(names)), np.float32)
        for rows in _blocks(bars, max(BLOCK_BARS, BLOCK_WARMUPS * warmup)):
            for columns in _blocks(symbols, max(BLOCK_SYMBOLS, BLOCK_CELLS // (warmup + rows.stop - rows.start))):
                spec._fill(values, Window(panel, rows, columns, warmup), across=False)
            spec._fill(values, Window(panel, rows, slice(0, symbols), warmup), across=True)
            values[rows][~panel.listed[rows]] = 0.0
        return Features(values, panel.listed, spec, names, warmup)

    def _fill(self, values: np.ndarray, window: Window, across: bool) -> None:  # values [T, A, F]
        first = 0
        for transform in self.transforms:
            places = range(first, first + len(transform.names))
            if transform.across == across:
                for place, array in zip(places, transform.compute(window), strict=True):
                    values[window.rows, window.columns, place] = array
            first = places.stop


def _transform(item: Any) -> Transform:
    """`rsi` or `{rsi: {window: 14}}`."""
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        raise ValueError(
            f"{item!r} is not a feature; write a name, rsi, or a name with parameters, {{rsi: {{window: 14}}}}"
        )
    ((name, parameters),) = item.items()
    if name not in REGISTRY:
        near = difflib.get_close_matches(str(name), REGISTRY, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known features: {', '.join(sorted(REGISTRY))}"
        raise ValueError(f"unknown feature {name!r}; {hint}")
    try:
        return build(REGISTRY[name], parameters, name)
    except UserError as error:
        raise ValueError(str(error)) from None


def _blocks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
