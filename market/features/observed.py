"""Observed columns as features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kit.config import setting
from kit.errors import UserError
from market.features.transform import Transform, feature
from market.features.window import Window
from market.panel import Panel

DAY = np.timedelta64(1, "D")


@feature("observed")
@dataclass(frozen=True)
class ObservedColumn(Transform):
    """An observed column as it is; 0 where nothing was known yet."""

    column: str | None = setting(None, help="its name; null: every observed column of the panel")
    age: bool = setting(False, help="also the days since the value became known")

    @property
    def warmup(self) -> int:
        return 0

    @property
    def names(self) -> tuple[str, ...]:
        if self.column is None:
            return ()  # known once there is a panel
        return (self.column, f"{self.column}_age") if self.age else (self.column,)

    def for_panel(self, panel: Panel) -> tuple[Transform, ...]:
        if self.column is None:
            return tuple(replace(self, column=name) for name in panel.observed)
        if self.column not in panel.observed:
            there = ", ".join(panel.observed) or "none"
            raise UserError(f"features: observed column {self.column!r} is not in the panel; it has {there}")
        return (self,)

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        assert self.column is not None, "for_panel comes first"
        observed = window.panel.observed[self.column]
        values = observed.values[window.rows, window.columns]
        known = ~np.isnan(values)
        yield np.where(known, values, 0.0)
        if self.age:
            age = (window.panel.closes[window.rows, None] - observed.known_at[window.rows, window.columns]) / DAY
            yield np.where(known, age, 0.0)
