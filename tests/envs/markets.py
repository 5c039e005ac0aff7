"""Markets for tests: panels with late listings, gaps, halts and missing volume; tensors made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from panels import price_panel, random_panel, with_arrays

from envs.config import AllocationConfig, CostConfig, TradingConfig
from envs.market import MarketTensors, Quote
from market.panel import FIELDS, PRICES, Panel

KINDS = ("softmax", "tilt", "long_short", "shares")
NO_COSTS = CostConfig(commission_bp=0.0, half_spread_bp=0.0, impact=0.0, no_volume_bp=0.0, borrow_rate=0.0)


def wild_panel(seed: int = 0, bars: int = 60, symbols: int = 4) -> Panel:
    """Late listings and gaps, two bars on which nothing trades, and volume missing here and there.

    The second symbol never has a volume; of the third one it is missing on some bars and 0 on others.
    """
    rng = np.random.default_rng(seed)
    panel = random_panel(seed, bars, symbols)
    arrays = {name: getattr(panel, name).copy() for name in (*FIELDS, "tradable")}
    halt = int(rng.integers(2, bars - 2))
    rows = slice(halt, halt + 2)
    arrays["tradable"][rows] = False
    arrays["volume"][rows] = 0.0
    for name in PRICES:
        arrays[name][rows] = arrays["close"][halt - 1]
    arrays["volume"][:, 1 % symbols] = np.nan
    third = arrays["volume"][:, 2 % symbols]
    third[rng.random(bars) < 0.3] = np.nan
    third[rng.random(bars) < 0.3] = 0.0
    return with_arrays(panel, **arrays)


def tensors(
    panel: Panel,
    kind: str = "softmax",
    costs: CostConfig | None = None,
    dtype: torch.dtype = torch.float64,
    **more: Any,
) -> MarketTensors:
    """`more`: fill and capital, or else settings of the allocation."""
    trading = {name: more.pop(name) for name in ("fill", "capital") if name in more}
    features = more.pop("features", None)
    config = TradingConfig(AllocationConfig(kind, **more), costs or CostConfig(), **trading)
    return MarketTensors.build(panel, config, features, dtype=dtype)


def looked_up(market: MarketTensors, name: str) -> torch.Tensor | None:  # [T, A+1]
    """A field of the market by name, those of its quotes included."""
    return market.table[Quote._fields.index(name)] if name in Quote._fields else getattr(market, name)


def with_quotes(market: MarketTensors, **values: float) -> MarketTensors:
    """The same market with a quote's fields, `fill` or `impact` say, set to one value everywhere."""
    table = market.table.clone()
    for name, value in values.items():
        table[Quote._fields.index(name)] = value
    return replace(market, table=table)


def priced(close: Any, open_: Any = None, volume: float = 1000.0) -> Panel:
    """Bars made by hand: closes [T] or [T, A], and opens if they are not the closes."""
    panel = price_panel(close, volume)
    if open_ is None:
        return panel
    opens = np.asarray(open_, np.float64).reshape(panel.close.shape)
    return with_arrays(panel, open=opens, high=np.maximum(opens, panel.close), low=np.minimum(opens, panel.close))


def random_actions(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Uniform in [-1, 1], exact in float32, so that every precision sees the same."""
    draws = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
    return torch.as_tensor(draws, dtype=dtype)
