"""A panel on a device: price relatives, cost rates and features, looked up by bar."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import torch

from envs.config import TradingConfig
from market.clock import TRADING_DAYS
from market.panel import Panel


def total(values: torch.Tensor, ones: torch.Tensor) -> torch.Tensor:  # [N, A+1], [A+1] -> [N]
    """The sum over assets: a product is faster in eager mode, but a compiler cannot fuse it."""
    return values.sum(1) if torch.compiler.is_compiling() else values @ ones


class Quote(NamedTuple):
    """What orders sent at close t meet, each [N, A+1]; looked up together, which is one gather."""

    fill: torch.Tensor  # fill price / close t; 0 where an order sent at t does not fill
    hold: torch.Tensor  # close t+1 / fill price
    drift: torch.Tensor  # close t+1 / close t
    impact: torch.Tensor  # cost of a trade of all wealth, as a share of it; known at t


@dataclass(frozen=True, eq=False)
class MarketTensors:
    """What a step looks up. Row t belongs to a decision at close t; the last row has no next bar.

    Cash is the last column everywhere. It is never ordered: it is what the trades leave.
    """

    trading: TradingConfig
    features: torch.Tensor  # [T, A, F]
    table: torch.Tensor  # [4, T, A+1] fill, hold, drift, impact: see `Quote`
    open_now: torch.Tensor | None  # [T, A+1] 1 where orders can be sent at t; None: everywhere
    extra: torch.Tensor | None  # [T, A+1] flat cost beyond commission and spread; None: nowhere
    lot: torch.Tensor | None  # [T, A+1] one share's value over the capital; only for whole shares
    ones: torch.Tensor  # [A+1] to sum over assets with a product
    interest: float  # of cash, per bar
    bars_per_year: float
    dates: np.ndarray = field(repr=False)  # [T] datetime64[ns], the closes
    symbols: tuple[str, ...] = field(default=())

    @classmethod
    def build(
        cls,
        panel: Panel,
        trading: TradingConfig | None = None,
        features: np.ndarray | None = None,  # [T, A, F] float32, scaled
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> MarketTensors:
        assert dtype in (torch.float32, torch.float64), f"a bar index needs float32 or float64, not {dtype}"
        trading = trading or TradingConfig()
        bars, assets = panel.close.shape
        assert bars < 2**24, "a bar index must be exact in float32"
        fill, hold = _relatives(panel, trading.fill)
        impact, extra = _cost_rates(panel, trading)
        open_now = panel.tradable
        fills_next = open_now & np.concatenate([panel.tradable[1:], np.zeros((1, assets), bool)])
        per_bar = (1.0 + trading.costs.cash_rate) ** (1.0 / panel.bars_per_year) - 1.0

        def column(values: np.ndarray, cash: float) -> torch.Tensor:  # [T, A] -> [T, A+1]
            whole = np.concatenate([values, np.full((bars, 1), cash)], axis=1)
            return torch.as_tensor(whole, dtype=dtype).to(device)

        whole_shares = trading.allocation.kind == "shares"
        if features is None:
            features = np.zeros((bars, assets, 0), np.float32)
        return cls(
            trading=trading,
            features=torch.tensor(features, device=device, dtype=dtype),
            table=torch.stack(
                [
                    column(np.where(fills_next, fill, 0.0), 0.0),
                    column(hold, 1.0),
                    column(fill * hold, 1.0),
                    column(impact, 0.0),
                ]
            ),
            open_now=None if open_now.all() else column(open_now, 0.0),
            extra=column(extra, 0.0) if extra.any() else None,
            lot=column(np.nan_to_num(panel.close, nan=1.0) / trading.capital, 1.0) if whole_shares else None,
            ones=torch.ones(assets + 1, device=device, dtype=dtype),
            interest=per_bar,
            bars_per_year=panel.bars_per_year,
            dates=panel.closes,
            symbols=panel.symbols,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> MarketTensors:
        return self  # never changed, so shared

    def __len__(self) -> int:
        return len(self.features)

    def quote(self, bar: torch.Tensor) -> Quote:  # [N]
        return Quote(*self.table.index_select(1, bar).unbind())

    @property
    def assets(self) -> int:
        return self.features.shape[1]

    @property
    def device(self) -> torch.device:
        return self.table.device

    @property
    def dtype(self) -> torch.dtype:
        return self.table.dtype

    @property
    def last_decision(self) -> int:
        """The last bar whose orders can fill."""
        return len(self) - 2

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> MarketTensors:
        assert dtype in (None, torch.float32, torch.float64), f"a bar index needs float32 or float64, not {dtype}"
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                values[name] = value.to(device=device, dtype=dtype)
        return MarketTensors(**values)


def _relatives(panel: Panel, fill: str) -> tuple[np.ndarray, np.ndarray]:
    """[T, A] fill / close and next close / fill, computed in float64; 1 where there is no price yet."""
    following = panel.close[1:]
    filled = panel.open[1:] if fill == "open" else following
    first = np.ones_like(panel.close)
    second = np.ones_like(panel.close)
    np.divide(filled, panel.close[:-1], out=first[:-1], where=panel.listed[:-1])
    np.divide(following, filled, out=second[:-1], where=panel.listed[:-1])
    return first, second


def _cost_rates(panel: Panel, trading: TradingConfig) -> tuple[np.ndarray, np.ndarray]:
    """[T, A] impact of trading all the capital, and flat cost where volume or volatility is unknown."""
    costs = trading.costs
    bars_per_day = max(1.0, panel.bars_per_year / TRADING_DAYS)
    window = max(2, round(costs.window_days * bars_per_day))
    returns = _returns(panel)
    real = panel.tradable.astype(np.float64)
    seen = np.maximum(_trailing_sum(real, window), 1.0)
    volatility = np.sqrt(_trailing_sum(returns**2, window) / seen * bars_per_day)
    money = np.nan_to_num(panel.close) * np.nan_to_num(panel.volume) * real
    daily_volume = _trailing_sum(money, window) / seen * bars_per_day
    known = (daily_volume > 0) & (volatility > 0)
    impact = np.zeros_like(volatility)
    np.divide(trading.capital, daily_volume, out=impact, where=known)
    impact = costs.impact * costs.multiple * volatility * np.sqrt(impact)
    flat = costs.no_volume_bp - costs.commission_bp - costs.half_spread_bp
    extra = np.where(known | (costs.impact == 0), 0.0, max(0.0, flat) * costs.multiple * 1e-4)
    return impact, extra


def _returns(panel: Panel) -> np.ndarray:  # [T, A]
    """From close to close; at a symbol's first bar its range stands in (Parkinson), 0 before it."""
    returns = np.zeros_like(panel.close)
    known = panel.listed[:-1]
    np.divide(panel.close[1:], panel.close[:-1], out=returns[1:], where=known)
    returns[1:] -= known
    first = panel.listed.copy()
    first[1:] &= ~known
    np.divide(panel.high, panel.low, out=returns, where=first)
    returns[first] = np.log(returns[first]) / np.sqrt(4 * np.log(2))
    return returns


def _trailing_sum(values: np.ndarray, window: int) -> np.ndarray:  # [T, A] -> [T, A]
    """The sum over the last `window` rows, the current one included."""
    total = np.cumsum(values, axis=0)
    total[window:] -= total[:-window].copy()
    return np.maximum(total, 0.0)
