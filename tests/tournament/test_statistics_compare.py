"""Scaled excess, SPA, StepM and the test of two Sharpe ratios: by hand, against references, and their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import SPA, StationaryBootstrap
from hypothesis import given
from hypothesis import strategies as st

from kit.metrics import sharpe
from tournament.statistics.bootstrap import day_counts
from tournament.statistics.compare import scaled_excess, sharpe_difference, step_down, superior_ability

DAYS = 300
COUNTS, FEW_COUNTS = day_counts(DAYS, resamples=500), day_counts(DAYS, resamples=4)


def noise(seed, candidates=5, days=DAYS):
    return np.random.default_rng(seed).standard_normal((days, candidates)) * 0.01


def market(seed, days=DAYS, candidates=3):
    generator = np.random.default_rng(seed)
    benchmark = generator.standard_t(5, days) * 0.01
    return benchmark[:, None] + generator.standard_t(5, (days, candidates)) * 0.004, benchmark


# --- scaled excess


def test_excess_by_hand():
    returns, benchmark = market(0)
    excess = scaled_excess(returns, benchmark, window=60)
    ours, theirs = np.std(returns[40:100, 1], ddof=1), np.std(benchmark[40:100], ddof=1)
    expected = 0.1 / np.sqrt(252) * (returns[100, 1] / ours - benchmark[100] / theirs)
    assert excess[100, 1] == pytest.approx(expected, rel=1e-9)


def test_excess_of_the_first_days_uses_those_there_are_and_of_the_first_twenty_is_undefined():
    returns, benchmark = market(1)
    excess = scaled_excess(returns, benchmark, window=60)
    assert np.isnan(excess[:20]).all()
    assert np.isfinite(excess[20:]).all()
    ours, theirs = np.std(returns[:20, 0], ddof=1), np.std(benchmark[:20], ddof=1)
    expected = 0.1 / np.sqrt(252) * (returns[20, 0] / ours - benchmark[20] / theirs)
    assert excess[20, 0] == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10_000), st.integers(1, DAYS - 1))
def test_the_future_does_not_move_an_excess(seed, day):
    returns, benchmark = market(seed)
    before = scaled_excess(returns, benchmark)
    returns[day:] = 7.0
    benchmark[day:] = -3.0
    assert np.array_equal(scaled_excess(returns, benchmark)[:day], before[:day], equal_nan=True)


def test_the_volatility_of_a_day_does_not_contain_it():
    returns, benchmark = market(2)
    once = scaled_excess(returns, benchmark)[100, 0]
    moved = returns.copy()
    moved[100, 0] += 0.05
    ours = np.std(returns[40:100, 0], ddof=1)
    assert scaled_excess(moved, benchmark)[100, 0] - once == pytest.approx(0.1 / np.sqrt(252) * 0.05 / ours)


@given(st.floats(0.3, 50))
def test_leverage_is_no_skill(leverage):
    _, benchmark = market(3)
    excess = scaled_excess(leverage * benchmark[:, None], benchmark)
    np.testing.assert_allclose(excess[20:], 0.0, atol=1e-12)


def test_a_candidate_in_cash_is_scaled_up_by_four_at_most():
    _, benchmark = market(4)
    returns = 1e-6 * benchmark[:, None]
    returns[200] = 0.01
    theirs = np.std(benchmark[140:200], ddof=1)
    expected = 0.1 / np.sqrt(252) * (4 * 0.01 - benchmark[200]) / theirs
    assert scaled_excess(returns, benchmark)[200, 0] == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0.0, 0.0001, 0.0003, -0.001, 0.01, 1 / 3])
def test_a_candidate_that_never_moves_runs_at_four_times_as_well(rate):
    _, benchmark = market(4)
    theirs = np.std(benchmark[140:200], ddof=1)
    expected = 0.1 / np.sqrt(252) * (4 * rate - benchmark[200]) / theirs
    assert scaled_excess(np.full((DAYS, 1), rate), benchmark)[200, 0] == pytest.approx(expected)


def test_an_eliminated_candidate_has_no_excess_and_the_others_keep_theirs():
    returns, benchmark = market(5)
    whole = scaled_excess(returns, benchmark)
    returns[150:, 1] = np.nan
    excess = scaled_excess(returns, benchmark)
    assert np.isnan(excess[150:, 1]).all()
    whole[150:, 1] = np.nan
    assert np.array_equal(excess, whole, equal_nan=True)


def test_each_side_runs_at_ten_percent():
    excess = scaled_excess(noise(8, 3, 3000) * 3, noise(9, 1, 3000)[:, 0])
    assert np.nanstd(excess) * np.sqrt(252) == pytest.approx(0.1 * np.sqrt(2), rel=0.05)  # two that are independent


def test_a_benchmark_that_never_or_hardly_moves_gives_no_excess():
    for benchmark in (np.zeros(DAYS), 1e-11 * noise(9, 1)[:, 0]):
        assert np.isnan(scaled_excess(noise(8), benchmark)).all()


# --- SPA and StepM


def reference(excess, seed, block=10, resamples=500):
    """The reference's p-values (lower, consistent, upper), and the counts of the very days that it drew."""
    counts = np.ones((1 + resamples, len(excess)))
    bootstrap = StationaryBootstrap(block, excess, seed=seed)
    for row, _ in zip(counts[1:], bootstrap.bootstrap(resamples)):
        row[:] = np.bincount(bootstrap.index, minlength=len(excess))
    test = SPA(np.zeros(len(excess)), -excess, block, reps=resamples, seed=seed)
    test.compute()
    return test, counts


def studentised(excess, counts):
    """Columns of equal standard error: the reference does not divide by it, whatever its `studentize` says."""
    return excess / np.std(counts[1:] @ excess / len(excess), axis=0)


@pytest.mark.parametrize("edge", [0.0, 0.0006, 0.0012])
@pytest.mark.parametrize("seed", [1, 2])
def test_spa_is_the_reference_but_for_the_sample_counted_in(seed, edge):
    excess = noise(seed) + edge * np.array([1.0, 0.5, 0.0, 0.0, -6.0])
    _, counts = reference(excess, seed)
    excess = studentised(excess, counts)
    test, _ = reference(excess, seed)
    best = test._loss_diff.mean(axis=0).max()
    as_lucky = np.sum(test._simulated_vals[:, :, 1].max(axis=0) >= best)
    assert best > 0
    assert superior_ability(excess, counts) == (1 + as_lucky) / 501
    assert superior_ability(excess, counts) == pytest.approx(test.pvalues["consistent"], abs=1 / 400)


def test_spa_leaves_out_who_is_hopelessly_behind():
    # with 60 of them in the race the bar of "all could have won" is far higher
    hopeless = noise(3, 60) - 0.01
    contender = noise(4, 1)
    contender += 2 * contender.std() / np.sqrt(DAYS) - contender.mean()
    alone = superior_ability(contender, COUNTS)
    crowd = np.hstack([contender, hopeless])
    assert superior_ability(crowd, COUNTS) == pytest.approx(alone, abs=0.01)
    assert step_down(crowd, COUNTS)[0] > superior_ability(crowd, COUNTS) + 0.1


def plain_step_down(excess, counts, level):
    """Romano and Wolf (2005) as they tell it: reject those above the bar, then lower the bar to those left."""
    means = counts @ excess / len(excess)
    errors = np.std(means[1:], axis=0)
    score, luck = means[0] / errors, (means[1:] - means[0]) / errors
    left, better = set(range(excess.shape[1])), set()
    while left:
        best = luck[:, sorted(left)].max(axis=1)
        found = {k for k in left if (1 + np.sum(best >= score[k])) / (1 + len(best)) <= level}
        if not found:
            break
        better, left = better | found, left - found
    return better


@given(st.integers(0, 10_000), st.floats(0, 0.004))
def test_step_down_finds_those_that_the_steps_find(seed, edge):
    excess = noise(seed) + edge * np.arange(5) / 4
    for counts, levels in ((COUNTS, (0.05, 0.2)), (FEW_COUNTS, (0.2, 0.4, 0.6))):
        p_values = step_down(excess, counts)
        for level in levels:
            assert set(np.flatnonzero(p_values <= level)) == plain_step_down(excess, counts, level)


def test_later_steps_find_more_than_the_first():
    excess = noise(5, 40) * 0.2
    excess -= excess.mean(axis=0)
    excess[:, :39] += np.std(excess, axis=0)[:39] / np.sqrt(DAYS) * 8
    excess[:, 39] += np.std(excess[:, 39]) / np.sqrt(DAYS) * 2.2
    luck = COUNTS @ (excess - excess.mean(axis=0))
    first_bar = np.quantile((luck[1:] / luck[1:].std(axis=0)).max(axis=1), 0.95)
    assert first_bar > 2.4
    assert step_down(excess, COUNTS)[39] <= 0.05


def test_a_lone_candidate_has_one_p_value():
    excess = noise(6, 1) + 0.0008
    assert step_down(excess, COUNTS)[0] == superior_ability(excess, COUNTS)


@given(st.integers(0, 10_000), st.permutations(range(5)), st.lists(st.integers(-10, 10), min_size=5, max_size=5))
def test_neither_order_nor_scale_moves_a_p_value(seed, order, powers):
    excess = noise(seed) + 0.0007
    moved = (excess * 2.0 ** np.array(powers))[:, list(order)]  # every candidate in a unit of its own
    assert superior_ability(moved, COUNTS) == superior_ability(excess, COUNTS)
    assert np.array_equal(step_down(moved, COUNTS), step_down(excess, COUNTS)[list(order)])


def test_who_is_exactly_equal_weight_changes_nothing():
    excess = noise(7) + 0.0008
    padded = np.hstack([np.zeros((DAYS, 2)), excess])
    assert superior_ability(padded, COUNTS) == superior_ability(excess, COUNTS)
    assert step_down(padded, COUNTS).tolist() == [1.0, 1.0, *step_down(excess, COUNTS)]
    assert superior_ability(np.zeros((DAYS, 2)), COUNTS) == 1.0
    rounding = 1e-12 * (100 * noise(10, 2) + 5)
    assert superior_ability(rounding, COUNTS) == 1.0
    assert step_down(rounding, COUNTS).tolist() == [1.0, 1.0]


def test_nobody_is_not_better():
    assert superior_ability(np.empty((DAYS, 0)), COUNTS) == 1.0


def test_losers_are_not_better():
    excess = noise(8) - 0.01
    assert superior_ability(excess, COUNTS) == 1.0
    assert (step_down(excess, COUNTS) > 0.9).all()


def test_no_p_value_is_zero():
    excess = noise(9) + 0.1
    assert superior_ability(excess, COUNTS) == 1 / 501
    assert step_down(excess, COUNTS).tolist() == [1 / 501] * 5


# --- two Sharpe ratios


def test_the_error_is_that_of_theory_for_independent_normal_days():
    # Jobson and Korkie as corrected by Memmel (2003): variance of the difference of two Sharpe ratios
    generator, days, correlation = np.random.default_rng(10), 5000, 0.6
    benchmark = generator.standard_normal(days)
    returns = correlation * benchmark + np.sqrt(1 - correlation**2) * generator.standard_normal(days) + 0.1
    a, b, rho = sharpe(returns, 1), sharpe(benchmark, 1), np.corrcoef(returns, benchmark)[0, 1]
    theory = np.sqrt((2 - 2 * rho + (a**2 + b**2 - 2 * a * b * rho**2) / 2) / days)
    test = sharpe_difference(returns, benchmark, level=0.05, resamples=1000, periods=1)
    assert test.edge == pytest.approx(a - b)
    assert (test.edge - test.lower) / 1.645 == pytest.approx(theory, rel=0.08)


def plain_sharpe_difference(returns, benchmark, level, block, resamples, seed):
    """Ledoit and Wolf (2008) resample by resample; the error of a Sharpe ratio by its influence function."""
    days = len(returns)

    def judged(starts):
        drawn = (starts[:, None] + np.arange(block)) % days
        edge, influence = 0.0, np.zeros(drawn.shape)
        for series, sign in ((returns, 1), (benchmark, -1)):
            ratio = series[drawn].mean() / series[drawn].std()
            unit = (series[drawn] - series[drawn].mean()) / series[drawn].std()
            edge += sign * ratio
            influence += sign * (unit - ratio / 2 * (unit**2 - 1))
        return edge, np.mean(influence.sum(axis=1) ** 2) / block  # variance of a day's influence in the long run

    edge, variance = judged(np.arange(days))
    error = np.sqrt(variance / days)
    luck = []
    for starts in np.random.default_rng(seed).integers(days, size=(resamples, days // block)):
        other, variance = judged(starts)
        luck.append((other - edge) / np.sqrt(variance / (len(starts) * block)))
    year = np.sqrt(252 * (days - 1) / days)
    bar = np.sort(luck)[int(np.ceil((resamples - 1) * (1 - level)))]
    p_value = (1 + np.sum(np.array(luck) >= edge / error)) / (1 + resamples)
    return edge * year, (edge - bar * error) * year, p_value


@pytest.mark.parametrize(("seed", "level", "block"), [(0, 0.05, 10), (1, 0.2, 6), (2, 0.1, 1)])
def test_agrees_with_a_plain_loop_over_the_resamples(seed, level, block):
    returns, benchmark = market(seed, days=257)
    expected = plain_sharpe_difference(returns[:, 0], benchmark, level, block, 200, seed)
    assert 0.01 < expected[2] < 0.99
    found = sharpe_difference(returns[:, 0], benchmark, level, block, 200, seed)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_returns_of_a_billionth_have_their_sharpe_ratio():
    returns, benchmark = market(11)
    plain = sharpe_difference(returns[:, 0], benchmark, resamples=300)
    np.testing.assert_allclose(sharpe_difference(1e-7 * returns[:, 0], benchmark, resamples=300), plain, rtol=1e-6)


def test_what_is_not_told_is_one_chance_in_twenty_and_days_of_trading():
    returns, benchmark = market(11)
    told = sharpe_difference(returns[:, 0], benchmark, level=0.05, block=10, resamples=2000, seed=0, periods=252)
    assert sharpe_difference(returns[:, 0], benchmark) == told


def test_two_blocks_are_enough():
    assert np.isfinite(sharpe_difference(noise(11, 1, 20)[:, 0], noise(12, 1, 20)[:, 0]).lower)


def test_the_bound_and_the_p_value_agree():
    for seed in range(60):
        returns, benchmark = market(seed, days=504)
        returns = returns[:, 0] + 0.0004
        test = sharpe_difference(returns, benchmark, level=0.05, resamples=500)
        if abs(test.p_value - 0.05) > 0.004:  # between the two lies the sample counted in
            assert (test.lower > 0) == (test.p_value < 0.05)


def test_swapping_the_two_turns_the_test_around():
    returns, benchmark = market(11, days=504)
    forth, back = sharpe_difference(returns[:, 0], benchmark), sharpe_difference(benchmark, returns[:, 0])
    assert forth.edge == pytest.approx(-back.edge)
    assert forth.p_value + back.p_value == pytest.approx(1.0, abs=0.002)


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(0.01, 100))
def test_leverage_of_either_side_does_not_matter(seed, mine, theirs):
    returns, benchmark = market(seed, candidates=1)
    plain = sharpe_difference(returns[:, 0], benchmark, resamples=300)
    moved = sharpe_difference(mine * returns[:, 0], theirs * benchmark, resamples=300)
    np.testing.assert_allclose(moved, plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("leverage", [1.0, 0.3, 3.0])
def test_the_same_series_twice_is_no_edge(leverage):
    _, benchmark = market(12)
    assert sharpe_difference(leverage * benchmark, benchmark).p_value == 1.0


@pytest.mark.parametrize("days", [300, 1200])
def test_series_that_differ_by_a_ten_millionth_are_the_same_and_by_a_hundred_thousandth_are_not(days):
    _, benchmark = market(12, days)
    for apart, same in ((2e-7, True), (5e-6, False)):
        returns = benchmark + apart * benchmark.std() * np.random.default_rng(16).standard_normal(days)
        test = sharpe_difference(returns, benchmark, resamples=100)
        assert np.isfinite(test.lower) != same
        assert test.edge == pytest.approx(sharpe(returns) - sharpe(benchmark), rel=1e-4)


@pytest.mark.parametrize("leverage", [0.0, 0.3, 1.0, 3.0])
def test_a_resample_without_the_only_day_that_differs_counts_as_lucky(leverage):
    _, benchmark = market(12)
    returns = leverage * benchmark  # at 0 in cash
    returns += 2e-7 * (leverage or 1) * noise(17, 1)[:, 0]  # as good as nothing
    returns[100] += 0.05 * (leverage or 1)
    starts = np.random.default_rng(0).integers(DAYS, size=(2000, DAYS // 10))
    lacking = np.sum(np.all((100 - starts) % DAYS >= 10, axis=1))  # about (29 / 30) ** 30 of them
    found = sharpe_difference(returns, benchmark)
    assert found.lower == -np.inf
    assert found.p_value >= lacking / 2001 > 0.3
    if leverage:
        assert found.p_value == sharpe_difference(returns / leverage, benchmark).p_value


@pytest.mark.parametrize("rate", [0.0, 0.0001, 1 / 3])
def test_an_ensemble_that_never_moved_is_no_edge(rate):
    _, benchmark = market(13)
    test = sharpe_difference(np.full(DAYS, rate), benchmark)
    assert test.p_value == 1.0
    assert np.isnan(test.edge)


def test_refuses_days_too_few_to_resample():
    with pytest.raises(ValueError, match="19 days are too few to resample in blocks of 10"):
        sharpe_difference(np.arange(19.0), np.ones(19))


def test_an_edge_is_found_and_a_lag_is_not():
    returns, benchmark = market(14, days=504, candidates=2)
    assert sharpe_difference(returns[:, 0] + 0.002, benchmark).p_value <= 0.001
    assert sharpe_difference(returns[:, 1] - 0.002, benchmark).p_value >= 0.999


def clustered(generator, runs, days=504):
    """Days with fat tails and volatility that clusters; a benchmark and a rival with the same true Sharpe ratio."""
    log_volatility = np.zeros((days, runs))
    for day in range(1, days):
        log_volatility[day] = 0.97 * log_volatility[day - 1] + 0.12 * generator.standard_normal(runs)
    volatility = 0.01 * np.exp(log_volatility)
    first, second = generator.standard_t(5, (2, days, runs)) / np.sqrt(5 / 3)
    drift = 0.04
    return volatility * (first + drift), volatility * (0.8 * first + 0.6 * second + drift)


@pytest.mark.parametrize("runs", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_equal_sharpe_ratios_are_told_apart_in_one_run_of_twenty(runs):
    benchmark, rival = clustered(np.random.default_rng(15), runs)
    found = [sharpe_difference(rival[:, k], benchmark[:, k], resamples=500).p_value <= 0.05 for k in range(runs)]
    error = np.sqrt(0.05 * 0.95 / runs)
    assert abs(np.mean(found) - 0.05) < 3 * error + 0.01
