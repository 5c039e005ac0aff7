"""The probability of overfitting: worked by hand, against a plain loop, and where it must be high or low."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.metrics import sharpe
from tournament.statistics.overfit import overfitting

BY_HAND = np.array([[-2.0, 1, 21, 36], [-38, -29, 26, 36], [-20, -15, 30, -6], [-18, 27, -20, -7]])


def noise(seed, days=120, candidates=6):
    return np.random.default_rng(seed).standard_normal((days, candidates)) * 0.01


def plain_overfitting(returns, blocks, metric):
    pieces = np.split(returns, blocks)
    below = []
    for chosen in combinations(range(blocks), blocks // 2):
        rest = [block for block in range(blocks) if block not in chosen]
        inside, outside = (metric(np.concatenate([pieces[block] for block in half])) for half in (chosen, rest))
        rank = 1 + np.sum(outside < outside[np.argmax(inside)])
        share = rank / (returns.shape[1] + 1)
        below.append(np.log(share / (1 - share)) <= 0)
    return np.mean(below)


def test_overfitting_by_hand():
    assert overfitting(BY_HAND, blocks=4, metric="mean") == 0.5


def test_candidates_that_are_equal_in_the_whole_are_all_overfit():
    returns = noise(0)
    returns = (returns - returns.mean(axis=0)) / returns.std(axis=0)
    assert overfitting(returns, blocks=6, metric="mean") == 1.0


@given(st.integers(0, 10_000), st.sampled_from([2, 4, 6, 8]), st.integers(2, 7))
def test_agrees_with_a_plain_loop(seed, blocks, candidates):
    returns = noise(seed, days=24 * 5, candidates=candidates)
    assert overfitting(returns, blocks, "sharpe") == plain_overfitting(returns, blocks, lambda r: sharpe(r, 1))
    assert overfitting(returns, blocks, "mean") == plain_overfitting(returns, blocks, lambda r: r.mean(axis=0))


@given(st.integers(0, 10_000), st.permutations(range(6)), st.permutations(range(8)), st.floats(0.01, 100))
def test_order_of_candidates_order_of_blocks_and_scale_do_not_matter(seed, candidates, blocks, scale):
    returns = noise(seed)
    moved = scale * returns.reshape(8, 15, 6)[list(blocks)].reshape(120, 6)[:, list(candidates)]
    assert overfitting(moved, 8) == overfitting(returns, 8)


def test_luck_is_overfit_in_about_half_of_the_splits():
    shares = [overfitting(noise(seed, candidates=20), blocks=8) for seed in range(100)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_true_skill_is_not_overfit():
    returns = noise(1, days=1008, candidates=20)
    returns[:, 3] += 0.003
    assert overfitting(returns) == 0.0


def test_days_that_do_not_divide_are_all_used():
    returns = noise(2, days=11, candidates=2)
    # blocks of 5 and 6 days, worked with plain means
    halves = [returns[:5].mean(axis=0), returns[5:].mean(axis=0)]
    chosen = [other[np.argmax(half)] < other.max() for half, other in (halves, halves[::-1])]
    assert overfitting(returns, blocks=2, metric="mean") == np.mean(chosen)


def test_a_candidate_that_never_moves_has_a_score_of_nothing():
    returns = noise(3)
    returns[:, 0] = 0.0
    returns[:, 1:] -= 0.1  # all others lose: the still one is best on both halves
    assert overfitting(returns, 8) == 0.0


def halves(first, second):
    """Thirty days and thirty days, of these Sharpe ratios."""
    return np.repeat([first, second], 30) + np.tile([1.0, -1.0], 30)


def test_a_candidate_that_hardly_moves_is_worth_more_than_a_loser_and_less_than_a_winner():
    for still in (np.full(60, 0.001), 0.001 + 3e-13 * np.tile([1.0, -1.0], 30)):
        winners = np.column_stack([still, halves(0.5, -0.5), halves(-0.5, 0.5)])
        assert overfitting(winners, blocks=2) == 1.0  # who is best on one half is last on the other
        losers = np.column_stack([still, halves(-0.2, -0.8), halves(-0.8, -0.2)])
        assert overfitting(losers, blocks=2) == 0.0


@pytest.mark.parametrize("rate", [0.0, 0.0001, 0.0003])
@pytest.mark.parametrize("ratio", [-0.3, -0.1, 0.05, 0.15, 0.2, 0.25])
def test_a_candidate_that_is_still_on_one_half_has_a_score_of_nothing_there(ratio, rate):
    gone = np.concatenate([0.01 * halves(ratio, 0)[:30], np.full(30, rate)])
    gone[0] = gone[1:].mean()  # one day hardly off the mean says nothing about the others
    returns = np.column_stack([gone, 0.01 * halves(0.1, 0.1)])
    assert overfitting(returns, blocks=2) == float(ratio > 0.1)


def test_what_is_still_is_told_by_its_own_moves():
    # a billionth of the other's size, and scored like it
    returns = np.column_stack([1e-6 * halves(0.8, 0.2), 1e3 * halves(0.2, 0.8)])
    assert overfitting(returns, blocks=2) == 1.0


def test_one_candidate_cannot_be_chosen():
    assert np.isnan(overfitting(noise(4, candidates=1)))


@pytest.mark.parametrize("blocks", [0, 3, 122])
def test_refuses_blocks_that_cannot_be_halved(blocks):
    with pytest.raises(ValueError, match=f"blocks must be even, .* but is {blocks}"):
        overfitting(noise(5), blocks)
