"""The panel: aligned bars of several symbols. Immutable, in UTC, and unable to hold the future."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np

from kit.files import hash_arrays, hash_json

PRICES = ("open", "high", "low", "close")
FIELDS = (*PRICES, "volume")


@dataclass(frozen=True)
class Observed:
    """A column beside the bars: each value with the time at which it became known."""

    values: np.ndarray  # [T, A] float64; NaN where nothing was known yet
    known_at: np.ndarray  # [T, A] datetime64[ns], UTC; NaT where nothing was known yet


@dataclass(frozen=True)
class Panel:
    """Bars of A symbols over T times.

    `times` label the start of a bar, as brokers do; `closes` say when it ended and its values were
    known: decisions are taken there. Before a symbol's first bar its prices are NaN; in a later gap
    they repeat the last close, with volume 0. Both have `tradable` False.
    """

    symbols: tuple[str, ...]
    times: np.ndarray  # [T] datetime64[ns], UTC, strictly increasing
    closes: np.ndarray  # [T] datetime64[ns], UTC
    open: np.ndarray  # [T, A] float64, likewise the next four
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    tradable: np.ndarray  # [T, A] bool
    bars_per_year: float
    observed: Mapping[str, Observed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.times), len(self.symbols))
        for name in (*FIELDS, "tradable"):
            array = getattr(self, name)
            assert array.shape == shape, f"{name} has shape {array.shape}, expected {shape}"
        assert self.times.dtype == self.closes.dtype == np.dtype("datetime64[ns]")
        assert self.closes.shape == self.times.shape and (self.closes >= self.times).all()
        assert (np.diff(self.times) > np.timedelta64(0)).all(), "times must increase"
        assert (np.diff(self.closes) > np.timedelta64(0)).all(), "closes must increase"
        for name, column in self.observed.items():
            assert column.values.shape == column.known_at.shape == shape, f"{name}: expected {shape}"
            late = column.known_at > self.closes[:, None]  # NaT compares False
            assert not late.any(), f"{name} holds values that were not yet known at their bar's close"
        for array in self._arrays().values():
            array.flags.writeable = False
        object.__setattr__(self, "observed", MappingProxyType(dict(self.observed)))

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, rows: slice) -> Panel:
        """A span of bars, as views on the same memory."""
        assert isinstance(rows, slice) and rows.step in (None, 1), "a panel is sliced by consecutive bars"
        return Panel(
            symbols=self.symbols,
            times=self.times[rows],
            closes=self.closes[rows],
            **{name: getattr(self, name)[rows] for name in (*FIELDS, "tradable")},
            bars_per_year=self.bars_per_year,
            observed={k: Observed(v.values[rows], v.known_at[rows]) for k, v in self.observed.items()},
        )

    def between(self, start: str | None = None, stop: str | None = None) -> Panel:
        """The bars with start <= time < stop, as views."""
        first = 0 if start is None else int(np.searchsorted(self.times, np.datetime64(start, "ns")))
        last = len(self) if stop is None else int(np.searchsorted(self.times, np.datetime64(stop, "ns")))
        return self[first : max(first, last)]

    @cached_property
    def listed(self) -> np.ndarray:  # [T, A] bool: a bar of the symbol was seen at or before t
        return ~np.isnan(self.close)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that the panel says; the same for a view and for a copy."""
        meta = {"symbols": self.symbols, "bars_per_year": self.bars_per_year}
        return hash_json([meta, hash_arrays(self._arrays())])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays().values())

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self, name) for name in ("times", "closes", *FIELDS, "tradable")}
        for name, column in self.observed.items():
            arrays |= {f"observed.{name}": column.values, f"known_at.{name}": column.known_at}
        return arrays
