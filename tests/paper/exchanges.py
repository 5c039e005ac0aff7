"""Exchanges for tests: made over panels of random bars, driven without HTTP or by alpaca-py itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_DOWN, Decimal
from typing import Any

import numpy as np
import requests
import torch
from panels import random_panel

from envs.allocation import approach
from envs.config import AllocationConfig, CostConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import Policy, portfolio_of
from envs.transition import State
from market.data import DataConfig
from market.panel import Panel
from market.synth import SynthSource
from paper.exchange.book import NANO, Order
from paper.exchange.config import ExchangeConfig
from paper.exchange.core import Exchange
from paper.exchange.run import FOR_ANYONE, Running, running
from paper.exchange.ticket import Ticket

HEADERS = dict(zip(("APCA-API-KEY-ID", "APCA-API-SECRET-KEY"), FOR_ANYONE))
PANEL = random_panel(5, bars=60, symbols=4, gaps=False)


def trading(kind: str = "softmax", fill: str = "open", costs: CostConfig | None = None, **more: Any) -> TradingConfig:
    given = costs or CostConfig(cash_rate=0.04)
    return TradingConfig(AllocationConfig(kind, **more), given, fill)  # type: ignore[arg-type]


def settings(**given: Any) -> ExchangeConfig:
    return ExchangeConfig(DataConfig(SynthSource()), **{"port": 0} | given)


def made(panel: Panel = PANEL, **given: Any) -> Exchange:
    return Exchange(settings(**given), panel)


def order(exchange: Exchange, symbol: str, quantity: str, id: str = "") -> Order:
    """Below zero: sell."""
    size = Decimal(quantity)
    side = "sell" if size < 0 else "buy"
    return exchange.submit(Ticket(symbol, side, abs(size), None, client_id=id))


def step(exchange: Exchange) -> None:
    exchange.advance(exchange.tape.bar, exchange.tape.stage)


def next_bar(exchange: Exchange) -> None:
    step(exchange)
    step(exchange)


class Follower:
    """A desk of a few lines: what the policy wants, as quantities fixed at the close, sells first."""

    def __init__(self, exchange: Exchange, policy: Policy) -> None:
        self.exchange, self.policy = exchange, policy
        self.peak = self.wealth
        self.step = Decimal(1) if exchange.whole else NANO

    @property
    def wealth(self) -> float:
        return float(self.exchange.equity()) / self.exchange.config.trading.capital

    def weights(self) -> np.ndarray:  # [A+1]
        values = [
            float(self.exchange.book.held(s)) * np.nan_to_num(p)
            for s, p in zip(self.exchange.panel.symbols, self.exchange.tape.prices())
        ]
        return np.array([*values, float(self.exchange.book.cash)]) / float(self.exchange.equity())

    def quantities(self) -> dict[str, Decimal]:
        market, panel = self.exchange.market, self.exchange.panel
        one = torch.ones(1, dtype=torch.float64)
        weights = torch.from_numpy(self.weights()[None])
        state = State(torch.tensor([self.exchange.tape.bar]), weights, self.wealth * one, self.peak * one)
        wanted = self.policy(market, state.bar, portfolio_of(market, state))
        change = (approach(weights, wanted, market.trading.allocation) - weights)[0, :-1].numpy()
        money = change * float(self.exchange.equity())
        counts = {s: money[a] / self.exchange.tape.prices()[a] for a, s in enumerate(panel.symbols) if money[a]}
        if self.exchange.whole:
            counts = {s: count + np.copysign(1e-7, count) for s, count in counts.items()}
        sized = {s: Decimal(repr(float(c))).quantize(self.step, ROUND_DOWN) for s, c in counts.items()}
        return {s: q for s, q in sized.items() if q}

    def bar(self) -> None:
        for symbol, quantity in sorted(self.quantities().items(), key=lambda pair: pair[1] > 0):
            order(self.exchange, symbol, str(quantity))
        next_bar(self.exchange)
        self.peak = max(self.peak, self.wealth)


def tensors_of(exchange: Exchange) -> MarketTensors:
    return MarketTensors.build(exchange.panel, exchange.config.trading, dtype=torch.float64)


@contextmanager
def serving(panel: Panel = PANEL, **given: Any) -> Iterator[Running]:
    with running(settings(**{"bar": 30} | given), panel) as exchange:
        yield exchange


def advance(exchange: Running) -> dict[str, Any]:
    """To the next stage, over HTTP."""
    now = requests.get(f"{exchange.url}/local/clock", timeout=10).json()
    told = {"bar": now["bar"], "stage": now["stage"]}
    answer = requests.post(f"{exchange.url}/local/advance", json=told, headers=HEADERS, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def script(exchange: Running, *faults: dict[str, Any]) -> None:
    answer = requests.post(f"{exchange.url}/local/faults", json=list(faults), headers=HEADERS, timeout=10)
    assert answer.status_code == 200, answer.text
