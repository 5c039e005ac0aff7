"""The seam between sources and the panel: bars as they came, one row per time and symbol, unchecked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Bars(Protocol):
    """What a source read. Rows keep the source's order; columns may be read lazily, one at a time."""

    origin: str  # named in complaints: a path, or the service
    symbols: tuple[str, ...]
    codes: np.ndarray  # [R] int32, the row's position in `symbols`
    times: np.ndarray  # [R] datetime64[ns], UTC: the label, that is the start, of the bar; NaT if unreadable
    names: tuple[str, ...]  # open, high, low, close, volume (those present), then observed columns
    notes: Sequence[str] = ()  # what the report should say of how they were read
    session_close: str | None = None  # when daily bars are complete, where it is not the usual close

    def column(self, name: str) -> np.ndarray:
        """[R] float64; NaN where empty. Text that is no number raises UserError with row and column."""
        ...

    def known_at(self, name: str) -> np.ndarray | None:
        """[R] datetime64[ns]: when each value of an observed column became known; None: at its bar's close."""
        ...

    def row_name(self, row: int) -> str:
        """How to point a person at a row, e.g. `bars.csv line 17`."""
        ...


class Source(Protocol):
    """Where bars come from. Its configuration is the dataclass itself, told apart by `kind`."""

    kind: str

    def read(self) -> Bars: ...
