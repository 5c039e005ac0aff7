"""An account's books: cash, positions, orders, executions, activities. No market and no HTTP here.

Everything is an exact decimal: a position is the sum of its fills, cash what they took and gave.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_DOWN, Context, Decimal, localcontext
from typing import Literal, NamedTuple
from uuid import UUID, uuid5

Side = Literal["buy", "sell"]
NAMES = UUID("6d1f6f0e-5c0c-4f0a-9a3b-2f7f0e0a8701")
EXACT = Context(prec=80)  # 9 places of quantity times 17 digits of price, at any size
DIGITS = Context(prec=17)  # of a price
ZERO = Decimal(0)
SHARE, NANO = Decimal(1), Decimal("1e-9")


def exact(value: float) -> Decimal:
    """The decimal that reads back as the same float."""
    return Decimal(repr(float(value)))


def name(*parts: object) -> str:
    """A UUID, the same for the same parts."""
    return str(uuid5(NAMES, " ".join(map(str, parts))))


@dataclass
class Order:
    id: str
    client_id: str
    symbol: str
    side: Side
    quantity: Decimal
    notional: Decimal | None  # what was asked for, where that was money
    time_in_force: str
    created: datetime
    status: str = "new"
    filled: Decimal = ZERO
    spent: Decimal = ZERO  # on what is filled
    executions: int = 0
    updated: datetime | None = None
    waiting: Decimal = ZERO  # of the fill, what a second execution brings
    price: Decimal = ZERO  # of that
    stuck: bool = False  # it never comes

    @property
    def sign(self) -> int:
        return 1 if self.side == "buy" else -1

    @property
    def average(self) -> Decimal | None:
        return DIGITS.divide(self.spent, self.filled) if self.filled else None

    @property
    def left(self) -> Decimal:
        return self.quantity - self.filled


@dataclass
class Position:
    quantity: Decimal = ZERO
    average: Decimal = ZERO


@dataclass(frozen=True)
class Activity:
    id: str
    kind: str
    at: datetime
    cash: Decimal = ZERO
    symbol: str = ""
    quantity: Decimal = ZERO
    price: Decimal | None = None
    order: Order | None = None  # as it was then


class Event(NamedTuple):
    """Something that the stream tells."""

    kind: str
    order: Order  # as it was then
    at: datetime
    execution: str
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    position: Decimal = ZERO


@dataclass
class Book:
    cash: Decimal
    positions: dict[str, Position] = field(default_factory=dict)  # none of them empty
    orders: dict[str, Order] = field(default_factory=dict)  # by id, in the order of time; likewise the next two
    by_client: dict[str, Order] = field(default_factory=dict)
    open: dict[str, Order] = field(default_factory=dict)
    activities: list[Activity] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)  # not yet told

    def held(self, symbol: str) -> Decimal:
        return self.positions[symbol].quantity if symbol in self.positions else ZERO

    def place(self, order: Order) -> None:
        self.orders[order.id] = self.by_client[order.client_id] = self.open[order.id] = order
        self._tell("new", order, order.created)

    def execute(self, order: Order, quantity: Decimal, price: Decimal, at: datetime) -> None:
        """Book a fill; at the order's whole quantity it is filled."""
        with localcontext(EXACT):
            amount = quantity * price
            self.cash -= order.sign * amount
            order.filled += quantity
            order.spent += amount
            self._move(order.symbol, order.sign * quantity, price)
        order.executions += 1
        done = order.filled == order.quantity
        order.status = "filled" if done else "partially_filled"
        if done:
            del self.open[order.id]
        order.updated = at
        self._tell("fill" if done else "partial_fill", order, at, quantity, price)
        self._note("FILL", at, symbol=order.symbol, quantity=quantity, price=price, order=copy.copy(order))

    def end(self, order: Order, status: str, at: datetime) -> None:
        """Close an order for what is left of it."""
        order.status, order.updated, order.waiting = status, at, ZERO
        del self.open[order.id]
        self._tell(status, order, at)

    def pay(self, kind: str, amount: Decimal, at: datetime) -> None:
        """Interest or a fee."""
        with localcontext(EXACT):
            self.cash += amount
        self._note(kind, at, cash=amount)

    def split(self, symbol: str, ratio: Decimal, at: datetime) -> None:
        position = self.positions.get(symbol)
        before = self.held(symbol)
        if position is not None:
            with localcontext(EXACT):
                position.quantity = (before * ratio).quantize(NANO, ROUND_DOWN)
                position.average = DIGITS.divide(position.average, ratio)
        self._note("SPLIT", at, symbol=symbol, quantity=self.held(symbol) - before, price=ratio)

    def _move(self, symbol: str, change: Decimal, price: Decimal) -> None:
        position = self.positions.setdefault(symbol, Position())
        before, after = position.quantity, position.quantity + change
        if before * change >= 0:
            position.average = DIGITS.divide(before * position.average + change * price, after)
        elif after * before < 0:  # through zero
            position.average = price
        position.quantity = after
        if not after:
            del self.positions[symbol]

    def _tell(self, kind: str, order: Order, at: datetime, quantity: Decimal = ZERO, price: Decimal = ZERO) -> None:
        execution = name(order.id, kind, order.executions)
        position = self.held(order.symbol)
        self.events.append(Event(kind, copy.copy(order), at, execution, quantity, price, position))

    def _note(
        self,
        kind: str,
        at: datetime,
        cash: Decimal = ZERO,
        symbol: str = "",
        quantity: Decimal = ZERO,
        price: Decimal | None = None,
        order: Order | None = None,
    ) -> None:
        number = len(self.activities)
        id = f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}::{name('activity', number)}"
        self.activities.append(Activity(id, kind, at, cash, symbol, quantity, price, order))
