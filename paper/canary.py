"""Trades the endpoint's canary beside its champion, takes its share back by rule, and reports how it did.

The endpoint's registry alone moves versions between states; the desk only says what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from market.panel import Panel
from paper.books import Books
from paper.journal import Journal, Step
from paper.sleeve import SLEEVE, CanaryConfig, Sleeve, begin, from_json, marked, record, settled, to_json, verdict
from paper.watch.alerts import Level
from serve.client import Answer, Client, Portfolio, ServeError

REPORTS, MARKED = "reports", "canary-marked"  # in the journal's state: records that wait; the last close


class Canary:
    """Begins with the endpoint's canary, ends by a rule; all of it is in the journal."""

    def __init__(
        self,
        config: CanaryConfig,
        name: str,
        client: Client,
        journal: Journal,
        alert: Callable[[str, Level, str], None],
        admin: str,  # the token with which records are reported; empty: they are kept here
    ) -> None:
        self.config, self.name, self.client, self.journal = config, name, client, journal
        self.alert, self.admin = alert, admin

    @property
    def sleeve(self) -> Sleeve | None:
        tree = self.journal.get(SLEEVE)
        return None if tree is None else from_json(tree["sleeve"])

    def consider(self, at: datetime, books: Books, prices: Mapping[str, float], equal: float, halted: str) -> None:
        """Before a decision, once for each close however often it is tried: begin, go on, or take the share back."""
        sleeve = self.sleeve
        if sleeve is None:
            if self.config.share and not halted and (version := self._offered()):
                self._begin(version, at, books, prices, equal)
        elif self.journal.get(MARKED) != at.isoformat():
            sleeve = marked(sleeve, prices)
            if why := halted or verdict(sleeve, self.config, books, prices) or self._gone(sleeve.version):
                self._end(sleeve, at, prices, equal, why, bool(halted))
            else:
                self._go_on(sleeve, at, prices, equal)
        self.report()

    def ask(self, sleeve: Sleeve, panel: Panel, prices: Mapping[str, float], asked_at: datetime) -> Answer:
        peak = max(sleeve.peak, sleeve.equity(prices))
        held = Portfolio(float(sleeve.cash), sleeve.portfolio(), peak)
        return self.client.actions(panel, held, asked_at, sleeve.version)

    def settle(self, step: Step, books: Books) -> None:
        """In the transition that settles a bar."""
        tree = self.journal.get(SLEEVE)
        if tree is None:
            return
        champion = {symbol: Decimal(change) for symbol, change in tree["champion"].items()}
        sleeve = settled(from_json(tree["sleeve"]), champion, books.orders, tree["prices"])
        self.keep(step, sleeve)

    def report(self) -> None:
        """Records that wait; the endpoint keeps each once, by its id."""
        waiting: list[dict[str, Any]] = self.journal.get(REPORTS, [])
        if not self.admin:
            return
        for number, item in enumerate(waiting, 1):
            try:
                self.client.record(item["version"], item["record"], self.admin)
            except ServeError as error:
                self.alert("record", "warning", f"{item['record']['id']} is not reported yet: {error}")
                return
            with self.journal.transition() as step:
                step.write("reported", item)
                step.set(REPORTS, waiting[number:])

    def _offered(self) -> str:
        """The canary that the endpoint has, if it sees the same market and was not sent back before."""
        tree = self.client.ensemble()
        for version in tree["canary"]:
            if version in self.journal.get("sent-back", []):
                continue
            lens, theirs = tree["manifest"]["lens"], self.client.ensemble(version)["manifest"]["lens"]
            if all(lens[key] == theirs[key] for key in ("symbols", "observed", "bars_per_year")):
                return str(version)
            self.alert("canary", "warning", f"{version} sees another market than the champion; it is not traded")
        return ""

    def _gone(self, version: str) -> str:
        return "" if version in self.client.ensemble()["canary"] else "the endpoint has it as canary no longer"

    def _begin(self, version: str, at: datetime, books: Books, prices: Mapping[str, float], equal: float) -> None:
        sleeve = begin(version, self.config.share, books, prices, equal, at.isoformat())
        with self.journal.transition() as step:
            step.write("canary-begun", to_json(sleeve))
            step.set(MARKED, at.isoformat())
            self.keep(step, sleeve)
        self.alert("canary", "info", f"{version} trades {self.config.share:.0%} of the capital")

    def _end(
        self, sleeve: Sleeve, at: datetime, prices: Mapping[str, float], equal: float, why: str, halted: bool
    ) -> None:
        told = record(sleeve, self.name, at.isoformat(), prices, equal, int(halted))
        with self.journal.transition() as step:
            step.write("canary-ended", {"version": sleeve.version, "why": why, "record": told})
            self._wait_for_report(step, sleeve.version, told)
            step.set("sent-back", [*self.journal.get("sent-back", []), sleeve.version])
            step.remove(SLEEVE)
        self.alert("canary", "warning", f"{sleeve.version} is sent back: {why}")

    def _go_on(self, sleeve: Sleeve, at: datetime, prices: Mapping[str, float], equal: float) -> None:
        with self.journal.transition() as step:
            step.write("canary", {"version": sleeve.version, "equity": sleeve.equity(prices)})
            step.set(MARKED, at.isoformat())
            self.keep(step, sleeve)
            if sleeve.bars % self.config.report == 0:
                told = record(sleeve, self.name, at.isoformat(), prices, equal, 0)
                self._wait_for_report(step, sleeve.version, told)

    def _wait_for_report(self, step: Step, version: str, told: dict[str, Any]) -> None:
        step.set(REPORTS, [*self.journal.get(REPORTS, []), {"version": version, "record": told}])

    def keep(
        self,
        step: Step,
        sleeve: Sleeve,
        champion: Mapping[str, Decimal] = MappingProxyType({}),
        prices: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """With a decision: what each of the two wants, and the prices that it was sized by."""
        wanted = {symbol: str(change) for symbol, change in champion.items()}
        known = {symbol: prices[symbol] for symbol in {**sleeve.wanted, **champion}}
        step.set(SLEEVE, {"sleeve": to_json(sleeve), "champion": wanted, "prices": known})
