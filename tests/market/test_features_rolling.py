"""The kernels against loops that say plainly what they mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from market.features.rolling import (
    ewma,
    memory,
    ratio,
    rolling_count,
    rolling_deviation,
    rolling_max,
    rolling_mean,
    rolling_mean_std,
)

NUMBERS = st.floats(-1e3, 1e3, width=32)


@st.composite
def rows_and_window(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bars = draw(st.integers(1, 70))
    return draw(arrays(np.float64, (bars, 2), elements=NUMBERS)), draw(st.integers(1, bars))


def looped(x: np.ndarray, window: int, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.array([of(x[i : i + window]) for i in range(len(x) - window + 1)])


@given(rows_and_window())
def test_rolling_max_is_the_maximum_of_each_window(case):
    x, window = case
    np.testing.assert_array_equal(rolling_max(x, window), looped(x, window, lambda w: w.max(axis=0)))


@given(rows_and_window(), st.sampled_from([1.0, 0.97, 0.5]))
def test_rolling_mean_is_the_weighted_mean_of_each_window(case, decay):
    x, window = case
    weights = decay ** np.arange(window - 1, -1, -1.0)
    expected = looped(x, window, lambda w: np.average(w, axis=0, weights=weights))
    np.testing.assert_allclose(rolling_mean(x, window, decay), expected, rtol=1e-12, atol=1e-10)


@given(rows_and_window(), st.sampled_from([0.0, 1e6]))
def test_rolling_mean_and_std_are_those_of_each_window_at_any_level(case, level):
    x, window = case
    mean, std = rolling_mean_std(x + level, window)
    np.testing.assert_allclose(mean, looped(x + level, window, lambda w: w.mean(axis=0)), rtol=1e-13, atol=1e-10)
    np.testing.assert_allclose(std, looped(x + level, window, lambda w: w.std(axis=0)), rtol=1e-9, atol=1e-8)


@given(rows_and_window())
def test_rolling_deviation_is_the_mean_distance_from_the_mean(case):
    x, window = case
    mean = rolling_mean(x, window)
    expected = looped(x, window, lambda w: np.abs(w - w.mean(axis=0)).mean(axis=0))
    np.testing.assert_allclose(rolling_deviation(x, mean), expected, rtol=1e-9, atol=1e-9)


@given(rows_and_window())
def test_rolling_count_counts(case):
    x, window = case
    np.testing.assert_array_equal(rolling_count(x > 0, window), looped(x > 0, window, lambda w: w.sum(axis=0)))


@given(st.floats(1e-6, 1e6), st.integers(1, 60), st.sampled_from([1.0, 0.9]))
def test_a_constant_has_exactly_its_own_mean_and_no_deviation(value, window, decay):
    x = np.full((90, 1), value)
    mean, std = rolling_mean_std(x, window)
    assert (mean == value).all() and (std == 0.0).all()
    assert (rolling_mean(x, window, decay) == value).all()


def test_nothing_drifts_over_a_hundred_thousand_bars():
    x = np.random.default_rng(0).lognormal(0, 8, (100_000, 1))
    x[-40:] = 1.0 + np.arange(40.0)[:, None]
    for window in (20, 40):
        recent = x[-window:]
        mean, std = rolling_mean_std(x, window)
        np.testing.assert_allclose(mean[-1], recent.mean(), rtol=1e-15)
        np.testing.assert_allclose(std[-1], recent.std(), rtol=1e-14)
        np.testing.assert_array_equal(rolling_mean(x, window)[-1], rolling_mean(recent, window)[-1])


def test_kernels_leave_their_input_alone():
    x = np.random.default_rng(1).standard_normal((50, 3))
    before = x.copy()
    for window in (1, 7, 8):
        rolling_max(x, window), rolling_mean(x, window, 0.9), rolling_mean_std(x, window), rolling_count(x > 0, window)
    np.testing.assert_array_equal(x, before)


@given(st.floats(0.001, 1.0))
def test_what_an_exponential_average_forgets_weighs_at_most_e_to_the_minus_9(alpha):
    assert (1.0 - alpha) ** memory(alpha) <= np.exp(-9.0)


def test_ewma_follows_the_recursion_after_a_jump():
    x = np.r_[np.zeros(60), np.ones(60)][:, None]  # alpha 0.5: 1/2, 3/4, 7/8, ...
    average = ewma(x, 0.5)[60 - memory(0.5) + 1 :, 0]
    np.testing.assert_allclose(average[:4], [1 / 2, 3 / 4, 7 / 8, 15 / 16], rtol=1e-9)


def test_ratio_is_zero_where_there_is_nothing_to_divide_by():
    above, below = np.array([1.0, 1.0, 0.0, -6.0]), np.array([0.0, 1e-7, 0.0, 3.0])
    np.testing.assert_array_equal(ratio(above, below, 1e-6), [0.0, 0.0, 0.0, -2.0])
