"""What drift is measured against: known answers, and nothing from after the train span."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bundles import (
    LENS,
    PANEL,
    SHARED,
    TRAIN,
    ensemble_of,
    lens_of,
    members_of,
)
from hypothesis import given
from hypothesis import strategies as st
from panels import with_other_future

from agents.ensemble import Ensemble
from agents.reference import Histogram, decisions, dispersion, measure
from envs.backtest import backtest
from envs.config import AllocationConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import equal_weight


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=300))
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    histogram = Histogram.of(np.array(values))
    assert sum(histogram.frequencies) == pytest.approx(1.0)
    below = np.mean(np.array(values) < histogram.edges[0])
    assert histogram.frequencies[0] == pytest.approx(below)


def test_values_that_do_not_repeat_fall_in_ten_bins_alike() -> None:
    histogram = Histogram.of(np.random.default_rng(0).permutation(1000) / 7.0)
    assert len(histogram.edges) == 9
    assert histogram.frequencies == pytest.approx([0.1] * 10, abs=0.002)


def test_the_reference_is_of_the_train_span_alone() -> None:
    members = members_of((SHARED,))
    market = LENS.market(PANEL)
    track = backtest([ensemble_of(members)], market, slice(60, 79))[0]
    other = with_other_future(PANEL, TRAIN.stop - 1)
    seen = [measure(LENS, panel, TRAIN, ensemble_of(members), track) for panel in (PANEL, other)]
    assert seen[0] == seen[1]
    assert measure(LENS, other, slice(20, 90), ensemble_of(members), track).features != seen[0].features


def test_dispersion_is_the_mean_spread_over_the_track() -> None:
    market = LENS.market(PANEL)
    cash = torch.eye(5)[4]
    ensemble = Ensemble([lambda market, bar, portfolio: cash.expand(len(bar), -1), equal_weight], [0.5, 0.5])
    track = backtest([ensemble], market)[0]
    assert dispersion(ensemble, market, track) == pytest.approx(0.5)  # half of each other's money is elsewhere
    assert dispersion(Ensemble([equal_weight], [1.0]), market, track) == 0.0


@pytest.mark.parametrize("kind", ["softmax", "shares"])
def test_a_tracks_decisions_are_those_that_its_policy_took(kind: str) -> None:
    lens = lens_of(trading=TradingConfig(AllocationConfig(kind)))
    market, seen = lens.market(PANEL), []

    def watching(market: MarketTensors, bar: torch.Tensor, portfolio: torch.Tensor) -> torch.Tensor:
        seen.append((bar, portfolio))
        return equal_weight(market, bar, portfolio)

    bars, portfolios = decisions(market, backtest([watching], market, slice(30, 100))[0])
    assert torch.equal(bars[:-1], torch.cat([bar for bar, _ in seen])[1:])
    torch.testing.assert_close(portfolios[:-1], torch.cat([portfolio for _, portfolio in seen])[1:])
