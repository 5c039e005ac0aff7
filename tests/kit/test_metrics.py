import warnings

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import metrics

RETURNS = np.random.default_rng(0).standard_t(4, 1500) * 0.01 + 0.0004


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.sharpe, empyrical.sharpe_ratio),
        (metrics.sortino, empyrical.sortino_ratio),
        (metrics.volatility, empyrical.annual_volatility),
        (metrics.cagr, empyrical.cagr),
        (metrics.max_drawdown, empyrical.max_drawdown),
        (metrics.calmar, empyrical.calmar_ratio),
        (metrics.tail_ratio, empyrical.tail_ratio),
        (metrics.value_at_risk, empyrical.value_at_risk),
    ],
)
def test_agrees_with_empyrical(ours, theirs):
    assert float(ours(RETURNS)) == pytest.approx(float(theirs(RETURNS)), rel=1e-9)


def test_sharpe_by_hand():
    # mean .01, deviations (.01, -.01, 0): ddof-1 std .01; 1 * sqrt(252)
    assert metrics.sharpe(np.array([0.02, 0.0, 0.01])) == pytest.approx(np.sqrt(252))


def test_sortino_by_hand():
    # mean .01 over sqrt((0 + .01**2 + 0 + 0) / 4) = .005
    assert metrics.sortino(np.array([0.02, -0.01, 0.03, 0.0]), periods=1) == pytest.approx(0.01 / 0.005)


def test_drawdown_counts_the_first_day():
    assert metrics.max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(-0.1)
    assert metrics.drawdown(np.array([0.1, -0.5])).tolist() == pytest.approx([0.0, 0.0, -0.5])


def test_cagr_by_hand():
    assert metrics.cagr(np.array([0.1, 0.1]), periods=2) == pytest.approx(0.21)


def test_win_rate_counts_days_at_zero():
    assert metrics.win_rate(np.array([0.1, 0.0, -0.1, 0.2])) == 0.5


def test_expected_shortfall_by_hand():
    returns = np.arange(1, 41) / 1000.0  # the worst 5 % of 40 are two
    assert metrics.expected_shortfall(returns) == pytest.approx(0.0015)


def test_turnover_by_hand():
    weights = np.array([[0.5, 0.5], [0.2, 0.8], [0.2, 0.8]])
    assert metrics.turnover(weights).tolist() == pytest.approx([0.6, 0.0])


@pytest.mark.parametrize("value", [0.0, 0.001, -0.02])
def test_sharpe_of_a_constant_series_is_not_a_number(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.sharpe(np.full(100, value)))


def test_one_return_has_no_sharpe():
    assert np.isnan(metrics.sharpe(np.array([0.1])))


def test_many_series_at_once_equal_one_by_one():
    both = np.stack([RETURNS, -RETURNS], axis=1)
    for name in ("sharpe", "sortino", "cagr", "max_drawdown", "calmar", "win_rate", "expected_shortfall"):
        metric = getattr(metrics, name)
        assert metric(both).tolist() == pytest.approx([float(metric(RETURNS)), float(metric(-RETURNS))])


def test_ruin_is_a_growth_rate_of_minus_one():
    assert metrics.cagr(np.array([0.1, -1.0, 0.2])) == -1.0
    assert metrics.max_drawdown(np.array([0.1, -1.0, 0.2])) == -1.0


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60), st.floats(0.1, 10))
def test_sharpe_does_not_care_for_leverage(values, leverage):
    returns = np.array(values)
    a, b = metrics.sharpe(returns), metrics.sharpe(returns * leverage)
    if np.std(returns, ddof=1) > 1e-9:
        assert a == pytest.approx(b, rel=1e-6, abs=1e-9)


def test_summary_names_plain_numbers():
    summary = metrics.summary(RETURNS)
    assert summary["sharpe"] == pytest.approx(float(metrics.sharpe(RETURNS)))
    assert all(type(value) is float for value in summary.values())
