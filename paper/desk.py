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
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from kit.config import to_dict
from kit.errors import UserError
from kit.files import hash_json
from paper.bars import Stale
from paper.books import Mismatch
from paper.broker import Broker, BrokerError
from paper.canary import Canary
from paper.chain import Anchor
from paper.config import PaperConfig
from paper.deciding import Decider, Ensemble, Seen
from paper.guard import Guard
from paper.journal import Journal
from paper.keeper import Keeper
from paper.observed import ObservedSource
from paper.pace import Close, Pace
from paper.risk import Breach, State, watch
from paper.sending import Sender
from paper.watch.alerts import Level
from serve.client import Answer, Client, Refused, ServeError

log = logging.getLogger(__name__)

LOOKING, DECIDING, FOLLOWING, SETTLED = "looking", "deciding", "following", "settled"
APART = 5.0  # seconds between two clocks that are not worth a word
Alert = Callable[[str, Level, str], None]


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
        self.config, self.ensemble, self.broker, self.pace = config, ensemble, broker, pace
        self.journal, self.guard, self.alert, self.shown = journal, guard, alert, shown
        self.handled, self.anchored = handled, anchored
        self.asked_at = asked_at
        self.changed, self.stopping = threading.Event(), threading.Event()
        self.sleep = sleep or self._sleep
        self.keeper = Keeper(broker, journal, ensemble.symbols, alert)
        self.canary = Canary(config.canary, config.name, client, journal, alert, admin)
        self.decider = Decider(
            config, ensemble, broker, client, journal, self.keeper, guard, self.canary, observed, bar
        )
        self.sender = Sender(
            config, broker, self.keeper, guard, pace, alert, self.sleep, sent=self.decider.sent_at.append
        )
        self.told: dict[str, Any] | None = None  # what the journal says of the last decision; None: there was none

    @property
    def seen(self) -> Seen | None:
        return self.decider.seen

    @property
    def answer(self) -> Answer | None:
        return self.decider.answer

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
        self._see_again()

    def _see_again(self) -> None:
        """What the limits are watched by between bars, where the last bar was handled by another process."""
        if (last := self._last()) is None or self.keeper.books is None:
            return
        try:
            self.decider.see(Close(last, last))
        except (Stale, BrokerError) as error:
            self.alert("watch", "warning", f"until the next bar only the kill switch is watched: {error}")

    def handle(self, close: Close) -> None:
        """One bar, from wherever it was left."""
        moment, began = self.asked_at(close), time.perf_counter()
        if self._phase(close) == LOOKING:
            self._look_and_decide(close)
        if self._phase(close) == DECIDING:
            self.sender.send_all(moment)
            took = {"decision": self.decider.decided_in, "sent": time.perf_counter() - began}
            self._enter(close, FOLLOWING, body={"seconds": took})
        if self._phase(close) == FOLLOWING:
            self.sender.cancel(self.sender.unwanted())
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
        self.decider.answer = self.told = None
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
        self.decider.moment = self.asked_at(close)
        seen = self.decider.see(close)
        for breach in watch(seen.book, self.config.limits):
            self._heed(breach)
        halted = self.guard.why if self.guard.state == State.HALTED else ""
        self.canary.consider(close.at, self.keeper.now(), seen.prices, self.decider.equal_weight(seen), halted)
        decision = self.decider.decide(close, seen)
        told = self.decider.told(close, seen, decision)
        with self.journal.transition() as step:
            step.write("decision", told)
            step.set("bar", _bar(close, DECIDING))
            step.set("peak", max(self.journal.get("peak", 0.0), seen.equity))
            step.set("risk-peak", seen.book.peak_equity)
            step.set("day", self.decider.day(close, seen))
            step.set("equal", told["equal"])
            if (sleeve := self.canary.sleeve) is not None:
                self.canary.keep(step, replace(sleeve, wanted=decision.canary), decision.champion, seen.prices)
            books = self.keeper.now().for_next_bar()
            self.keeper.keep(step, replace(books, orders={**books.orders, **{one.id: one for one in decision.orders}}))
        self.told = told
        for ruling in decision.rulings:
            for finding in ruling.findings:
                self.alert("limit", "warning", finding.why)

    def _compare_clocks(self, close: Close) -> None:
        apart = (self.broker.now() - self.asked_at(close)).total_seconds()
        if abs(apart) > APART:
            self.alert("clock", "warning", f"the broker's clock is {apart:+.0f} s from ours")

    def _follow(self, close: Close) -> bool:
        """Whether all orders have ended; not where the desk is to stop before."""
        asked: set[str] = set()
        while not self.stopping.is_set():
            self.changed.clear()
            try:
                if self.sender.ended(close, asked):
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
                now = self.broker.now()
                if any(True for _ in self.keeper.now().open()):
                    self.keeper.sweep()
                book = self.decider.book(self.seen.history, Close(now, now))
                for breach in watch(book, self.config.limits):
                    if self._heed(breach) and breach.limit == "stop_loss":
                        self.sender.flatten(breach.symbol, self._last(), book.prices[breach.symbol], now)
            except BrokerError as error:
                self.alert("broker", "warning", str(error))
            except Mismatch as error:
                self._refuse_to_trade(error)
        self.shown(self)

    def _heed(self, breach: Breach) -> bool:
        """Whether it is a new one."""
        if breach.limit == "stop_loss":
            return self.guard.stop(breach.symbol, breach.why)
        if breach.state is not None:
            return self.guard.restrict(breach.state, breach.why)
        self.alert("limit", "warning", breach.why)
        return True

    def _sleep(self, seconds: float) -> None:
        self.stopping.wait(seconds)

    def _refuse_to_trade(self, mismatch: Mismatch) -> None:
        self.guard.restrict(State.HALTED, f"nothing explains it: {mismatch}")


def _bar(close: Close, phase: str) -> dict[str, Any]:
    return {"close": close.at.isoformat(), "fills": close.fills.isoformat(), "index": close.index, "phase": phase}
