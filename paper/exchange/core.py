"""The exchange itself: what may be ordered, when it fills, and at which price. No HTTP here.

Orders are quantities, fixed by who sends them. Those that are open when a bar has closed fill
together at the next open (or close), as `envs.transition` has it: sells first, whole; buys scaled
to the cash that these leave. Every cost is in the fill price. What is ordered between a fill and the
close waits for the next fill.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import ROUND_DOWN, Context, Decimal, localcontext

import numpy as np
import torch

from envs.market import MarketTensors
from envs.transition import State, buy_scale, trade_costs
from kit.errors import UserError
from market.data import load
from market.panel import Panel
from market.sources.times import parse_moment
from paper.exchange.book import EXACT, NANO, SHARE, ZERO, Book, Order, exact, name
from paper.exchange.config import ExchangeConfig
from paper.exchange.faults import Fault, Script
from paper.exchange.tape import Stage, Tape
from paper.exchange.ticket import Refusal, Ticket, forbidden, unprocessable

MULTIPLIER = 4  # of equity, that positions may be worth: Alpaca's within a day
CASH_PRICE = Context(prec=15, rounding=ROUND_DOWN)  # reads back as the same float


class Exchange:
    def __init__(self, config: ExchangeConfig, panel: Panel | None = None) -> None:
        self.config = config
        self.panel = load(config.data)[0] if panel is None else panel
        self.script = Script()
        self.go_wrong(config.faults)
        self.market = MarketTensors.build(self.panel, config.trading, dtype=torch.float64)
        self.tape = Tape(self.panel, _first(config, self.panel), config.trading.fill, self.script)
        self.book = Book(exact(config.cash))
        self.whole = config.whole or config.trading.allocation.kind == "shares"
        self.shorts = config.trading.allocation.kind == "long_short"
        self.last_equity = self.book.cash  # at the last close

    # What it tells

    def equity(self) -> Decimal:
        with localcontext(EXACT):
            return self.book.cash + self.worth(1) - self.worth(-1)

    def worth(self, sign: int) -> Decimal:
        """Of what is held long (1) or short (-1), at the newest prices."""
        with localcontext(EXACT):
            values = [held.quantity * self.tape.price(symbol) for symbol, held in self.book.positions.items()]
            return sum((abs(value) for value in values if value * sign > 0), ZERO)

    def buying_power(self) -> Decimal:
        with localcontext(EXACT):
            opening = sum((self._opens(order) for order in self.book.open.values()), ZERO)
            return max(ZERO, MULTIPLIER * self.equity() - self.worth(1) - self.worth(-1) - opening)

    @property
    def blocked(self) -> bool:
        return self.equity() <= 0

    # What it is told

    def submit(self, ticket: Ticket) -> Order:
        """An order that waits for the next fill. Raises Refusal."""
        if ticket.client_id in self.book.by_client:
            raise Refusal(422, 40010001, "client_order_id must be unique")
        if ticket.symbol not in self.tape.place:
            raise unprocessable(f'could not find asset "{ticket.symbol}"')
        if not self.tape.tradable(ticket.symbol):
            raise unprocessable(f"asset {ticket.symbol} is not tradable")
        if ticket.time_in_force == {"open": "cls", "close": "opg"}[self.tape.fill]:
            raise unprocessable(f"orders fill at the {self.tape.fill}: time_in_force must be day")
        number = len(self.book.orders)
        order = Order(
            id=name("order", number),
            client_id=ticket.client_id or name("client", number),
            symbol=ticket.symbol,
            side=ticket.side,
            quantity=ticket.quantity or self._worth_of(ticket),
            notional=ticket.notional,
            time_in_force=ticket.time_in_force,
            created=self.tape.tick(),
        )
        if self.whole and order.quantity % SHARE:
            raise Refusal(403, 40310000, f'asset "{order.symbol}" is not fractionable')
        self._afford(order)
        self.book.place(order)
        if self.script.fills_at_once():
            self._settle([order], self.tape.prices(), self.tape.prices(), float(self.equity()))
        return order

    def cancel(self, order: Order) -> None:
        if order.id not in self.book.open:
            raise unprocessable(f'order is already in "{order.status}" state')
        self.book.end(order, "canceled", self.tape.tick())

    def look(self, order: Order) -> None:
        """Who has seen an order partially filled sees the rest of the fill next."""
        if order.waiting and not order.stuck:
            waiting, order.waiting = order.waiting, ZERO
            self.book.execute(order, waiting, order.price, self.tape.tick())
            self._cut(order)

    def advance(self, bar: int, stage: Stage) -> None:
        """To the next stage, if (bar, stage) is the present one; else nothing changes."""
        if (bar, stage) != (self.tape.bar, self.tape.stage) or self.tape.ended:
            return
        if stage == "closed":
            self._fill()
        else:
            self._close()

    def go_wrong(self, faults: Sequence[Fault]) -> None:
        """Add to the script."""
        for fault in faults:
            if fault.symbol not in ("*", *self.panel.symbols):
                symbols = ", ".join(self.panel.symbols[:5])
                raise UserError(f"faults: symbol = {fault.symbol}: is not of this market; expected one as {symbols}")
        self.script.add(faults)

    # How

    def _fill(self) -> None:
        """Everything that is open meets the next bar's fill price."""
        before, wealth = self.tape.prices(), float(self.equity())
        for fault in self.script.splits(self.tape.bar + 1):
            self._split(fault.symbol, exact(fault.ratio))
        self.tape.move()
        for order in list(self.book.open.values()):
            if self.script.of_fill("reject", order.symbol) or self.script.halted(order.symbol, self.tape.bar + 1):
                self.book.end(order, "rejected", self.tape.tick())
        fills = self.market.table[0, self.tape.bar, :-1].numpy() > 0
        prices = np.where(fills, self.tape.prices(), np.nan)
        self._settle(list(self.book.open.values()), prices, before, wealth)

    def _close(self) -> None:
        """The rest of fills that came in two, interest and fees; the bar closes."""
        for order in list(self.book.open.values()):
            if order.waiting and not order.stuck:
                self.look(order)
            elif order.stuck:
                self.book.end(order, "expired", self.tape.tick())
        interest = float(self.book.cash) * self.market.interest
        costs = self.config.trading.costs
        fee = float(self.worth(-1)) * (costs.borrow_rate / self.panel.bars_per_year) if self.shorts else 0.0
        self.tape.move()
        for kind, amount in (("INT", interest), ("FEE", -fee)):
            if amount:
                self.book.pay(kind, exact(amount), self.tape.tick())
        self.last_equity = self.equity()

    def _settle(
        self,
        orders: list[Order],
        prices: np.ndarray,  # [A] NaN where nothing fills
        before: np.ndarray,  # [A] at close t
        wealth: float,  # at close t
    ) -> None:
        """Fill orders together, by the rule of `envs.transition`; what they do not get is canceled."""
        if wealth <= 0:
            for order in orders:
                self.book.end(order, "rejected", self.tape.tick())
            return
        relative = np.nan_to_num(prices / before)  # [A]
        value = np.nan_to_num(before) / wealth  # [A] a share's weight at close t
        asked = [float(order.sign * order.quantity) for order in orders]
        trades = self._sum(orders, asked) * value * relative
        costs = self._costs(trades, wealth)
        buys = trades > 0
        cash = float(self.book.cash) / wealth
        at_hand = cash - trades[~buys].sum() - costs[~buys].sum()
        needed = trades[buys].sum() + costs[buys].sum()
        scale = float(buy_scale(*torch.tensor([at_hand, needed], dtype=torch.float64)))
        quantities = [self._scaled(order, scale) if relative[self._at(order)] else ZERO for order in orders]
        trades = self._sum(orders, [o.sign * float(q) for o, q in zip(orders, quantities)]) * value * relative
        traded = np.where(trades != 0, trades, 1.0)
        with_costs = prices * (1.0 + self._costs(trades, wealth) / traded)  # [A]
        left = self.book.cash
        for order, quantity in sorted(zip(orders, quantities), key=lambda pair: pair[0].sign):  # sells first
            price = exact(with_costs[self._at(order)]) if quantity else ZERO
            with localcontext(EXACT):
                if quantity * price > left > 0 and order.side == "buy":  # by rounding: cash pays what was scaled to it
                    price = CASH_PRICE.divide(left, quantity)
                left -= order.sign * quantity * price
            self._execute(order, quantity, price)

    def _execute(self, order: Order, quantity: Decimal, price: Decimal) -> None:
        """At once or in two executions, and cancel the rest."""
        part = quantity
        fault = self.script.of_fill("partial", order.symbol)
        if fault is not None:
            part, order.stuck = self._step(quantity * exact(fault.share)), True
        elif _chance(self.config.seed, order.client_id, "partial") < self.config.partial:
            part = self._step(quantity * exact(_chance(self.config.seed, order.client_id, "share")))
        if part:
            order.waiting, order.price = quantity - part, price
            self.book.execute(order, part, price, self.tape.tick())
        elif quantity:  # too small to be parted
            order.stuck = False
            self.book.execute(order, quantity, price, self.tape.tick())
        self._cut(order)

    def _cut(self, order: Order) -> None:
        if order.id in self.book.open and not order.waiting:
            self.book.end(order, "canceled", self.tape.tick())

    def _split(self, symbol: str, ratio: Decimal) -> None:
        for order in [order for order in self.book.open.values() if order.symbol == symbol]:
            self.book.end(order, "canceled", self.tape.tick())
        self.tape.split(symbol, self.tape.bar + 1, float(ratio))
        self.book.split(symbol, ratio, self.tape.tick())

    def _costs(self, trades: np.ndarray, wealth: float) -> np.ndarray:  # [A] -> [A], shares of wealth at close t
        one = torch.tensor([wealth / self.config.trading.capital], dtype=torch.float64)
        state = State(torch.tensor([self.tape.bar]), torch.empty(0), one, one)
        with_cash = torch.from_numpy(np.append(trades, 0.0)[None])
        with torch.no_grad():
            return trade_costs(self.market, state, with_cash)[0, :-1].numpy()

    def _sum(self, orders: list[Order], amounts: list[float]) -> np.ndarray:  # [A]
        total = np.zeros(len(self.tape.place))
        np.add.at(total, [self._at(order) for order in orders], amounts)
        return total

    def _scaled(self, order: Order, scale: float) -> Decimal:
        if order.side == "sell" or scale == 1.0:
            return order.quantity
        rounding = 1.0 + 8.0 * np.finfo(np.float64).eps if self.whole else 1.0  # cash for a whole share buys it
        return min(order.quantity, self._step(order.quantity * exact(scale * rounding)))

    def _step(self, quantity: Decimal) -> Decimal:
        step = SHARE if self.whole else NANO
        with localcontext(EXACT):
            return quantity.quantize(step, ROUND_DOWN)

    def _at(self, order: Order) -> int:
        return self.tape.place[order.symbol]

    def _worth_of(self, ticket: Ticket) -> Decimal:
        assert ticket.notional is not None
        return self._step(ticket.notional / self.tape.price(ticket.symbol))

    def _opens(self, order: Order) -> Decimal:
        """What the position would grow by if what is left of the order filled, at the newest price."""
        held = self.book.held(order.symbol)
        after = held + order.sign * order.left
        return max(ZERO, abs(after) - abs(held)) * self.tape.price(order.symbol)

    def _afford(self, order: Order) -> None:
        if self.blocked:
            raise forbidden("account is blocked")
        others = [other for other in self.book.open.values() if other.symbol == order.symbol]
        if any(other.side != order.side for other in others):
            raise forbidden("potential wash trade detected. use complex orders", existing_order_id=others[0].id)
        if order.side == "sell" and not self.shorts:
            held = self.book.held(order.symbol)
            bound = sum((other.left for other in others), ZERO)
            if order.quantity > held - bound:
                asked = f"requested: {order.quantity:f}, available: {held - bound:f}"
                raise forbidden(
                    f"insufficient qty available for order ({asked})",
                    symbol=order.symbol,
                    available=f"{held - bound:f}",
                    existing_qty=f"{held:f}",
                    held_for_orders=f"{bound:f}",
                )
        if (cost := self._opens(order)) and cost > (power := self.buying_power()):
            raise forbidden("insufficient buying power", buying_power=f"{power:f}", cost_basis=f"{cost:f}")


def _first(config: ExchangeConfig, panel: Panel) -> int:
    bar = config.bar
    if config.start is not None:
        bar = int(np.searchsorted(panel.times, parse_moment(config.start)))
    if bar >= len(panel) - 1:
        what = f"bar = {bar}" if config.start is None else f"start = {config.start}"
        raise UserError(f"{what}: orders fill one bar later; expected one of the first {len(panel) - 1} bars")
    return bar


def _chance(seed: int, client_id: str, purpose: str) -> float:
    """Uniform between 0 and 1, the same for the same order in every run."""
    digest = hashlib.sha256(f"{seed} {purpose} {client_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
