"""The bootstrap: its days, its exact sums, and the bounds that rank and eliminate candidates."""

from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap
from hypothesis import given
from hypothesis import strategies as st

from kit.metrics import sharpe
from tournament.statistics.bootstrap import day_counts, edge_bound, sharpes, sums

DAYS = 250
COUNTS = day_counts(DAYS, resamples=400)


def arena(seed, days=DAYS, candidates=6):
    generator = np.random.default_rng(seed)
    benchmark = generator.standard_t(5, days) * 0.01
    return benchmark[:, None] + generator.standard_t(5, (days, candidates)) * 0.004, benchmark


def drawn_days(counts):
    return [np.repeat(np.arange(len(row)), row.astype(int)) for row in counts]


def test_every_resample_draws_as_many_days_as_there_are_and_the_first_is_the_sample():
    assert (COUNTS.sum(axis=1) == DAYS).all()
    assert (COUNTS[0] == 1).all()
    assert (COUNTS[1:].std(axis=1) > 0).all()


def test_every_day_is_drawn_equally_often():
    # a day's count has variance about 1 (independent blocks): 4,000 resamples put its mean within .06 of 1
    means = day_counts(60, resamples=4000)[1:].mean(axis=0)
    np.testing.assert_allclose(means, 1.0, atol=0.1)


@pytest.mark.parametrize("block", [1, 5, 10])
def test_error_of_a_mean_is_that_of_the_reference_bootstrap(block):
    series = np.convolve(np.random.default_rng(0).standard_normal(DAYS + 4), np.ones(5), "valid")
    theirs = [position[0].mean() for position, _ in StationaryBootstrap(block, series, seed=1).bootstrap(4000)]
    ours = sums(series[:, None], day_counts(DAYS, 4000, block))[1:, 0] / DAYS
    assert ours.std() == pytest.approx(np.std(theirs), rel=0.06)
    assert ours.mean() == pytest.approx(np.mean(theirs), abs=4 * ours.std() / np.sqrt(4000) * np.sqrt(2))


def test_a_block_lasts_as_long_as_asked_for_and_goes_around_the_end():
    # covariance of the counts of two days that lie k apart: the kernel of Politis and Romano, less the sum of that
    # kernel spread over all days (2 * 8 - 1 of 400), because the counts of a resample add up to 400
    counts = day_counts(400, resamples=5000, block=8)[1:]
    for lag in (1, 4, 12):
        together = np.mean((counts - 1) * (np.roll(counts, lag, axis=1) - 1))
        assert together == pytest.approx((7 / 8) ** lag - 15 / 400, abs=0.02)


def test_a_resample_walks_on_from_day_to_day_until_a_block_begins():
    generator = np.random.default_rng(3)
    begins, starts = generator.random((20, 30)) * 5 < 1, generator.integers(30, size=(20, 30))
    for row, fresh, start in zip(day_counts(30, 20, 5, seed=3)[1:], begins, starts):
        walked, day = np.zeros(30), -1
        for step in range(30):
            day = start[step] if step == 0 or fresh[step] else (day + 1) % 30
            walked[day] += 1
        assert np.array_equal(row, walked)


def test_what_is_not_told_is_two_thousand_resamples_in_blocks_of_ten():
    np.testing.assert_array_equal(day_counts(40), day_counts(40, 2000, 10, seed=0))


def test_one_seed_gives_one_answer_and_nobody_can_change_it():
    fresh = day_counts.__wrapped__
    np.testing.assert_array_equal(fresh(100, 50), fresh(100, 50))
    assert not np.array_equal(fresh(100, 50), fresh(100, 50, seed=1))
    with pytest.raises(ValueError, match="read-only"):
        COUNTS[0, 0] = 2


def test_sums_by_hand():
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    values = np.array([[0.5, 1.0], [0.25, -2.0], [0.0, 4.0]])
    assert sums(values, counts).tolist() == [[0.75, 3.0], [0.75, -6.0]]


@given(st.integers(0, 10_000), st.floats(1e-9, 1e9), st.integers(2, 300))
def test_sums_are_exact_in_any_order(seed, scale, days):
    generator = np.random.default_rng(seed)
    values = generator.standard_t(2, (days, 3)) * scale
    counts = generator.integers(0, 3, (5, days)).astype(float)
    counts[:, 0] += days - counts.sum(axis=1)
    order = generator.permutation(days)
    assert np.array_equal(sums(values, np.abs(counts)), sums(values[order], np.abs(counts[:, order])))
    np.testing.assert_allclose(sums(values, counts), counts @ values, atol=1e-9 * days * np.abs(values).max())


@pytest.mark.parametrize(("days", "bits"), [(256, 45), (257, 44), (512, 44)])
def test_values_have_as_many_bits_as_leave_room_for_their_sum(days, bits):
    values = 1 - np.random.default_rng(9).random((days, 2)) * 2.0**-20  # all as large as the largest
    whole = np.rint(values * 2.0**bits).astype(int).sum(axis=0)
    assert 2**51 < whole.max() < 2**53
    assert sums(values, np.ones((1, days)))[0].tolist() == (whole / 2.0**bits).tolist()


def test_a_loss_sets_the_grid_as_a_gain_does():
    values = np.full((DAYS, 1), 1e-9)
    values[3] = -1.0
    assert np.array_equal(sums(-values, COUNTS), -sums(values, COUNTS))


def test_sums_of_nothing_and_of_next_to_nothing():
    assert (sums(np.zeros((DAYS, 2)), COUNTS) == 0).all()
    assert np.isfinite(sums(np.full((DAYS, 1), 5e-324), COUNTS)).all()


def test_sharpes_are_those_of_the_days_drawn():
    returns, _ = arena(1)
    expected = np.array([sharpe(returns[days], periods=1) for days in drawn_days(COUNTS[:40])])
    np.testing.assert_allclose(sharpes(returns, COUNTS[:40]), expected, rtol=1e-7, atol=1e-9)


def test_small_moves_around_a_large_mean_and_beside_large_moves_are_seen():
    small = 0.01 + 3e-8 * np.random.default_rng(11).standard_normal((DAYS, 1))
    returns = np.hstack([small, arena(12)[0]])
    expected = np.array([sharpe(small[days], periods=1) for days in drawn_days(COUNTS[:20])])
    np.testing.assert_allclose(sharpes(returns, COUNTS[:20])[:, :1], expected, rtol=1e-6)


def test_what_differs_by_rounding_alone_is_constant():
    returns = np.full((DAYS, 1), 0.01)
    returns[::2] = np.nextafter(0.01, 1)
    assert np.isnan(sharpes(returns, COUNTS)).all()


@pytest.mark.parametrize("constant", [0.0, 0.01, -1 / 3])
def test_a_constant_has_no_sharpe_in_any_resample(constant):
    assert np.isnan(sharpes(np.full((DAYS, 1), constant), COUNTS)).all()


def test_a_bound_is_the_quantile_of_the_differences():
    returns, benchmark = arena(2)
    differences = [(sharpe(returns[days]) - sharpe(benchmark[days])) for days in drawn_days(COUNTS[1:])]
    expected = np.quantile(differences, 0.2, axis=0)
    np.testing.assert_allclose(edge_bound(returns, benchmark, COUNTS, 0.2), expected, rtol=1e-7, atol=1e-8)


@given(st.integers(0, 10_000), st.permutations(range(6)), st.integers(1, 6))
def test_a_score_does_not_know_who_else_is_scored(seed, order, kept):
    returns, benchmark = arena(seed)
    everyone = edge_bound(returns, benchmark, COUNTS, 0.2)
    assert np.array_equal(edge_bound(returns[:, list(order)], benchmark, COUNTS, 0.2), everyone[list(order)])
    few = list(order)[:kept]
    assert np.array_equal(edge_bound(returns[:, few], benchmark, COUNTS, 0.2), everyone[few])


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_a_score_does_not_know_leverage(seed, scale):
    returns, benchmark = arena(seed)
    plain = edge_bound(returns, benchmark, COUNTS, 0.2)
    np.testing.assert_allclose(edge_bound(scale * returns, benchmark, COUNTS, 0.2), plain, rtol=1e-6, atol=1e-8)


def test_bounds_are_in_order_and_around_the_difference():
    returns, benchmark = arena(3)
    edge = sharpe(returns) - sharpe(benchmark)
    low, high = (edge_bound(returns, benchmark, COUNTS, level) for level in (0.2, 0.8))
    assert (low < edge).all()
    assert (edge < high).all()


def test_equal_weight_has_a_score_of_zero_and_nobody_is_behind_himself():
    _, benchmark = arena(4)
    assert edge_bound(benchmark[:, None], benchmark, COUNTS, 0.2).tolist() == [0.0]
    assert edge_bound(benchmark[:, None], benchmark, COUNTS, 0.8).tolist() == [0.0]


def test_a_paired_bound_sees_what_a_lone_one_cannot():
    # two candidates that share their days: the same small lag every day is certain, whatever the market did
    leader, _ = arena(5, candidates=1)
    behind = leader - 0.0003 + 0.0001 * np.random.default_rng(6).standard_normal((DAYS, 1))
    assert edge_bound(behind, leader[:, 0], COUNTS, 0.8) < 0
    apart = np.roll(behind, 100, axis=0)  # the same series on other days says nothing
    assert edge_bound(apart, leader[:, 0], COUNTS, 0.8) > 0


@pytest.mark.parametrize("once", [0.01, -0.01])
@pytest.mark.parametrize("interest", [0.0001, 0.0003])
def test_a_series_that_hardly_moves_cannot_be_scored(interest, once):
    returns, benchmark = arena(7, candidates=2)
    returns[:, 0] = interest
    returns[5, 0] = once  # in a third of the resamples this day is not drawn
    drawn = COUNTS[:, 5] > 0
    assert np.array_equal(np.isfinite(sharpes(returns[:, :1], COUNTS)[:, 0]), drawn)
    bounds = edge_bound(returns, benchmark, COUNTS, 0.2)
    assert np.isnan(bounds[0])
    assert np.isfinite(bounds[1])


def test_the_lower_bound_is_below_the_truth_four_times_in_five():
    # 400 samples of 250 days in which the true difference is 0
    counts, generator = day_counts(DAYS, 500), np.random.default_rng(8)
    benchmark = generator.standard_t(6, DAYS * 400).reshape(DAYS, 400) * 0.01
    returns = benchmark + generator.standard_t(6, (DAYS, 400)) * 0.005
    returns -= returns.mean() - benchmark.mean() * returns.std() / benchmark.std()  # equal ratios over all samples
    below = [edge_bound(returns[:, [k]], benchmark[:, k], counts, 0.2)[0] < 0 for k in range(400)]
    assert np.mean(below) == pytest.approx(0.8, abs=0.06)
