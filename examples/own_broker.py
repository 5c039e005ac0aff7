"""A broker of one's own: an account in memory, which fills at the next open of a panel that it walks through.

    python examples/own_broker.py

docs/extending.md says how a desk comes to use it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from queue import SimpleQueue

import numpy as np

from market.panel import Panel
from market.synth import SynthSource, generate
from paper.broker import Account, Activity, Order, Position, Quote, Rejected, Request, Row, Session

SESSION = timedelta(hours=6.5)


class MemoryBroker:
    """Fits `paper.broker.Broker`. `advance` goes to the next close, and fills on the way what is open."""

    def __init__(self, panel: Panel, bar: int = 0, cash: Decimal = Decimal(100_000)) -> None:
        self._panel, self._bar, self._cash = panel, bar, cash
        self._held: dict[str, Position] = {}
        self._orders: dict[str, Order] = {}  # by our id
        self._changed: SimpleQueue[str | None] = SimpleQueue()

    # -- the market

    def now(self) -> datetime:
        return _moment(self._panel.closes[self._bar])

    def sessions(self, first: date, last: date) -> Sequence[Session]:
        days = ((_moment(label).date(), _moment(close)) for label, close in zip(self._panel.times, self._panel.closes))
        return [Session(day, close - SESSION, close) for day, close in days if first <= day <= last]

    def rows(self, symbols: Sequence[str], start: datetime, stop: datetime) -> Sequence[Row]:
        panel, places = self._panel, [self._panel.symbols.index(symbol) for symbol in symbols]
        first, end = (int(np.searchsorted(panel.times, _instant(at))) for at in (start, stop))
        prices = (panel.open, panel.high, panel.low, panel.close, panel.volume)
        return [
            Row(panel.symbols[a], panel.times[t], *(float(values[t, a]) for values in prices))
            for t in range(first, min(end, self._bar + 1))  # those that have closed
            for a in places
            if panel.tradable[t, a]
        ]

    def quotes(self, symbols: Sequence[str]) -> dict[str, Quote]:
        return {symbol: Quote(symbol, self._price("close", symbol), self.now()) for symbol in symbols}

    def tradable(self, symbols: Sequence[str]) -> dict[str, str]:
        return {symbol: "" if symbol in self._panel.symbols else "no such symbol" for symbol in symbols}

    # -- the account

    def account(self) -> Account:
        worth = sum(held.quantity * self._price("close", held.symbol) for held in self._held.values())
        return Account(self._cash, self._cash + worth, self._cash)

    def positions(self) -> dict[str, Position]:
        return dict(self._held)

    def activities(self, after: str) -> Sequence[Activity]:
        return []  # no interest, no dividends, no fees

    # -- orders

    def open_orders(self) -> Sequence[Order]:
        return [order for order in self._orders.values() if not order.ended]

    def order(self, id: str) -> Order | None:
        return self._orders.get(id)

    def submit(self, request: Request) -> Order:
        if request.id in self._orders:
            return self._orders[request.id]
        if request.symbol not in self._panel.symbols or request.quantity <= 0:
            raise Rejected(f"{request.id}: {request.quantity} of {request.symbol} cannot be ordered")
        number = f"memory-{len(self._orders) + 1}"
        self._put(Order(request.id, number, request.symbol, request.side, request.quantity, "open"))
        return self._orders[request.id]

    def cancel(self, order: Order) -> None:
        known = self._orders[order.id]
        if not known.ended:
            self._put(replace(known, status="canceled"))

    def listen(self, changed: Callable[[str], None]) -> None:
        def tell() -> None:
            while (id := self._changed.get()) is not None:
                changed(id)

        threading.Thread(target=tell, daemon=True).start()

    def close(self) -> None:
        self._changed.put(None)

    # -- what a real one does by itself

    def advance(self) -> None:
        """To the next close: what is open fills at the open before it."""
        self._bar += 1
        for order in self.open_orders():
            price = self._price("open", order.symbol)
            signed = order.quantity if order.side == "buy" else -order.quantity
            held = self._held.get(order.symbol, Position(order.symbol, Decimal(0), price))
            if signed * price > self._cash or held.quantity + signed < 0:
                self._put(replace(order, status="rejected", reason="neither credit nor short sales"))
                continue
            self._cash -= signed * price
            paid = held.quantity * held.average_price + max(signed, Decimal(0)) * price
            average = paid / (held.quantity + signed) if signed > 0 else held.average_price
            self._held[order.symbol] = Position(order.symbol, held.quantity + signed, average)
            if not self._held[order.symbol].quantity:
                del self._held[order.symbol]
            self._put(replace(order, status="filled", filled=order.quantity, average_price=price))

    def _put(self, order: Order) -> None:
        self._orders[order.id] = order
        self._changed.put(order.id)

    def _price(self, name: str, symbol: str) -> Decimal:
        return Decimal(str(getattr(self._panel, name)[self._bar, self._panel.symbols.index(symbol)]))


def _moment(at: np.datetime64) -> datetime:
    moment: datetime = at.astype("datetime64[us]").item()
    return moment.replace(tzinfo=UTC)


def _instant(at: datetime) -> np.datetime64:
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "ns")


def main() -> None:
    broker = MemoryBroker(generate(SynthSource(symbols=3, bars=60)), bar=30)
    broker.submit(Request("first", "SYN01", "buy", Decimal(10)))
    broker.advance()
    print(broker.order("first"))
    print(broker.account())


if __name__ == "__main__":
    main()
