"""The backtest: the environment's own numbers, policy by policy, and figures that an oracle confirms."""

from __future__ import annotations

import empyrical
import numpy as np
import pytest
import torch
from markets import KINDS, NO_COSTS, priced, random_actions, tensors, wild_panel
from panels import random_panel

from envs.backtest import Track, backtest
from envs.config import CostConfig, EnvConfig
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, equal_weight
from envs.trading import TradingEnv

BARS = 80
PANEL = wild_panel(0, bars=BARS)
COSTS = CostConfig(cash_rate=0.03)


def table_policy(actions: torch.Tensor) -> Policy:  # [T, A+1]
    """Does at bar t what row t says."""
    return Allocated(lambda market, bar, portfolio: actions[bar].to(portfolio.dtype))


def leaning(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
    """An actor that looks at its own portfolio."""
    return (3 * portfolio[:, : market.assets + 1]).cos()


def same(one: Track, other: Track, tolerance: float = 0.0) -> None:
    for name in ("returns", "weights", "traded"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance)
    assert one.costs.keys() == other.costs.keys()
    for kind in one.costs:
        np.testing.assert_allclose(one.costs[kind], other.costs[kind], rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(one.dates, other.dates)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("span", [slice(None), slice(17, 60)])
def test_a_backtest_is_an_environment_stepped_by_hand(kind: str, span: slice) -> None:
    market, actions = tensors(PANEL, kind, COSTS, band=0.01), random_actions(1, BARS, 5)
    track = backtest([table_policy(actions)], market, span)[0]
    env = TradingEnv(market, EnvConfig(episode=BARS, ruin=0.0), 1, span, random_start=False)
    first, stop, _ = span.indices(BARS - 1)
    for row, bar in enumerate(range(first, stop)):
        _, _, done, info = env.step(actions[bar].unsqueeze(0))
        assert bool(done) == (bar == stop - 1)
        assert track.returns[row] == pytest.approx(info["growth"].expm1().item(), abs=1e-15)
        np.testing.assert_array_equal(track.weights[row], info["final"].weights[0])
        assert track.traded[row] == info["costs"].traded.item()
        for name, amount in info["costs"].by_kind().items():
            assert track.costs[name][row] == amount.item()
    assert len(track.returns) == stop - first
    np.testing.assert_array_equal(track.dates, PANEL.closes[first + 1 : stop + 1])
    assert np.prod(1 + track.returns) == pytest.approx(info["final"].wealth.item())


@pytest.mark.parametrize("kind", KINDS)
def test_many_policies_at_once_are_each_one_alone(kind: str) -> None:
    market = tensors(PANEL, kind, COSTS)
    policies = [equal_weight, Allocated(leaning), *(table_policy(random_actions(seed, BARS, 5)) for seed in range(3))]
    together = backtest(policies, market)
    assert len(together) == 5
    for policy, track in zip(policies, together):
        same(track, backtest([policy], market)[0], 1e-13)
    assert len({track.returns.tobytes() for track in together}) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_float32_and_float64_tell_the_same_track(kind: str) -> None:
    panel = wild_panel(3, bars=500)
    policies = [equal_weight, table_policy(random_actions(2, 500, 5, dtype=torch.float32))]
    market = tensors(panel, kind, COSTS, dtype=torch.float32)
    for single, double in zip(backtest(policies, market), backtest(policies, market, dtype=torch.float64)):
        same(single, double, 2e-5)
        wealth = np.prod(1 + single.returns)
        assert wealth == pytest.approx(np.prod(1 + double.returns), rel=1e-4)


def test_the_same_backtest_twice_is_the_same_to_the_bit() -> None:
    market, policies = tensors(PANEL), [equal_weight, Allocated(leaning)]
    for one, again in zip(backtest(policies, market), backtest(policies, market)):
        same(one, again)


def test_a_track_names_its_market_and_is_counted_in_float64_whatever_the_markets_precision() -> None:
    market = tensors(PANEL, costs=COSTS, dtype=torch.float32)
    track = backtest([equal_weight], market)[0]
    assert (track.symbols, track.bars_per_year) == (PANEL.symbols, PANEL.bars_per_year)
    assert track.returns.dtype == track.traded.dtype == np.float64
    assert {amount.dtype for amount in track.costs.values()} == {np.dtype(np.float64)}
    assert track.weights.dtype == np.float32
    exact = backtest([equal_weight], market, dtype=torch.float64)[0]
    assert exact.weights.dtype == np.float64
    assert market.dtype == torch.float32
    grown = np.log1p(track.returns)  # growth was float32; what was made of it is not
    np.testing.assert_allclose(grown, grown.astype(np.float32), rtol=1e-14, atol=0)
    for row in (track, exact):
        assert len(row.dates) == len(row.returns) == len(row.weights) == len(row.traded) == BARS - 1


def test_the_metrics_count_every_cost_but_not_interest() -> None:
    """Two bars of a year of four: what was traded and what was paid, over half a year."""
    figures = Track(
        dates=PANEL.closes[1:3],
        returns=np.array([0.01, -0.02]),
        weights=np.array([[0.5, 0.5], [0.4, 0.6]]),
        traded=np.array([0.5, 0.1]),
        costs={
            "commission": np.array([0.001, 0.0]),
            "spread": np.array([0.002, 0.001]),
            "impact": np.array([0.004, 0.0]),
            "borrow": np.array([0.0, 0.008]),
            "interest": np.array([0.5, 0.5]),
        },
        symbols=("S000",),
        bars_per_year=4.0,
    ).metrics()
    assert figures["turnover"] == pytest.approx(1.2)
    assert figures["cost"] == pytest.approx(0.032)


def test_a_span_starts_in_cash_and_a_policy_sees_nothing_but_its_portfolio() -> None:
    seen = []

    def watching(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        seen.append((int(bar), portfolio[0].tolist()))
        return equal_weight(market, bar, portfolio)

    track = backtest([watching], tensors(PANEL), slice(30, 40))[0]
    assert [bar for bar, _ in seen] == list(range(30, 40))
    assert seen[0][1] == [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    wealth = np.cumprod(np.concatenate([[1.0], 1 + track.returns]))
    for (_, portfolio), weights, now, peak in zip(
        seen[1:], track.weights, wealth[1:], np.maximum.accumulate(wealth)[1:]
    ):
        assert portfolio == pytest.approx([*weights, now / peak - 1], abs=1e-14)


@pytest.mark.parametrize("span", [slice(79, None), slice(50, 50), slice(60, 20)])
def test_a_span_without_a_decision_is_refused(span: slice) -> None:
    with pytest.raises(AssertionError, match="no decision"):
        backtest([equal_weight], tensors(PANEL), span)


def test_metrics_are_empyricals() -> None:
    market = tensors(random_panel(5, bars=1000, symbols=4), costs=COSTS, dtype=torch.float32)
    for track in backtest([equal_weight, table_policy(random_actions(3, 1000, 5))], market):
        figures, returns = track.metrics(), track.returns
        assert figures["sharpe"] == pytest.approx(empyrical.sharpe_ratio(returns))
        assert figures["sortino"] == pytest.approx(empyrical.sortino_ratio(returns))
        assert figures["cagr"] == pytest.approx(empyrical.cagr(returns))
        assert figures["max_drawdown"] == pytest.approx(empyrical.max_drawdown(returns))
        assert figures["calmar"] == pytest.approx(empyrical.calmar_ratio(returns))
        assert figures["volatility"] == pytest.approx(empyrical.annual_volatility(returns))


def test_turnover_and_cost_are_per_year() -> None:
    """Half a year; 40 % of the way a bar from cash, at 10 bp, on prices that stand still: once around."""
    costs = CostConfig(commission_bp=10.0, half_spread_bp=0.0, impact=0.0, cash_rate=0.5)
    market = tensors(priced(np.full((127, 2), 100.0)), costs=costs, rate=0.4)
    figures = backtest([equal_weight], market)[0].metrics()
    assert figures["turnover"] == pytest.approx(2.0, rel=2e-3)
    assert figures["cost"] == pytest.approx(0.001 * figures["turnover"])


def test_equal_weight_is_rebalanced_and_pays_for_it() -> None:
    """Two assets, one doubles: full weight 1.5, then .25 of 1.5 is sold and bought."""
    panel = priced([[100, 100], [100, 100], [200, 100], [200, 100]])
    track = backtest([equal_weight], tensors(panel, costs=NO_COSTS, rate=1.0, fill="close"))[0]
    assert track.returns == pytest.approx([0, 0.5, 0])
    np.testing.assert_allclose(track.weights, [[0.5, 0.5, 0], [2 / 3, 1 / 3, 0], [0.5, 0.5, 0]], atol=1e-15)
    assert track.traded == pytest.approx([1, 0, 1 / 3])
