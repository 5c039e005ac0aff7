"""Where there is no signal nothing beats equal weight: if random actions did, the accounting would be at fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from markets import KINDS

from envs.backtest import backtest
from envs.config import AllocationConfig, EnvConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import Allocated, equal_weight
from envs.trading import TradingEnv
from kit.metrics import sharpe
from market.panel import Panel
from market.synth import SIGNAL, SynthSource, generate

POLICIES = 4
BELIEF = 0.5  # action per standard deviation of the signal


def random_run(panel: Panel, kind: str, seed: int) -> np.ndarray:
    """[T-1, POLICIES] simple returns of actions drawn anew every bar."""
    market = MarketTensors.build(panel, TradingConfig(AllocationConfig(kind)))
    env = TradingEnv(market, EnvConfig(episode=len(market), ruin=0.0), POLICIES, random_start=False)
    draws = torch.Generator().manual_seed(seed)
    growth = torch.empty(len(market) - 1, POLICIES)
    for row in growth:
        action = torch.rand(POLICIES, market.assets + 1, generator=draws) * 2 - 1
        row.copy_(env.step(action)[3]["growth"])
    return np.expm1(growth.double().numpy())


def follow_signal(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    signal = market.features[bar, :, 0]
    return torch.cat([(BELIEF * signal).clamp(-1, 1), torch.zeros_like(portfolio[:, :1])], dim=1)


def equal_weight_sharpe(panel: Panel) -> float:
    return float(sharpe(backtest([equal_weight], MarketTensors.build(panel))[0].returns))


def mean_and_error(edges: list[float]) -> tuple[float, float]:
    return float(np.mean(edges)), float(np.std(edges, ddof=1) / np.sqrt(len(edges)))


def check_random_actions(markets: int, bars: int) -> None:
    edges: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(markets):
        panel = generate(SynthSource(ic=0.0, seed=seed, bars=bars))
        standard = equal_weight_sharpe(panel)
        for kind in KINDS:
            edges[kind].append(float(np.mean(sharpe(random_run(panel, kind, seed)) - standard)))
    for kind in KINDS:
        edge, error = mean_and_error(edges[kind])
        assert edge <= 3 * error, f"{kind}: {edge:+.3f} with a standard error of {error:.3f}"
        assert 0 < error < 1


def test_random_actions_do_not_beat_equal_weight_on_a_few_markets_without_signal() -> None:
    check_random_actions(markets=6, bars=400)


@pytest.mark.slow
def test_random_actions_do_not_beat_equal_weight_on_forty_markets_without_signal() -> None:
    check_random_actions(markets=40, bars=1260)


@pytest.mark.parametrize(("ic", "pays"), [(0.08, True), (0.0, False)])
def test_following_the_signal_beats_equal_weight_where_there_is_one_and_only_there(ic: float, pays: bool) -> None:
    """After costs, filled a bar later: so the check above could have failed."""
    edges = []
    for seed in range(6):
        panel = generate(SynthSource(ic=ic, seed=seed, bars=1260))
        signal = panel.observed[SIGNAL].values[:, :, None].astype(np.float32)
        market = MarketTensors.build(panel, features=signal)
        followed, standard = backtest([Allocated(follow_signal), equal_weight], market)
        edges.append(float(sharpe(followed.returns) - sharpe(standard.returns)))
    edge, error = mean_and_error(edges)
    assert (edge > 3 * error) == pays
