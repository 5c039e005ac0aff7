"""What the desk holds, what that comes to beside its limits, and whether it can be valued at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from statistics import NormalDist

import numpy as np

from paper.limits import Limits

CONFIDENCE = 0.95
LEAST_RETURNS = 20  # with fewer, none lies in the tail
ZERO, ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, eq=False)
class Book:
    """All that the risk engine knows of the account. Prices are the last quotes, and value all there is."""

    equity: float
    cash: float
    positions: Mapping[str, Decimal]  # below zero: short
    prices: Mapping[str, float]
    day_start_equity: float
    peak_equity: float
    average_prices: Mapping[str, float] = field(default_factory=dict)  # what a stop-loss is measured from
    open_orders: Mapping[str, Decimal] = field(default_factory=dict)  # what remains of each; below zero: a sale
    traded_today: float = 0.0  # money, bought plus sold
    order_times: Sequence[datetime] = ()  # when orders were sent, of the last minute at least
    symbols: Sequence[str] = ()  # of the returns
    returns: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # [T, A] oldest first; NaN: has none
    bars_per_day: float = 1.0  # of the returns


class Exposure:
    """A book in exact numbers: a float is taken for the decimal that it is written as."""

    def __init__(self, book: Book, limits: Limits) -> None:
        self.book, self.limits = book, limits
        self.equity, self.cash, self.traded = exact(book.equity), exact(book.cash), exact(book.traded_today)
        self.prices = {symbol: exact(price) for symbol, price in book.prices.items()}
        self.low: dict[str, Decimal] = {}  # how far open orders may carry a position down, and up
        self.high: dict[str, Decimal] = {}
        for symbol in {**book.positions, **book.open_orders}:
            held, open = book.positions.get(symbol, ZERO), book.open_orders.get(symbol, ZERO)
            if held.is_finite() and open.is_finite():  # else nothing can be said to reduce it
                self.low[symbol], self.high[symbol] = held + min(open, ZERO), held + max(open, ZERO)

    def range(self, symbol: str) -> tuple[Decimal, Decimal]:
        return self.low.get(symbol, ZERO), self.high.get(symbol, ZERO)

    def reduction(self, symbol: str, quantity: Decimal) -> Decimal:
        """The part of an order that brings the position nearer to zero, even if all open orders fill."""
        low, high = self.range(symbol)
        return min(quantity, max(ZERO, -high)) if quantity > 0 else -min(-quantity, max(ZERO, low))

    def room(self, symbol: str, quantity: Decimal, share: Decimal) -> Decimal:
        """How much money an order may come to before its position passes this share of equity."""
        low, high = self.range(symbol)
        farthest = high if quantity > 0 else -low
        return max(ZERO, share * self.equity - farthest * self.prices[symbol])

    def ceilings(self) -> dict[str, Decimal]:
        """The limits on the whole, in money: what may be at most."""
        shares = {
            "gross": self.limits.gross,
            "net_low": self.limits.net_low,
            "net_high": self.limits.net_high,
            "leverage": self.limits.leverage,
            "min_cash": self.limits.min_cash,
            "turnover": self.limits.turnover,
            "var": self.limits.var,
        }
        return {name: turned(name, exact(share)) * self.equity for name, share in shares.items() if share is not None}

    def totals(self, changes: Mapping[str, Decimal]) -> dict[str, Decimal]:
        """What `ceilings` bounds, were these orders filled, and the open ones to the worse."""
        gross = longs = net_low = net_high = ZERO
        cash, traded = self.cash, self.traded
        weights = {}
        for symbol in {**self.low, **changes}:
            (low, high), change = self.range(symbol), changes.get(symbol, ZERO)
            if not (low or high or change):
                continue
            price = self.prices[symbol]
            cash -= change * price
            traded += abs(change) * price
            low, high = (low + change) * price, (high + change) * price
            net_low, net_high, longs = net_low + low, net_high + high, longs + max(high, ZERO)
            farthest = max(low, high, key=abs)
            gross += abs(farthest)
            weights[symbol] = float(farthest / self.equity)
        for symbol, quantity in self.book.open_orders.items():
            traded += abs(quantity) * self.prices[symbol]
            cash -= max(quantity, ZERO) * self.prices[symbol]
        return {
            "gross": gross,
            "net_low": -net_low,
            "net_high": net_high,
            "leverage": longs + max(cash, ZERO),
            "min_cash": self.equity - cash,
            "turnover": traded,
            "var": self._risk(weights) * self.equity,
        }

    def _risk(self, weights: Mapping[str, float]) -> Decimal:
        if self.limits.var is None:
            return ZERO
        return Decimal(value_at_risk(weights, self.book, self.limits.var_bars))

    def blindness(self) -> str:
        """Why the book cannot be valued; empty: it can."""
        book, equities = self.book, ("equity", "day_start_equity", "peak_equity")
        for name in (*equities, "cash", "traded_today"):
            value = getattr(book, name)
            if not math.isfinite(value) or (name in equities and value <= 0):
                return f"{name} = {value}: expected money{' above 0' if name in equities else ''}"
        for symbol, quantity in [*book.positions.items(), *book.open_orders.items()]:
            if not quantity.is_finite():
                return f"{symbol} = {quantity}: expected a quantity, held or on order"
            if quantity and not is_positive(book.prices.get(symbol)):
                return f"{symbol}: its last quote is {book.prices.get(symbol)}, and it is held or on order"
            paid = book.average_prices.get(symbol)
            if self.limits.stop_loss is not None and book.positions.get(symbol) and not is_positive(paid):
                return f"{symbol}: its average price is {paid}, and it is held"
        if self.limits.var is not None and not self.totals({})["var"].is_finite():
            return f"the value at risk is not known: fewer than {LEAST_RETURNS} bars have a return of all that is held"
        return ""


def value_at_risk(weights: Mapping[str, float], book: Book, bars: int) -> float:
    """The loss in a day, as a share of equity, that 95 % of days stay under; inf if too little is known.

    The worse of two: the quantile of what these weights would have made in the newest bars for which all
    of them have a return, and that of a normal distribution with the same mean and deviation.
    """
    held = sorted(symbol for symbol, weight in weights.items() if weight)
    if not held:
        return 0.0
    returns = known_returns(held, book, bars)  # [T, A]
    if not len(returns):
        return math.inf
    profits = returns @ np.array([weights[symbol] for symbol in held])  # [T]
    historical = -float(np.quantile(profits, 1 - CONFIDENCE))
    parametric = NormalDist().inv_cdf(CONFIDENCE) * float(profits.std(ddof=1)) - float(profits.mean())
    return max(0.0, historical, parametric) * math.sqrt(book.bars_per_day)


def known_returns(symbols: Sequence[str], book: Book, bars: int) -> np.ndarray:  # [T, A]
    """Those of the newest bars in which all of these have one; none at all where they are too few."""
    if not set(symbols) <= set(book.symbols):
        return np.empty((0, len(symbols)))
    known = list(book.symbols)
    returns = book.returns[-bars:, [known.index(symbol) for symbol in symbols]]
    returns = returns[np.isfinite(returns).all(axis=1)]
    return returns if len(returns) >= LEAST_RETURNS else returns[:0]


def turned(name: str, share: Decimal) -> Decimal:
    """From a limit to what may be at most, and back: a net low is held as its opposite, cash as what is not cash."""
    return -share if name == "net_low" else ONE - share if name == "min_cash" else share


def exact(number: float) -> Decimal:
    return Decimal(str(float(number)))


def is_positive(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number > 0
