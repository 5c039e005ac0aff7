"""Panels made in memory for tests: random walks with late listings, gaps and an observed column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from market.clock import TRADING_DAYS, US_SESSION_MINUTES, bar_closes
from market.panel import FIELDS, PRICES, Observed, Panel

MINUTE = np.timedelta64(60_000_000_000, "ns")


def random_panel(
    seed: int = 0,
    bars: int = 400,
    symbols: int = 5,
    gaps: bool = True,
    minutes: bool = False,
    start: str = "2019-01-07",
) -> Panel:
    """Daily or US minute bars; with `gaps`, symbols after the first list late and pause now and then."""
    rng = np.random.default_rng(seed)
    shape = (bars, symbols)
    sigma = 0.0008 if minutes else 0.015
    close = 50.0 * (1.0 + np.arange(symbols)) * np.exp(np.cumsum(sigma * rng.standard_t(5, shape), axis=0))
    open_ = close * np.exp(0.5 * sigma * rng.standard_normal(shape))
    high = np.maximum(open_, close) * np.exp(sigma * rng.exponential(0.5, shape))
    low = np.minimum(open_, close) * np.exp(-sigma * rng.exponential(0.5, shape))
    volume = np.round(1e5 * np.exp(rng.standard_normal(shape)))
    signal, known_row = np.round(rng.standard_normal(shape), 3), np.tile(np.arange(bars)[:, None], symbols)
    tradable = np.ones(shape, bool)
    if gaps:
        first_bars = np.sort(rng.integers(0, bars // 2, symbols))
        for column in range(1, symbols):
            first = int(first_bars[column])
            tradable[:first, column] = False
            for array in (open_, high, low, close, volume):
                array[:first, column] = np.nan
            for pause in rng.integers(first + 1, bars, 3):
                rows = slice(pause, pause + int(rng.integers(1, 12)))
                tradable[rows, column] = False
                volume[rows, column] = 0.0
                for array in (open_, high, low, close):
                    array[rows, column] = close[pause - 1, column]
            known_row[:, column] -= known_row[:, column] % 3  # a value every third bar
            signal[:, column] = signal[known_row[:, column], column]
        signal[:2], known_row[:2] = np.nan, -1
    times = us_minutes(bars, start) if minutes else business_days(bars, start)
    closes = bar_closes(times, MINUTE if minutes else np.timedelta64(86_400_000_000_000, "ns"))
    known_at = np.where(known_row >= 0, closes[known_row], np.datetime64("NaT", "ns"))
    return Panel(
        symbols=tuple(f"S{i:03d}" for i in range(symbols)),
        times=times,
        closes=closes,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        tradable=tradable,
        bars_per_year=float(TRADING_DAYS * (US_SESSION_MINUTES if minutes else 1)),
        observed={"signal": Observed(signal, known_at)},
    )


def business_days(bars: int, start: str = "2019-01-07") -> np.ndarray:  # [T] datetime64[ns]
    return np.busday_offset(start, np.arange(bars), roll="forward").astype("datetime64[ns]")


def us_minutes(bars: int, start: str = "2019-01-07") -> np.ndarray:  # [T] datetime64[ns]
    """Minutes of the US session, 9:30 to 16:00, as in winter."""
    day, minute = np.divmod(np.arange(bars), US_SESSION_MINUTES)
    return business_days(int(day.max()) + 1, start)[day] + (870 + minute) * MINUTE


def constant_panel(price: float = 100.0, bars: int = 400, symbols: int = 3, volume: float = 1000.0) -> Panel:
    """Every price the same, on every bar."""
    panel = random_panel(0, bars, symbols, gaps=False)
    return with_arrays(panel, volume=np.full(panel.close.shape, volume), **flat(np.full(panel.close.shape, price)))


def price_panel(close: Any, volume: Any = 1000.0, minutes: bool = False) -> Panel:
    """Bars without a range, from closes [T] or [T, A]."""
    close = np.asarray(close, dtype=np.float64)
    close = close.reshape(len(close), -1)
    panel = random_panel(0, *close.shape, gaps=False, minutes=minutes)
    return with_arrays(panel, volume=np.broadcast_to(volume, close.shape).astype(np.float64), **flat(close))


def flat(close: np.ndarray) -> dict[str, np.ndarray]:  # [T, A]
    return {name: close.copy() for name in PRICES}


def with_arrays(panel: Panel, **arrays: Any) -> Panel:
    """The panel with other fields."""
    return replace(panel, **arrays)


def scaled_prices(panel: Panel, factor: float) -> Panel:
    return with_arrays(panel, **{name: getattr(panel, name) * factor for name in PRICES})


def with_other_future(panel: Panel, last: int, seed: int = 99) -> Panel:
    """The same up to and including bar `last`; after it everything that a panel holds is different."""
    rng = np.random.default_rng(seed)
    after = slice(last + 1, None)
    shape = panel.close[after].shape
    arrays = {name: getattr(panel, name).copy() for name in (*FIELDS, "tradable")}
    for name in FIELDS:
        arrays[name][after] = rng.lognormal(3, 2, shape)
    arrays["tradable"][after] = rng.random(shape) < 0.5
    observed = {}
    for name, column in panel.observed.items():
        values, known_at = column.values.copy(), column.known_at.copy()
        values[after] = rng.normal(0, 100, shape)
        known_at[after] = panel.closes[after, None]
        observed[name] = Observed(values, known_at)
    return with_arrays(panel, **arrays, observed=observed)
