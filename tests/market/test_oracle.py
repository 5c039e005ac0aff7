"""The oracle earns what the law of the built-in market allows, and its arithmetic is right."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kit import metrics
from kit.errors import UserError
from market import process
from market.oracle import (
    OracleRule,
    analyse,
    follow,
    measure_signal,
    oracle_target,
    sharpe_difference_error,
    simplex_projection,
)
from market.synth import SIGNAL, SynthSource, generate

SEEDS = range(16)  # all of them, stated before anything was measured
ICS = (0.08, 0.04, 0.0)
VECTORS = arrays(np.float64, st.integers(2, 8), elements=st.floats(-5, 5, width=32))


@pytest.fixture(scope="module")
def markets():
    """Returns and signals known before them, [T - 1, ic, seed, A]."""
    panels = [[generate(SynthSource(ic=ic, seed=seed)) for seed in SEEDS] for ic in ICS]
    closes = np.stack([[p.close for p in row] for row in panels])
    signals = np.stack([[p.observed[SIGNAL].values for p in row] for row in panels])
    returns = closes[:, :, 1:] / closes[:, :, :-1] - 1
    return np.moveaxis(returns, 2, 0), np.moveaxis(signals[:, :, :-1], 2, 0)


@pytest.fixture(scope="module")
def earned(markets):
    """Net returns at 5 bp by lag, [T - 1, ic, seed, equal weight or oracle]."""
    returns, signals = markets
    targets = np.stack([np.full_like(signals, 0.1), oracle_target(signals)], axis=-2)
    return [follow(returns[..., None, :], targets, 0.4, 5.0, lag) for lag in (0, 1)]


def is_near(values, stated, stated_error=0.0):
    """The mean over seeds is the stated figure, within three standard errors of both."""
    error = np.hypot(np.std(values, ddof=1) / np.sqrt(len(values)), stated_error)
    assert abs(np.mean(values) - stated) < 3 * error, f"{np.mean(values):.3f} ± {error:.3f}, stated {stated}"


@pytest.mark.parametrize(("ic", "stated"), [(0.08, 1.71), (0.04, 1.00), (0.0, 0.29)])
def test_the_tradable_oracle_earns_the_stated_sharpe(earned, ic, stated):
    sharpe = metrics.sharpe(earned[0])[ICS.index(ic), :, 1]
    is_near(sharpe, stated, sharpe.std(ddof=1) / 4)  # the stated figure is a mean of 16 paths too


@pytest.mark.parametrize(("ic", "stated"), [(0.08, 0.46), (0.0, 0.45)])
def test_equal_weight_earns_the_stated_sharpe(earned, ic, stated):
    sharpe = metrics.sharpe(earned[0])[ICS.index(ic), :, 0]
    is_near(sharpe, stated, sharpe.std(ddof=1) / 4)


@pytest.mark.parametrize(("lag", "stated"), [(0, 1.15), (1, 1.07)])
def test_the_edge_over_the_last_five_years_is_the_stated_one(earned, lag, stated):
    sharpe = metrics.sharpe(earned[lag][-1260:])[0]
    is_near(sharpe[:, 1] - sharpe[:, 0], stated, 0.29 / np.sqrt(12))


def test_without_signal_the_oracle_does_not_beat_equal_weight(earned):
    for net in earned:
        sharpe = metrics.sharpe(net)[ICS.index(0.0)]
        edge = sharpe[:, 1] - sharpe[:, 0]
        assert edge.mean() + 2 * edge.std(ddof=1) / 4 < 0, "what it trades costs, and what it skips diversifies"


def test_a_later_fill_earns_less(earned):
    at_once, later = (metrics.sharpe(net)[0, :, 1] for net in earned)
    gain = at_once - later
    assert gain.mean() > 2 * gain.std(ddof=1) / 4


@pytest.mark.parametrize("ic", ICS)
def test_the_measured_ic_is_the_true_one(markets, ic):
    returns, signals = (x[:, ICS.index(ic)] for x in markets)
    found = [measure_signal(returns[:, k], signals[:, k]) for k in range(len(SEEDS))]
    values = np.array([strength.ic for strength in found])
    is_near(values, ic)
    spread, stated = values.std(ddof=1), np.mean([strength.ic_error for strength in found])
    assert 0.6 < spread / stated < 1.5, "the standard error is that of the spread over seeds"


def covariance_of(traits):
    sector = np.arange(10) % 3
    market, own = np.outer(traits.beta, traits.beta) * process.MARKET**2, np.diag(traits.own**2) * 252
    return (market + process.SECTOR**2 * (sector[:, None] == sector) + own) / 252


def test_the_measured_breadth_is_the_true_one(markets):
    returns, signals = (x[:, 0] for x in markets)
    for k, seed in enumerate(SEEDS):
        traits = process.draw_traits(process.Streams(seed), 10, 252)
        true = traits.own**2 @ np.diag(np.linalg.inv(covariance_of(traits)))
        assert measure_signal(returns[:, k], signals[:, k]).breadth == pytest.approx(true, rel=0.05)


def test_the_optimum_on_paper_is_reached_by_the_optimal_weights(markets):
    """Knowing the law, hedged weights without costs earn ic * sqrt(breadth * 252)."""
    returns, signals = (x[:, 0] for x in markets)
    differences = []
    for k, seed in enumerate(SEEDS):
        streams = process.Streams(seed)
        traits = process.draw_traits(streams, 10, 252)
        v = process.draw_volatility(streams, 5040)[0][1:, None]
        inverse = np.linalg.inv(covariance_of(traits))
        weights = (0.08 * traits.own * signals[:, k]) @ inverse / v
        stated = 0.08 * np.sqrt(252 * traits.own**2 @ np.diag(inverse))
        differences.append(metrics.sharpe((weights * returns[:, k]).sum(axis=1)) - stated)
    is_near(differences, 0.0)


def test_projection_by_hand():
    assert simplex_projection(np.array([0.3, 0.7])).tolist() == [0.3, 0.7]
    assert simplex_projection(np.array([2.0, 0.0])).tolist() == [1.0, 0.0]
    assert simplex_projection(np.array([0.8, 0.6, -1.0])) == pytest.approx([0.6, 0.4, 0.0])


@given(VECTORS, st.integers(0, 2**32))
def test_projection_is_the_nearest_point_of_the_simplex(x, seed):
    weights = simplex_projection(x)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1)
    others = np.random.default_rng(seed).dirichlet(np.full(len(x), 0.5), 50)
    others = np.concatenate([others, np.eye(len(x))])
    # the angle between x - weights and every way into the simplex is not acute
    assert ((others - weights) @ (x - weights) <= 1e-9).all()


def test_projection_works_on_the_last_axis_of_any_shape():
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    assert (simplex_projection(x)[1, 2] == simplex_projection(x[1, 2])).all()


def test_the_target_leans_to_the_signal_and_no_signal_is_equal_weight():
    assert oracle_target(np.zeros(4)).tolist() == [0.25] * 4
    assert oracle_target(np.array([0.5, -0.5]), tilt=0.4) == pytest.approx([0.7, 0.3])


def test_following_a_target_by_hand():
    returns = np.array([[0.10, 0.00], [0.00, 0.20]])
    targets = np.array([[0.75, 0.25], [0.5, 0.5]])
    net = follow(returns, targets, rate=0.8, cost_bp=100, lag=0)
    # from .5/.5, 80 % of the way to .75/.25: .7/.3, .4 traded at 1 %
    assert net[0] == pytest.approx(0.996 * (0.7 * 1.1 + 0.3) - 1)
    drifted = 0.77 / 1.07
    bought = 0.8 * (0.5 - drifted)
    held = drifted + bought
    assert net[1] == pytest.approx((1 - 0.01 * 2 * abs(bought)) * (held + (1 - held) * 1.2) - 1)


def test_a_lag_trades_the_target_of_the_close_before():
    returns = np.array([[0.0, 0.0], [0.1, 0.0]])
    targets = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert follow(returns, targets, rate=1, cost_bp=0, lag=1) == pytest.approx([0.0, 0.1])


def test_nothing_earned_depends_on_what_comes_later():
    rng = np.random.default_rng(1)
    returns, signal = 0.02 * rng.standard_normal((60, 5)), rng.standard_normal((60, 5))
    for lag in (0, 1):
        before = follow(returns, oracle_target(signal), 0.4, 5.0, lag)
        for t in (1, 30, 59):
            other_returns, other_signal = returns.copy(), signal.copy()
            other_returns[t:] += 0.01
            other_signal[t:] = rng.standard_normal((60 - t, 5))
            after = follow(other_returns, oracle_target(other_signal), 0.4, 5.0, lag)
            assert (after[:t] == before[:t]).all()
            assert after[t] != before[t]


def test_the_error_of_a_sharpe_difference_is_its_spread():
    rng = np.random.default_rng(2)
    common, own = rng.standard_normal((2000, 250)), rng.standard_normal((2, 2000, 250))
    a, b = 0.1 + common + 0.5 * own[0], 0.05 + common + 0.5 * own[1]
    spread = (metrics.sharpe(a.T) - metrics.sharpe(b.T)).std()
    stated = np.mean([sharpe_difference_error(x, y, 252) for x, y in zip(a[:200], b[:200], strict=True)])
    assert stated == pytest.approx(spread, rel=0.1)


def test_the_report_says_what_was_measured():
    panel = generate(SynthSource())
    report = analyse(panel, OracleRule(last=1000))
    assert [(span.bars, span.fill) for span in report.spans] == [
        (5039, "observed close"),
        (1000, "observed close"),
        (5039, "one bar later"),
        (1000, "one bar later"),
    ]
    returns, signal = panel.close[1:] / panel.close[:-1] - 1, panel.observed[SIGNAL].values
    oracle = metrics.sharpe(follow(returns, oracle_target(signal)[:-1], 0.4, 5.0, 0)[-1000:])
    assert report.spans[1].oracle == pytest.approx(oracle)
    assert report.spans[1].edge == report.spans[1].oracle - report.spans[1].equal_weight
    assert report.spans[1].share == report.spans[1].oracle / report.optimum
    text = "\n".join(report.lines())
    assert f"ic {report.signal.ic:.4f} ± {report.signal.ic_error:.4f}" in text
    assert f"{report.spans[1].edge:+.2f} ± {report.spans[1].edge_error:.2f}" in text
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["spans"][0]["bars"] == 5039


def test_costs_lower_what_the_oracle_earns():
    panel = generate(SynthSource(bars=1000))
    free, dear = (analyse(panel, OracleRule(cost_bp=cost)).spans[0].oracle for cost in (0, 20))
    assert free > dear


def test_more_symbols_than_bars_can_be_measured():
    report = analyse(generate(SynthSource(bars=64, symbols=100)))
    assert np.isfinite([report.signal.ic, report.signal.ic_error, report.optimum]).all()
    assert 0 < report.signal.breadth <= 100


def test_unusable_panels_are_refused_with_the_reason():
    panel = generate(SynthSource(bars=100, symbols=2))
    with pytest.raises(UserError, match=r"bars.csv: has no column 'signal'.* are open, high, low, close, volume, news"):
        analyse(replace(panel, observed={"news": panel.observed[SIGNAL]}), origin="bars.csv")
    with pytest.raises(UserError, match=r"bars.csv: holds 50 bars; the oracle needs at least 64"):
        analyse(panel[:50], origin="bars.csv")
    tradable = panel.tradable.copy()
    tradable[7, 1] = False
    with pytest.raises(UserError, match=r"bars.csv: SYN01 has no bar or no signal at 2000-01-12T00:00"):
        analyse(replace(panel, tradable=tradable), origin="bars.csv")
    flat = panel.close.copy()
    flat[:, 0] = 5.0
    with pytest.raises(UserError, match=r"bars.csv: the close of SYN00 never moves"):
        analyse(replace(panel, close=flat), origin="bars.csv")
