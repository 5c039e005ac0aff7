"""The same figures from a package that others wrote."""

from __future__ import annotations

import numpy as np
import pytest

purgedcv = pytest.importorskip("purgedcv")

from scipy.stats import kurtosis, skew

from tournament.statistics.overfit import overfitting
from tournament.statistics.sharpe import (
    deflated_sharpe,
    minimum_backtest_years,
    minimum_track_record,
    probabilistic_sharpe,
)

RETURNS = np.random.default_rng(0).standard_t(5, (480, 12)) * 0.01 + 0.0004


def theirs(column):
    """Sharpe ratio, days, skew and kurtosis as the package estimates them from the returns."""
    return (
        column.mean() / column.std(),
        len(column),
        skew(column, bias=False),
        kurtosis(column, fisher=False, bias=False),
    )


def test_probabilities():
    for column in RETURNS.T:
        figures = theirs(column)
        assert probabilistic_sharpe(*figures, threshold=0.02) == pytest.approx(
            purgedcv.probabilistic_sharpe_ratio(column, 0.02)
        )
        assert deflated_sharpe(*figures, trials=12, variance=0.002) == pytest.approx(
            purgedcv.deflated_sharpe_ratio(column, 12, 0.002)
        )


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.3])
def test_minimum_track_record(ratio):
    ours = minimum_track_record(ratio, 0.02, skew=-0.5, kurtosis=5.0)
    assert np.ceil(ours) == purgedcv.min_track_record_length(ratio, 0.02, 0.05, -0.5, 5.0)


@pytest.mark.parametrize("trials", [2, 45, 1000])
def test_minimum_backtest(trials):
    assert minimum_backtest_years(trials, 1.5) == pytest.approx(purgedcv.minimum_backtest_length(trials, 1.5))


@pytest.mark.parametrize("blocks", [4, 10])
def test_overfitting(blocks):
    # twelve candidates: no rank falls on the middle
    for returns in (RETURNS, RETURNS[:240]):
        assert overfitting(returns, blocks) == purgedcv.probability_of_backtest_overfitting(returns.T, blocks).pbo
