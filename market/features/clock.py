"""Features of the time of a decision, that is of a bar's close. They are 0 for daily and longer bars.

US bars count in New York time, bars round the clock in UTC. Which of the two a panel is comes from
its bars per year, which are stated, not read off bars that a live window would not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from market.clock import US_SESSION_MINUTES
from market.features.transform import Transform, feature
from market.features.window import Window

US_OPEN_MINUTE = 9.5 * 60
DAY_MINUTES = 24 * 60
BARS_PER_YEAR_OF_DAYS = 366
ROUND_THE_CLOCK = 300_000  # minutes a year: US sessions have 98,280, even extended ones 241,920; crypto 525,600


def minutes_of_day(window: Window) -> tuple[np.ndarray, np.ndarray]:  # [n], [n] bool
    """Minute of the day, above 0 to 1440, at which each bar closes, and whether its market never does."""
    panel = window.panel
    closes, times = panel.closes[window.rows], panel.times[window.rows]
    all_day = panel.bars_per_year * ((closes - times) / np.timedelta64(1, "m")) > ROUND_THE_CLOCK
    utc = pd.DatetimeIndex(closes).tz_localize("UTC")
    zones = (utc.tz_convert("America/New_York"), utc)
    local, universal = (np.asarray(z.hour * 60 + z.minute + z.second / 60) for z in zones)
    minutes = np.where(all_day, universal, local)
    return np.where(minutes == 0, DAY_MINUTES, minutes), all_day


@dataclass(frozen=True)
class _ClockTransform(Transform):
    across: ClassVar[bool] = True

    @property
    def warmup(self) -> int:
        return 0

    def compute(self, window: Window) -> Iterator[np.ndarray]:
        if window.panel.bars_per_year <= BARS_PER_YEAR_OF_DAYS:
            yield from (np.zeros((window.bars, 1)) for _ in self.names)
        else:
            yield from (values[:, None] for values in self._intraday(*minutes_of_day(window)))

    def _intraday(self, minutes: np.ndarray, all_day: np.ndarray) -> Iterator[np.ndarray]:  # [n], [n] bool
        raise NotImplementedError


@feature("time_of_day")
@dataclass(frozen=True)
class TimeOfDay(_ClockTransform):
    """The time of day on a circle: its sine and cosine."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("time_of_day_sin", "time_of_day_cos")

    def _intraday(self, minutes: np.ndarray, all_day: np.ndarray) -> Iterator[np.ndarray]:
        angle = 2.0 * np.pi * minutes / DAY_MINUTES
        yield np.sin(angle)
        yield np.cos(angle)


@feature("session_position")
@dataclass(frozen=True)
class SessionPosition(_ClockTransform):
    """Share of the session, or of the day round the clock, that has passed; before the open 0, after the close 1."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("session_position",)

    def _intraday(self, minutes: np.ndarray, all_day: np.ndarray) -> Iterator[np.ndarray]:
        session = np.clip((minutes - US_OPEN_MINUTE) / US_SESSION_MINUTES, 0.0, 1.0)
        yield np.where(all_day, minutes / DAY_MINUTES, session)
