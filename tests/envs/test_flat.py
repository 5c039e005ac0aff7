"""The flat observation: the right numbers in the right places, none from the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panels import random_panel, with_other_future

from envs.config import AllocationConfig, EnvConfig, TradingConfig
from envs.flat import FlatEnv, FlatView
from envs.market import MarketTensors
from envs.trading import TradingEnv
from envs.transition import drawdown
from market.features import FeatureSpec, Scaler
from market.panel import Panel


def market_of(panel: Panel, kind: str = "softmax", features: int = 8) -> MarketTensors:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((*panel.close.shape, features)).astype(np.float32)
    return MarketTensors.build(panel, TradingConfig(AllocationConfig(kind)), values)


def test_thirty_assets_and_eight_features_make_302_numbers() -> None:
    panel = random_panel(bars=40, symbols=30)
    assert FlatView(market_of(panel)).width == 302
    assert FlatEnv(market_of(panel), num_envs=2).state_dim == 302
    assert FlatView(market_of(panel, "shares")).width == 303  # and wealth, which tells what a share weighs


@pytest.mark.parametrize("kind", ["softmax", "shares"])
@pytest.mark.parametrize("gaps", [True, False])
def test_an_observation_is_features_tradable_and_portfolio(kind: str, gaps: bool) -> None:
    panel = random_panel(3, bars=60, symbols=4, gaps=gaps)
    market = market_of(panel, kind, features=3)
    env = FlatEnv(market, EnvConfig(episode=20), num_envs=16, seed=1)
    env.reset()
    rng = np.random.default_rng(2)
    for _ in range(25):
        flat, _, done, info = env.step(torch.as_tensor(rng.uniform(-1, 1, (16, 5)), dtype=torch.float32))
        assert flat.shape == (16, env.state_dim)
        for state, seen in ((env.account.state, flat), (info["final"], env.observe(info["final"]))):
            for row in range(16):
                bar = int(state.bar[row])
                naive = [market.features[bar, asset, k].item() for asset in range(4) for k in range(3)]
                naive += [float(panel.tradable[bar, asset]) for asset in range(4)]
                naive += [*state.weights[row].tolist(), drawdown(state)[row].item()]
                naive += [state.wealth[row].item()] if kind == "shares" else []
                assert seen[row].tolist() == naive
        assert bool(done.any()) == bool((env.account.age == 0).any())


def test_flat_and_compact_environments_are_the_same_environment() -> None:
    market = market_of(random_panel(3, bars=60, symbols=4))
    flat, compact = (kind(market, EnvConfig(episode=10), num_envs=8, seed=5) for kind in (FlatEnv, TradingEnv))
    view = FlatView(market)
    torch.testing.assert_close(flat.reset(), view(compact.reset()), rtol=0, atol=0)
    rng = np.random.default_rng(0)
    for _ in range(25):
        action = torch.as_tensor(rng.uniform(-1, 1, (8, 5)), dtype=torch.float32)
        seen, expected = flat.step(action), compact.step(action)
        torch.testing.assert_close(seen[:3], (view(expected[0]), *expected[1:3]), rtol=0, atol=0)


def test_an_observation_is_the_callers_own() -> None:
    view = FlatView(market_of(random_panel(bars=20, symbols=2)))
    observation = torch.tensor([[3.0, 0.2, 0.3, 0.5, -0.1]] * 2)
    first = view(observation)
    expected = first.clone()
    first.fill_(7.0)
    torch.testing.assert_close(view(observation), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["softmax", "shares"])
@pytest.mark.parametrize("last", [150, 170, 190])
def test_no_observation_moves_when_the_future_does(kind: str, last: int) -> None:
    panel = random_panel(7, bars=200, symbols=4)
    spec = FeatureSpec.from_config([{"log_return": {"horizons": [1, 5]}}, "rsi"])
    rng = np.random.default_rng(1)
    actions = torch.as_tensor(rng.uniform(-1, 1, (60, 1, 5)), dtype=torch.float32)
    seen = []
    for each in (panel, with_other_future(panel, last)):
        features = spec.compute(each)
        scaled = Scaler.fit(features, slice(0, 140)).apply(features)
        market = MarketTensors.build(each, TradingConfig(AllocationConfig(kind)), scaled)
        env = FlatEnv(market, EnvConfig(episode=60), 1, slice(139, None), random_start=False)
        rows = [env.reset()] + [env.step(action)[0] for action in actions[: last - 139]]
        seen.append(torch.cat([*rows, env.step(actions[-1])[0]]))
    torch.testing.assert_close(seen[0][:-1], seen[1][:-1], rtol=0, atol=0)
    assert not torch.equal(seen[0][-1], seen[1][-1])
