"""What every source of bars must keep true; `conforms(source)` asserts it."""

from __future__ import annotations

import numpy as np

from market.bars import Bars, Source
from market.panel import FIELDS


def conforms(source: Source) -> Bars:
    bars = source.read()
    rows = len(bars.times)
    assert isinstance(bars.origin, str)
    assert bars.origin
    _symbols_and_codes(bars, rows)
    assert bars.times.dtype == np.dtype("datetime64[ns]")
    assert set(FIELDS) <= set(bars.names)
    assert len(set(bars.names)) == len(bars.names)
    for name in bars.names:
        _column(bars, name, rows)
    for name in FIELDS:
        assert bars.known_at(name) is None, f"{name} is known when its bar closes"
    names = {bars.row_name(row) for row in range(min(rows, 50))}
    assert all(isinstance(name, str) and name for name in names)
    _reads_the_same_again(bars, source.read())
    return bars


def _symbols_and_codes(bars: Bars, rows: int) -> None:
    assert isinstance(bars.symbols, tuple)
    assert len(set(bars.symbols)) == len(bars.symbols) > 0
    assert all(isinstance(symbol, str) and symbol for symbol in bars.symbols)
    assert bars.codes.shape == (rows,)
    assert bars.codes.dtype == np.int32
    assert ((bars.codes >= 0) & (bars.codes < len(bars.symbols))).all()


def _column(bars: Bars, name: str, rows: int) -> None:
    column = bars.column(name)
    assert column.shape == (rows,), name
    assert column.dtype == np.float64, name
    np.testing.assert_array_equal(bars.column(name), column)
    known_at = bars.known_at(name)
    if known_at is not None:
        assert known_at.shape == (rows,), name
        assert known_at.dtype == np.dtype("datetime64[ns]"), name


def _reads_the_same_again(first: Bars, second: Bars) -> None:
    assert (first.origin, first.symbols, first.names) == (second.origin, second.symbols, second.names)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.times, second.times)
    for name in first.names:
        np.testing.assert_array_equal(first.column(name), second.column(name))
        np.testing.assert_array_equal(first.known_at(name), second.known_at(name))
