"""Known answers of the papers, each to its last printed digit, and what must hold for any figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kurtosis, norm, skew

from kit.metrics import sharpe
from tournament.statistics.sharpe import (
    annual_factor,
    deflated_sharpe,
    effective_trials,
    expected_maximum,
    minimum_backtest_years,
    minimum_track_record,
    probabilistic_sharpe,
    shape,
)

PAPER = {"sharpe": 2.5 / np.sqrt(250), "periods": 1250, "skew": -3.0, "kurtosis": 10.0, "variance": 0.5 / 250}


def test_probabilistic_sharpe_of_the_paper():
    assert probabilistic_sharpe(0.458, 24) == pytest.approx(0.98167, abs=5e-6)
    assert probabilistic_sharpe(0.458, 24, skew=-2.448, kurtosis=10.164) == pytest.approx(0.91336, abs=5e-6)


@pytest.mark.parametrize(("periods", "days"), [(252, 688.208), (52, 147.099), (12, 38.878)])
def test_minimum_track_record_of_the_paper(periods, days):
    assert minimum_track_record(2 / np.sqrt(periods), 1 / np.sqrt(periods)) == pytest.approx(days, abs=5e-4)


def test_minimum_track_record_of_the_paper_with_tails():
    months = minimum_track_record(2 / np.sqrt(12), 1 / np.sqrt(12), skew=-0.72, kurtosis=5.78)
    assert months == pytest.approx(59.895, abs=5e-4)


@pytest.mark.parametrize(("trials", "luck", "probability"), [(100, 0.113172, 0.900397), (46, 0.100362, 0.950502)])
def test_deflated_sharpe_of_the_paper(trials, luck, probability):
    assert np.sqrt(PAPER["variance"]) * expected_maximum(trials) == pytest.approx(luck, abs=5e-7)
    assert deflated_sharpe(**PAPER, trials=trials) == pytest.approx(probability, abs=5e-7)


def test_what_is_not_told_is_a_normal_series_one_try_and_nothing_to_beat():
    ratio, days = 0.1, 500
    assert deflated_sharpe(ratio, days) == probabilistic_sharpe(ratio, days, 0.0, 3.0, 0.0)
    assert minimum_track_record(ratio) == minimum_track_record(ratio, 0.0, 0.0, 3.0, 0.95)
    assert minimum_backtest_years(45) == minimum_backtest_years(45, 1.0)


def test_minimum_backtest_of_the_paper():
    assert minimum_backtest_years(45, target=1.0) == pytest.approx(4.9981, abs=5e-5)
    assert minimum_backtest_years(45, target=2.0) == pytest.approx(4.9981 / 4, abs=5e-5)


@pytest.mark.parametrize(("correlation", "factor"), [(-0.2, 4.1708), (0.0, 3.4641), (0.2, 2.8788), (0.5, 2.1213)])
def test_annual_factor_of_the_paper(correlation, factor):
    assert annual_factor(12, correlation ** np.arange(1, 12)) == pytest.approx(factor, abs=5e-5)


def test_a_year_of_full_or_more_than_full_reversal_has_no_factor():
    # two periods: variance 2 + 2 * rho; three: 3 + 4 * rho
    assert annual_factor(2, [-0.75]) == pytest.approx(2 / np.sqrt(0.5))
    assert np.isnan(annual_factor(2, [-1.0]))
    assert np.isnan(annual_factor(3, [-0.8]))


def test_without_autocorrelation_a_year_is_the_root_of_its_periods():
    assert annual_factor(252) == pytest.approx(np.sqrt(252))


def test_annual_factor_refuses_lags_that_do_not_fit():
    with pytest.raises(ValueError, match="only 2 lags fit into 3 periods"):
        annual_factor(3, [0.1, 0.1, 0.1])


def test_annual_factor_is_the_variance_of_a_sum():
    # moving average of two: the variance of three of them in a row, worked by hand
    # x_t = e_t + e_(t-1): variance 2, lag-1 correlation .5; sum of 3 = e + 2e + 2e + e, variance 10 = 2 * (3 + 4 * .5)
    assert annual_factor(3, [0.5]) == pytest.approx(3 / np.sqrt(5))


def test_a_single_trial_is_not_deflated():
    alone = deflated_sharpe(0.1, 500, -1.0, 6.0, trials=1)
    assert alone == probabilistic_sharpe(0.1, 500, -1.0, 6.0)
    assert deflated_sharpe(0.1, 500, -1.0, 6.0, trials=1, variance=9.0) == alone


@given(st.floats(1, 2), st.floats(0, 1))
def test_more_trials_never_expect_a_lower_maximum(trials, more):
    assert 0 <= expected_maximum(trials) <= expected_maximum(trials + more)


def test_expected_maximum_is_near_that_of_real_draws():
    draws = np.random.default_rng(0).standard_normal((10_000, 64)).max(axis=1)
    assert expected_maximum(64) == pytest.approx(draws.mean(), abs=0.03)


def test_without_a_variance_luck_has_that_of_a_worthless_sharpe():
    draws = np.random.default_rng(1).standard_normal((250, 10_000))
    assert np.var(sharpe(draws, periods=1)) == pytest.approx(1 / 250, rel=0.03)
    assert deflated_sharpe(0.1, 250, trials=50) == deflated_sharpe(0.1, 250, trials=50, variance=1 / 250)


def test_a_sharpe_at_what_luck_expects_is_even_odds():
    assert deflated_sharpe(expected_maximum(30) / np.sqrt(900), 900, trials=30) == pytest.approx(0.5)


@given(st.floats(0.02, 0.5), st.floats(-1, 1), st.floats(3, 12), st.floats(0.55, 0.999))
def test_minimum_track_record_is_where_the_probability_reaches_the_level(ratio, third, fourth, level):
    periods = minimum_track_record(ratio, 0.01, third, fourth, level)
    assert probabilistic_sharpe(ratio, periods, third, fourth, 0.01) == pytest.approx(level)


def test_no_track_record_is_long_enough_below_the_threshold():
    assert minimum_track_record(0.1, 0.1) == np.inf


def test_probabilities_of_many_candidates_are_those_of_each():
    ratios, thirds = np.array([0.0, 0.05, 0.1]), np.array([-1.0, 0.0, 0.5])
    together = deflated_sharpe(ratios, 500, thirds, 5.0, trials=3)
    assert together.tolist() == [float(deflated_sharpe(r, 500, g, 5.0, trials=3)) for r, g in zip(ratios, thirds)]


def test_probability_holds_on_real_draws():
    # the share of samples whose PSR(0) is below .05 when the true Sharpe ratio is 0
    draws = np.random.default_rng(2).standard_t(5, (500, 5000))
    thirds, fourths = shape(draws)
    share = np.mean(probabilistic_sharpe(sharpe(draws, periods=1), 500, thirds, fourths) > 0.95)
    assert share == pytest.approx(0.05, abs=0.01)


def test_shape_agrees_with_scipy_and_a_constant_is_normal():
    draws = np.random.default_rng(3).standard_t(4, (300, 3))
    thirds, fourths = shape(draws)
    np.testing.assert_allclose(thirds, skew(draws))
    np.testing.assert_allclose(fourths, kurtosis(draws, fisher=False))
    for constant in (0.01, 0.0):  # the first deviates by rounding, the second not at all
        third, fourth = shape(np.full(10, constant))
        assert (float(third), float(fourth)) == (0.0, 3.0)


def test_a_constant_series_has_no_sharpe():
    assert np.isnan(sharpe(np.full(100, 0.001), periods=1))


def test_effective_trials_by_hand():
    same = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    apart = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    assert effective_trials(np.hstack([same, same])) == pytest.approx(1.0)
    assert effective_trials(np.hstack([same, apart])) == pytest.approx(2.0)
    # correlations 1, 0, 0: mean 1/3, so 1/3 + 2/3 * 3
    assert effective_trials(np.hstack([same, 2 * same, apart])) == pytest.approx(1 / 3 + 2)
    assert effective_trials(np.hstack([same, -same])) == 2.0  # opposites are not fewer than two


def test_effective_trials_count_what_was_tried_beside_the_columns():
    same = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    apart = np.array([[1.0], [1.0], [-1.0], [-1.0]])
    both = np.hstack([same, same, apart])
    assert effective_trials(both, trials=30) == pytest.approx(1 / 3 + 2 / 3 * 30)
    assert effective_trials(np.hstack([same, np.zeros((4, 1))]), trials=30) == 30.0  # nothing to correlate


def test_the_deflated_bar_is_close_to_the_true_maximum_of_correlated_trials():
    generator = np.random.default_rng(4)
    draws = np.sqrt(0.3) * generator.standard_normal((20_000, 1)) + np.sqrt(0.7) * generator.standard_normal(
        (20_000, 64)
    )
    bar = expected_maximum(effective_trials(draws))
    assert draws.max(axis=1).mean() < bar < expected_maximum(64)  # careful, yet lower than for independent ones


def test_probability_is_that_of_a_normal():
    ratio, days = 0.07, 400
    assert probabilistic_sharpe(ratio, days) == pytest.approx(
        norm.cdf(ratio * np.sqrt(days - 1) / np.sqrt(1 + ratio**2 / 2))
    )
