"""Shrinkage and long-only weights: worked by hand, in closed form, and against a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from agents.covariance import ledoit_wolf, long_only

SEEDS = st.integers(0, 2**31)


def draw(seed: int, bars: int = 60) -> np.ndarray:  # [bars, A]
    """Returns with a common part, unequal volatilities and unequal means."""
    rng = np.random.default_rng(seed)
    assets = int(rng.integers(2, 8))
    own = rng.standard_normal((bars, assets)) * rng.uniform(0.005, 0.03, assets)
    common = rng.standard_normal((bars, 1)) * rng.uniform(0.3, 1.5, assets)
    return own + 0.012 * common + rng.normal(0, 0.003, assets)


def test_shrinkage_worked_by_hand() -> None:
    """S = diag(.5, 2), mean variance 1.25: squared distance 1.125, squared error ((1+1+16+16)/4 - 4.25)/4."""
    covariance, share = ledoit_wolf(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]))
    assert share == pytest.approx(1.0625 / 1.125)
    np.testing.assert_allclose(covariance, np.diag([21.75 / 18, 23.25 / 18]))


def test_shrinkage_agrees_with_scikit_learn() -> None:
    oracle = pytest.importorskip("sklearn.covariance").ledoit_wolf
    for seed in range(20):
        covariance, share = ledoit_wolf(draw(seed))
        expected, expected_share = oracle(draw(seed))
        assert share == pytest.approx(expected_share)
        np.testing.assert_allclose(covariance, expected)


@given(SEEDS, st.integers(2, 60))
def test_a_shrunk_covariance_keeps_the_total_variance_and_can_be_inverted(seed: int, bars: int) -> None:
    """Even from fewer bars than assets."""
    returns = draw(seed, bars)
    covariance, share = ledoit_wolf(returns)
    assert 0 <= share <= 1
    assert np.trace(covariance) == pytest.approx(returns.var(axis=0).sum())
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_more_bars_are_shrunk_less() -> None:
    shares = [ledoit_wolf(draw(3, bars))[1] for bars in (30, 300, 3000)]
    assert shares == sorted(shares, reverse=True)


def test_assets_that_move_as_one_are_held_alike() -> None:
    one = np.random.default_rng(0).normal(0, 0.01, (60, 1))
    weights = long_only(ledoit_wolf(np.concatenate([one, one], axis=1))[0], np.ones(2))
    np.testing.assert_allclose(weights, [0.5, 0.5], atol=1e-6)


def test_what_equals_the_target_already_is_left_alone() -> None:
    covariance, _ = ledoit_wolf(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))
    np.testing.assert_allclose(covariance, np.eye(2))


@pytest.mark.parametrize(("correlation", "first"), [(0.0, 0.8), (0.25, 0.875), (0.5, 1.0), (0.9, 1.0)])
def test_least_variance_of_two_assets_in_closed_form(correlation: float, first: float) -> None:
    """(4 - c) / (1 + 4 - 2c) with volatilities 1 and 2 and covariance c, until the second would be sold short."""
    covariance = np.array([[1.0, 2 * correlation], [2 * correlation, 4.0]])
    np.testing.assert_allclose(long_only(covariance, np.ones(2)), [first, 1 - first], atol=1e-12)


def test_best_sharpe_of_two_uncorrelated_assets_in_closed_form() -> None:
    """In proportion to reward over variance: 1/1 against 3/4; a negative reward is not held."""
    np.testing.assert_allclose(long_only(np.diag([1.0, 4.0]), np.array([1.0, 3.0])), [4 / 7, 3 / 7])
    np.testing.assert_allclose(long_only(np.diag([1.0, 4.0]), np.array([-1.0, 3.0])), [0.0, 1.0])
    with pytest.raises(AssertionError, match="worth holding"):
        long_only(np.eye(2), np.array([-1.0, 0.0]))


@given(SEEDS, st.booleans())
def test_nothing_can_be_moved_to_a_better_place(seed: int, least_variance: bool) -> None:
    """The gain of a little more is 0 in every asset held and not above 0 in any other, to rounding."""
    returns = draw(seed)
    covariance = ledoit_wolf(returns)[0]
    reward = np.ones(returns.shape[1]) if least_variance else returns.mean(axis=0) + 0.01
    weights = long_only(covariance, reward)
    assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    gain = reward / (reward @ weights) - covariance @ weights / (weights @ covariance @ weights)
    assert np.abs(gain[weights > 0]).max() < 1e-9
    assert gain.max() < 1e-9


@settings(max_examples=15)
@given(SEEDS, st.booleans())
def test_a_general_optimiser_finds_the_same_weights(seed: int, least_variance: bool) -> None:
    returns = draw(seed)
    covariance = ledoit_wolf(returns)[0] * 1e4
    assets = len(covariance)
    reward = np.ones(assets) if least_variance else returns.mean(axis=0) * 100 + 1
    found = minimize(
        lambda w: -(reward @ w) / np.sqrt(w @ covariance @ w),
        np.full(assets, 1 / assets),
        bounds=[(0, 1)] * assets,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    np.testing.assert_allclose(long_only(covariance, reward), found.x, atol=2e-5)


@given(SEEDS)
def test_least_variance_varies_no_more_than_equal_weight_on_the_days_it_was_chosen_from(seed: int) -> None:
    """Shrunk or not: what shrinking adds is smallest at equal weight."""
    returns = draw(seed)
    weights = long_only(ledoit_wolf(returns)[0], np.ones(returns.shape[1]))
    assert (returns @ weights).var() <= returns.mean(axis=1).var() * (1 + 1e-12)
