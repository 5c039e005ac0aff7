"""A bundle that decides: the policy of training, asked at the last of some bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from agents import bundle
from agents.manifest import MemberEntry
from envs.allocation import approach
from envs.market import MarketTensors
from envs.policy import portfolio_of
from envs.transition import State
from market.features.scaler import CLIP
from market.panel import Panel
from serve.schema import Portfolio, Problem

VERSION_DIGITS = 12
LEAST_EQUITY, MOST_EQUITY = 0.01, 1e15
APART = 3.0  # times the dispersion of the walk-forward


@dataclass(frozen=True)
class Decision:
    """Weights are [A+1], cash last."""

    wanted: torch.Tensor  # the ensemble's target
    ordered: torch.Tensor  # after rate and no-trade band
    votes: torch.Tensor  # [M, A+1]
    dispersion: float
    warnings: tuple[str, ...]


class Model:
    """Loaded and verified once; decides for any number of callers, one after the other or together."""

    def __init__(self, folder: str | Path) -> None:
        self.bundle = bundle.load(folder)
        self.version = self.bundle.hash[:VERSION_DIGITS]
        self.lens, self.policy = self.bundle.lens, self.bundle.policy
        self.needed = self.bundle.bars_needed

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.lens.symbols

    @property
    def members(self) -> Sequence[MemberEntry]:
        return self.bundle.members

    def decide(self, panel: Panel, portfolio: Portfolio) -> Decision:
        return self.decide_together([(panel, portfolio)])[0]

    @torch.inference_mode()
    def decide_together(self, asked: Sequence[tuple[Panel, Portfolio]]) -> list[Decision]:
        """One pass over all members and requests."""
        markets = [self.bundle.market(panel) for panel, _ in asked]
        states = [self.state(market, panel, portfolio) for market, (panel, portfolio) in zip(markets, asked)]
        market, bars = (markets[0], states[0].bar) if len(markets) == 1 else joined(markets)
        seen = torch.cat([portfolio_of(market, state) for state in states])
        votes = self.policy.members(market, bars, seen)  # [M, B, A+1]
        wanted, spread = self.policy.average(votes), self.policy.spread(votes)
        weights = torch.cat([state.weights for state in states])
        ordered = approach(weights, wanted, market.trading.allocation)
        return [
            Decision(wanted[k], ordered[k], votes[:, k], float(spread[k]), tuple(self._warnings(one, float(spread[k]))))
            for k, one in enumerate(markets)
        ]

    def state(self, market: MarketTensors, panel: Panel, portfolio: Portfolio) -> State:
        """[1] what the caller holds, at the last close; wealth over the capital that costs were made for."""
        if unknown := [symbol for symbol in portfolio.positions if symbol not in self.symbols]:
            raise Problem(422, f"portfolio.positions.{unknown[0]}", "is not a symbol of this ensemble")
        prices = dict(zip(self.symbols, panel.close[-1].tolist()))
        short = market.trading.allocation.kind == "long_short"
        held: dict[str, float] = {}
        for symbol, quantity in portfolio.positions.items():
            if quantity < 0 and not short:
                raise Problem(
                    422, f"portfolio.positions.{symbol}", "is negative; this ensemble holds no short positions"
                )
            if quantity and prices[symbol] != prices[symbol]:
                raise Problem(422, f"portfolio.positions.{symbol}", "is held, but its symbol has no price yet")
            held[symbol] = quantity * prices[symbol] if quantity else 0.0
        equity = portfolio.cash + sum(held.values())
        if not LEAST_EQUITY <= equity <= MOST_EQUITY:
            right = f"expected it from {LEAST_EQUITY:g} to {MOST_EQUITY:g}"
            raise Problem(422, "portfolio", f"an equity of {equity:g}; {right}")
        if portfolio.peak_equity > MOST_EQUITY:
            raise Problem(
                422, "portfolio.peak_equity", f"is {portfolio.peak_equity:g}; expected {MOST_EQUITY:g} at most"
            )
        if not short and portfolio.cash < -1e-6 * equity:
            raise Problem(422, "portfolio.cash", "is negative; this ensemble holds no debt")
        weights = [held.get(symbol, 0.0) / equity for symbol in self.symbols]
        capital = market.trading.capital

        def whole(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=market.dtype)

        return State(
            bar=torch.tensor([len(market) - 1]),
            weights=whole([*weights, portfolio.cash / equity]).unsqueeze(0),
            wealth=whole([equity / capital]),
            peak=whole([max(portfolio.peak_equity, equity) / capital]),
        )

    def _warnings(self, market: MarketTensors, spread: float) -> list[str]:
        told = []
        if market.open_now is not None and (closed := (market.open_now[-1, :-1] == 0).nonzero()[:, 0].tolist()):
            told.append(f"not traded in the last bar, kept as it is: {', '.join(self.symbols[k] for k in closed)}")
        far = (market.features[-1].abs() >= CLIP).any(dim=0).nonzero()[:, 0].tolist()  # [F]
        if far:
            names = ", ".join(self.lens.scaler.names[k] for k in far)
            told.append(f"{CLIP:g} or more standard deviations from what training saw: {names}")
        usual = self.bundle.reference.dispersion
        if usual > 0 and spread > APART * usual:
            told.append(f"members are {spread / usual:.1f} times as far apart as they were on the walk-forward")
        return told


def joined(markets: Sequence[MarketTensors]) -> tuple[MarketTensors, torch.Tensor]:
    """Several markets one after the other, and the last bar of each [B]: nobody looks back beyond its own bars."""
    lengths = [len(market) for market in markets]

    none = torch.zeros_like(markets[0].ones)
    every = torch.cat([markets[0].ones[:-1], none[-1:]])  # cash is never ordered

    def column(name: str, missing: torch.Tensor) -> torch.Tensor | None:  # [A+1] -> [T, A+1]
        values = [getattr(market, name) for market in markets]
        if all(value is None for value in values):
            return None
        return torch.cat([missing.expand(n, -1) if value is None else value for n, value in zip(lengths, values)])

    market = replace(
        markets[0],
        features=torch.cat([market.features for market in markets]),
        table=torch.cat([market.table for market in markets], dim=1),
        open_now=column("open_now", every),
        extra=column("extra", none),
        lot=column("lot", none),  # either all have it or none
    )
    return market, torch.tensor(lengths).cumsum(0) - 1


def by_symbol(symbols: Sequence[str], weights: torch.Tensor) -> tuple[dict[str, float], float]:  # [A+1]
    """Names with their weights, and the cash that they leave: the sum is 1 to more digits than float32 has."""
    assets = weights[:-1].double().tolist()
    return dict(zip(symbols, assets)), 1.0 - math.fsum(assets)
