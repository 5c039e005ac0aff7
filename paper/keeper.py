"""Keeps the books: every look at the broker is booked in the transition that records it, and all must agree."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from paper.books import Booked, Books, Mismatch, from_json, to_json
from paper.broker import Account, Broker, Order
from paper.journal import Journal, Step
from paper.sleeve import SLEEVE, touched
from paper.sleeve import from_json as from_json_sleeve
from paper.sleeve import to_json as sleeve_to_json
from paper.watch.alerts import Level

ROUNDING = Decimal("0.01")  # of cash, for each fill: brokers round what they book
PRECISION = Decimal("1e-9")  # of equity
LOOKS = 5  # until two accounts that do not agree are taken to be apart: one may be ahead of the other for a moment
PAUSE = 0.3  # seconds between them
ACTIVITY = "activity"


class Keeper:
    """The one who changes the books."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        symbols: Sequence[str],
        alert: Callable[[str, Level, str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.broker, self.journal, self.symbols, self.alert, self.sleep = broker, journal, symbols, alert, sleep
        tree = journal.get("books")
        self.books: Books | None = None if tree is None else from_json(tree)
        self.views: dict[str, Order] = {}  # as each was seen last
        self.average_prices: dict[str, Decimal] = {}  # of positions, by the broker

    def begin(self) -> None:
        """At the first start the broker's account is where the books begin; later, they must explain it."""
        if self.books is None:
            self._adopt()
        self.agree()

    def keep(self, step: Step, books: Books) -> None:
        step.set("books", to_json(books))
        self.books = books

    def now(self) -> Books:
        assert self.books is not None, "the books are not begun"
        return self.books

    def book(self, views: Iterable[Order]) -> None:
        """After a look at orders of ours: one transition, and nothing is written where nothing is new."""
        books, told = self.now(), []
        for view in views:
            self.views[view.id] = view
            before = books.orders[view.id]
            books, fill = books.seen(view)
            if fill:
                told.append(("fill", vars(fill)))
            if books.orders[view.id] != before:
                told.append(("order", {"broker": view.broker_id, **_told(books.orders[view.id])}))
        if not told:
            return
        refused = [order for order in books.orders.values() if order.status == "rejected"]
        former = self.now().orders
        with self.journal.transition() as step:
            for kind, body in told:
                step.write(kind, body)
            self.keep(step, books)
        for order in refused:
            if former[order.id].status != "rejected":
                self.alert("rejected", "critical", f"{order.id}: {order.reason or 'the broker gives no reason'}")

    def refuse(self, order: Booked, why: str) -> None:
        """The broker did not take it."""
        self.mark([replace(order, status="rejected", reason=why)], "rejected")
        self.alert("rejected", "critical", f"{order.id}: {why}")

    def mark(self, orders: Sequence[Booked], kind: str) -> None:
        """Orders of ours that moved on by what we did, not by what the broker said."""
        if not orders:
            return
        books = self.now()
        with self.journal.transition() as step:
            for order in orders:
                step.write(kind, _told(order))
                books = books.with_order(order)
            self.keep(step, books)

    def sweep(self) -> None:
        """Look at every order that may still change. One that the broker does not have may not have reached it yet."""
        views = []
        for order in self.now().open():
            if order.status == "intent":
                continue
            view = self.broker.order(order.id)
            if view is not None:
                views.append(view)
            elif order.status != "sent":
                raise Mismatch(f"order {order.id}: was {order.status} at the broker, which does not have it any more")
        self.book(views)

    def agree(self) -> Account:
        """Sweep, book what else happened, and compare: raises Mismatch where something is left."""
        for look in range(LOOKS):
            self.sweep()
            self._book_activities()
            account, apart = self._compare()
            if not apart:
                return account
            if look + 1 < LOOKS:
                self.sleep(PAUSE * 2**look)
        raise Mismatch("; ".join(apart))

    def _book_activities(self) -> None:
        for activity in self.broker.activities(self.now().activity):
            before, canary = self.now(), self.journal.get(SLEEVE)
            with self.journal.transition() as step:
                step.write(ACTIVITY, activity)
                self.keep(step, before.after(activity))
                if canary is not None:
                    sleeve = touched(from_json_sleeve(canary["sleeve"]), activity, before)
                    step.set(SLEEVE, {**canary, "sleeve": sleeve_to_json(sleeve)})
            if activity.quantity:
                self.alert("activity", "info", f"{activity.kind} of {activity.symbol}: {activity.quantity} shares")

    def _compare(self) -> tuple[Account, list[str]]:
        books = self.now()
        ours = {order.id for order in books.orders.values()}
        apart = [f"order {o.id} at the broker is not ours" for o in self.broker.open_orders() if o.id not in ours]
        positions = self.broker.positions()
        self.average_prices = {symbol: held.average_price for symbol, held in positions.items()}
        there = {symbol: held.quantity for symbol, held in positions.items() if held.quantity}
        for symbol in sorted({*there, *books.positions}):
            have, should = there.get(symbol, Decimal(0)), books.positions.get(symbol, Decimal(0))
            if have != should:
                apart.append(f"{symbol}: the broker has {have}, the books {should}")
        account = self.broker.account()
        off = account.cash - books.cash
        if abs(off) > ROUNDING * books.fills + PRECISION * abs(account.equity) + ROUNDING:
            apart.append(f"cash: the broker has {account.cash}, the books {books.cash}")
        elif off and not apart:
            self._round(account.cash, off)
        return account, apart

    def _round(self, cash: Decimal, off: Decimal) -> None:
        with self.journal.transition() as step:
            step.write("rounding", {"cash": cash, "off": off})
            self.keep(step, replace(self.now(), cash=cash))

    def _adopt(self) -> None:
        positions = {symbol: held.quantity for symbol, held in self.broker.positions().items() if held.quantity}
        if strangers := sorted(set(positions) - set(self.symbols)):
            raise Mismatch(f"the account holds {', '.join(strangers[:5])}, which the ensemble does not trade: sell it")
        if orders := self.broker.open_orders():
            raise Mismatch(f"the account has {len(orders)} open orders that are not ours: cancel them")
        account = self.broker.account()
        known = self.broker.activities("")
        books = Books(account.cash, positions, {}, known[-1].id if known else "")
        with self.journal.transition() as step:
            step.write("opening", to_json(books))
            self.keep(step, books)


def _told(order: Booked) -> dict[str, object]:
    return {name: value for name, value in vars(order).items() if value != ""}
