"""One decision: what is there, what the ensemble wants, what the risk engine lets pass."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from market.clock import TRADING_DAYS
from market.panel import Panel
from paper.bars import Bars
from paper.books import Booked, Books
from paper.broker import Broker
from paper.canary import Canary
from paper.config import PaperConfig
from paper.exposure import Book
from paper.guard import Guard
from paper.journal import Journal
from paper.keeper import Keeper
from paper.observed import ObservedSource, with_columns
from paper.orders import changes, requests, smallest
from paper.pace import Close
from paper.risk import Proposed, Ruling, State, check
from paper.sleeve import champions, netted
from serve.client import Answer, Client, Portfolio

SENDS = 10_000  # times of orders that are remembered


@dataclass(frozen=True)
class Ensemble:
    """What the desk knows of what it asks."""

    version: str
    symbols: tuple[str, ...]
    needed: int
    bars_per_year: float
    observed: tuple[str, ...]
    fill: str
    expected: Mapping[str, float]

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Ensemble:
        lens = tree["manifest"]["lens"]
        return cls(
            version=tree["version"],
            symbols=tuple(lens["symbols"]),
            needed=int(tree["bars_needed"]),
            bars_per_year=float(lens["bars_per_year"]),
            observed=tuple(lens["observed"]),
            fill=lens["trading"]["fill"],
            expected=dict(tree.get("expected", {})),
        )

    @property
    def bars_per_day(self) -> float:
        return max(1.0, self.bars_per_year / TRADING_DAYS)


@dataclass(frozen=True)
class Seen:
    """What was there at a close."""

    panel: Panel  # as the ensemble sees it
    history: Panel  # as the risk engine sees it: longer, and without observed columns
    prices: dict[str, float]
    equity: float
    book: Book


@dataclass(frozen=True)
class Decision:
    orders: tuple[Booked, ...]
    rulings: tuple[Ruling, ...]
    champion: Mapping[str, Decimal]  # the change that each of the two wants
    canary: Mapping[str, Decimal]


class Decider:
    """Asks, and writes nothing."""

    def __init__(
        self,
        config: PaperConfig,
        ensemble: Ensemble,
        broker: Broker,
        client: Client,
        journal: Journal,
        keeper: Keeper,
        guard: Guard,
        canary: Canary,
        observed: ObservedSource | None,
        bar: np.timedelta64,
    ) -> None:
        self.config, self.ensemble, self.broker, self.client = config, ensemble, broker, client
        self.journal, self.keeper, self.guard, self.canary, self.observed = journal, keeper, guard, canary, observed
        self.bars = Bars(
            broker,
            ensemble.symbols,
            ensemble.needed,
            ensemble.bars_per_year,
            bar,
            config.data.session_close,
            config.data.gaps,
            kept=0 if config.limits.var is None else config.limits.var_bars + 1,
        )
        self.seen: Seen | None = None
        self.answer: Answer | None = None
        self.decided_in = 0.0  # seconds, of the last answer
        self.moment = datetime.now(UTC)  # of the last decision
        former = keeper.books.orders.values() if keeper.books else ()
        self.sent_at = deque((datetime.fromisoformat(order.sent) for order in former if order.sent), maxlen=SENDS)

    def see(self, close: Close) -> Seen:
        """The account at the close: sized by closes, judged by the last quotes; raises Stale."""
        history = self.bars.upto(close.at)
        panel = history[-self.ensemble.needed :]
        panel = with_columns(panel, self.observed, self.ensemble.observed, self.config.data.fresh)
        books = self.keeper.now()
        prices = dict(zip(panel.symbols, panel.close[-1].tolist()))
        self.seen = Seen(panel, history, prices, books.equity(prices), self.book(history, close))
        return self.seen

    def book(self, panel: Panel, close: Close) -> Book:
        books = self.keeper.now()
        quotes = {symbol: float(quote.price) for symbol, quote in self.broker.quotes(panel.symbols).items()}
        equity = books.equity({symbol: quotes.get(symbol, math.nan) for symbol in books.positions})
        day, closes = self.journal.get("day"), panel.close
        if day is None or day["date"] != close.at.date().isoformat():
            began, traded = float(day["last"]) if day else equity, books.traded
        else:
            began, traded = float(day["began"]), Decimal(day["traded"])
        highest = self.journal.get("risk-peak", 0.0)
        return Book(
            equity=equity,
            cash=float(books.cash),
            positions=books.positions,
            prices=quotes,
            day_start_equity=began,
            peak_equity=equity if math.isnan(equity) else max(highest, equity),
            average_prices={symbol: float(price) for symbol, price in self.keeper.average_prices.items()},
            open_orders=_remaining(books),
            traded_today=float(books.traded - traded),
            order_times=[*self.sent_at],
            symbols=panel.symbols,
            returns=closes[1:] / closes[:-1] - 1.0,
            bars_per_day=self.ensemble.bars_per_day,
        )

    def decide(self, close: Close, seen: Seen) -> Decision:
        """What the ensemble wants, as orders that the risk engine lets pass; halted: what a stop-loss sells."""
        if self.guard.state == State.HALTED and not self.guard.stopped:
            return Decision((), (), {}, {})
        config, sleeve = self.config.orders, self.canary.sleeve
        own = champions(self.keeper.now(), sleeve)
        ordered = {} if self.guard.state == State.HALTED else self._ask(seen, own).ordered
        quantities = champion = self._changes(ordered, own.positions, own.equity(seen.prices), seen)
        canary: Mapping[str, Decimal] = {}
        if sleeve is not None and ordered:
            answer = self.canary.ask(sleeve, seen.panel, seen.prices, self.moment)
            canary = self._changes(answer.ordered, sleeve.positions, sleeve.equity(seen.prices), seen)
            quantities = netted(champion, canary)
        proposed = [
            Proposed(symbol, quantity, seen.prices[symbol], forced=symbol in self.guard.stopped)
            for symbol, quantity in quantities.items()
        ]
        rulings = check(proposed, seen.book, self.config.limits, self.guard.state, self.moment, smallest(config))
        allowed = {ruling.symbol: ruling.quantity for ruling in rulings if ruling.quantity}
        found = requests(self.config.name, seen.panel.closes[-1], allowed)
        moment = close.at.isoformat()
        orders = (
            Booked(one.id, one.symbol, one.side, one.quantity, moment, _exact(seen.prices[one.symbol])) for one in found
        )
        return Decision(tuple(orders), tuple(rulings), champion, canary)

    def _changes(
        self, ordered: Mapping[str, float], positions: Mapping[str, Decimal], equity: float, seen: Seen
    ) -> dict[str, Decimal]:
        """What does not trade now stays as it is; what a stop-loss has sold is not bought."""
        trading = dict(zip(seen.panel.symbols, seen.panel.tradable[-1]))
        wanted = {**ordered, **dict.fromkeys(self.guard.stopped, 0.0)}
        wanted = {symbol: weight for symbol, weight in wanted.items() if trading[symbol]}
        return changes(wanted, positions, seen.prices, equity, self.config.orders)

    def _ask(self, seen: Seen, own: Books) -> Answer:
        """The champion, about its own part of the account; its drawdown is that of the whole."""
        began = time.perf_counter()
        positions = {symbol: float(held) for symbol, held in own.positions.items()}
        peak = max(self.journal.get("peak", 0.0), seen.equity) * own.equity(seen.prices) / seen.equity
        portfolio = Portfolio(float(own.cash), positions, peak)
        self.answer = self.client.actions(seen.panel, portfolio, self.moment, self.config.ensemble.version)
        self.decided_in = time.perf_counter() - began
        return self.answer

    def told(self, close: Close, seen: Seen, decision: Decision) -> dict[str, Any]:
        """What the journal says of it."""
        answer = self.answer
        told: dict[str, Any] = {
            "close": close.at.isoformat(),
            "data": seen.panel.hash,
            "equity": seen.equity,
            "equal": self.equal_weight(seen),
            "state": self.guard.state.value,
            "rulings": [ruling for ruling in decision.rulings if ruling.findings],
            "orders": [order.id for order in decision.orders],
        }
        if answer is None:
            return told
        votes = [{"name": vote.name, "share": vote.share, "weights": dict(vote.weights)} for vote in answer.members]
        return told | {
            "version": answer.version,
            "wanted": dict(answer.weights),
            "ordered": dict(answer.ordered),
            "votes": votes,
            "dispersion": answer.dispersion,
            "warnings": list(answer.warnings),
        }

    def day(self, close: Close, seen: Seen) -> dict[str, object]:
        """`last` is what the next day begins with."""
        book = seen.book
        traded = self.keeper.now().traded - Decimal(book.traded_today)
        return {
            "date": close.at.date().isoformat(),
            "began": book.day_start_equity,
            "last": book.equity,
            "traded": traded,
        }

    def equal_weight(self, seen: Seen) -> float:
        """What a portfolio of equal parts would have, without costs; it begins with what the desk has."""
        before, panel = self.journal.get("equal"), seen.panel
        if before is None:
            return seen.equity
        moved = panel.close[-1] / panel.close[-2]
        return float(before * moved[np.isfinite(moved)].mean())


def _remaining(books: Books) -> dict[str, Decimal]:
    """By symbol, what open orders may still fill."""
    left: dict[str, Decimal] = {}
    for order in books.open():
        left[order.symbol] = left.get(order.symbol, Decimal(0)) + order.remaining
    return left


def _exact(price: float) -> Decimal:
    return Decimal(repr(price))
