"""Which bars a candidate trains on, is chosen on and is judged on, in order of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.market import MarketTensors
from kit.config import setting
from kit.errors import UserError

PURGE = 2  # bars between spans: a reward looks one bar ahead, and its order fills one bar later


@dataclass(frozen=True)
class SpanConfig:
    """How many bars at the end are kept for choosing the checkpoint and for judging it."""

    validation: int = setting(252, low=0, help="bars on which the checkpoint is chosen; 0: the last one is kept")
    test: int = setting(1260, low=0, help="last bars, which training never sees; 0: none")
    train: int | None = setting(None, low=2, help="bars to train on (default: all that are left)")


@dataclass(frozen=True)
class Spans:
    """Decisions, as slices of bars; an empty slice is a span that was not asked for."""

    train: slice
    validation: slice
    test: slice

    @classmethod
    def cut(cls, bars: int, warmup: int, config: SpanConfig) -> Spans:
        """`bars` of the whole panel; the first `warmup` have no features yet, the last has no next bar."""
        end = bars - 1
        test = slice(end - config.test, end)
        stop = test.start - (PURGE if config.test else 0)
        validation = slice(stop - config.validation, stop)
        stop = validation.start - (PURGE if config.validation else 0)
        left = stop - warmup
        if left < 2:
            raise UserError(
                f"spans: {bars} bars are {warmup} to warm up, {config.validation} for validation and {config.test} "
                f"for the test; too few are left to train on; expected at least {bars + 2 - left} bars"
            )
        if config.train is not None and config.train > left:
            raise UserError(f"spans.train = {config.train}: expected at most {left}; no more bars are left")
        first = stop - (left if config.train is None else config.train)
        return cls(slice(first, stop), validation, test)

    def ends(self, market: MarketTensors) -> np.datetime64:
        """The last close that training or choosing saw."""
        last = self.validation.stop if self.validation.stop > self.validation.start else self.train.stop
        return market.dates[min(last, len(market) - 1)]
