"""A desk against the backtest of the same bars, and where the difference comes from.

The difference is split by a chain of runs: the backtest; the same with the answers that the desk was
given; then timing, rounding, limits, fills and costs become real, one after the other, each together
with those before it; the last of these is the desk itself. The parts are the steps of the chain, so that
they sum to the whole. A different order of the chain would split what two causes did together in
another way. What a cause led the ensemble to answer, as the desk then held something else, is that
cause's.

    answers    what the ensemble said at the desk and this bundle says of the same portfolio: another
               version, other data, single precision
    timing     bars that the desk missed or refused
    rounding   whole shares, orders too small to be sent, the desk's own no-trade band
    limits     what the risk engine cut, halts, stop-losses, and all that a canary's orders changed
    fills      prices other than the fill rule's, partial fills, orders that were rejected or lost
    costs      what the venue charged beside the costs of the model, interest and fees too
    rest       what these bars do not explain: other prices than the desk saw, dividends
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from agents.bundle import Bundle
from agents.ensemble import Ensemble
from agents.heads import ActorNet
from envs.config import CostConfig
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, equal_weight, portfolio_of
from envs.transition import State
from kit.errors import UserError
from market.clock import infer_bar
from market.panel import Panel
from paper.review.record import Record
from paper.review.runs import STEPS, Real, cash_allows, follow, income, rates, walk

PARTS = ("answers", *STEPS, "rest")
INTEREST, OTHER = "interest and fees", "rest"
LOOKED_AT = 200  # decisions whose data are compared, at most
RATIO = 1e-6  # by which an order may exceed the change that it stands for, through rounding
NO_COSTS = CostConfig(commission_bp=0, half_spread_bp=0, impact=0, no_volume_bp=0)


@dataclass(frozen=True)
class Comparison:
    """T closes, wealth and its parts in units of the wealth at the first."""

    dates: np.ndarray  # [T] datetime64[ns]
    live: np.ndarray  # [T]
    backtest: np.ndarray  # [T]
    equal_weight: np.ndarray  # [T] by the same backtest, costs included
    parts: Mapping[str, np.ndarray]  # [T] each; they sum to live - backtest
    followed: Mapping[str, np.ndarray]  # member -> [T] its votes alone, by the backtest
    answers: np.ndarray  # [T] likewise the ensemble's answers
    gains: Mapping[str, float]  # by symbol, then INTEREST and OTHER: they sum to what was earned, of the first wealth
    held: np.ndarray  # [A] average weight
    traded: np.ndarray  # [A] money
    shortfall: np.ndarray  # [A] money lost to prices worse than the close that was decided at
    slippage: np.ndarray  # [A] of that, by prices worse than the fill rule's, costs aside
    charged: np.ndarray  # [A] costs by the venue's own rules
    modelled: np.ndarray  # [A] costs by the bundle's, of the same trades
    missed: int  # bars without a decision
    same_data: tuple[int, int]  # decisions whose bars are these, of so many that were looked at


def compare(record: Record, bundle: Bundle, panel: Panel, charges: CostConfig | None = None) -> Comparison:
    """`panel` holds the bars that were traded and the look-back before; `charges`: what prices at the venue
    contain beside the price (default: what the bundle assumes, as the local exchange does)."""
    rows = rows_of(record, panel)
    market, policy = _in_double(bundle, panel)
    venue = market
    if charges is not None and charges != bundle.trading.costs:
        trading = replace(bundle.trading, costs=charges)
        venue = MarketTensors.build(panel, trading, dtype=torch.float64)
    desk = _Desk.of(record, panel, rows)
    trades = _Trades.of(record, desk, market, venue)
    real = _real(record, desk, trades, market, venue)

    with torch.no_grad():
        ideal = walk(market, real, _both(market, policy), 2).numpy()
        alone = walk(market, real, _votes(record, desk), len(record.members) + 1).numpy()
        chain = np.vstack([ideal[:1], follow(market, real, policy).numpy(), desk.wealth])
    return Comparison(
        dates=panel.closes[desk.bars],
        live=desk.wealth,
        backtest=ideal[0],
        equal_weight=ideal[1],
        parts=dict(zip(PARTS, np.diff(chain, axis=0))),
        followed=dict(zip(record.members, alone[1:])),
        answers=alone[0],
        **_sums(record, desk, trades),
        missed=int(real.missed.sum()),
        same_data=_same_data(record, bundle, panel, rows),
    )


@dataclass(frozen=True)
class _Desk:
    """The record on every bar of the panel from the first close to the last, T of them."""

    bars: np.ndarray  # [T] of the panel
    row: np.ndarray  # [T] of the record; -1: nothing was recorded there
    units: np.ndarray  # [T, A] price at the venue over the panel's: splits, and other adjustments
    values: np.ndarray  # [T, A] of what was held
    equity: np.ndarray  # [T]
    transfers: np.ndarray  # [T - 1]
    wealth: np.ndarray  # [T] of one unit, transfers aside

    @classmethod
    def of(cls, record: Record, panel: Panel, rows: np.ndarray) -> _Desk:
        bars = np.arange(rows[0], rows[-1] + 1)
        last = np.searchsorted(rows, bars, side="right") - 1  # what was known then
        row = np.where(rows[last] == bars, last, -1)
        close = panel.close[bars]
        units = _units(record, panel.close[rows])[last]
        held = record.held[last]
        values = np.where(held != 0, held * close * units, 0.0)
        for t in np.flatnonzero(row < 0):  # what the orders of the last decision led to
            after = last[t] + 1
            values[t] = np.where(record.held[after] != 0, record.held[after] * close[t] * units[t], 0.0)
        cash = np.where(row >= 0, record.cash[last], record.cash[np.minimum(last + 1, len(record) - 1)])
        stated = record.equity[last]
        equity = np.where((row >= 0) & ~np.isnan(stated), stated, cash + values.sum(axis=1))
        transfers = _until_next(row, record.transfers)
        growth = (equity[1:] - transfers) / equity[:-1]
        return cls(bars, row, units, values, equity, transfers, np.append(1.0, growth.cumprod()))

    def until_next(self, values: np.ndarray) -> np.ndarray:  # [R] -> [T - 1]
        """What was booked between a close of the record and the next, at the bar before the next."""
        return _until_next(self.row, values)

    def of_record(self, values: np.ndarray, missing: float) -> np.ndarray:  # [R, ...] -> [T - 1, ...]
        """Rows of the record that were decided at these bars."""
        there = self.row[:-1]
        filled = np.full((len(there), *values.shape[1:]), missing, values.dtype)
        filled[there >= 0] = values[there[there >= 0]]
        return filled


def _until_next(row: np.ndarray, values: np.ndarray) -> np.ndarray:  # [T], [R] -> [T - 1]
    found = np.zeros(len(row) - 1)
    found[np.flatnonzero(row >= 0)[1:] - 1] = values[:-1]
    return found


def rows_of(record: Record, panel: Panel) -> np.ndarray:  # [R] bars of the panel
    rows = np.searchsorted(panel.times, record.closes, side="left") - 1  # a day may have ended early
    off = np.abs(panel.closes[rows] - record.closes) > infer_bar(panel.times)
    if (off | (rows < 0)).any() or len(np.unique(rows)) < len(rows):
        wrong = record.closes[int(np.argmax(off | (rows < 0)))]
        raise UserError(f"data: has no bar that closes at {wrong}; expected the bars that the desk traded")
    return rows


def _in_double(bundle: Bundle, panel: Panel) -> tuple[MarketTensors, Policy]:
    """The bundle's market and policy, so precise that portfolios which differ by rounding get the same answer."""
    features = bundle.market(panel).features.numpy()
    actors = [policy.actor for policy in bundle.policy.policies if isinstance(policy, Allocated)]
    members = [Allocated(copy.deepcopy(actor).double()) for actor in actors if isinstance(actor, ActorNet)]
    policy = Ensemble(members, bundle.policy.weights.tolist())
    return MarketTensors.build(panel, bundle.trading, features, dtype=torch.float64), policy


def _units(record: Record, close: np.ndarray) -> np.ndarray:  # [R, A] -> [R, A]
    """Told by the prices that orders were decided at, and between them by splits."""
    units = np.ones_like(close)
    for k in range(len(record)):
        before = units[k - 1] * record.unadjusted[k - 1] / record.unadjusted[k] if k else units[0]
        told = ~np.isnan(record.expected[k])
        units[k] = np.where(told, record.expected[k] / np.where(told, close[k], 1.0), before)
    return units


@dataclass(frozen=True)
class _Trades:
    """What was ordered and filled at T - 1 bars, as shares of wealth [T - 1, A+1]; at closes unless something else is
    said. Prices are over the close."""

    state: State
    asked: torch.Tensor
    sent: torch.Tensor
    filled: torch.Tensor
    paid: torch.Tensor  # at the price of the fill, costs included
    rule: torch.Tensor  # the fill rule's price
    prices: torch.Tensor  # the venue's, without its costs; NaN where nothing was filled
    charged: torch.Tensor  # share of the value
    modelled: torch.Tensor  # likewise, by the bundle's costs

    @classmethod
    def of(cls, record: Record, desk: _Desk, market: MarketTensors, venue: MarketTensors) -> _Trades:
        bars, equity = torch.from_numpy(desk.bars[:-1]), desk.equity[:-1, None]
        weights = desk.values[:-1] / equity
        money = torch.from_numpy(desk.wealth[:-1] * desk.equity[0] / market.trading.capital)
        with_cash = torch.from_numpy(np.column_stack([weights, 1.0 - weights.sum(axis=1)]))
        state = State(bars, with_cash, money, money.cummax(0).values)
        expected = np.nan_to_num(desk.of_record(record.expected, np.nan)) / equity
        asked, withheld, filled = (
            _with_cash(desk.of_record(values, 0.0) * expected)
            for values in (record.asked, record.withheld, record.filled)
        )
        paid, rule = _with_cash(desk.of_record(record.paid, 0.0) / equity), market.quote(bars).fill
        charged = rates(venue, state, filled * rule)
        prices = torch.where(filled != 0, paid / filled / (1.0 + charged * filled.sign()), torch.nan)
        return cls(
            state,
            asked,
            asked - withheld,
            filled,
            paid,
            rule,
            prices,
            charged,
            charged if venue is market else rates(market, state, filled * rule),
        )


def _real(record: Record, desk: _Desk, trades: _Trades, market: MarketTensors, venue: MarketTensors) -> Real:
    answered = torch.from_numpy(desk.of_record(record.answered, False))
    wanted, ordered = (
        torch.from_numpy(np.column_stack([values, 1.0 - values.sum(axis=1)]))
        for values in (desk.of_record(record.wanted, np.nan), desk.of_record(record.ordered, np.nan))
    )
    before, asked, sent = trades.state.weights, trades.asked, trades.sent
    change = torch.where(answered[:, None], ordered - before, 0.0)
    ratio = torch.where(change != 0, asked / change, 1.0)
    forced = (ratio < -RATIO) | (ratio > 1 + RATIO) | ((change == 0) & (asked != 0))
    forced |= torch.from_numpy(desk.of_record(record.canary, False))[:, None]
    forced[:, -1] = False
    cut = _with_cash(desk.of_record(record.clipped, False)) > 0
    quote = market.quote(trades.state.bar)
    value = sent * torch.where(trades.prices.isnan(), trades.rule, trades.prices)
    allowed = cash_allows(before, value, value.abs() * rates(venue, trades.state, sent * trades.rule))
    share = torch.where(sent != 0, trades.filled / sent, 1.0)
    beyond = share > allowed * (1 + RATIO)
    cash = before[:, -1] - trades.paid.sum(1)
    usual = income(market, cash, (before + trades.filled) * quote.drift / quote.hold)
    return Real(
        states=trades.state,
        answered=answered,
        missed=~torch.from_numpy(desk.of_record(record.decided, False)),
        wanted=wanted,
        ordered=ordered,
        rounding=torch.where(cut | forced, 1.0, ratio),
        limits=torch.where(cut, ratio, 1.0) * torch.where(asked != 0, sent / asked, 1.0),
        forced=torch.where(forced, sent, torch.nan),
        fills=torch.where(beyond | (allowed == 0), 1.0, share / allowed),
        beyond=torch.where(beyond, share, torch.nan),
        prices=trades.prices,
        income=torch.from_numpy(desk.until_next(record.income) / desk.equity[:-1]) - usual,
        transfers=torch.from_numpy(desk.transfers / (desk.equity[1:] - desk.transfers)),
        venue=venue,
    )


def _both(market: MarketTensors, policy: Policy) -> Callable[[int, State], torch.Tensor]:
    def wanted(_: int, state: State) -> torch.Tensor:  # [2, A+1]
        portfolio = portfolio_of(market, state)
        pairs = ((policy, slice(0, 1)), (equal_weight, slice(1, 2)))
        return torch.cat([one(market, state.bar[row], portfolio[row]) for one, row in pairs])

    return wanted


def _votes(record: Record, desk: _Desk) -> Callable[[int, State], torch.Tensor]:
    """What the ensemble answered, and what each of its members voted; who said nothing keeps what is held."""
    said = desk.of_record(np.concatenate([record.wanted[:, None], record.votes], axis=1), np.nan)  # [T, 1+M, A]
    said = np.concatenate([said, 1.0 - said.sum(axis=2, keepdims=True)], axis=2)

    def wanted(t: int, state: State) -> torch.Tensor:  # [1+M, A+1]
        votes = torch.from_numpy(said[t])
        return torch.where(votes.isnan(), state.weights, votes)

    return wanted


def _sums(record: Record, desk: _Desk, trades: _Trades) -> dict[str, Any]:
    """What came of each name, and what trading it took."""
    equity, money = desk.equity, torch.from_numpy(desk.equity[:-1, None])
    paid = desk.of_record(record.paid, 0.0)
    gains = (np.diff(desk.values, axis=0) - paid).sum(axis=0) / equity[0]
    earned = float(desk.until_next(record.income).sum()) / equity[0]
    whole = (equity[-1] - equity[0] - desk.transfers.sum()) / equity[0]
    value = (trades.filled * trades.prices.nan_to_num(0.0)).abs() * money
    expected = desk.of_record(record.filled, 0.0) * np.nan_to_num(desk.of_record(record.expected, np.nan))

    def by_name(amounts: torch.Tensor) -> np.ndarray:  # [T - 1, A+1] -> [A]
        return amounts.sum(0)[:-1].numpy()

    kinds = {INTEREST: earned, OTHER: whole - earned - float(gains.sum())}
    return {
        "gains": dict(zip(record.symbols, gains.tolist())) | kinds,
        "held": (desk.values / equity[:, None]).mean(axis=0),
        "traded": by_name(value),
        "shortfall": (paid - expected).sum(axis=0),
        "slippage": by_name(trades.filled * (trades.prices.nan_to_num(0.0) - trades.rule) * money),
        "charged": by_name(value * trades.charged),
        "modelled": by_name(value * trades.modelled),
    }


def _same_data(record: Record, bundle: Bundle, panel: Panel, rows: np.ndarray) -> tuple[int, int]:
    panel = replace(panel, observed={name: panel.observed[name] for name in bundle.observed})
    known = np.array([bool(hash_) for hash_ in record.data]) & (rows + 1 >= bundle.bars_needed)
    some = np.flatnonzero(known)[:: max(1, -(-int(known.sum()) // LOOKED_AT))]
    same = [panel[rows[k] + 1 - bundle.bars_needed : rows[k] + 1].hash == record.data[k] for k in some]
    return sum(same), len(same)


def _with_cash(values: np.ndarray) -> torch.Tensor:  # [T, A] -> [T, A+1], nothing of cash
    return torch.from_numpy(np.column_stack([values, np.zeros(len(values))]))
