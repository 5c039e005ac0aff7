"""What all trials of a tournament have in common: the bars, how they are seen, and the folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from agents.lens import Lens
from agents.spaces import SPACES, Choice
from envs.backtest import Track, backtest
from envs.config import TradingConfig
from envs.market import MarketTensors
from envs.policy import equal_weight
from kit.config import to_dict
from kit.files import hash_json
from market.features import FeatureSpec, Scaler
from market.panel import Panel
from podracer.spans import Spans
from tournament.folds import FoldConfig, Folds

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Arena:
    """The hold-out is in the panel; what a trial gets ends with its own test span."""

    panel: Panel
    features: FeatureSpec
    trading: TradingConfig
    folds: Folds
    device: str = "cpu"
    _made: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def build(
        cls,
        panel: Panel,
        features: FeatureSpec,
        trading: TradingConfig,
        folds: FoldConfig,
        opened: int = 0,
    ) -> Arena:
        unseen = features.for_panel(panel).warmup + longest_lookback() - 1  # bars before the first whole observation
        return cls(panel, features, trading, Folds.cut(len(panel), unseen, folds, opened))

    def seen(self, spans: Spans) -> Panel:
        """The bars that trials on these spans may know. A span's last decision is paid one bar later."""
        return self.panel[: max(spans.train.stop, spans.validation.stop, spans.test.stop) + 1]

    def lens(self, spans: Spans) -> Lens:
        """The scale of the features is that of the train span alone."""

        def made() -> Lens:
            panel = self.seen(spans)
            computed = self.features.for_panel(panel).compute(panel)
            return Lens.of(panel, self.features, Scaler.fit(computed, spans.train), self.trading)

        return self.once("lens", spans, made)

    def market(self, spans: Spans) -> MarketTensors:
        return self.once("market", spans, lambda: self.lens(spans).market(self.seen(spans), self.device))

    def data_hash(self, spans: Spans) -> str:
        return self.once("hash", spans, lambda: hash_json([self.seen(spans).hash, to_dict(self.lens(spans))]))

    def benchmark(self, spans: Spans) -> Track:
        """Equal weight on the test span, from cash, as every candidate there."""
        return self.once("benchmark", spans, lambda: backtest([equal_weight], self.market(spans), spans.test)[0])

    def once(self, what: str, spans: Spans, make: Callable[[], T]) -> T:
        """The same for all trials of a process on the same fold."""
        name = (what, repr(spans))
        if name not in self._made:
            self._made[name] = make()
        return cast(T, self._made[name])

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_made": {}}


def longest_lookback() -> int:
    """The folds must be the same for all candidates."""
    knobs = [knob for space in SPACES.values() for knob in space if knob.name == "network.lookback"]
    return max(int(value) for knob in knobs if isinstance(knob, Choice) for _, value in knob.choices)
