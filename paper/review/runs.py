"""Runs over the bars that a desk traded: the backtest, and what the desk would have had if only some things were real.

Amounts are shares of wealth at close t, as in `envs.transition`. Everything that was real is kept as a
ratio to what the model would have done, so that a run in which nothing is real trades as the model
does, and one in which everything is holds at every close what the desk held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from envs.allocation import approach
from envs.market import MarketTensors
from envs.policy import Policy, portfolio_of
from envs.transition import State, buy_scale, trade_costs, transition

STEPS = ("timing", "rounding", "limits", "fills", "costs")  # each run has one more of them real
_LEAST = 1e-15  # of wealth: a smaller trade has the rates of this one


@dataclass(frozen=True)
class Real:
    """What a desk did at T bars. [T, A+1] cash last, unless something else is said."""

    states: State  # T portfolios before the orders; wealth over the capital that costs are made for
    answered: torch.Tensor  # [T] bool: the ensemble was asked
    missed: torch.Tensor  # [T] bool: there was no decision
    wanted: torch.Tensor
    ordered: torch.Tensor
    rounding: torch.Tensor  # the share of a change of weight that became an order
    limits: torch.Tensor  # the share of that which was sent
    forced: torch.Tensor  # changes that no answer explains; NaN: none
    fills: torch.Tensor  # the share of what was sent, and of what cash allowed, that was filled
    beyond: torch.Tensor  # the share of what was sent, where it was more than cash allowed; NaN elsewhere
    prices: torch.Tensor  # at which, without costs, over close t; NaN where nothing was filled
    income: torch.Tensor  # [T] interest less fees beyond the model's
    transfers: torch.Tensor  # [T] money from outside, as a share of wealth at close t + 1 without it
    venue: MarketTensors  # the same bars with the costs that were charged

    def __len__(self) -> int:
        return len(self.answered)

    def begin(self, count: int) -> State:
        """So many times the first of them."""
        return State(*(part[:1].repeat_interleave(count, 0) for part in self.states))


def walk(
    market: MarketTensors, real: Real, wanted: Callable[[int, State], torch.Tensor], count: int
) -> torch.Tensor:  # [count, T+1]
    """Wealth by the backtest's own steps, of one unit; `wanted` gives target weights [count, A+1] for a row."""
    state = real.begin(count)
    wealth = [state.wealth]
    for t in range(len(real)):
        orders = approach(state.weights, wanted(t, state), market.trading.allocation)
        state, _, _ = transition(market, state, orders)
        state = _with_transfer(state, real.transfers[t])
        wealth.append(state.wealth)
    return torch.stack(wealth, dim=1) / wealth[0][:, None]


def follow(market: MarketTensors, real: Real, policy: Policy) -> torch.Tensor:  # [6, T+1]
    """Wealth of the desk's answers, of one unit, with none of STEPS real, with the first, the first two, and so on.

    `policy` answers where the desk did not ask, and tells what another portfolio would have changed.
    """
    count = len(STEPS) + 1
    on = torch.ones(count, len(STEPS)).tril(-1) > 0  # [N, S]
    timing, rounding, limits, fills, costs = (on[:, k : k + 1] for k in range(len(STEPS)))

    def rate_of(trades: torch.Tensor, state: State) -> torch.Tensor:
        model = rates(market, state, trades)
        return model if real.venue is market else torch.where(costs, rates(real.venue, state, trades), model)

    state = real.begin(count)
    wealth = [state.wealth]
    for t in range(len(real)):
        weights, quote = state.weights, market.quote(state.bar)
        change = _changes(market, real, t, state, policy, ~(timing if real.missed[t] else limits))
        change = torch.where(rounding, change * real.rounding[t], change)
        change = torch.where(limits, change * real.limits[t], change)
        change = torch.where(limits & ~real.forced[t].isnan(), real.forced[t], change)
        prices = torch.where(fills & ~real.prices[t].isnan(), real.prices[t], quote.fill)
        change = torch.where(prices > 0, change, 0.0)
        asked = change * prices
        allowed = cash_allows(weights, asked, asked.abs() * rate_of(change * quote.fill, state))
        filled = torch.where(real.beyond[t].isnan(), allowed * real.fills[t], real.beyond[t])
        done = change * torch.where(fills, filled, allowed)
        trades, rate = done * prices, rate_of(done * quote.fill, state)
        left = weights[:, -1] - trades.sum(1) - (trades.abs() * rate).sum(1)
        held = (weights + done) * quote.drift
        held[:, -1] = left + income(market, left, held / quote.hold) + costs[:, 0] * real.income[t]
        growth = held.sum(1)
        after = state.wealth * growth
        state = State(state.bar + 1, held / growth[:, None], after, torch.maximum(state.peak, after))
        state = _with_transfer(state, real.transfers[t])
        wealth.append(state.wealth)
    return torch.stack(wealth, dim=1) / wealth[0][:, None]


def rates(market: MarketTensors, state: State, trades: torch.Tensor) -> torch.Tensor:  # [N, A+1] -> [N, A+1]
    """What trades at the fill rule's prices cost, as a share of their value."""
    some = torch.where(trades.abs() < _LEAST, _LEAST, trades)
    return trade_costs(market, state, some) / some.abs()


def cash_allows(weights: torch.Tensor, trades: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:  # all [N, A+1]
    """[N, A+1] the share of each trade that cash allows: all of a sale."""
    sells, buys = (trades < 0).double(), trades > 0
    at_hand = weights[:, -1] - ((trades + costs) * sells).sum(1)
    needed = ((trades + costs) * buys).sum(1)
    return torch.where(buys, buy_scale(at_hand, needed)[:, None], 1.0)


def income(market: MarketTensors, cash: torch.Tensor, held: torch.Tensor) -> torch.Tensor:  # [N], [N, A+1] -> [N]
    """Interest, less the fee on what is short, after the fill and at its prices."""
    earned = cash * market.interest
    if market.trading.allocation.kind != "long_short":
        return earned
    fee = market.trading.costs.borrow_rate / market.bars_per_year
    return earned - (-held[:, :-1]).relu().sum(1) * fee


def _changes(
    market: MarketTensors, real: Real, t: int, state: State, policy: Policy, asks: torch.Tensor
) -> torch.Tensor:  # asks [N, 1] bool -> [N, A+1]
    """By how much weights are to change. At the desk's own portfolio that is what the desk was told; at another,
    `policy` says by how much the answer would have been another."""
    weights, allocation = state.weights, market.trading.allocation
    there = State(*(torch.cat([own, desks[t : t + 1]]) for own, desks in zip(state, real.states)))
    answers = policy(market, there.bar, portfolio_of(market, there))  # [N+1, A+1]
    ordered = approach(there.weights, answers, allocation)
    change = torch.where(asks, ordered[:-1] - weights, 0.0)
    if real.answered[t]:
        told = torch.cat([real.wanted[t] + answers[:-1] - answers[-1], real.wanted[t : t + 1]])
        ordered = approach(there.weights, told, allocation)
        change = real.ordered[t] + ordered[:-1] - ordered[-1] - weights
    change[:, -1] = 0.0
    return change


def _with_transfer(state: State, share: torch.Tensor) -> State:  # share []
    """Money from outside changes what is held, and is no gain."""
    if share == 0:
        return state
    weights = state.weights.clone()
    weights[:, -1] += share
    return state._replace(weights=weights / (1.0 + share))
