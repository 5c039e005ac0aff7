"""What the dashboard shows of a desk: made of its books and its journal after every step that it takes."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from paper.alpaca import LocalConfig
from paper.journal import Journal
from paper.risk import distances
from paper.watch.alerts import Alerts
from paper.watch.view import Holding, LimitLine, OrderLine, Point, State, View, Vote

if TYPE_CHECKING:
    from paper.deciding import Ensemble
    from paper.desk import Desk

WIDE = 2.0  # standard deviations of what is expected that are shown


class Look:
    """Keeps the series of equity, which begins with what the journal tells."""

    def __init__(self, journal: Journal, ensemble: Ensemble, alerts: Alerts) -> None:
        self.ensemble, self.alerts = ensemble, alerts
        self.series: list[Point] = []
        for entry in journal.entries(kinds=("decision",)):
            self.decided(entry.body)

    def view(self, desk: Desk) -> View:
        journal, books, seen = desk.journal, desk.keeper.now(), desk.seen
        bar, local = journal.get("bar"), isinstance(desk.config.broker, LocalConfig)
        return View(
            name=desk.config.name,
            version=desk.answer.version if desk.answer else self.ensemble.version,
            broker="local exchange" if local else "Alpaca, on paper",
            state=cast(State, desk.guard.state.name),
            why=desk.guard.why,
            bar=datetime.fromisoformat(bar["close"]) if bar else None,
            phase=bar["phase"] if bar else "starting",
            updated=desk.decider.moment if local else datetime.now(UTC),  # asks nobody: showing never fails
            cash=float(books.cash),
            dispersion=desk.answer.dispersion if desk.answer else None,
            series=self.series,
            positions=self._positions(desk),
            orders=[
                OrderLine(
                    id=order.id,
                    symbol=order.symbol,
                    side=order.side,
                    quantity=float(order.quantity),
                    filled=float(order.filled),
                    status=order.status,
                    price=float(order.value / order.filled) if order.filled else None,
                    at=datetime.fromisoformat(order.bar),
                )
                for order in reversed([*books.orders.values()])
            ],
            limits=[]
            if seen is None
            else [
                LimitLine(f"{one.name} {one.symbol}".strip(), one.value, one.limit, one.used)
                for one in distances(seen.book, desk.config.limits)
            ],
            alerts=self.alerts.recent(),
            votes=[Vote(vote.name, vote.share, vote.weights) for vote in desk.answer.members] if desk.answer else [],
        )

    def _positions(self, desk: Desk) -> list[Holding]:
        books, seen = desk.keeper.now(), desk.seen
        if seen is None:
            return []
        wanted = desk.answer.weights if desk.answer else {}
        found = []
        for symbol, held in sorted(books.positions.items()):
            price = seen.prices.get(symbol, math.nan)
            value = float(held) * price
            paid = desk.keeper.average_prices.get(symbol)
            profit = math.nan if paid is None else value - float(held * paid)
            found.append(
                Holding(symbol, float(held), price, value, value / seen.equity, wanted.get(symbol, math.nan), profit)
            )
        return found

    def decided(self, decision: dict[str, Any]) -> None:
        equity, bars = float(decision["equity"]), len(self.series)
        start = self.series[0].equity if self.series else equity
        years = bars / self.ensemble.bars_per_year
        expected = self.ensemble.expected
        grown = 1.0 + expected.get("mean", math.nan) * years
        band = WIDE * expected.get("volatility", math.nan) * math.sqrt(years)
        self.series.append(
            Point(
                at=datetime.fromisoformat(decision["close"]),
                equity=equity,
                equal_weight=float(decision["equal"]),
                expected=start * grown,
                low=start * (grown - band),
                high=start * (grown + band),
            )
        )
