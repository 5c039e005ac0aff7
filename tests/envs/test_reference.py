"""The environment, vectorised, against the reference: one portfolio in money and shares at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import KINDS, NO_COSTS, random_actions, wild_panel
from panels import random_panel
from reference import Reference

from envs.config import AllocationConfig, CostConfig, EnvConfig, RewardConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import portfolio_of
from envs.trading import TradingEnv
from market.panel import Panel

FILLS = ("open", "close")
COSTS = {
    "none": NO_COSTS,
    "linear": CostConfig(impact=0.0),
    "impact alone": CostConfig(commission_bp=0.0, half_spread_bp=0.0, no_volume_bp=0.0),
    "everything": CostConfig(cash_rate=0.05),
    "interest": CostConfig(impact=0.0, commission_bp=0.0, half_spread_bp=0.0, cash_rate=0.5, borrow_rate=0.0),
    "borrow": CostConfig(impact=0.0, commission_bp=0.0, half_spread_bp=0.0, borrow_rate=2.0),
    "flat is dearer": CostConfig(no_volume_bp=80.0, window_days=5),
    "flat is cheaper": CostConfig(no_volume_bp=1.0),
    "three times": CostConfig(multiple=3.0, cash_rate=0.01),
}
REWARDS = {
    "growth": RewardConfig(),
    "excess": RewardConfig(log_growth=0.0, excess=1.0),
    "differential Sharpe": RewardConfig(log_growth=0.0, differential_sharpe=1.0),
    "drawdown": RewardConfig(log_growth=0.0, drawdown=1.0),
    "turnover": RewardConfig(log_growth=0.0, turnover=1.0),
    "all": RewardConfig(0.5, 0.7, 0.3, 0.2, 0.01, sharpe_decay=0.05),
}


def agree(panel: Panel, trading: TradingConfig, config: EnvConfig, envs: int, steps: int, seed: int) -> int:
    """Step both with the same random actions and compare everything; returns how many episodes ended."""
    market = MarketTensors.build(panel, trading, dtype=torch.float64)
    env = TradingEnv(market, config, envs, seed=seed)
    references = [Reference(panel, trading, config) for _ in range(envs)]
    for reference, bar in zip(references, env.reset()[:, 0].tolist()):
        reference.begin(int(bar))
    ended = 0
    for action in random_actions(seed, steps, envs, market.assets + 1):
        observation, reward, done, info = env.step(action)
        outcomes = [reference.step(row) for reference, row in zip(references, action.tolist())]
        final, costs = info["final"], info["costs"].by_kind()
        columns = [reward, info["growth"], final.wealth, info["costs"].traded, *costs.values()]
        found = torch.cat([torch.stack(columns, dim=1), portfolio_of(market, final)], dim=1)
        expected = [
            [o.reward, o.growth, o.wealth, o.traded, *(o.paid[kind] for kind in costs), *o.weights, o.drawdown]
            + ([o.wealth] if market.lot is not None else [])
            for o in outcomes
        ]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)
        assert info["terminated"].tolist() == [o.terminated for o in outcomes]
        assert info["truncated"].tolist() == [o.truncated for o in outcomes]
        assert done.tolist() == [o.terminated or o.truncated for o in outcomes]
        for k, (reference, over) in enumerate(zip(references, done.tolist())):
            if over:
                reference.begin(int(observation[k, 0]))
                ended += 1
        assert observation[:, 0].tolist() == [reference.bar for reference in references]
        held = torch.tensor([reference.weights() for reference in references], dtype=torch.float64)
        torch.testing.assert_close(observation[:, 1 : market.assets + 2], held, rtol=1e-9, atol=1e-9)
    return ended


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_agrees_with_the_reference(kind: str, fill: str, costs: str) -> None:
    trading = TradingConfig(AllocationConfig(kind), COSTS[costs], fill, capital=3e5)
    for number, reward in enumerate(REWARDS.values()):
        config = EnvConfig(reward, episode=9)
        assert agree(wild_panel(number, bars=40), trading, config, envs=2, steps=20, seed=number) == 4


@st.composite
def configs(draw: st.DrawFn) -> tuple[TradingConfig, EnvConfig]:
    def between(low: float, high: float) -> float:
        return draw(st.floats(low, high))

    rate = between(0.05, 1)
    allocation = AllocationConfig(
        kind=draw(st.sampled_from(KINDS)),
        kappa=between(0.1, 8),
        strength=between(0.05, 2),
        gross_cap=between(0.3, 2),
        name_cap=between(0.1, 1),
        max_stock=draw(st.integers(1, 500)),
        rate=rate,
        band=rate * draw(st.sampled_from([0.0, 0.0137, 0.1371])),  # a change just at the band is decided by rounding
    )
    costs = CostConfig(
        commission_bp=between(0, 20),
        half_spread_bp=between(0, 20),
        impact=draw(st.sampled_from([0.0, 1.0, 3.0])),
        no_volume_bp=between(0, 60),
        window_days=draw(st.integers(2, 30)),
        borrow_rate=between(0, 1),
        cash_rate=between(0, 0.2),
        multiple=between(0, 3),
    )
    trading = TradingConfig(allocation, costs, draw(st.sampled_from(FILLS)), capital=10.0 ** between(4, 7))
    reward = RewardConfig(
        log_growth=between(-1, 1),
        excess=draw(st.sampled_from([0.0, 1.0])),
        differential_sharpe=between(-1, 1),
        drawdown=between(0, 2),
        turnover=between(0, 2),
        sharpe_decay=between(0.005, 0.5),
    )
    return trading, EnvConfig(reward, episode=draw(st.integers(1, 30)), ruin=between(0, 0.99))


@settings(max_examples=200)
@given(config=configs(), seed=st.integers(0, 2**31), symbols=st.integers(1, 6), minutes=st.booleans())
def test_random_configurations_agree_with_the_reference(
    config: tuple[TradingConfig, EnvConfig], seed: int, symbols: int, minutes: bool
) -> None:
    panel = random_panel(seed, 40, symbols, minutes=True) if minutes else wild_panel(seed, 40, symbols)
    agree(panel, *config, envs=3, steps=25, seed=seed)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", KINDS)
def test_wealth_stays_the_references_for_five_hundred_bars(
    kind: str, fill: str, dtype: torch.dtype, tolerance: float
) -> None:
    panel = wild_panel(11, bars=501, symbols=6)
    trading = TradingConfig(AllocationConfig(kind), CostConfig(cash_rate=0.02), fill)
    config = EnvConfig(episode=500, ruin=0.0)
    env = TradingEnv(MarketTensors.build(panel, trading, dtype=dtype), config, 1, random_start=False)
    reference = Reference(panel, trading, config)
    found, expected = [], []
    for action in random_actions(1, 500, 1, 7):
        info = env.step(action.to(dtype))[3]
        found.append(info["final"].wealth.item())
        expected.append(reference.step(action[0].tolist()).wealth)
    assert bool(info["truncated"])
    assert found == pytest.approx(expected, rel=tolerance, abs=0)
    assert max(expected) - min(expected) > 0.05
