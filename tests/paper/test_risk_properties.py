"""No sequence of targets, prices, fills and restarts gets a book past a limit by an order that was allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paper.exposure import Book
from paper.limits import Limits
from paper.risk import Proposed, State, check

NAMES = "ABCD"
NOW = datetime(2024, 3, 5, 21, tzinfo=UTC)
RETURNS = np.random.default_rng(11).normal(0, [0.01, 0.02, 0.03, 0.04], (60, 4))
EXPOSURES = ("gross", "net_low", "net_high", "leverage", "min_cash", "turnover", "var")

quantities = st.decimals(-400, 400, places=3)
prices = st.decimals(1, 300, places=2).map(float)
steps = st.sampled_from([Decimal(1), Decimal("0.01"), Decimal("0.000000001")])
OFF: dict[str, Any] = {field.name: None for field in fields(Limits) if field.name != "var_bars"}


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    def maybe(low: float, high: float) -> float | None:
        return draw(st.none() | st.floats(low, high).map(lambda value: round(value, 3)))

    some = {"per_name": maybe(0.05, 1), "gross": maybe(0.2, 2), "net_low": maybe(-1, -0.01), "net_high": maybe(0.01, 1)}
    some |= {"leverage": maybe(1, 2), "min_cash": maybe(0, 0.9), "turnover": maybe(0.1, 2), "var": maybe(0.005, 0.1)}
    some |= {"order_notional": maybe(1000, 50_000), "collar": maybe(0.01, 0.2)}
    return Limits(**(OFF | some), var_bars=50)


@st.composite
def books(draw: st.DrawFn, open: bool = False) -> Book:
    named = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, quantities))
    held, quotes = draw(named), {symbol: draw(prices) for symbol in NAMES}
    equity = draw(st.integers(20_000, 200_000))
    cash = equity - sum(quantity * Decimal(str(quotes[symbol])) for symbol, quantity in held.items())
    return Book(
        equity=float(equity),
        cash=float(cash),
        positions=held,
        prices=quotes,
        day_start_equity=float(equity),
        peak_equity=float(equity),
        open_orders=draw(named) if open else {},
        traded_today=draw(st.sampled_from([0.0, 10_000.0, 500_000.0])),
        symbols=tuple(NAMES),
        returns=RETURNS,
    )


@st.composite
def sets_of_orders(draw: st.DrawFn, quotes: Mapping[str, float]) -> list[Proposed]:
    chosen = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    away = st.sampled_from([1.0, 1.0, 1.0, 1.05, 0.8])
    return [Proposed(s, draw(quantities.filter(bool)), round(quotes[s] * draw(away), 2)) for s in chosen]


def exact(number: float) -> Fraction:
    return Fraction(str(number))


def standing(book: Book, positions: Mapping[str, Decimal], cash: Fraction, traded: Fraction) -> dict[str, Fraction]:
    """What the limits on the whole bound, as shares of equity, by other means than the engine's."""
    values = [Fraction(positions.get(s, Decimal(0))) * exact(book.prices[s]) for s in NAMES]
    equity = exact(book.equity)
    profits = RETURNS[-50:] @ np.array([float(value / equity) for value in values])
    risk = max(0.0, -np.percentile(profits, 5), 1.6448536269514722 * profits.std(ddof=1) - profits.mean())
    shares = {
        "gross": sum(map(abs, values), Fraction(0)),
        "net_low": -sum(values),
        "net_high": sum(values),
        "leverage": sum((value for value in values if value > 0), Fraction(0)) + max(cash, Fraction(0)),
        "min_cash": equity - cash,
        "turnover": traded,
    }
    return {name: Fraction(amount) / equity for name, amount in shares.items()} | {"var": Fraction(risk)}


def ceilings(limits: Limits) -> dict[str, Fraction]:
    values = {name: getattr(limits, name) for name in EXPOSURES}
    turned = {"net_low": lambda share: -share, "min_cash": lambda share: 1 - share}
    return {n: turned.get(n, lambda share: share)(exact(v)) for n, v in values.items() if v is not None}


def before_and_after(book: Book, orders: Mapping[str, Decimal]) -> tuple[dict[str, Fraction], dict[str, Fraction]]:
    """As it stands, and once all orders have filled at the quotes."""
    cash, traded, positions = exact(book.cash), exact(book.traded_today), dict(book.positions)
    before = standing(book, positions, cash, traded)
    for symbol, quantity in orders.items():
        value = Fraction(quantity) * exact(book.prices[symbol])
        cash, traded = cash - value, traded + abs(value)
        positions[symbol] = positions.get(symbol, Decimal(0)) + quantity
    return before, standing(book, positions, cash, traded)


def fits(book: Book, limits: Limits, orders: Sequence[Proposed]) -> bool:
    """Whether a set of orders is within all limits, each by itself and together; no open orders."""
    equity = exact(book.equity)
    for order in orders:
        price, value = (
            exact(book.prices[order.symbol]),
            abs(Fraction(order.quantity)) * exact(book.prices[order.symbol]),
        )
        if limits.collar is not None and abs(exact(order.price) - price) > exact(limits.collar) * price:
            return False
        if limits.order_notional is not None and value > exact(limits.order_notional):
            return False
        held = Fraction(book.positions.get(order.symbol, Decimal(0)))
        then = held + Fraction(order.quantity)
        if limits.per_name is not None and abs(then) * price > exact(limits.per_name) * equity:
            return False
    _, after = before_and_after(book, {order.symbol: order.quantity for order in orders})
    return all(after[name] <= ceiling - Fraction(1, 10**9) for name, ceiling in ceilings(limits).items())


@settings(max_examples=120)
@given(st.data(), books(), limits(), steps)
def test_what_is_allowed_leaves_every_limit_held_or_no_farther_passed(
    data: st.DataObject, book: Book, limits: Limits, step: Decimal
) -> None:
    orders = data.draw(sets_of_orders(book.prices))
    rulings = check(orders, book, limits, State.ACTIVE, NOW, step)
    before, after = before_and_after(book, {ruling.symbol: ruling.quantity for ruling in rulings})
    for name, ceiling in ceilings(limits).items():
        slack = Fraction(1, 10**12) if name == "var" else 0  # the only one in floating point
        assert after[name] <= max(ceiling, before[name]) + slack
    for order, ruling in zip(orders, rulings):
        assert ruling.symbol == order.symbol
        quote, quantity = exact(book.prices[order.symbol]), Fraction(ruling.quantity)
        assert abs(quantity) <= abs(order.quantity) and quantity * Fraction(order.quantity) >= 0
        assert (ruling.quantity == order.quantity) == (not ruling.findings)
        assert ruling.quantity == order.quantity or ruling.quantity % step == 0
        assert not ruling.findings or (ruling.findings[-1].action == "veto") == (not quantity)
        held = Fraction(book.positions.get(order.symbol, Decimal(0)))
        if limits.per_name is not None:
            assert abs(held + quantity) * quote <= max(exact(limits.per_name) * exact(book.equity), abs(held) * quote)
        if limits.order_notional is not None:
            assert abs(quantity) * quote <= exact(limits.order_notional)


@settings(max_examples=120)
@given(st.data(), books(open=True), limits(), steps)
def test_what_was_allowed_is_allowed_again(data: st.DataObject, book: Book, limits: Limits, step: Decimal) -> None:
    orders = data.draw(sets_of_orders(book.prices))
    state = data.draw(st.sampled_from(State))
    once = [ruling.quantity for ruling in check(orders, book, limits, state, NOW, step)]
    again = [replace(order, quantity=quantity) for order, quantity in zip(orders, once)]
    rulings = check(again, book, limits, state, NOW, step)
    assert [ruling.quantity for ruling in rulings] == once
    assert not any(ruling.findings for ruling in rulings)


@settings(max_examples=120)
@given(st.data(), books(), limits(), steps)
def test_orders_within_all_limits_pass_to_the_last_digit(
    data: st.DataObject, book: Book, limits: Limits, step: Decimal
) -> None:
    orders = data.draw(sets_of_orders(book.prices))
    smaller = data.draw(st.sampled_from(["0.3", "0.1", "0.01"]))
    orders = [replace(order, quantity=order.quantity * Decimal(smaller)) for order in orders]
    assume(fits(book, limits, orders))
    rulings = check(orders, book, limits, State.ACTIVE, NOW, step)
    assert [ruling.quantity for ruling in rulings] == [order.quantity for order in orders]


@settings(max_examples=120)
@given(st.data(), books(open=True), limits(), st.sampled_from([State.REDUCING, State.HALTED]), steps)
def test_in_a_restricted_state_no_position_grows_or_turns_whatever_fills(
    data: st.DataObject, book: Book, limits: Limits, state: State, step: Decimal
) -> None:
    orders = data.draw(sets_of_orders(book.prices))
    for ruling in check(orders, book, limits, state, NOW, step):
        held, open = book.positions.get(ruling.symbol, Decimal(0)), book.open_orders.get(ruling.symbol, Decimal(0))
        if ruling.quantity:
            for filled in (held, held + open):
                assert abs(filled + ruling.quantity) < abs(filled)
                assert (filled + ruling.quantity) * filled >= 0


@settings(max_examples=100)
@given(st.data(), books(), limits(), st.sampled_from([State.REDUCING, State.HALTED]), st.booleans())
def test_reductions_always_pass_in_a_restricted_state(
    data: st.DataObject, book: Book, limits: Limits, state: State, blind: bool
) -> None:
    share = data.draw(st.sampled_from(["1", "0.5", "0.001"]))
    orders = [Proposed(s, -held * Decimal(share), book.prices[s]) for s, held in book.positions.items() if held]
    book = replace(book, traded_today=1e12, prices={} if blind else book.prices)
    rulings = check(orders, book, limits, state, NOW)
    assert [(ruling.quantity, ruling.findings) for ruling in rulings] == [(order.quantity, ()) for order in orders]


@settings(max_examples=60)
@given(st.data(), books(), limits())
def test_no_sequence_of_prices_targets_fills_and_restarts_passes_a_limit(
    data: st.DataObject, book: Book, limits: Limits
) -> None:
    """Orders fill in part, stay open over a restart, and are decided anew beside what is still open."""
    times: list[datetime] = []
    limits = replace(limits, orders_per_minute=6)
    now, cash = NOW, Decimal(str(book.cash))
    for _ in range(data.draw(st.integers(2, 5))):
        now += timedelta(seconds=data.draw(st.sampled_from([5, 20, 90])))
        moved = {s: round(price * data.draw(st.sampled_from([1, 0.8, 1.2])), 2) for s, price in book.prices.items()}
        worth = {s: Decimal(str(price)) for s, price in moved.items()}
        equity = cash + sum(held * worth[s] for s, held in book.positions.items())
        assume(equity > 1000)
        book = replace(book, prices=moved, equity=float(equity), cash=float(cash), order_times=tuple(times))
        orders = [order for order in data.draw(sets_of_orders(moved)) if order.symbol not in book.open_orders]
        allowed = {r.symbol: r.quantity for r in check(orders, book, limits, State.ACTIVE, now) if r.quantity}
        times += [now] * len(allowed)
        assert sum(time > now - timedelta(minutes=1) for time in times) <= 6
        assert_within(book, limits, allowed)

        sent = {**book.open_orders, **allowed}
        share = {symbol: Decimal(data.draw(st.sampled_from(["0", "0.5", "1"]))) for symbol in sent}
        fills = {symbol: quantity * share[symbol] for symbol, quantity in sent.items()}
        cash -= sum(quantity * worth[symbol] for symbol, quantity in fills.items())
        traded = Decimal(str(book.traded_today)) + sum(abs(q) * worth[s] for s, q in fills.items())
        book = replace(
            book,
            positions={s: book.positions.get(s, Decimal(0)) + fills.get(s, Decimal(0)) for s in NAMES},
            open_orders={s: q - fills[s] for s, q in sent.items() if q != fills[s]},
            traded_today=float(traded),
        )
        if data.draw(st.booleans()):  # what was open is canceled
            book = replace(book, open_orders={})


def assert_within(book: Book, limits: Limits, allowed: Mapping[str, Decimal]) -> None:
    """Once the allowed orders have filled, whichever of the open ones fill: no limit is passed, or none farther than
    open orders alone could have carried the book."""
    ways = [dict(zip(book.open_orders, which)) for which in product([True, False], repeat=len(book.open_orders))]
    filled = [{s: q for s, q in book.open_orders.items() if way[s]} for way in ways]
    worst: dict[str, Fraction] = {}
    for some in filled:
        _, alone = before_and_after(book, some)
        worst = {name: max(value, worst.get(name, value)) for name, value in alone.items()}
    for some in filled:
        _, after = before_and_after(book, {**some, **allowed})
        for name, ceiling in ceilings(limits).items():
            if name != "var":  # of two open orders, the one that hedges the other may come alone
                assert after[name] <= max(ceiling, worst[name])
        for symbol, quantity in allowed.items():
            held = Fraction(book.positions.get(symbol, Decimal(0)))
            value, then = (abs(q) * exact(book.prices[symbol]) for q in (held, held + Fraction(quantity)))
            if limits.per_name is not None:
                assert then <= max(exact(limits.per_name) * exact(book.equity), value)


@settings(max_examples=100)
@given(st.data(), st.lists(st.floats(0, 1), min_size=4, max_size=4), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_the_default_limits_let_a_long_only_desk_rebalance(
    data: st.DataObject, held: list[float], wanted: list[float]
) -> None:
    """From any unlevered portfolio to any other, in quantities of nine decimals."""
    quotes = {symbol: data.draw(prices) for symbol in NAMES}
    now, then = ([share / max(1.0, sum(shares)) for share in shares] for shares in (held, wanted))
    amounts = {
        s: [Decimal(w * 100_000 / quotes[s]).quantize(Decimal("1E-9")) for w in (a, b)]
        for s, a, b in zip(NAMES, now, then)
    }
    cash = 100_000 - sum(a * Decimal(str(quotes[s])) for s, (a, _) in amounts.items())
    book = Book(
        equity=100_000.0,
        cash=float(cash),
        positions={s: a for s, (a, _) in amounts.items()},
        prices=quotes,
        day_start_equity=100_000.0,
        peak_equity=100_000.0,
        symbols=tuple(NAMES),
        returns=RETURNS,
    )
    orders = [Proposed(s, b - a, quotes[s]) for s, (a, b) in amounts.items()]
    for ruling, order in zip(check(orders, book, Limits(), State.ACTIVE, NOW), orders):
        assert (ruling.quantity, ruling.findings) == (order.quantity, ())
