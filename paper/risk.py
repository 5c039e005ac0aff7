"""The risk engine: pure functions that rule on orders before they are sent, and watch a book on a timer.

Money, prices and quantities are exact, so what is at a limit passes and what is beyond it does not.
What cannot be valued fails closed: where equity, a price or the value at risk of what is held is
missing, only orders that reduce a position pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from enum import StrEnum
from typing import Literal

from paper.broker import SMALLEST, whole_steps
from paper.exposure import (
    LEAST_RETURNS,
    ONE,
    ZERO,
    Book,
    Exposure,
    exact,
    is_positive,
    known_returns,
    turned,
)
from paper.limits import Limits

MINUTE = timedelta(minutes=1)
HALVINGS = 64
EXACT = Context(prec=80)  # digits: products of quantities, prices and shares keep all of theirs


class State(StrEnum):
    """How much the desk may do. It only ever goes down this list, but for a person's reset.

    In both of the lower states whatever brings a position nearer to zero passes, up to zero, and no
    limit holds it up; all else is vetoed. They differ in what the desk does: REDUCING it goes on asking
    the ensemble, HALTED it proposes nothing by itself, and only a person's liquidation or a stop-loss
    is left to pass. To cancel is always allowed: that is no order, and nothing here is asked about it.
    """

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


# What follows when a limit is found to be passed. The others need no state: `check` lets no order
# carry the book further, and the next rebalancing brings it back.
FOLLOWS = {
    "daily_loss": State.HALTED,
    "drawdown": State.HALTED,
    "gross": State.REDUCING,
    "net_low": State.REDUCING,
    "net_high": State.REDUCING,
    "leverage": State.REDUCING,
    "var": State.REDUCING,
}


@dataclass(frozen=True)
class Proposed:
    """An order that the desk would send; no symbol twice."""

    symbol: str
    quantity: Decimal  # below zero: a sale
    price: float  # at which the quantity was fixed
    forced: bool = False  # a liquidation or a stop-loss: it may only reduce, and no limit holds it up


@dataclass(frozen=True)
class Finding:
    limit: str  # its name in Limits; or state, forced, book, price, quantity, repeated
    action: Literal["clip", "veto"]
    value: float | None  # what it would have come to
    bound: float | None  # what it may come to
    why: str


@dataclass(frozen=True)
class Ruling:
    symbol: str
    quantity: Decimal  # that may be sent: as proposed, or clipped, or 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Breach:
    limit: str  # its name in Limits; `book` where the book cannot be valued
    state: State | None  # that follows; None: the state stays
    why: str
    symbol: str = ""  # whose position it is; a stop-loss's is to be flattened


@dataclass(frozen=True)
class Distance:
    """Where the book stands. Only an order can meet the limits on its notional, its price and the order rate."""

    name: str
    value: float
    limit: float
    used: float  # share of the limit; above 1: passed
    symbol: str  # whose position it is; empty: of the whole


def check(
    proposed: Sequence[Proposed],
    book: Book,
    limits: Limits,
    state: State,
    now: datetime,
    step: Decimal = SMALLEST,
) -> list[Ruling]:
    """Rule on a bar's orders, one ruling for each, in their order.

    First each by itself; then the whole: it passes untouched if the book is within all limits, or no
    farther past them than it was, once everything has filled at the last quotes and open orders have
    filled to the worse. Otherwise what reduces positions is shrunk in equal proportion until it fits,
    mostly not at all, and then the rest. Clipped quantities are whole `step`s. No order grows, and
    what was allowed passes when it is asked about again.
    """
    with localcontext(EXACT):
        desk = Exposure(book, limits)
        drafts = [_Draft(order, order.quantity) for order in proposed]
        blind, seen = desk.blindness(), set[str]()
        for draft in drafts:
            _rule_alone(draft, desk, state, blind, step, draft.proposed.symbol in seen)
            seen.add(draft.proposed.symbol)
        _rule_rate(drafts, desk, now)
        if not blind:
            _rule_whole([draft for draft in drafts if draft.quantity], desk, step)
        return [Ruling(draft.proposed.symbol, draft.quantity, tuple(draft.findings)) for draft in drafts]


def watch(book: Book, limits: Limits) -> list[Breach]:
    """The limits that the book is past as it stands, open orders left aside."""
    with localcontext(EXACT):
        blind = Exposure(book, limits).blindness()
        breaches = [Breach("book", State.HALTED if book.equity <= 0 else None, blind)] if blind else []
        for m in _measures(book, limits, blind):
            if m.value > m.limit:
                why = f"{m.title} is {m.shown(m.value):.6g}, beyond {m.shown(m.limit):.6g}"
                breaches.append(Breach(m.name, FOLLOWS.get(m.name), why, m.symbol))
        return breaches


def distances(book: Book, limits: Limits) -> list[Distance]:
    """How much of each limit is used; of those for each position, the one that is used most."""
    with localcontext(EXACT):
        nearest: dict[str, Distance] = {}
        for m in _measures(book, limits, Exposure(book, limits).blindness()):
            used = max(0.0, float(m.value / m.limit))
            if m.name not in nearest or used > nearest[m.name].used:
                nearest[m.name] = Distance(m.name, m.shown(m.value), m.shown(m.limit), used, m.symbol)
        return list(nearest.values())


@dataclass
class _Draft:
    """A ruling in the making."""

    proposed: Proposed
    quantity: Decimal
    exempt: bool = False  # it only reduces, and no limit holds it up
    findings: list[Finding] = field(default_factory=list)

    def cut(
        self, quantity: Decimal, limit: str, why: str, value: Decimal | None = None, bound: Decimal | None = None
    ) -> None:
        self.quantity = quantity
        action: Literal["clip", "veto"] = "clip" if quantity else "veto"
        self.findings.append(Finding(limit, action, _number(value), _number(bound), f"{self.proposed.symbol}: {why}"))


def _rule_alone(draft: _Draft, desk: Exposure, state: State, blind: str, step: Decimal, repeated: bool) -> None:
    """By what one order shows by itself."""
    order = draft.proposed
    if not order.quantity.is_finite():
        draft.cut(ZERO, "quantity", f"{order.quantity} is no quantity")
    elif not order.quantity:
        pass
    elif repeated:
        draft.cut(ZERO, "repeated", "has an order already among these")
    elif state != State.ACTIVE:
        _only_reduce(draft, desk, "state", f"the desk is {state}", step)
    elif blind:
        _only_reduce(draft, desk, "book", blind, step)
    elif order.forced:
        _only_reduce(draft, desk, "forced", "the order is forced", step)
    else:
        _rule_price(draft, desk)
        if draft.quantity:
            _rule_size(draft, desk, step)


def _only_reduce(draft: _Draft, desk: Exposure, limit: str, why: str, step: Decimal) -> None:
    draft.exempt = True
    quantity = draft.quantity
    part = desk.reduction(draft.proposed.symbol, quantity)
    if part != quantity:
        draft.cut(whole_steps(part, step), limit, f"{why}: orders may only reduce", quantity, part)


def _rule_price(draft: _Draft, desk: Exposure) -> None:
    """What has no price, or one that is no longer so, is not traded."""
    order, limits = draft.proposed, desk.limits
    if not is_positive(desk.book.prices.get(order.symbol)):
        draft.cut(ZERO, "price", f"its last quote is {desk.book.prices.get(order.symbol)}")
    elif not is_positive(order.price):
        draft.cut(ZERO, "price", f"its expected price is {order.price}")
    elif limits.var is not None and not len(known_returns([order.symbol], desk.book, limits.var_bars)):
        draft.cut(ZERO, "var", f"its risk is not known: it has fewer than {LEAST_RETURNS} returns")
    elif limits.collar is not None:
        price, most = desk.prices[order.symbol], exact(limits.collar)
        away = abs(exact(order.price) - price)
        if away > most * price:
            draft.cut(ZERO, "collar", f"expected at {order.price}, but its last quote is {price}", away / price, most)


def _rule_size(draft: _Draft, desk: Exposure, step: Decimal) -> None:
    symbol, price = draft.proposed.symbol, desk.prices[draft.proposed.symbol]
    most: dict[str, Decimal] = {}  # money
    if desk.limits.per_name is not None:
        most["per_name"] = desk.room(symbol, draft.quantity, exact(desk.limits.per_name))
    if desk.limits.order_notional is not None:
        most["order_notional"] = exact(desk.limits.order_notional)
    for limit, bound in most.items():
        value = abs(draft.quantity) * price
        if value > bound:
            part = whole_steps((bound / price).copy_sign(draft.quantity), step)
            draft.cut(part, limit, f"an order of {value:.2f}, {limit} leaves room for {bound:.2f}", value, bound)


def _rule_rate(drafts: Sequence[_Draft], desk: Exposure, now: datetime) -> None:
    """What reduces goes first."""
    most = desk.limits.orders_per_minute
    if most is None:
        return
    live = [draft for draft in drafts if draft.quantity]
    sent = sum(time > now - MINUTE for time in desk.book.order_times) + sum(draft.exempt for draft in live)
    waiting = [draft for draft in live if not draft.exempt]
    waiting.sort(key=lambda draft: not desk.reduction(draft.proposed.symbol, draft.quantity))
    for number, draft in enumerate(waiting, sent + 1):
        if number > most:
            why = f"order number {number} in a minute, more than {most}"
            draft.cut(ZERO, "orders_per_minute", why, Decimal(number), Decimal(most))


def _rule_whole(live: Sequence[_Draft], desk: Exposure, step: Decimal) -> None:
    """By what they come to together."""
    fixed = {draft.proposed.symbol: draft.quantity for draft in live if draft.exempt}
    drafts = [draft for draft in live if not draft.exempt]
    asked = {draft.proposed.symbol: draft.quantity for draft in drafts}
    reducing = {symbol: desk.reduction(symbol, quantity) for symbol, quantity in asked.items()}
    standing = desk.totals(fixed)
    bounds = {name: max(ceiling, standing[name]) for name, ceiling in desk.ceilings().items()}

    def shrunk(reductions: Decimal, rest: Decimal) -> dict[str, Decimal]:
        parts = {s: reducing[s] * reductions + (asked[s] - reducing[s]) * rest for s in asked}
        return {s: part if part == asked[s] else whole_steps(part, step) for s, part in parts.items()}

    def passed(orders: Mapping[str, Decimal]) -> dict[str, Decimal]:
        totals = desk.totals({**fixed, **orders})
        return {name: totals[name] for name, bound in bounds.items() if totals[name] > bound}

    if not passed(shrunk(ONE, ONE)):
        return
    first = _largest(lambda share: not passed(shrunk(share, ZERO)))
    rest = _largest(lambda share: not passed(shrunk(first, share)))
    allowed = shrunk(first, rest)
    over_first, over_rest = passed(shrunk(ONE, ZERO)), passed(shrunk(first, ONE))
    for draft in drafts:
        symbol = draft.proposed.symbol
        if allowed[symbol] == asked[symbol]:
            continue
        over = {**(over_rest if asked[symbol] != reducing[symbol] else {}), **(over_first if reducing[symbol] else {})}
        for name, total in over.items():
            value, bound = (turned(name, money / desk.equity) for money in (total, bounds[name]))
            known = f"be {value:.6g} of equity, beyond {bound:.6g}" if value.is_finite() else "not be known"
            why = f"{name} would {known}"
            draft.cut(allowed[symbol], name, why, value, bound)


def _largest(fits: Callable[[Decimal], bool]) -> Decimal:
    """The largest share that fits, as 0 does."""
    if fits(ONE):
        return ONE
    low, high = ZERO, ONE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class _Measure:
    name: str
    value: Decimal  # beyond its limit where it is larger
    limit: Decimal
    unit: Decimal  # both are shares of it
    symbol: str = ""

    def shown(self, amount: Decimal) -> float:
        return float(turned(self.name, amount / self.unit))

    @property
    def title(self) -> str:
        return f"{self.name} of {self.symbol}" if self.symbol else self.name


def _measures(book: Book, limits: Limits, blind: str) -> Iterator[_Measure]:
    """All that the book can be held against as it stands; of one that cannot be valued, its losses."""
    desk = Exposure(replace(book, open_orders={}), limits)
    starts = {"daily_loss": book.day_start_equity, "drawdown": max(book.peak_equity, book.equity)}
    for name, share in (("daily_loss", limits.daily_loss), ("drawdown", limits.drawdown)):
        if share is not None and desk.equity.is_finite() and is_positive(starts[name]):
            start = exact(starts[name])
            yield _Measure(name, start - desk.equity, exact(share) * start, start)
    if blind:
        return
    totals = desk.totals({})
    for name, ceiling in desk.ceilings().items():
        yield _Measure(name, totals[name], ceiling, desk.equity)
    for symbol, quantity in book.positions.items():
        if not quantity:
            continue
        price = desk.prices[symbol]
        if limits.per_name is not None:
            yield _Measure("per_name", abs(quantity) * price, exact(limits.per_name) * desk.equity, desk.equity, symbol)
        if limits.stop_loss is not None:
            paid = exact(book.average_prices[symbol])
            loss = paid - price if quantity > 0 else price - paid
            yield _Measure("stop_loss", loss, exact(limits.stop_loss) * paid, paid, symbol)


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None or not amount.is_finite() else float(amount)
