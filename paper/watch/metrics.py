"""What Prometheus may read of a desk."""

from __future__ import annotations

from typing import get_args

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from paper.watch.alerts import Alerts
from paper.watch.view import State, View

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The desk counts by `handled`, `decided` and `ended`; the rest is read from its view."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, alerts: Alerts) -> None:
        self._told = alerts
        registry = self._registry = CollectorRegistry()
        self._bars = Counter("podracer_desk_bars", "bars handled", registry=registry)
        self._bar = Histogram(
            "podracer_desk_bar_seconds", "from a bar's close to its last order", buckets=SECONDS, registry=registry
        )
        self._decision = Histogram(
            "podracer_desk_decision_seconds", "until target weights are known", buckets=SECONDS, registry=registry
        )
        self._orders = Counter("podracer_desk_orders", "orders that ended", ("status",), registry=registry)
        self._alerts = Gauge("podracer_desk_alerts", "alerts since the start", ("kind", "level"), registry=registry)
        self._unsent = Gauge("podracer_desk_alerts_unsent", "not sent", ("channel",), registry=registry)
        self._equity = Gauge("podracer_desk_equity", "in money", registry=registry)
        self._drawdown = Gauge("podracer_desk_drawdown", "below the highest equity", registry=registry)
        self._weight = Gauge("podracer_desk_weight", "share of the equity", ("symbol",), registry=registry)
        self._limit = Gauge("podracer_desk_limit_used", "share of a limit", ("limit",), registry=registry)
        self._state = Gauge("podracer_desk_state", "1: is in this state", ("state",), registry=registry)
        self._bar_age = Gauge("podracer_desk_bar_age_seconds", "since the last bar's close", registry=registry)
        self._view_age = Gauge("podracer_desk_silence_seconds", "since the desk last said something", registry=registry)

    def handled(self, seconds: float) -> None:
        self._bars.inc()
        self._bar.observe(seconds)

    def decided(self, seconds: float) -> None:
        self._decision.observe(seconds)

    def ended(self, status: str) -> None:
        """An order came to its end."""
        self._orders.labels(status).inc()

    def text(self, view: View | None, age: float) -> bytes:
        """`age` is how many seconds ago the view was shown."""
        for (kind, level), count in self._told.counts.copy().items():
            self._alerts.labels(kind, level).set(count)
        for channel, count in self._told.unsent.items():
            self._unsent.labels(channel).set(count)
        if view is not None:
            self._read(view, age)
        return generate_latest(self._registry)

    def _read(self, view: View, age: float) -> None:
        equity = np.array([point.equity for point in list(view.series)])  # [T]
        if len(equity):
            self._equity.set(equity[-1])
            self._drawdown.set(1 - equity[-1] / equity.max())
        for gauge in (self._weight, self._limit):
            gauge.clear()  # of those that are there no more
        for held in view.positions:
            self._weight.labels(held.symbol).set(held.weight)
        for limit in view.limits:
            self._limit.labels(limit.name).set(limit.share)
        for state in get_args(State):
            self._state.labels(state).set(state == view.state)
        if view.bar is not None:
            self._bar_age.set((view.updated - view.bar).total_seconds() + age)
        self._view_age.set(age)
