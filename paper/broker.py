"""The seam between the desk and a broker: what it can be asked, and what may go wrong.

Amounts of money, prices and quantities are exact decimals. A quantity is positive and goes with a
side, except a position's, which is signed. Times are in UTC, by the broker's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Literal, Protocol

import numpy as np

Side = Literal["buy", "sell"]
Status = Literal["pending", "open", "partial", "filled", "canceled", "rejected", "expired", "unknown"]
ENDED: tuple[Status, ...] = ("filled", "canceled", "rejected", "expired")
SMALLEST = Decimal("0.000000001")  # of a share


@dataclass(frozen=True)
class Account:
    cash: Decimal
    equity: Decimal
    buying_power: Decimal
    blocked: str = ""  # why it may not trade; empty: it may


@dataclass(frozen=True)
class Position:
    symbol: str
    quantity: Decimal  # below zero: short
    average_price: Decimal


@dataclass(frozen=True)
class Request:
    """A market order for the day. `id` is ours: the same request sent twice is one order."""

    id: str
    symbol: str
    side: Side
    quantity: Decimal


@dataclass(frozen=True)
class Order:
    """An order as the broker knows it. What is filled stays filled, at a price that settles."""

    id: str  # ours; the broker's own where it was not placed by us
    broker_id: str
    symbol: str
    side: Side
    quantity: Decimal
    status: Status
    filled: Decimal = Decimal(0)
    average_price: Decimal | None = None  # of what is filled
    reason: str = ""  # where it was refused

    @property
    def ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class Quote:
    symbol: str
    price: Decimal  # of the last trade, or the middle of bid and ask
    at: datetime


@dataclass(frozen=True)
class Activity:
    """What changed cash or positions other than a fill: interest, dividend, fee, split, transfer."""

    id: str
    kind: str
    at: datetime
    cash: Decimal = Decimal(0)  # by how much it changed
    symbol: str = ""
    quantity: Decimal = Decimal(0)  # by how much the position changed


@dataclass(frozen=True)
class Session:
    """A day on which is traded. Round the clock: from midnight to midnight, UTC."""

    day: date
    open: datetime
    close: datetime


@dataclass(frozen=True)
class Row:
    """One bar of one symbol; `time` is its start."""

    symbol: str
    time: np.datetime64  # ns, UTC
    open: float
    high: float
    low: float
    close: float
    volume: float


class BrokerError(Exception):
    """One line that says what went wrong; it holds no key, and no exception that could."""


class Rejected(BrokerError):
    """The broker refused this, for good; nothing was booked."""


class Unreachable(BrokerError):
    """No answer to a question, within its attempts. Nothing was to be changed by it."""


class OutcomeUnknown(BrokerError):
    """No answer to an order or a cancellation: it may have been done or not. Look it up before all else."""


class Broker(Protocol):
    """Every call ends within a bounded time. Questions are repeated where that may help, orders never."""

    def now(self) -> datetime:
        """The broker's clock."""
        ...

    def sessions(self, first: date, last: date) -> Sequence[Session]: ...

    def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> Sequence[Row]:
        """Bars that have closed, with start <= time < stop, in the order of time; the size is the broker's setting."""
        ...

    def quotes(self, symbols: Sequence[str]) -> dict[str, Quote]: ...

    def tradable(self, symbols: Sequence[str]) -> dict[str, str]:
        """Why a symbol cannot be traded now, as halted; empty: it can."""
        ...

    def account(self) -> Account: ...

    def positions(self) -> dict[str, Position]: ...

    def open_orders(self) -> Sequence[Order]: ...

    def order(self, id: str) -> Order | None:
        """By our id; None: there is none."""
        ...

    def submit(self, request: Request) -> Order:
        """Raises Rejected or OutcomeUnknown. An id that was used before gives the order that has it."""
        ...

    def cancel(self, order: Order) -> None:
        """Ask for it: the order tells whether it came to that. Raises OutcomeUnknown."""
        ...

    def activities(self, after: str) -> Sequence[Activity]:
        """Those that came after the one with this id (empty: all of the account's), oldest first."""
        ...

    def listen(self, changed: Callable[[str], None]) -> None:
        """Call back with our id whenever an order may have changed, from another thread. What it says is a hint:
        `order` tells what is so. It reconnects by itself; whoever waits must also ask now and then."""
        ...

    def close(self) -> None: ...


def whole_steps(quantity: Decimal, step: Decimal = SMALLEST) -> Decimal:
    """The largest multiple of `step` that is not above |quantity|, with its sign."""
    return (quantity / step).to_integral_value(ROUND_DOWN) * step
