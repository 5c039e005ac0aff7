"""Baselines: each worked by hand, blind to the future, and no better than equal weight where there is no signal."""

from __future__ import annotations

import gc
import pickle
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import KINDS, NO_COSTS, priced, tensors, wild_panel
from panels import price_panel, random_panel, with_arrays, with_other_future

from agents.baselines import (
    BASELINES,
    EqualWeight,
    InverseVolatility,
    MaximumSharpe,
    MinimumVariance,
    Momentum,
    MovingAverage,
    Oracle,
    VolatilityTarget,
    WeightPath,
    hold,
)
from agents.covariance import ledoit_wolf
from envs.backtest import backtest
from envs.config import CostConfig
from envs.market import MarketTensors
from envs.policy import Policy, equal_weight
from kit.config import build
from kit.errors import UserError
from kit.metrics import sharpe
from market.oracle import oracle_target
from market.panel import Panel
from market.synth import SIGNAL, SynthSource, generate

SEEDS = st.integers(0, 2**31)
QUICK: dict[str, Policy] = {  # the rules with little memory, so that short markets use them
    "inverse volatility": InverseVolatility(5),
    "minimum variance": MinimumVariance(12, 3),
    "maximum sharpe": MaximumSharpe(12, 3),
    "momentum": Momentum(12, 2),
    "moving average": MovingAverage(3, 9),
    "volatility target": VolatilityTarget(0.05, 5),
    "oracle": Oracle(0),
}
EVERY = {name: make() for name, make in BASELINES.items()} | QUICK


def market_of(panel: Panel, kind: str = "softmax", costs: CostConfig | None = None) -> MarketTensors:
    return tensors(panel, kind, costs, features=panel.observed[SIGNAL].values[:, :, None])


def holdings(seed: int, rows: int, market: MarketTensors) -> torch.Tensor:  # [rows, P]
    """Long-only portfolios, some of them mostly cash."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(market.assets + 1, 0.5), rows)
    others = np.ones((rows, 2 if market.lot is not None else 1))  # drawdown, and wealth with whole shares
    return torch.as_tensor(np.concatenate([weights, others], axis=1))


def wanted(policy: Policy, market: MarketTensors, seed: int = 0, last: int | None = None) -> torch.Tensor:
    """[bars, A+1] targets at every bar up to `last`, of random portfolios, in one call."""
    bars = torch.arange(len(market) if last is None else last + 1)
    return policy(market, bars, holdings(seed, len(market), market)[: len(bars)])


def weights_of(rule: WeightPath, close: list[list[float]] | np.ndarray) -> np.ndarray:  # [T, A]
    return rule.weights(tensors(priced(np.asarray(close, np.float64))))


def zigzag(*sizes: float, bars: int = 100) -> np.ndarray:  # [bars, A]
    """Closes whose returns are +size, -size, +size, ..."""
    signs = np.where(np.arange(bars - 1) % 2 == 0, 1.0, -1.0)[:, None]
    return 100 * np.cumprod(np.concatenate([np.ones((1, len(sizes))), 1 + signs * np.array(sizes)]), axis=0)


@settings(max_examples=10)
@given(SEEDS, st.sampled_from(KINDS))
def test_targets_sum_to_one_are_not_negative_and_leave_alone_what_does_not_trade(seed: int, kind: str) -> None:
    market = market_of(wild_panel(seed, bars=60), kind)
    assert market.open_now is not None
    shut = market.open_now[:, :-1] == 0
    held = holdings(seed, 60, market)[:, : market.assets]
    for name, policy in EVERY.items():
        weights = wanted(policy, market, seed)
        assert weights.shape == (60, market.assets + 1), name
        torch.testing.assert_close(weights.sum(1), torch.ones(60, dtype=torch.float64))
        assert weights.min() > -1e-12, name
        torch.testing.assert_close(weights[:, :-1][shut], held[shut])


@settings(max_examples=8)
@given(SEEDS, st.integers(2, 58))
def test_no_bar_after_t_moves_a_weight_at_or_before_t(seed: int, last: int) -> None:
    panel = wild_panel(seed, bars=60)
    with np.errstate(all="ignore"):
        markets = [market_of(each) for each in (panel, with_other_future(panel, last))]
        for name, policy in EVERY.items():
            one, other = (wanted(policy, market, last=last) for market in markets)
            assert torch.equal(one, other), name


def test_no_bar_after_t_moves_a_weight_at_or_before_t_with_a_year_of_memory() -> None:
    panel, last = wild_panel(8, bars=400), 330
    with np.errstate(all="ignore"):
        markets = [market_of(each) for each in (panel, with_other_future(panel, last))]
        for name in BASELINES:
            one, other = (wanted(BASELINES[name](), market, last=last) for market in markets)
            assert torch.equal(one, other), name
            after = [wanted(BASELINES[name](), market)[last + 1 :] for market in markets]
            assert not torch.equal(*after), name  # the other future is another one


@pytest.mark.parametrize("name", EVERY)
def test_every_row_is_the_portfolio_alone(name: str) -> None:
    market = market_of(wild_panel(2))
    together, held = wanted(EVERY[name], market), holdings(0, 60, market)
    for bar in (0, 30, 59):
        alone = EVERY[name](market, torch.tensor([bar]), held[bar : bar + 1])
        torch.testing.assert_close(alone, together[bar : bar + 1])


@pytest.mark.parametrize("kind", ["softmax", "tilt"])
def test_equal_weight_is_the_zero_action(kind: str) -> None:
    market = tensors(wild_panel(3, bars=80), kind)
    torch.testing.assert_close(wanted(EqualWeight(), market), wanted(equal_weight, market), rtol=1e-12, atol=1e-12)


def test_equal_weight_of_a_long_short_market_is_not_cash() -> None:
    market = tensors(priced(np.full((3, 4), 10.0)), "long_short")
    assert wanted(EqualWeight(), market)[0].tolist() == [0.25] * 4 + [0.0]


def test_hold_buys_once_and_never_sells() -> None:
    """One bar at the full rate: halves bought at 100 and 50; later weights are shares times price."""
    close = np.array([[100.0, 50.0], [100.0, 50.0], [110.0, 50.0], [110.0, 100.0], [55.0, 100.0]])
    market = tensors(priced(close), costs=NO_COSTS, rate=1.0, fill="close")
    track = backtest([hold], market)[0]
    np.testing.assert_allclose(track.traded, [1, 0, 0, 0], atol=1e-12)
    shares = np.array([0.005, 0.01])
    value = close[1:] * shares
    np.testing.assert_allclose(track.weights[:, :2], value / value.sum(axis=1, keepdims=True))


def test_hold_spends_its_cash_and_trades_no_more() -> None:
    market = tensors(random_panel(1, bars=200, gaps=False))
    held, kept = backtest([hold, EqualWeight()], market)
    assert held.traded.sum() == pytest.approx(1, abs=0.05)
    assert held.weights[40:, -1].max() < 1e-4
    assert held.traded[40:].sum() < 1e-4 < kept.traded[40:].sum()


def test_hold_spends_all_its_cash_on_what_trades() -> None:
    panel = priced(np.full((4, 3), 10.0))
    tradable = np.ones((4, 3), bool)
    tradable[:2, 2] = False
    market = tensors(with_arrays(panel, tradable=tradable))
    cash = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0], [0.2, 0.0, 0.0, 0.8, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(hold(market, torch.tensor([0, 1]), cash), expected)


def test_inverse_volatility_of_known_volatilities() -> None:
    """Returns of ±1 %, ±2 % and ±4 % have these volatilities over any even window: 4/7, 2/7, 1/7."""
    weights = weights_of(InverseVolatility(60), zigzag(0.01, 0.02, 0.04))
    np.testing.assert_allclose(weights[:60], 1 / 3)
    np.testing.assert_allclose(weights[60:], np.tile([4 / 7, 2 / 7, 1 / 7], (40, 1)))


def test_an_asset_that_does_not_move_is_held_at_one_nth() -> None:
    weights = weights_of(InverseVolatility(10), zigzag(0.01, 0.0, 0.02))
    np.testing.assert_allclose(weights[50], [2 / 3 * 2 / 3, 1 / 3, 2 / 3 * 1 / 3])


def test_nothing_is_held_before_its_first_bar_and_one_nth_until_enough_of_it_is_known() -> None:
    close = zigzag(0.01, 0.02, 0.01, bars=60)
    panel, first = priced(close), 30
    tradable = np.ones(close.shape, bool)
    tradable[:first, 2] = False
    prices = {name: np.where(tradable, close, np.nan) for name in ("open", "high", "low", "close", "volume")}
    market = tensors(with_arrays(panel, tradable=tradable, **prices))
    for rule in (InverseVolatility(10), MinimumVariance(10, 1), MaximumSharpe(10, 1), Momentum(10, 1)):
        weights = rule.weights(market)
        assert (weights[:first, 2] == 0).all()
        np.testing.assert_allclose(weights[first : first + 10, 2], 1 / 3)
    by_hand = [[30, 15, 0], [20, 10, 15], [18, 9, 18]]  # in 45ths: two alone; the third new; all by volatility
    np.testing.assert_allclose(InverseVolatility(10).weights(market)[[20, 35, 55]] * 45, by_hand)


def test_minimum_variance_of_two_assets_in_closed_form() -> None:
    """At close t from the 12 returns that end at closes t-11 to t, then kept for three bars."""
    noise = np.random.default_rng(5).normal(0, [0.01, 0.05], (60, 2))
    panel = priced(100 * np.cumprod(1 + noise, axis=0))
    weights = MinimumVariance(12, 3).weights(tensors(panel))
    returns = panel.close[1:] / panel.close[:-1] - 1
    np.testing.assert_array_equal(weights[:12], 0.5)
    for close in range(12, 60):
        since = close - (close - 12) % 3
        (one, both), (_, two) = ledoit_wolf(returns[since - 12 : since])[0]
        first = np.clip((two - both) / (one + two - 2 * both), 0, 1)
        np.testing.assert_allclose(weights[close], [first, 1 - first], atol=1e-9)
    assert len(np.unique(weights[12:, 0])) > 10


def test_maximum_sharpe_holds_what_rose_and_falls_back_to_least_variance() -> None:
    """Two zigzags with a drift: only the one that gains; when cash earns more than both, least variance."""
    close = zigzag(0.02, 0.01) * np.stack([1.002 ** np.arange(100), 0.998 ** np.arange(100)], axis=1)
    panel = price_panel(close)
    np.testing.assert_allclose(MaximumSharpe(20, 5).weights(tensors(panel))[50], [1, 0], atol=1e-12)
    rich = tensors(panel, costs=CostConfig(cash_rate=3.0))
    np.testing.assert_array_equal(MaximumSharpe(20, 5).weights(rich), MinimumVariance(20, 5).weights(rich))


def test_momentum_holds_what_rose_up_to_the_month_left_out() -> None:
    """With window 4 and 1 left out: close t-1 against close t-4, known from close 4 on."""
    close = [[10, 10], [11, 9], [12, 8], [12, 10], [9, 12], [8, 13], [7, 14], [20, 1]]
    expected = [[0.5, 0.5]] * 4 + [[0.5, 0], [0, 0.5], [0, 0.5], [0, 0.5]]
    # close 3 against 0: 12 > 10, 10 = 10; 4 against 1: 9 < 11, 12 > 9; 5 against 2; 6 against 3: 7 < 12, 14 > 10
    np.testing.assert_allclose(weights_of(Momentum(4, 1), close), expected)


def test_moving_averages_are_in_while_the_short_one_is_above() -> None:
    """Two against three closes; close 2: 11.5 > 11, 3: 11 < 11.33, 4: 9.5 < 10.67, 5: 10.5 > 10.33."""
    close = [[10, 5], [11, 5], [12, 5], [10, 5], [9, 5], [12, 5]]
    expected = [[0.5, 0.5]] * 2 + [[0.5, 0], [0, 0], [0, 0], [0.5, 0]]  # the second never moves: not above
    np.testing.assert_allclose(weights_of(MovingAverage(2, 3), close), expected)


def test_volatility_target_leaves_the_rest_in_cash_and_never_borrows() -> None:
    """Both move by ±1 % a day together: .01 · sqrt(252) = 15.87 % a year."""
    close = zigzag(0.01, 0.01)
    weights = weights_of(VolatilityTarget(0.10, 20), close)
    np.testing.assert_allclose(weights[:20], 0.5)
    np.testing.assert_allclose(weights[20:], 0.5 * 0.10 / (0.01 * np.sqrt(252)))
    np.testing.assert_allclose(weights_of(VolatilityTarget(0.20, 20), close), 0.5)


def test_opposite_moves_cancel_in_equal_weight_and_need_no_cash() -> None:
    close = np.concatenate([zigzag(0.01), zigzag(-0.01)], axis=1)
    np.testing.assert_allclose(weights_of(VolatilityTarget(0.10, 20), close), 0.5)


def test_days_are_as_many_bars_as_a_day_has() -> None:
    """Two days of 390 minutes."""
    close = zigzag(0.001, 0.003, bars=1000)
    weights = InverseVolatility(2).weights(tensors(price_panel(close, minutes=True)))
    np.testing.assert_allclose(weights[779], [0.5, 0.5])
    np.testing.assert_allclose(weights[780], [0.75, 0.25])


def test_the_oracle_follows_the_rule_of_the_built_in_market() -> None:
    panel = generate(SynthSource(bars=300, symbols=6))
    signal = panel.observed[SIGNAL].values
    market = market_of(panel)
    expected = np.concatenate([oracle_target(signal), np.zeros((300, 1))], axis=1)
    for rule in (Oracle(0), Oracle(signal)):
        np.testing.assert_allclose(wanted(rule, market), expected, atol=1e-12)
    np.testing.assert_allclose(Oracle(0, tilt=0.1).weights(market), oracle_target(signal, 0.1), atol=1e-12)
    with pytest.raises(AssertionError, match="another market"):
        Oracle(signal[1:]).weights(market)


def test_the_oracle_beats_equal_weight_after_costs_where_there_is_a_signal() -> None:
    edges = []
    for seed in range(4):
        market = market_of(generate(SynthSource(bars=1260, seed=seed)))
        oracle, standard = backtest([Oracle(0), EqualWeight()], market)
        edges.append(float(sharpe(oracle.returns) - sharpe(standard.returns)))
    assert min(edges) > 0
    assert np.mean(edges) > 0.7


@dataclass(frozen=True)
class Counted(WeightPath):
    """Counts how often it is worked out."""

    name: str = "counted"

    def weights(self, market: MarketTensors) -> np.ndarray:
        CALLS.append(self.name)
        return np.full((len(market), market.assets), 1 / market.assets)


CALLS: list[str] = []


def test_a_path_is_computed_once_per_market_and_does_not_keep_it_alive() -> None:
    CALLS.clear()
    market = tensors(random_panel(bars=30))
    for _ in range(3):
        wanted(Counted(), market)
    assert CALLS == ["counted"]
    other = market.to(dtype=torch.float32)
    assert wanted(Counted(), other).dtype == torch.float64  # joined with holdings in float64
    assert Counted().path(other).dtype == torch.float32
    assert len(CALLS) == 2
    gone = weakref.ref(market)
    del market
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("name", EVERY)
def test_a_policy_can_be_sent_to_another_process(name: str) -> None:
    market = market_of(wild_panel(1))
    before = wanted(EVERY[name], market)
    torch.testing.assert_close(wanted(pickle.loads(pickle.dumps(EVERY[name])), market), before)


@pytest.mark.parametrize(
    ("rule", "tree", "said"),
    [
        (Momentum, {"skip_days": 252}, "skip_days must be below window_days"),
        (MovingAverage, {"long_days": 20}, "short_days must be below long_days"),
        (VolatilityTarget, {"volatility": 0}, "volatility"),
        (InverseVolatility, {"window_days": 1}, "window_days"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(rule: type, tree: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        build(rule, tree)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_no_baseline_beats_equal_weight_on_forty_markets_without_signal() -> None:
    """Cash is left out: what does not move has no Sharpe ratio."""
    names = [name for name in BASELINES if name not in ("equal_weight", "cash")]
    policies = [EqualWeight(), *(BASELINES[name]() for name in names), Oracle(0)]
    edges = np.empty((40, len(names) + 1))
    for seed in range(len(edges)):
        panel = generate(SynthSource(ic=0.0, seed=seed))
        features = panel.observed[SIGNAL].values[:, :, None].astype(np.float32)
        standard, *others = backtest(policies, MarketTensors.build(panel, features=features), slice(-1261, None))
        edges[seed] = [float(sharpe(other.returns) - sharpe(standard.returns)) for other in others]
    mean, error = edges.mean(axis=0), edges.std(axis=0, ddof=1) / np.sqrt(len(edges))
    figures = {name: f"{m:+.3f} ± {e:.3f}" for name, m, e in zip([*names, "oracle"], mean, error)}
    assert (mean < 3 * error).all(), figures
