"""What a transform sees: some bars of some symbols, and the bars before them that it asks for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from market.panel import Panel


class Window:
    """Bars `rows` of the symbols `columns`, preceded by up to `warmup` earlier bars.

    Every array is asked for with `back`, how many earlier bars it starts with. Bars before the
    panel's start count as bars before a symbol's listing. There, prices are the first known close:
    known by the time of any cell that is kept, because cells before the listing become 0.
    """

    def __init__(self, panel: Panel, rows: slice, columns: slice, warmup: int) -> None:
        self.panel = panel
        self.rows = rows
        self.columns = columns
        self.bars = rows.stop - rows.start
        self._first = rows.start - warmup

    def close(self, back: int = 0) -> np.ndarray:  # [back + n, A]
        return self._last(self._close, back)

    def high(self, back: int = 0) -> np.ndarray:  # [back + n, A]
        return self._last(self._high, back)

    def low(self, back: int = 0) -> np.ndarray:  # [back + n, A]
        return self._last(self._low, back)

    def log_close(self, back: int = 0) -> np.ndarray:  # [back + n, A]
        return self._last(self._log_close, back)

    def log_return(self, back: int = 0) -> np.ndarray:  # [back + n, A]; reads one bar more
        return np.diff(self.log_close(back + 1), axis=0)

    def volume(self, back: int = 0) -> np.ndarray:  # [back + n, A]; 0 or NaN where there is none
        return self._last(self._volume, back)

    @cached_property
    def listed(self) -> np.ndarray:  # [n, A] bool
        return self._last(self._known, 0)

    def _last(self, array: np.ndarray, back: int) -> np.ndarray:
        spare = len(array) - self.bars - back
        assert spare >= 0, f"the warm-up lacks {-spare} bars"
        return array[spare:]

    def _read(self, array: np.ndarray) -> np.ndarray:  # [T, A] -> [warmup + n, A]
        known = array[max(self._first, 0) : self.rows.stop, self.columns]
        if self._first >= 0:
            return known
        return np.concatenate([np.full((-self._first, known.shape[1]), np.nan), known])

    def _price(self, array: np.ndarray) -> np.ndarray:  # [T, A] -> [warmup + n, A]
        price = self._read(array)
        return price if self._known.all() else np.where(self._known, price, self._first_close)

    @cached_property
    def _raw_close(self) -> np.ndarray:  # [warmup + n, A]
        return self._read(self.panel.close)

    @cached_property
    def _known(self) -> np.ndarray:  # [warmup + n, A] bool
        return ~np.isnan(self._raw_close)

    @cached_property
    def _first_close(self) -> np.ndarray:  # [A]; 1 where the symbol is not listed in this window at all
        first = self._raw_close[self._known.argmax(axis=0), np.arange(self._known.shape[1])]
        return np.where(np.isnan(first), 1.0, first)

    @cached_property
    def _close(self) -> np.ndarray:
        return self._price(self.panel.close)

    @cached_property
    def _high(self) -> np.ndarray:
        return self._price(self.panel.high)

    @cached_property
    def _low(self) -> np.ndarray:
        return self._price(self.panel.low)

    @cached_property
    def _volume(self) -> np.ndarray:
        return self._read(self.panel.volume)

    @cached_property
    def _log_close(self) -> np.ndarray:
        return np.log(self._close)
