"""What a desk shows of itself, as the page and the metrics read it. Numbers are for people: floats."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from kit.charts import extremes
from paper.watch.alerts import Alert

State = Literal["ACTIVE", "REDUCING", "HALTED"]
POINTS = 600  # of the equity series that are sent: its highest and lowest stay


@dataclass(frozen=True, slots=True)
class Point:
    """Equity at a close, beside what equal weight would have, and what the backtest promised; NaN: not known."""

    at: datetime
    equity: float
    equal_weight: float = math.nan
    expected: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Holding:
    symbol: str
    quantity: float
    price: float
    value: float
    weight: float
    target: float
    profit: float  # since it was bought, in money


@dataclass(frozen=True)
class OrderLine:
    id: str
    symbol: str
    side: str
    quantity: float
    filled: float
    status: str
    price: float | None
    at: datetime


@dataclass(frozen=True)
class LimitLine:
    """How far a limit is. With unit "%" value and limit are fractions."""

    name: str
    value: float
    limit: float
    share: float  # of the limit that is used: 1 and more is a breach
    unit: str = "%"


@dataclass(frozen=True)
class Vote:
    member: str
    share: float
    weights: Mapping[str, float]


@dataclass(frozen=True)
class View:
    name: str
    version: str  # of the ensemble
    broker: str
    state: State
    why: str  # it is not ACTIVE
    bar: datetime | None  # close of the last bar that was handled
    phase: str  # what the desk is at
    updated: datetime  # by the desk's clock
    cash: float = 0.0
    dispersion: float | None = None  # of the members: 0, they agree; 1, they have nothing in common
    series: Sequence[Point] = ()
    positions: Sequence[Holding] = ()
    orders: Sequence[OrderLine] = ()  # the newest first
    limits: Sequence[LimitLine] = ()
    alerts: Sequence[Alert] = ()  # the newest first
    votes: Sequence[Vote] = ()

    def to_json(self) -> str:
        """One line. What is not a finite number is null; the series is thinned, and goes as columns."""
        plain = {name: _plain(getattr(self, name)) for name in _names(View) if name != "series"}
        points = list(self.series)  # the desk may append to its own meanwhile
        kept = extremes(np.array([point.equity for point in points]), POINTS).tolist() if points else []
        plain["series"] = {name: [_plain(getattr(points[i], name)) for i in kept] for name in _names(Point)}
        return json.dumps(plain, separators=(",", ":"), allow_nan=False)


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _plain(value: Any) -> Any:
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _names(value.__class__)}
    return value
