"""The driver: one bar in, one decision, orders out, until all of them have ended. Whenever it is killed, it goes on.

A bar goes through phases, each written down before the next begins:

    looking    its close has come; data, account and ensemble are asked
    deciding   orders are written down, none is sent
    following  all are sent, or withheld; the broker fills them
    settled    all have ended; the anchor is written

Starting is going on: the journal says where, the broker what happened meanwhile.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from kit.config import to_dict
from kit.errors import UserError
from kit.files import hash_json
from market.clock import TRADING_DAYS
from market.panel import Panel
from paper.bars import Bars, Stale
from paper.books import Booked, Books, Mismatch
from paper.broker import Broker, BrokerError, OutcomeUnknown, Rejected
from paper.canary import Canary
from paper.chain import Anchor
from paper.config import PaperConfig
from paper.exposure import Book
from paper.guard import Guard
from paper.journal import Journal
from paper.keeper import Keeper
from paper.observed import ObservedSource, with_columns
from paper.orders import changes, requests, smallest
from paper.pace import Close, Pace
from paper.risk import Breach, Proposed, Ruling, State, check, watch
from paper.sleeve import champions, netted
from paper.watch.alerts import Level
from serve.client import Answer, Client, Portfolio, Refused, ServeError

log = logging.getLogger(__name__)

LOOKING, DECIDING, FOLLOWING, SETTLED = "looking", "deciding", "following", "settled"
HISTORY = 250  # bars of returns that the risk engine sees, at most
SENDS = 10_000  # times of orders that are remembered
APART = 5.0  # seconds between two clocks that are not worth a word
Alert = Callable[[str, Level, str], None]


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

    panel: Panel
    prices: dict[str, float]
    equity: float
    book: Book


class Desk:
    """Trades one account. Everything that it knows is in the journal."""

    def __init__(
        self,
        config: PaperConfig,
        ensemble: Ensemble,
        broker: Broker,
        client: Client,
        pace: Pace,
        journal: Journal,
        guard: Guard,
        observed: ObservedSource | None,
        bar: np.timedelta64,
        alert: Alert,
        shown: Callable[[Desk], None] = lambda desk: None,
        handled: Callable[[Desk, float], None] = lambda desk, seconds: None,
        anchored: Callable[[Anchor], None] = lambda anchor: None,
        admin: str = "",  # the token of the endpoint's administrators
        asked_at: Callable[[Close], datetime] = lambda close: datetime.now(UTC),
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.config, self.ensemble, self.broker, self.client, self.pace = config, ensemble, broker, client, pace
        self.journal, self.guard, self.observed, self.alert, self.shown = journal, guard, observed, alert, shown
        self.handled, self.anchored = handled, anchored
        self.asked_at = asked_at
        self.changed, self.stopping = threading.Event(), threading.Event()
        self.sleep = sleep or (lambda seconds: self.stopping.wait(seconds) and None)
        self.keeper = Keeper(broker, journal, ensemble.symbols, alert)
        self.canary = Canary(config.canary, config.name, client, journal, alert, admin)
        self.parts: tuple[dict[str, Decimal], dict[str, Decimal]] = ({}, {})  # what champion and canary want
        self.bars = Bars(
            broker,
            ensemble.symbols,
            ensemble.needed,
            ensemble.bars_per_year,
            bar,
            config.data.session_close,
            config.data.gaps,
        )
        self.seen: Seen | None = None
        self.answer: Answer | None = None
        self.told: dict[str, Any] | None = None  # what the journal says of it; None: there was none
        self.decided_in = 0.0  # seconds, of the last decision
        self.moment = datetime.now(UTC)  # of the last decision
        former = self.keeper.books.orders.values() if self.keeper.books else ()
        sent = (datetime.fromisoformat(order.sent) for order in former if order.sent)
        self.sent_at: deque[datetime] = deque(sent, maxlen=SENDS)

    # -- from bar to bar

    def run(self, bars: int | None = None) -> int:
        """Until the market ends, somebody stops it, or so many bars are handled: how many were."""
        self.begin()
        done = 0
        while not self.stopping.is_set() and (bars is None or done < bars):
            try:
                close = self._unfinished() or self.pace.next(self._last())
                if close is None or not self._wait_for(close):
                    break
                began = time.perf_counter()
                self.handle(close)
            except BrokerError as error:  # as after a kill: the journal says where to go on
                self.alert("broker", "critical", f"{error}; trying again")
                self.sleep(self.config.watch)
                continue
            except Mismatch as error:
                self._refuse_to_trade(error)
                self.sleep(self.config.watch)
                continue
            except UserError as error:
                self.alert("stopped", "critical", str(error))
                raise
            if self._phase(close) == SETTLED:
                done += 1
                self.handled(self, time.perf_counter() - began)
            if self.config.pause:
                self.sleep(self.config.pause)
        return done

    def begin(self) -> None:
        with self.journal.transition() as step:
            step.write("start", {"version": self.ensemble.version, "config": hash_json(to_dict(self.config))})
        self.broker.listen(lambda id: self.changed.set())
        self.guard.heed()
        try:
            self.keeper.begin()
        except Mismatch as mismatch:
            if self.keeper.books is None:  # nothing has begun that could be halted
                self.alert("mismatch", "critical", str(mismatch))
                raise UserError(f"account: {mismatch}") from None
            self._refuse_to_trade(mismatch)

    def handle(self, close: Close) -> None:
        """One bar, from wherever it was left."""
        self.moment, began = self.asked_at(close), time.perf_counter()
        if self._phase(close) == LOOKING:
            self._look_and_decide(close)
        if self._phase(close) == DECIDING:
            self._send_all()
            took = {"decision": self.decided_in, "sent": time.perf_counter() - began}
            self._enter(close, FOLLOWING, body={"seconds": took})
        if self._phase(close) == FOLLOWING:
            self._cancel(self._unwanted())
            self.pace.sent(close)
            if not self._follow(close):
                return
            self._settle(close)
        self.pace.followed(close)

    def _unfinished(self) -> Close | None:
        bar = self.journal.get("bar")
        if bar is None or bar["phase"] == SETTLED:
            return None
        return Close(datetime.fromisoformat(bar["close"]), datetime.fromisoformat(bar["fills"]), bar["index"])

    def _last(self) -> datetime | None:
        bar = self.journal.get("bar")
        return None if bar is None else datetime.fromisoformat(bar["close"])

    def _phase(self, close: Close) -> str:
        bar = self.journal.get("bar")
        return str(bar["phase"]) if bar and bar["close"] == close.at.isoformat() else LOOKING

    def _enter(self, close: Close, phase: str, kind: str = "phase", body: Mapping[str, object] | None = None) -> None:
        with self.journal.transition() as step:
            step.write(kind, {"close": close.at.isoformat(), "phase": phase, **(body or {})})
            step.set("bar", _bar(close, phase))

    def _wait_for(self, close: Close) -> bool:
        """Whether the bar has closed; not where the desk is to stop."""
        while (left := self.pace.left(close)) > 0:
            self.sleep(min(left, self.config.watch))
            if self.stopping.is_set():
                return False
            self.look_around()
        return True

    # -- the decision

    def _look_and_decide(self, close: Close) -> None:
        """Decide, or say why not: what was late may come within `patience`."""
        self.answer = self.told = None
        until = time.monotonic() + self.config.data.patience
        while True:
            self.guard.heed()
            try:
                self._decide(close)
                return
            except Stale as error:
                kind, reason, passing = "stale", str(error), True
            except ServeError as error:
                kind, reason, passing = "ensemble", str(error), not isinstance(error, Refused)
            except BrokerError as error:
                kind, reason, passing = "broker", str(error), True
            except Mismatch as error:
                kind, reason, passing = "mismatch", str(error), False
                self._refuse_to_trade(error)
            left = until - time.monotonic()
            if not passing or left <= 0 or self.stopping.is_set():
                break
            log.warning("%s: %s; looking again for %.0f s", kind, reason, left)
            self.sleep(min(left, self.config.watch))
        if not self.stopping.is_set():
            self.alert(kind, "critical", f"no trade at {close.at:%Y-%m-%d %H:%M}: {reason}")
            self._enter(close, FOLLOWING, "refused", {"kind": kind, "why": reason})

    def _decide(self, close: Close) -> None:
        self._compare_clocks(close)
        self.keeper.agree()
        panel = self.bars.upto(close.at)
        panel = with_columns(panel, self.observed, self.ensemble.observed, self.config.data.fresh)
        self.moment = self.asked_at(close)
        seen = self.seen = self._see(panel, close)
        for breach in watch(seen.book, self.config.limits):
            self._heed(breach)
        halted = self.guard.why if self.guard.state == State.HALTED else ""
        self.canary.consider(close.at, self.keeper.now(), seen.prices, self._equal_weight(seen), halted)
        orders: list[Booked] = []
        rulings: list[Ruling] = []
        self.parts = ({}, {})
        if self.guard.state != State.HALTED or self.guard.stopped:
            orders, rulings = self._ordered(close, seen)
        peak = max(self.journal.get("peak", 0.0), seen.equity)
        told = self._told(close, seen, rulings, orders)
        with self.journal.transition() as step:
            step.write("decision", told)
            step.set("bar", _bar(close, DECIDING))
            step.set("peak", peak)
            step.set("risk-peak", seen.book.peak_equity)
            step.set("day", self._day(close, seen))
            step.set("equal", told["equal"])
            if (sleeve := self.canary.sleeve) is not None:
                champion, theirs = self.parts
                self.canary.decided(step, replace(sleeve, wanted=theirs), champion, seen.prices)
            books = self.keeper.now().for_next_bar()
            self.keeper.keep(step, replace(books, orders={**books.orders, **{order.id: order for order in orders}}))
        self.told = told
        for ruling in rulings:
            for finding in ruling.findings:
                self.alert("limit", "warning", f"{ruling.symbol}: {finding.why}")

    def _compare_clocks(self, close: Close) -> None:
        apart = (self.broker.now() - self.asked_at(close)).total_seconds()
        if abs(apart) > APART:
            self.alert("clock", "warning", f"the broker's clock is {apart:+.0f} s from ours")

    def _see(self, panel: Panel, close: Close) -> Seen:
        """The account at the close: sized by closes, judged by the last quotes."""
        books = self.keeper.now()
        prices = dict(zip(panel.symbols, panel.close[-1].tolist()))
        return Seen(panel, prices, books.equity(prices), self._book(panel, close))

    def _book(self, panel: Panel, close: Close) -> Book:
        books = self.keeper.now()
        quotes = {symbol: float(quote.price) for symbol, quote in self.broker.quotes(panel.symbols).items()}
        equity = books.equity({symbol: quotes.get(symbol, math.nan) for symbol in books.positions})
        day, closes = self.journal.get("day"), panel.close[-HISTORY - 1 :]
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

    def _ordered(self, close: Close, seen: Seen) -> tuple[list[Booked], list[Ruling]]:
        """What the ensemble wants, as orders that the risk engine lets pass."""
        config, sleeve = self.config.orders, self.canary.sleeve
        own = champions(self.keeper.now(), sleeve)
        ordered = {} if self.guard.state == State.HALTED else self._ask(seen, own).ordered
        quantities = self._changes(ordered, own.positions, own.equity(seen.prices), seen)
        if sleeve is not None and ordered:
            answer = self.canary.ask(sleeve, seen.panel, seen.prices, self.moment)
            theirs = self._changes(answer.ordered, sleeve.positions, sleeve.equity(seen.prices), seen)
            self.parts = quantities, theirs
            quantities = netted(quantities, theirs)
        proposed = [
            Proposed(symbol, quantity, seen.prices[symbol], forced=symbol in self.guard.stopped)
            for symbol, quantity in quantities.items()
        ]
        rulings = check(proposed, seen.book, self.config.limits, self.guard.state, self.moment, smallest(config))
        allowed = {ruling.symbol: ruling.quantity for ruling in rulings if ruling.quantity}
        found = requests(self.config.name, seen.panel.closes[-1], allowed)
        moment = close.at.isoformat()
        return [
            Booked(one.id, one.symbol, one.side, one.quantity, moment, _exact(seen.prices[one.symbol])) for one in found
        ], rulings

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

    def _told(self, close: Close, seen: Seen, rulings: Sequence[Ruling], orders: Sequence[Booked]) -> dict[str, Any]:
        answer = self.answer
        told: dict[str, Any] = {
            "close": close.at.isoformat(),
            "data": seen.panel.hash,
            "equity": seen.equity,
            "equal": self._equal_weight(seen),
            "state": self.guard.state.value,
            "rulings": [ruling for ruling in rulings if ruling.findings],
            "orders": [order.id for order in orders],
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

    def _day(self, close: Close, seen: Seen) -> dict[str, object]:
        """`last` is what the next day begins with."""
        book = seen.book
        traded = self.keeper.now().traded - Decimal(book.traded_today)
        return {
            "date": close.at.date().isoformat(),
            "began": book.day_start_equity,
            "last": book.equity,
            "traded": traded,
        }

    def _equal_weight(self, seen: Seen) -> float:
        """What a portfolio of equal parts would have, without costs; it begins with what the desk has."""
        before, panel = self.journal.get("equal"), seen.panel
        if before is None:
            return seen.equity
        moved = panel.close[-1] / panel.close[-2]
        return float(before * moved[np.isfinite(moved)].mean())

    # -- orders

    def _send_all(self) -> None:
        """Until the fate of each is known: one that the broker does not have is sent again under its name, once."""
        for order in [*self.keeper.now().open()]:
            if order.status in ("intent", "sent"):
                self._send(order, again=order.status == "sent")
        until = time.monotonic() + self.config.orders.settle
        while lost := [order for order in self.keeper.now().open() if order.status == "sent"]:
            if time.monotonic() > until:
                for order in lost:
                    self._send(order, again=True)
                    if self.keeper.now().orders[order.id].status == "sent" and not self._look_up(order):
                        self._lose(order)
                return
            self.sleep(min(self.config.watch, self.config.orders.settle / 4))
            for order in lost:
                self._look_up(order)

    def _send(self, order: Booked, again: bool = False) -> None:
        """The name of an order is its own for ever, so that a broker takes it only once."""
        self.guard.heed()
        if again and self._look_up(order):
            return
        if why := self._withheld(order):
            self.keeper.mark(replace(order, status="canceled", reason=why), "withheld")
            return
        order = replace(order, status="sent", sent=self.moment.isoformat())
        self.keeper.mark(order, "sent")
        self.sent_at.append(self.moment)
        try:
            view = self.broker.submit(order.request)
        except Rejected as error:
            self.keeper.refuse(order, str(error))
        except OutcomeUnknown as error:
            self.alert("unknown", "critical", f"{order.id}: {error}")
        else:
            self.keeper.book(view)

    def _look_up(self, order: Booked) -> bool:
        """Whether the broker has it; it raises where the broker cannot be asked, for that is no answer."""
        view = self.broker.order(order.id)
        if view is None:
            return False
        self.keeper.book(view)
        return True

    def _withheld(self, order: Booked) -> str:
        """Why it must not be sent any more, though it was allowed when it was decided."""
        if self.guard.state == State.ACTIVE:
            return ""
        held = self.keeper.now().positions.get(order.symbol, Decimal(0))
        reduces = held * order.remaining < 0 and abs(order.remaining) <= abs(held)
        return "" if reduces else f"{self.guard.state}: {self.guard.why}"

    def _unwanted(self) -> list[Booked]:
        """What is at the broker, but would not be sent any more."""
        return [order for order in self.keeper.now().open() if self._withheld(order)]

    def _lose(self, order: Booked) -> None:
        why = "the broker does not have it, after it was sent twice"
        self.keeper.mark(replace(order, status="canceled", reason=why), "lost")
        self.alert("lost", "critical", f"{order.id}: {why}")

    def _follow(self, close: Close) -> bool:
        """Whether all orders have ended; not where the desk is to stop before."""
        asked: set[str] = set()  # to be cancelled
        while not self.stopping.is_set():
            self.changed.clear()
            try:
                self.keeper.sweep()
                waiting = list(self.keeper.now().open())
                if not waiting:
                    return True
                late = self.pace.late(close, self.config.orders.deadline)
                if ending := waiting if late else self._unwanted():
                    asked |= self._cancel([order for order in ending if order.id not in asked])
                    self.keeper.sweep()
                    if not any(True for _ in self.keeper.now().open()):
                        self._tell_of_cuts(asked)
                        return True
                self.look_around()
            except Mismatch as error:
                self._refuse_to_trade(error)
                return True
            except BrokerError as error:
                self.alert("broker", "warning", str(error))
            self.shown(self)
            self.changed.wait(self.config.watch)
        return False

    def _cancel(self, orders: Sequence[Booked]) -> set[str]:
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

    def _settle(self, close: Close) -> None:
        books = self.keeper.now()
        with self.journal.transition() as step:
            body = {"close": close.at.isoformat(), "cash": books.cash, "positions": dict(books.positions)}
            step.write("settled", body)
            step.set("bar", _bar(close, SETTLED))
            self.canary.settle(step, books)
        self.anchored(self.journal.anchor())

    # -- limits, between bars too

    def look_around(self) -> None:
        """On a timer: the kill switch, and the limits at the last quotes."""
        self.guard.heed()
        if self.seen is not None:
            try:
                now = self.broker_time()
                book = self._book(self.seen.panel, Close(now, now))
                for breach in watch(book, self.config.limits):
                    self._heed(breach)
            except BrokerError as error:
                self.alert("broker", "warning", str(error))
        self.shown(self)

    def _heed(self, breach: Breach) -> None:
        if breach.limit == "stop_loss":
            self.guard.stop(breach.symbol, breach.why)
        elif breach.state is not None:
            self.guard.restrict(breach.state, breach.why)
        else:
            self.alert("limit", "warning", breach.why)

    def _refuse_to_trade(self, mismatch: Mismatch) -> None:
        self.guard.restrict(State.HALTED, f"nothing explains it: {mismatch}")

    def broker_time(self) -> datetime:
        return self.broker.now()


def _bar(close: Close, phase: str) -> dict[str, Any]:
    return {"close": close.at.isoformat(), "fills": close.fills.isoformat(), "index": close.index, "phase": phase}


def _remaining(books: Books) -> dict[str, Decimal]:
    """By symbol, what open orders may still fill."""
    left: dict[str, Decimal] = {}
    for order in books.open():
        left[order.symbol] = left.get(order.symbol, Decimal(0)) + order.remaining
    return left


def _exact(price: float) -> Decimal:
    return Decimal(repr(price))
