"""A new ensemble's share of the capital, traded beside the champion's: one account, two sets of books, orders netted.

The champion's books are the account's less the canary's, so that the two always add up. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from kit.config import setting
from paper.books import NOTHING, Booked, Books
from paper.broker import Activity, whole_steps

SLEEVE = "canary"  # in the journal's state


@dataclass(frozen=True)
class CanaryConfig:
    """What a canary may lose before the desk takes its share back."""

    share: float = setting(0.0, low=0, below=1, help="of the capital, for the endpoint's canary; 0: none is traded")
    drawdown: float = setting(0.1, above=0, below=1, help="loss since its highest equity that ends it")
    behind: float = setting(0.05, above=0, help="by how much it may fall behind the champion since its start")
    report: int = setting(20, low=1, help="bars between reports to the endpoint's registry")


@dataclass(frozen=True)
class Sleeve:
    """The canary's own books."""

    version: str
    started: str  # the close that it began at
    cash: Decimal
    positions: Mapping[str, Decimal]
    begun: float  # its equity then
    champion: float  # the champion's
    equal: float  # what equal weight had
    peak: float
    deepest: float = 0.0  # drawdown
    bars: int = 0
    orders: int = 0
    wanted: Mapping[str, Decimal] = field(default_factory=dict)  # of the orders of this bar, its part

    def equity(self, prices: Mapping[str, float]) -> float:
        return float(self.cash) + sum(float(held) * prices[symbol] for symbol, held in self.positions.items())

    def portfolio(self) -> dict[str, float]:
        return {symbol: float(held) for symbol, held in self.positions.items()}


def begin(version: str, share: float, books: Books, prices: Mapping[str, float], equal: float, at: str) -> Sleeve:
    """A slice of the account as it stands: of the cash and of every position, so that nothing has to be traded."""
    part = Decimal(repr(share))
    positions = {symbol: whole_steps(held * part) for symbol, held in books.positions.items()}
    sleeve = Sleeve(version, at, books.cash * part, {s: q for s, q in positions.items() if q}, 0.0, 0.0, equal, 0.0)
    equity = sleeve.equity(prices)
    rest = champions(books, sleeve).equity(prices)
    return replace(sleeve, begun=equity, champion=rest, peak=equity)


def champions(books: Books, sleeve: Sleeve | None) -> Books:
    """What is left to the champion."""
    if sleeve is None:
        return books
    names = {*books.positions, *sleeve.positions}
    left = {s: books.positions.get(s, NOTHING) - sleeve.positions.get(s, NOTHING) for s in sorted(names)}
    return replace(books, cash=books.cash - sleeve.cash, positions={s: held for s, held in left.items() if held})


def netted(first: Mapping[str, Decimal], second: Mapping[str, Decimal]) -> dict[str, Decimal]:
    found = {s: first.get(s, NOTHING) + second.get(s, NOTHING) for s in sorted({*first, *second})}
    return {symbol: change for symbol, change in found.items() if change}


def settled(
    sleeve: Sleeve, champion: Mapping[str, Decimal], orders: Mapping[str, Booked], prices: Mapping[str, float]
) -> Sleeve:
    """The canary's books once the orders of both have ended.

    What one bought and the other sold changed hands between them; of the rest each gets its part of
    what was filled. Both pay the price of the fill, or that of the close where nothing was.
    """
    by_symbol: dict[str, tuple[Decimal, Decimal]] = {}  # filled, signed; its value
    for order in orders.values():
        filled, value = by_symbol.get(order.symbol, (NOTHING, NOTHING))
        sign = 1 if order.side == "buy" else -1
        by_symbol[order.symbol] = filled + sign * order.filled, value + sign * order.value
    cash, positions = sleeve.cash, dict(sleeve.positions)
    for symbol, mine in sleeve.wanted.items():
        filled, value = by_symbol.get(symbol, (NOTHING, NOTHING))
        price = value / filled if filled else Decimal(repr(prices[symbol]))
        done = _part(mine, champion.get(symbol, NOTHING), filled)
        cash -= done * price
        positions[symbol] = positions.get(symbol, NOTHING) + done
    held = {symbol: quantity for symbol, quantity in positions.items() if quantity}
    return replace(sleeve, cash=cash, positions=held, wanted={}, orders=sleeve.orders + len(sleeve.wanted))


def _part(mine: Decimal, other: Decimal, filled: Decimal) -> Decimal:
    """How much of my change came about, where so much of both together was filled."""
    net = mine + other
    if mine * other >= 0:
        return whole_steps(mine * filled / net) if net else NOTHING
    if abs(mine) <= abs(other):
        return mine
    crossed = -other
    return crossed + (filled if net else NOTHING)


def touched(sleeve: Sleeve, activity: Activity, before: Books) -> Sleeve:
    """Its part of interest, a dividend or a split, by what it held of what the account held."""
    if activity.symbol:
        held, mine = before.positions.get(activity.symbol, NOTHING), sleeve.positions.get(activity.symbol, NOTHING)
        part = mine / held if held else NOTHING
    else:
        part = sleeve.cash / before.cash if before.cash else NOTHING
    positions = dict(sleeve.positions)
    if activity.quantity and part:
        positions[activity.symbol] = positions[activity.symbol] + whole_steps(activity.quantity * part)
    return replace(sleeve, cash=sleeve.cash + activity.cash * part, positions=positions)


def marked(sleeve: Sleeve, prices: Mapping[str, float]) -> Sleeve:
    """At a close."""
    equity = sleeve.equity(prices)
    peak = max(sleeve.peak, equity)
    return replace(sleeve, peak=peak, deepest=min(sleeve.deepest, equity / peak - 1.0), bars=sleeve.bars + 1)


def verdict(sleeve: Sleeve, config: CanaryConfig, books: Books, prices: Mapping[str, float]) -> str:
    """Why its share goes back to the champion; empty: it does not."""
    equity = sleeve.equity(prices)
    lost = 1.0 - equity / sleeve.peak
    if lost > config.drawdown:
        return f"lost {lost:.1%} since its highest equity; {config.drawdown:.1%} is allowed"
    grown, champion = equity / sleeve.begun, champions(books, sleeve).equity(prices) / sleeve.champion
    if champion - grown > config.behind:
        return f"is {champion - grown:.1%} behind the champion; {config.behind:.1%} is allowed"
    return ""


def record(
    sleeve: Sleeve, name: str, ended: str, prices: Mapping[str, float], equal: float, halts: int
) -> dict[str, Any]:
    """What the endpoint's registry keeps of it."""
    return {
        "id": f"{name}-{sleeve.version}-{ended}",
        "started": sleeve.started,
        "ended": ended,
        "bars": max(sleeve.bars, 1),
        "total_return": sleeve.equity(prices) / sleeve.begun - 1.0,
        "benchmark_return": equal / sleeve.equal - 1.0,
        "max_drawdown": sleeve.deepest,
        "orders": sleeve.orders,
        "halts": halts,
    }


def to_json(sleeve: Sleeve) -> dict[str, Any]:
    return {
        **vars(sleeve),
        "cash": str(sleeve.cash),
        "positions": {symbol: str(held) for symbol, held in sleeve.positions.items()},
        "wanted": {symbol: str(change) for symbol, change in sleeve.wanted.items()},
    }


def from_json(tree: Mapping[str, Any]) -> Sleeve:
    amounts = {key: {s: Decimal(q) for s, q in tree[key].items()} for key in ("positions", "wanted")}
    return Sleeve(**{**tree, **amounts, "cash": Decimal(tree["cash"])})
