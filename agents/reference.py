"""What was normal when a policy was made: live features, votes and returns are measured against it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from agents.ensemble import Ensemble
from agents.lens import Lens
from envs.backtest import Track
from envs.market import MarketTensors
from kit.config import setting
from kit.metrics import drawdown, equity, max_drawdown, volatility
from market.panel import Panel

BINS = 10
BATCH = 256  # bars asked at a time


@dataclass(frozen=True)
class Histogram:
    """How much of the values is below the first edge, between edges (the lower one included), from the last one on."""

    edges: tuple[float, ...]
    frequencies: tuple[float, ...]  # one more than edges

    def __post_init__(self) -> None:
        if any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError("edges must increase")
        if len(self.frequencies) != len(self.edges) + 1:
            raise ValueError(f"frequencies must be one more than the {len(self.edges)} edges")
        if min(self.frequencies) < 0.0 or abs(sum(self.frequencies) - 1.0) > 1e-6:
            raise ValueError("frequencies must be at least 0 and sum to 1")

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:  # [N]
        """Between the deciles; values that repeat make fewer and uneven bins."""
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="higher"))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        return cls(tuple(edges.tolist()), tuple((counts / len(values)).tolist()))


@dataclass(frozen=True)
class Expected:
    """What the walk-forward earned: a year's mean and volatility of simple returns, and the deepest drawdown."""

    mean: float
    volatility: float = setting(low=0)
    drawdown: float = setting(low=-1, high=0)


@dataclass(frozen=True)
class Reference:
    """Drift is a distance from this."""

    features: dict[str, Histogram]  # scaled as policies see them, on the train span
    walk_forward: Expected
    dispersion: float = setting(low=0, help="mean over the walk-forward of `Ensemble.spread`")


def measure(
    lens: Lens, panel: Panel, train: slice, ensemble: Ensemble, track: Track, device: str | torch.device = "cpu"
) -> Reference:
    """`train` are the panel's bars that members were trained on; `track` is the ensemble's walk-forward there."""
    market = lens.market(panel, device)
    start, stop, _ = train.indices(len(panel))
    rows = slice(max(start, lens.features.warmup), stop)
    values = market.features[rows].cpu().numpy()[panel.listed[rows]].astype(np.float64)  # [N, F]
    assert len(values), f"the train span {train} holds no listed symbol"
    histograms = {name: Histogram.of(values[:, k]) for k, name in enumerate(lens.scaler.names)}
    expected = Expected(
        mean=float(track.returns.mean() * track.bars_per_year),
        volatility=float(volatility(track.returns, track.bars_per_year)),
        drawdown=float(max_drawdown(track.returns)),
    )
    return Reference(histograms, expected, dispersion(ensemble, market, track))


@torch.no_grad()
def dispersion(ensemble: Ensemble, market: MarketTensors, track: Track) -> float:
    """How far apart members' targets are, on average over the track and at its portfolios."""
    bars, portfolios = decisions(market, track)
    spreads = [
        ensemble.spread(ensemble.members(market, bar, portfolio)).sum()
        for bar, portfolio in zip(bars.split(BATCH), portfolios.split(BATCH))
    ]
    return float(torch.stack(spreads).sum()) / len(bars)


def decisions(market: MarketTensors, track: Track) -> tuple[torch.Tensor, torch.Tensor]:
    """The bars of the track's closes [T], and what a policy saw of its portfolio there [T, P]."""
    bars = np.searchsorted(market.dates, track.dates)
    found = bars < len(market)
    assert found.all() and (market.dates[bars] == track.dates).all(), "the track is not of this market"
    columns = [track.weights, drawdown(track.returns)[1:, None]]
    if market.lot is not None:
        columns.append(equity(track.returns)[1:, None])
    portfolios = torch.as_tensor(np.concatenate(columns, axis=1), dtype=market.dtype)
    return torch.as_tensor(bars, device=market.device), portfolios.to(market.device)
