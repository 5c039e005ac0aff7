"""What the desk should hold, by its own account: orders, what they filled, positions and cash. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from paper.broker import ENDED, Activity, Order, Request, Side, Status

NOTHING = Decimal(0)
Stage = Literal["intent", "sent"] | Status


class Mismatch(Exception):
    """Something at the broker that nothing explains; one line says what."""


@dataclass(frozen=True)
class Booked:
    """An order of ours. `intent`: written down, perhaps not sent; `sent`: perhaps not there; then the broker's word."""

    id: str
    symbol: str
    side: Side
    quantity: Decimal
    bar: str  # the close that it was decided at
    price: Decimal  # then
    status: Stage = "intent"
    filled: Decimal = NOTHING
    value: Decimal = NOTHING  # of what is filled
    reason: str = ""
    sent: str = ""  # when it was, last

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def signed(self) -> Decimal:
        return self.quantity if self.side == "buy" else -self.quantity

    @property
    def remaining(self) -> Decimal:  # signed
        left = NOTHING if self.ended else self.quantity - self.filled
        return left if self.side == "buy" else -left

    @property
    def request(self) -> Request:
        return Request(self.id, self.symbol, self.side, self.quantity)


@dataclass(frozen=True)
class Fill:
    """By how much an order filled since it was looked at last."""

    order: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    expected: Decimal  # the close that it was decided at


@dataclass(frozen=True)
class Books:
    cash: Decimal
    positions: Mapping[str, Decimal]
    orders: Mapping[str, Booked]  # those of the bar that is being handled
    activity: str = ""  # the last one that is booked
    traded: Decimal = NOTHING  # money, ever
    fills: int = 0  # of this bar: so often may a broker have rounded

    def with_order(self, order: Booked) -> Books:
        return replace(self, orders={**self.orders, order.id: order})

    def for_next_bar(self) -> Books:
        """Once they were found to agree with the broker's."""
        return replace(self, orders={k: order for k, order in self.orders.items() if not order.ended}, fills=0)

    def seen(self, view: Order) -> tuple[Books, Fill | None]:
        """After a look at one of our orders."""
        known = self.orders[view.id]
        if (view.symbol, view.side, view.quantity) != (known.symbol, known.side, known.quantity):
            raise Mismatch(
                f"order {view.id}: the broker has {view.side} {view.quantity} {view.symbol}; "
                f"sent was {known.side} {known.quantity} {known.symbol}"
            )
        if view.filled < known.filled or view.filled > known.quantity:
            raise Mismatch(f"order {view.id}: {view.filled} filled of {known.quantity}, {known.filled} before")
        value = view.filled * (view.average_price or NOTHING)
        quantity, paid = view.filled - known.filled, value - known.value
        after = replace(known, status=view.status, filled=view.filled, value=value, reason=view.reason or known.reason)
        books = self.with_order(after)
        if not quantity:
            return books, None
        sign = 1 if known.side == "buy" else -1
        books = replace(
            books,
            cash=self.cash - sign * paid,
            positions=_moved(self.positions, known.symbol, sign * quantity),
            traded=self.traded + paid,
            fills=self.fills + 1,
        )
        return books, Fill(known.id, known.symbol, known.side, quantity, paid / quantity, known.price)

    def after(self, activity: Activity) -> Books:
        positions = _moved(self.positions, activity.symbol, activity.quantity) if activity.symbol else self.positions
        return replace(self, cash=self.cash + activity.cash, positions=positions, activity=activity.id)

    def equity(self, prices: Mapping[str, float]) -> float:
        """The same in whatever order the positions came about."""
        return math.fsum([float(self.cash), *(float(held) * prices[symbol] for symbol, held in self.positions.items())])

    def open(self) -> Iterator[Booked]:
        return (order for order in self.orders.values() if not order.ended)


def to_json(books: Books) -> dict[str, Any]:
    return {
        "cash": str(books.cash),
        "positions": {symbol: str(held) for symbol, held in sorted(books.positions.items())},
        "orders": [_order_to_json(order) for order in books.orders.values()],
        "activity": books.activity,
        "traded": str(books.traded),
        "fills": books.fills,
    }


def from_json(tree: Mapping[str, Any]) -> Books:
    return Books(
        cash=Decimal(tree["cash"]),
        positions={symbol: Decimal(held) for symbol, held in tree["positions"].items()},
        orders={item["id"]: _order_from_json(item) for item in tree["orders"]},
        activity=tree["activity"],
        traded=Decimal(tree["traded"]),
        fills=tree["fills"],
    )


def _order_to_json(order: Booked) -> dict[str, str]:
    return {name: str(value) for name, value in vars(order).items()}


def _order_from_json(tree: Mapping[str, str]) -> Booked:
    amounts = {name: Decimal(tree[name]) for name in ("quantity", "price", "filled", "value")}
    return Booked(**{**tree, **amounts})  # type: ignore[arg-type]


def _moved(positions: Mapping[str, Decimal], symbol: str, change: Decimal) -> dict[str, Decimal]:
    held = positions.get(symbol, NOTHING) + change
    moved = {name: quantity for name, quantity in positions.items() if name != symbol}
    return moved | {symbol: held} if held else moved
