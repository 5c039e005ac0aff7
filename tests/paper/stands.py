"""Where desks are put to the test: an endpoint for many of them, an exchange for each, and what a replay came to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bundles import PANEL
from desks import FAST, KEY, START, World
from endpoint import CAPITAL, Endpoint, bundle_of, serving
from exchanges import settings

from agents.bundle import Bundle
from market.panel import Panel
from paper.chain import read_entries, read_state
from paper.exchange.run import Running, running
from paper.verify import verify

BARS = 4  # of a short replay
JOURNAL = "desk.db"
ROUNDED = Decimal("1e-9")  # an average price has 17 digits; the books take cash as it is at the next close


@dataclass
class Stand:
    endpoint: Endpoint
    bundle: Bundle

    @contextmanager
    def market(self, bars: int = BARS, panel: Panel = PANEL, **exchange: Any) -> Iterator[Running]:
        given = {"trading": self.bundle.lens.trading, "bar": START, "cash": CAPITAL, **exchange}
        with running(settings(**given), panel[: START + bars + 1]) as exchanging:
            yield exchanging

    @contextmanager
    def world(self, folder: Path, bars: int = BARS, panel: Panel = PANEL, **exchange: Any) -> Iterator[World]:
        with self.market(bars, panel, **exchange) as exchanging:
            yield World(self.endpoint, exchanging, self.bundle, folder)

    def words(self, exchange: Running, *more: str) -> list[str]:
        """The settings of a driver."""
        return [f"broker.url={exchange.url}", f"ensemble.url={self.endpoint.url}", "port=0", *FAST, *more]


@contextmanager
def standing(folder: Path) -> Iterator[Stand]:
    bundle = bundle_of(folder / "bundle")
    with serving({"champion": [folder / "bundle"]}, max_age=1e9) as endpoint:
        yield Stand(endpoint, bundle)


@dataclass(frozen=True)
class End:
    """What a replay came to at the exchange, and what was decided in it."""

    cash: str
    positions: dict[str, str]
    orders: dict[str, tuple[object, ...]]  # by our name
    decisions: list[Any]


def end_of(exchange: Running, folder: Path) -> End:
    """By then the books say the same, and the journal is whole."""
    book, books = exchange.exchange.book, read_state(folder / JOURNAL)["books"]
    assert exchange.exchange.tape.ended
    assert verify(folder / JOURNAL, [KEY]).problems == []
    assert {symbol: Decimal(held) for symbol, held in books["positions"].items()} == {
        symbol: held.quantity for symbol, held in book.positions.items()
    }
    assert abs(Decimal(books["cash"]) - book.cash) < ROUNDED
    told = dict.fromkeys(book.by_client, Decimal(0))
    for fill in entries(folder, "fill"):
        told[fill["order"]] += Decimal(fill["quantity"])
    assert told == {id: order.filled for id, order in book.by_client.items()}, "a fill is missing, or told twice"
    return End(
        cash=str(book.cash),
        positions={symbol: str(held.quantity) for symbol, held in sorted(book.positions.items())},
        orders={
            order.client_id: (order.symbol, order.side, order.quantity, order.filled, order.spent, order.status)
            for order in book.orders.values()
        },
        decisions=[entry.body for entry in read_entries(folder / JOURNAL, kinds=("decision",))],
    )


def entries(folder: Path, *kinds: str) -> list[Any]:
    """Their bodies."""
    return [entry.body for entry in read_entries(folder / JOURNAL, kinds=kinds)]
