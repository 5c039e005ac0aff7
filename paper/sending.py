"""From orders that are written down to orders that have ended: sent once, looked up, followed, cancelled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np

from paper.books import Booked
from paper.broker import Broker, Order, OutcomeUnknown, Rejected
from paper.config import PaperConfig
from paper.guard import Guard
from paper.keeper import Keeper
from paper.orders import requests
from paper.pace import Close, Pace
from paper.risk import State
from paper.watch.alerts import Level

log = logging.getLogger(__name__)


class Sender:
    """`sent` is told of every order that leaves."""

    def __init__(
        self,
        config: PaperConfig,
        broker: Broker,
        keeper: Keeper,
        guard: Guard,
        pace: Pace,
        alert: Callable[[str, Level, str], None],
        sleep: Callable[[float], None],
        sent: Callable[[datetime], None],
    ) -> None:
        self.config, self.broker, self.keeper, self.guard, self.pace = config, broker, keeper, guard, pace
        self.alert, self.sleep, self.sent = alert, sleep, sent

    def send_all(self, moment: datetime) -> None:
        """Until the fate of each is known: one that the broker does not have is sent again under its name, once.

        What is marked as sent before any of it is may not have left when the desk is killed; the broker tells.
        """
        before = [order for order in self.keeper.now().open() if order.status == "sent"]
        there = {order.id for order in self._found(before)}
        waiting = [order for order in self.keeper.now().open() if order.status in ("intent", "sent")]
        self._send([order for order in waiting if order.id not in there], moment)
        until = time.monotonic() + self.config.orders.settle
        while lost := [order for order in self.keeper.now().open() if order.status == "sent"]:
            if time.monotonic() > until:
                self._send(lost, moment)
                unknown = [order for order in self.keeper.now().open() if order.status == "sent"]
                found = {order.id for order in self._found(unknown)}
                self._lose([order for order in unknown if order.id not in found])
                return
            self.sleep(min(self.config.watch, self.config.orders.settle / 4))
            self._found(lost)

    def _send(self, orders: Sequence[Booked], moment: datetime) -> None:
        """The name of an order is its own for ever, so that a broker takes it only once."""
        marked = [self._withhold(order) or replace(order, status="sent", sent=moment.isoformat()) for order in orders]
        self.keeper.mark([order for order in marked if order.status == "sent"], "sent")
        self.keeper.mark([order for order in marked if order.status != "sent"], "withheld")
        views: list[Order] = []
        try:
            for order in marked:
                if order.status != "sent":
                    continue
                self.guard.heed()
                if withheld := self._withhold(order):  # since a moment ago
                    self.keeper.mark([withheld], "withheld")
                    continue
                self.sent(moment)
                try:
                    views.append(self.broker.submit(order.request))
                except Rejected as error:
                    self.keeper.refuse(order, str(error))
                except OutcomeUnknown as error:
                    self.alert("unknown", "critical", f"{order.id}: {error}")
        finally:
            self.keeper.book(views)

    def flatten(self, symbol: str, bar: datetime | None, price: float, moment: datetime) -> None:
        """Between bars: sell all there is, unless an order for it is open already."""
        books = self.keeper.now()
        held = books.positions.get(symbol)
        if not held or bar is None or any(order.symbol == symbol for order in books.open()):
            return
        number = sum(order.symbol == symbol for order in books.orders.values()) + 1
        name = np.datetime64(bar.astimezone(UTC).replace(tzinfo=None))
        (made,) = requests(self.config.name, name, {symbol: -held}, number)
        expected = Decimal(repr(price))
        order = Booked(made.id, made.symbol, made.side, made.quantity, bar.isoformat(), expected)
        self.keeper.mark([order], "intent")
        self._send([order], moment)

    def _found(self, orders: Sequence[Booked]) -> list[Order]:
        """Those that the broker has; it raises where the broker cannot be asked, for that is no answer."""
        views = [view for view in (self.broker.order(order.id) for order in orders) if view is not None]
        self.keeper.book(views)
        return views

    def _withhold(self, order: Booked) -> Booked | None:
        """As it is where it must not be sent any more, though it was allowed when it was decided."""
        if why := self._unwanted(order):
            return replace(order, status="canceled", reason=why)
        return None

    def _unwanted(self, order: Booked) -> str:
        if self.guard.state == State.ACTIVE:
            return ""
        held = self.keeper.now().positions.get(order.symbol, Decimal(0))
        reduces = held * order.remaining < 0 and abs(order.remaining) <= abs(held)
        return "" if reduces else f"{self.guard.state}: {self.guard.why}"

    def unwanted(self) -> list[Booked]:
        """What is at the broker, but would not be sent any more."""
        return [order for order in self.keeper.now().open() if self._unwanted(order)]

    def _lose(self, orders: Sequence[Booked]) -> None:
        why = "the broker does not have it, after it was sent twice"
        self.keeper.mark([replace(order, status="canceled", reason=why) for order in orders], "lost")
        for order in orders:
            self.alert("lost", "critical", f"{order.id}: {why}")

    def ended(self, close: Close, asked: set[str]) -> bool:
        """A look at all of them: whether all have ended. `asked` are those that the broker was asked to cancel."""
        self.keeper.sweep()
        waiting = list(self.keeper.now().open())
        if not waiting:
            return True
        late = self.pace.late(close, self.config.orders.deadline)
        if ending := waiting if late else self.unwanted():
            asked |= self.cancel([order for order in ending if order.id not in asked])
            self.keeper.sweep()
            if not any(True for _ in self.keeper.now().open()):
                self._tell_of_cuts(asked)
                return True
        return False

    def cancel(self, orders: Sequence[Booked]) -> set[str]:
        """Those that the broker was asked to cancel, and answered: whether it came to that, the next look tells."""
        answered = set()
        for order in orders:
            view = self.keeper.views.get(order.id)
            if view is None:
                continue
            try:
                self.broker.cancel(view)
                answered.add(order.id)
            except Rejected as error:
                log.warning("%s: cancelling: %s", order.id, error)
                answered.add(order.id)
            except OutcomeUnknown as error:
                self.alert("unknown", "critical", f"{order.id}: {error}")
        return answered

    def _tell_of_cuts(self, asked: Collection[str]) -> None:
        for order in self.keeper.now().orders.values():
            if order.id in asked and order.status == "canceled":
                self.alert("cut", "warning", f"{order.id}: cancelled with {order.filled} of {order.quantity} filled")
