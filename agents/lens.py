"""What a policy sees of a market: what trades is what was trained, because both look through this."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from envs.config import TradingConfig
from envs.market import MarketTensors
from kit.config import setting
from kit.errors import UserError
from market.features import FeatureSpec, Scaler
from market.features.observed import ObservedColumn
from market.panel import Panel

SHOWN = 10  # names listed in a complaint


@dataclass(frozen=True)
class Lens:
    """The symbols in their order, the features on their scale, and how orders are traded."""

    symbols: tuple[str, ...]
    observed: tuple[str, ...]  # columns that the features read
    features: FeatureSpec  # with every observed column named
    scaler: Scaler
    trading: TradingConfig
    bars_per_year: float = setting(above=0)

    def __post_init__(self) -> None:
        if not self.symbols or len(set(self.symbols)) < len(self.symbols):
            raise ValueError("symbols must be at least one, each given once")
        columns = _columns(self.features)
        if None in columns:
            raise ValueError("features must name every observed column")
        if self.observed != columns:
            raise ValueError(f"observed must be what the features read: {_some(columns)}")
        if self.scaler.names != self.features.names():
            raise ValueError(f"scaler.names must be those of the features: {_some(self.features.names())}")

    @classmethod
    def of(cls, panel: Panel, features: FeatureSpec, scaler: Scaler, trading: TradingConfig) -> Lens:
        features = features.for_panel(panel)
        observed = tuple(name for name in _columns(features) if name is not None)
        return cls(panel.symbols, observed, features, scaler, trading, panel.bars_per_year)

    @property
    def portfolio_width(self) -> int:
        """Of `envs.policy.portfolio_of` on such a market."""
        return len(self.symbols) + (3 if self.trading.allocation.kind == "shares" else 2)

    def market(self, panel: Panel, device: str | torch.device = "cpu") -> MarketTensors:
        """The panel as the policy was trained to see it; refuses one that it was not trained for."""
        self._check(panel)
        values = self.scaler.apply(self.features.compute(panel))
        return MarketTensors.build(panel, self.trading, values, device)

    def _check(self, panel: Panel) -> None:
        if panel.symbols != self.symbols:
            raise UserError(f"panel: symbols = {_some(panel.symbols)}: {self._difference(panel.symbols)}")
        if panel.bars_per_year != self.bars_per_year:
            raise UserError(f"panel: bars_per_year = {panel.bars_per_year:g}: expected {self.bars_per_year:g}")
        missing = [name for name in self.observed if name not in panel.observed]
        if missing:
            there = _some(tuple(panel.observed))
            raise UserError(f"panel: observed = {there}: missing {_some(missing)}; the features read them")

    def _difference(self, symbols: tuple[str, ...]) -> str:
        missing = [symbol for symbol in self.symbols if symbol not in symbols]
        unknown = [symbol for symbol in symbols if symbol not in self.symbols]
        if missing or unknown:
            parts = [f"{word} {_some(names)}" for word, names in (("missing", missing), ("unknown", unknown)) if names]
            return f"{'; '.join(parts)}; expected those of training, {_some(self.symbols)}"
        place = next((k for k, pair in enumerate(zip(symbols, self.symbols)) if pair[0] != pair[1]), len(self.symbols))
        return f"another order from number {place + 1} on; expected that of training, {_some(self.symbols)}"


def _columns(features: FeatureSpec) -> tuple[str | None, ...]:
    """Observed columns that the features read, each once; None stands for all that a panel has."""
    read = (transform.column for transform in features.transforms if isinstance(transform, ObservedColumn))
    return tuple(dict.fromkeys(read))


def _some(names: tuple[str | None, ...] | list[str]) -> str:
    shown = ", ".join(map(str, names[:SHOWN])) or "none"
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
