"""Views of a desk that never was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from paper.watch.alerts import Alert
from paper.watch.view import Holding, LimitLine, OrderLine, Point, State, View, Vote

START = datetime(2024, 1, 2, 21, tzinfo=UTC)
HOSTILE = "<script>document.title='owned'</script>\"'&<img src=x onerror=alert(1)>"


def points(bars: int) -> list[Point]:
    noise = np.random.default_rng(0).normal(0, 0.008, (2, bars))  # [2, T]
    equity, equal = 100_000 * np.exp(np.cumsum(noise + np.array([[0.0008], [0.0004]]), axis=1))
    made = []
    for i in range(bars):
        expected, width = 100_000 * math.exp(0.0007 * i), 0.012 * math.sqrt(i)
        low, high = expected * math.exp(-width), expected * math.exp(width)
        made.append(Point(START + timedelta(days=i), float(equity[i]), float(equal[i]), expected, low, high))
    return made


def a_view(
    bars: int = 120,
    text: str = "",
    state: State = "ACTIVE",
    symbols: Sequence[str] = ("AAPL", "MSFT", "NVDA", "XOM", "JPM", "KO", "BRK.B", "T"),
) -> View:
    """Everything is filled in, with `text` in every place that takes one."""
    series = points(bars)
    bar, equity = series[-1].at, series[-1].equity
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.full(len(symbols), 3.0), 4) * 0.96  # [members and target, A]
    names = [symbol + text for symbol in symbols]
    positions = [
        Holding(name, round(equity * w / p, 4), float(p), float(equity * w), float(w), float(t), float(p * 7 - 900))
        for name, w, t, p in zip(names, weights[0], weights[1], rng.uniform(20, 400, len(names)))
    ]
    orders = [
        OrderLine(f"demo-{i:04d}-{name}-b-0{text}", name, "buy" if i % 2 else "sell", 12.5, 12.5 - 6 * (i == 1),
                  ("filled", "partial", "rejected", "canceled")[i % 4] + text, None if i == 2 else 101.25, bar)
        for i, name in enumerate(names)
    ]  # fmt: skip
    limits = [
        LimitLine("gross" + text, 0.96, 1.0, 0.96),
        LimitLine("largest name" + text, 0.21, 0.3, 0.7),
        LimitLine("daily loss", 0.004, 0.03, 0.133),
        LimitLine("drawdown", 0.16, 0.15, 1.07),
        LimitLine("VaR 95 %", 0.012, 0.03, 0.4),
        LimitLine("orders a minute", 8, 60, 0.133, unit="orders" + text),
    ]
    alerts = [
        Alert(bar, "halt" + text, "critical", "drawdown of 16.0 % is beyond 15.0 %" + text),
        Alert(bar, "rejected", "warning", "T: insufficient buying power" + text, 3),
        Alert(bar, "restart", "info", "the desk started, and explains its books"),
    ]
    votes = [Vote(f"ppo-{i}" + text, 1 / 3, dict(zip(names, weights[i + 1].tolist()))) for i in range(3)]
    return View(
        name="Demo" + text, version="0123456789ab" + text, broker="local exchange" + text, state=state,
        why="" if state == "ACTIVE" else "the drawdown limit was passed" + text, bar=bar,
        phase="waits for the close" + text, updated=bar + timedelta(seconds=7), cash=0.04 * equity, dispersion=0.31,
        series=series, positions=positions, orders=orders, limits=limits, alerts=alerts, votes=votes,
    )  # fmt: skip
