"""From a request to the panel that training would have seen: refused where it is not one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from agents.lens import Lens
from market.checks import TOLERANCE
from market.clock import infer_bar, infer_bars_per_year
from market.panel import FIELDS, PRICES, Observed, Panel
from serve.schema import ActionsRequest, Column, ObservedColumn, Problem, moment

EPOCH, NOT_A_TIME = datetime(1970, 1, 1, tzinfo=UTC), -(2**63)
SPACING = 2.0  # how many times as often as in training bars may come
ENOUGH = 20  # bars, to tell how often they come
LEAST_PRICE, MOST_PRICE, MOST = 1e-9, 1e12, 1e18  # so that no feature of theirs leaves float32


def panel_of(request: ActionsRequest, lens: Lens, needed: int) -> Panel:
    """The last `needed` bars, in the order of symbols that members were trained with."""
    order = _order(request.symbols, lens.symbols)
    read: dict[str | None, int] = {}
    times, closes = _moments(request.times, "times", read), _moments(request.closes, "closes", read)
    if len(closes) != len(times):
        raise Problem(422, "closes", f"{len(closes)} of {len(times)} bars; expected one for every time")
    _increasing(times, "times")
    _increasing(closes, "closes")
    if (early := np.flatnonzero(closes < times)).size:
        raise Problem(422, f"closes.{early[0]}", "is before the bar's start; expected its end")
    if len(times) < needed:
        raise Problem(422, "times", f"{len(times)} bars; expected at least {needed}, to know the last of them")
    _check_spacing(times, lens.bars_per_year)
    shape = (len(request.symbols), len(times))
    columns = {name: _grid(getattr(request, name), shape, name) for name in FIELDS}
    tradable = _tradable(request.tradable, columns, shape)
    _check_prices(columns)
    _check_gaps(columns, tradable)
    observed = _observed(request.observed, lens.observed, shape, request.closes, closes, read)
    last = slice(len(times) - needed, None)

    def laid_out(values: np.ndarray) -> np.ndarray:  # [A, T] -> [needed, A]
        return np.ascontiguousarray(values[order, last].T)

    return Panel(
        symbols=lens.symbols,
        times=times[last],
        closes=closes[last],
        **{name: laid_out(values) for name, values in columns.items()},
        tradable=laid_out(tradable),
        bars_per_year=lens.bars_per_year,
        observed={k: Observed(laid_out(column.values), laid_out(column.known_at)) for k, column in observed.items()},
    )


def _order(symbols: Sequence[str], trained: Sequence[str]) -> list[int]:
    """Where each symbol of training stands in the request."""
    places, known = {symbol: place for place, symbol in enumerate(symbols)}, set(trained)
    for place, symbol in enumerate(symbols):
        if places[symbol] != place:
            raise Problem(422, f"symbols.{places[symbol]}", f"{symbol} is given twice")
    if unknown := [symbol for symbol in symbols if symbol not in known]:
        raise Problem(422, f"symbols.{places[unknown[0]]}", f"{unknown[0]} is not one that members were trained with")
    if missing := [symbol for symbol in trained if symbol not in places]:
        raise Problem(422, "symbols", f"{missing[0]} is missing; expected all {len(trained)} of training")
    return [places[symbol] for symbol in trained]


def _moments(texts: Sequence[str | None], field: str, known: dict[str | None, int]) -> np.ndarray:  # [T] datetime64[ns]
    """`known` are those that were read before."""
    for place, text in enumerate(texts):
        if text not in known:
            known[text] = _nanoseconds(text, f"{field}.{place}")
    return np.array([known[text] for text in texts], np.int64).view("datetime64[ns]")


def _nanoseconds(text: str | None, field: str) -> int:
    if text is None:
        return NOT_A_TIME
    since = moment(text, field) - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1_000


def _increasing(moments: np.ndarray, field: str) -> None:
    if (wrong := np.flatnonzero(np.diff(moments) <= np.timedelta64(0))).size:
        raise Problem(422, f"{field}.{wrong[0] + 1}", "is not after the one before; expected increasing times")


def _check_spacing(times: np.ndarray, trained: float) -> None:
    if len(times) < ENOUGH:
        return
    found = infer_bars_per_year(times, infer_bar(times))
    if not trained / SPACING <= found <= trained * SPACING:
        raise Problem(422, "times", f"some {found:.0f} bars a year; expected about {trained:.0f}, as in training")


def _grid(column: Column | list[list[bool]], shape: tuple[int, int], field: str) -> np.ndarray:  # [A, T]
    _check_shape(column, shape, field)
    return np.array(column, dtype=np.float64)


def _check_shape(column: Sequence[Sequence[object]], shape: tuple[int, int], field: str) -> None:
    symbols, bars = shape
    if len(column) != symbols:
        raise Problem(422, field, f"{len(column)} lists; expected one for each of {symbols} symbols")
    for place, values in enumerate(column):
        if len(values) != bars:
            raise Problem(422, f"{field}.{place}", f"{len(values)} values; expected one for each of {bars} bars")


def _tradable(
    given: list[list[bool]] | None, columns: dict[str, np.ndarray], shape: tuple[int, int]
) -> np.ndarray:  # [A, T]
    """Also checks that nothing is missing once a symbol is listed."""
    listed = ~np.isnan(columns["close"])
    for name, values in columns.items():
        _refuse(np.isnan(values) & listed, name, "is null; expected a number wherever the bar has a close")
        _refuse(~np.isnan(values) & ~listed, name, "has a number where the close is null; expected null in all five")
    _refuse(listed[:, :-1] & ~listed[:, 1:], "close", "is followed by null; expected prices once a symbol is listed")
    if given is None:
        return listed
    _check_shape(given, shape, "tradable")
    tradable = np.array(given, dtype=bool)
    _refuse(tradable & ~listed, "tradable", "is true where there is no price yet")
    return tradable


def _check_prices(columns: dict[str, np.ndarray]) -> None:
    open, high, low, close, volume = (columns[name] for name in FIELDS)  # [A, T]; comparisons with NaN are False
    for name in PRICES:
        _refuse(columns[name] <= 0, name, "is not positive")
        outside = (columns[name] < LEAST_PRICE) | (columns[name] > MOST_PRICE)
        _refuse(outside, name, f"expected a price from {LEAST_PRICE:g} to {MOST_PRICE:g}")
    _refuse(high < np.maximum(open, close) * (1 - TOLERANCE), "high", "is below the open or the close")
    _refuse(low > np.minimum(open, close) * (1 + TOLERANCE), "low", "is above the open or the close")
    _refuse(volume < 0, "volume", "is negative")
    _refuse(volume > MOST, "volume", f"is above {MOST:g}")


def _check_gaps(columns: dict[str, np.ndarray], tradable: np.ndarray) -> None:
    """Features of a gap are those of prices that stand still."""
    close = columns["close"]
    gap = ~np.isnan(close) & ~tradable
    last = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    for name in PRICES:
        moved = ~(np.abs(columns[name] - last) <= TOLERANCE * last)
        _refuse(gap & moved, name, "is not the last close; expected it where tradable is false")
    _refuse(gap & (columns["volume"] > 0), "volume", "is not 0; expected 0 where tradable is false")


def _observed(
    given: dict[str, ObservedColumn],
    trained: Sequence[str],
    shape: tuple[int, int],
    ends: Sequence[str],
    closes: np.ndarray,
    read: dict[str | None, int],
) -> dict[str, Observed]:
    """[A, T] each, unlike a panel's."""
    if missing := [name for name in trained if name not in given]:
        raise Problem(422, "observed", f"{missing[0]} is missing; expected {', '.join(trained)}")
    if unknown := [name for name in given if name not in trained]:
        raise Problem(422, f"observed.{unknown[0]}", f"is unknown; expected {', '.join(trained) or 'none'}")
    found = {}
    for name in trained:
        field, column = f"observed.{name}", given[name]
        values = _grid(column.values, shape, f"{field}.values")
        _check_shape(column.known_at, shape, f"{field}.known_at")
        known_at = np.stack(
            [
                closes if row == ends else _moments(row, f"{field}.known_at.{place}", read)  # most often at the close
                for place, row in enumerate(column.known_at)
            ]
        )
        _refuse(
            np.isnan(values) != np.isnat(known_at), f"{field}.known_at", "expected a time for every value, no other"
        )
        _refuse(np.abs(values) > MOST, f"{field}.values", f"is beyond {MOST:g}")
        _refuse(known_at > closes, f"{field}.known_at", "is after its bar's close: nobody could know it there")
        found[name] = Observed(values, known_at)
    return found


def _refuse(wrong: np.ndarray, field: str, reason: str) -> None:  # [A, T]
    if wrong.any():
        symbol, bar = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise Problem(422, f"{field}.{symbol}.{bar}", reason)
