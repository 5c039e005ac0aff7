"""One bar of trading: the fill rule, the costs and the accounting. Nothing else books anything.

`transition` is pure and differentiable: no reset, no randomness. At close t the order is fixed as a
quantity; it fills at the next open or close; sells come first, and buys are scaled to the cash they
leave. Holdings then drift to close t+1 and cash earns its interest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from envs.market import MarketTensors, Quote, total

# At zero trade a square root has no derivative; this is too small to be seen beside any trade.
_TINY = 1e-30
_NO_TRADE = 1e-12  # keeps "what buys cost" from being a division by zero
_LEAST_WEALTH = 1e-6  # what is left, in cash, of a bar's wealth at ruin, so that its logarithm exists


class State(NamedTuple):
    """N portfolios, each at its own bar."""

    bar: torch.Tensor  # [N] int64
    weights: torch.Tensor  # [N, A+1] shares of wealth at close `bar`, cash last
    wealth: torch.Tensor  # [N] over the wealth at the start
    peak: torch.Tensor  # [N] the highest wealth so far


class Rates(NamedTuple):
    """What is charged in proportion."""

    commission: float  # of what is traded
    spread: float  # of what is traded
    interest: float  # of the cash left, per bar


class Costs(NamedTuple):
    """What one bar took and gave, each [N] as a share of wealth at close t; worked out when asked."""

    bought: torch.Tensor  # at fill prices
    sold: torch.Tensor
    bought_beyond: torch.Tensor  # cost beyond commission and spread
    sold_beyond: torch.Tensor
    short_fee: torch.Tensor | None
    left: torch.Tensor  # cash after the trades
    rates: Rates

    @property
    def traded(self) -> torch.Tensor:
        return self.bought + self.sold

    @property
    def commission(self) -> torch.Tensor:
        return self.traded * self.rates.commission

    @property
    def spread(self) -> torch.Tensor:
        return self.traded * self.rates.spread

    @property
    def impact(self) -> torch.Tensor:
        return self.bought_beyond + self.sold_beyond

    @property
    def borrow(self) -> torch.Tensor:
        return torch.zeros_like(self.left) if self.short_fee is None else self.short_fee

    @property
    def interest(self) -> torch.Tensor:
        return self.left * self.rates.interest

    def by_kind(self) -> dict[str, torch.Tensor]:
        kinds = ("commission", "spread", "impact", "borrow", "interest")
        return {kind: getattr(self, kind) for kind in kinds}


def cash_only(market: MarketTensors, bar: torch.Tensor) -> State:  # bar [N]
    """N portfolios at the given bars that hold nothing but cash."""
    weights = torch.zeros(len(bar), market.assets + 1, device=market.device, dtype=market.dtype)
    weights[:, -1] = 1.0
    one = torch.ones(len(bar), device=market.device, dtype=market.dtype)
    return State(bar, weights, one, one.clone())  # a compiled step would be compiled anew for shared memory


def drawdown(state: State) -> torch.Tensor:  # [N], at most 0
    return (state.wealth - state.peak) / state.peak


def transition(market: MarketTensors, state: State, weights: torch.Tensor) -> tuple[State, torch.Tensor, Costs]:
    """From close t to close t+1 with target `weights` [N, A+1]; returns the state, log growth [N], costs.

    Every amount is a share of wealth at close t. The cash column is never ordered: it is what the
    trades leave.
    """
    costs = market.trading.costs
    long_short = market.trading.allocation.kind == "long_short"
    quote = market.quote(state.bar)
    orders = weights - state.weights
    if market.lot is not None:
        share = market.lot.index_select(0, state.bar) / state.wealth.unsqueeze(1)
        counts = _settle(orders / share).trunc()
        orders = counts * share
    trades = orders * quote.fill
    book = _book(market, state, quote, trades)
    cash = state.weights[:, -1]
    at_hand = torch.add(cash, book.sold, alpha=1.0 - costs.linear) - book.sold_beyond
    needed = torch.add(book.bought_beyond, book.bought, alpha=1.0 + costs.linear)
    scale = buy_scale(at_hand, needed)
    if market.lot is None:
        trades = torch.addcmul(trades, book.buys, (scale - 1.0).unsqueeze(1))
        book = _scale_buys(book, scale)
    else:
        rounding = 1.0 + 8.0 * torch.finfo(scale.dtype).eps  # cash for a whole share buys it
        counts = torch.minimum(counts, (counts.relu() * (scale * rounding).unsqueeze(1)).floor())
        trades = counts * share * quote.fill
        book = _book(market, state, quote, trades)

    left = torch.add(at_hand - book.bought_beyond, book.bought, alpha=-1.0 - costs.linear)
    if not long_short:
        left = left.clamp_min(0.0)  # rounding, never debt: buys were scaled to the cash

    if market.lot is None:
        held = torch.addcmul(state.weights * quote.drift, trades, quote.hold)
    else:
        held = _settle(state.weights / share + counts * (quote.fill > 0)) * share * quote.drift
    held[:, -1] = torch.add(left, left, alpha=market.interest)
    fee = None
    if long_short:
        short = (-held[:, :-1] / quote.hold[:, :-1]).relu().sum(1)
        fee = short * (costs.borrow_rate / market.bars_per_year)
        held[:, -1] -= fee
        ruined = total(held, market.ones) < _LEAST_WEALTH
        held = held.masked_fill(ruined.unsqueeze(1), 0.0)
        held[:, -1].masked_fill_(ruined, _LEAST_WEALTH)
    growth = total(held, market.ones).clamp_min(_LEAST_WEALTH)
    wealth = state.wealth * growth
    after = State(state.bar + 1, held * growth.reciprocal().unsqueeze(1), wealth, torch.maximum(state.peak, wealth))
    charged = costs.multiple * 1e-4
    rates = Rates(costs.commission_bp * charged, costs.half_spread_bp * charged, market.interest)
    paid = Costs(book.bought, book.sold, book.bought_beyond, book.sold_beyond, fee, left, rates)
    return after, growth.log(), paid


def trade_costs(market: MarketTensors, state: State, trades: torch.Tensor) -> torch.Tensor:  # [N, A+1] -> [N, A+1]
    """What each trade costs, at fill prices: what `transition` charges in sums, for who books them one by one."""
    rate = market.trading.costs.linear
    impacts = _impacts(market.quote(state.bar).impact, trades).abs() * state.wealth.sqrt().unsqueeze(1)
    proportional = trades.abs() * (rate if market.extra is None else rate + market.extra.index_select(0, state.bar))
    return impacts + proportional


def buy_scale(at_hand: torch.Tensor, needed: torch.Tensor) -> torch.Tensor:  # [N], [N] -> [N]
    """The share of what was ordered that the cash at hand buys, its costs included."""
    return (at_hand / needed.clamp_min(_NO_TRADE)).clamp(0.0, 1.0)


class _Book(NamedTuple):
    """Trades by side, at fill prices, and what they cost beyond commission and spread."""

    buys: torch.Tensor  # [N, A+1]; the others are [N]
    bought: torch.Tensor
    sold: torch.Tensor
    bought_impact: torch.Tensor  # grows with the power 1.5 of the trade
    sold_impact: torch.Tensor
    bought_flat: torch.Tensor | None  # in proportion to the trade, where volume is unknown
    sold_flat: torch.Tensor | None

    @property
    def bought_beyond(self) -> torch.Tensor:
        return self.bought_impact if self.bought_flat is None else self.bought_impact + self.bought_flat

    @property
    def sold_beyond(self) -> torch.Tensor:
        return self.sold_impact if self.sold_flat is None else self.sold_impact + self.sold_flat


def _book(market: MarketTensors, state: State, quote: Quote, trades: torch.Tensor) -> _Book:  # trades [N, A+1]
    buys = trades.relu()
    bought = total(buys, market.ones)
    sold = bought - total(trades, market.ones)
    impacts = _impacts(quote.impact, trades)
    root = state.wealth.sqrt()
    of_buys = total(impacts.relu(), market.ones)
    bought_impact, sold_impact = of_buys * root, (of_buys - total(impacts, market.ones)) * root
    if market.extra is None:
        return _Book(buys, bought, sold, bought_impact, sold_impact, None, None)
    extra = market.extra.index_select(0, state.bar)
    bought_flat = total(extra * buys, market.ones)
    sold_flat = total(extra * trades.abs(), market.ones) - bought_flat
    return _Book(buys, bought, sold, bought_impact, sold_impact, bought_flat, sold_flat)


def _impacts(rates: torch.Tensor, trades: torch.Tensor) -> torch.Tensor:  # [N, A+1]
    """rate · |trade|^1.5 with the sign of the trade; where no gradient is asked for, without temporaries."""
    if trades.requires_grad or torch.compiler.is_compiling():
        return rates * _root(trades.abs()) * trades
    return trades.abs().sqrt_().mul_(rates).mul_(trades)


def _scale_buys(book: _Book, scale: torch.Tensor) -> _Book:  # scale [N]
    """The book once buys are `scale` of what was ordered."""
    flat = None if book.bought_flat is None else book.bought_flat * scale
    impact = book.bought_impact * scale * _root(scale)
    return book._replace(bought=book.bought * scale, bought_impact=impact, bought_flat=flat)


def _root(x: torch.Tensor) -> torch.Tensor:
    """A square root whose gradient is finite at 0; the values are the same."""
    return (x + _TINY).sqrt() if x.requires_grad else x.sqrt()


def _settle(shares: torch.Tensor) -> torch.Tensor:
    """Counts that rounding moved off a whole number are that number again; others stay as they are."""
    whole = shares.round()
    near = 1e-2 if shares.dtype == torch.float32 else 1e-7
    return torch.where((shares - whole).abs() < near, whole, shares)
