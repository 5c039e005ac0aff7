"""What equal weight earns: the backtest's own numbers, whether or not a shorter market was walked before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from markets import KINDS, tensors, wild_panel

from envs import growth
from envs.backtest import backtest
from envs.config import CostConfig
from envs.growth import begins_as, equal_weight_growth
from envs.market import MarketTensors
from envs.policy import equal_weight

COSTS = CostConfig(cash_rate=0.03)
BARS = 60
PANEL = wild_panel(3, bars=BARS)
CUT = 40


def fresh(kind: str, bars: int = BARS) -> MarketTensors:
    return tensors(PANEL[:bars], kind, COSTS, band=0.01)


def walked(market: MarketTensors) -> list[int]:
    """Bars that a walk steps through."""
    seen: list[int] = []
    real = growth.transition

    def spy(*given: object) -> object:
        seen.append(int(given[1].bar[0]))  # type: ignore[attr-defined]
        return real(*given)  # type: ignore[arg-type]

    growth.transition = spy  # type: ignore[assignment]
    try:
        equal_weight_growth(market)
    finally:
        growth.transition = real
    return seen


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    growth._last = None
    yield
    growth._last = None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 0.0), (torch.float64, 1e-14)])
def test_growth_is_that_of_a_backtest(kind: str, dtype: torch.dtype, rounding: float) -> None:
    market = fresh(kind).to(dtype=dtype)
    track = backtest([equal_weight], market)[0]
    found = equal_weight_growth(market)
    assert found[-1] == 0.0
    torch.testing.assert_close(found[:-1], torch.from_numpy(track.returns).log1p().to(dtype), rtol=0, atol=rounding)


@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_goes_on_from_a_shorter_one_to_the_last_bit(kind: str) -> None:
    anew = equal_weight_growth(fresh(kind))
    growth._last = None
    equal_weight_growth(fresh(kind, CUT))
    market = fresh(kind)
    assert walked(market) == list(range(CUT - 1, BARS - 1))
    torch.testing.assert_close(equal_weight_growth(market), anew, rtol=0, atol=0)


def test_a_shorter_market_after_a_longer_one_is_walked_anew() -> None:
    anew = equal_weight_growth(fresh("softmax", CUT))
    growth._last = None
    equal_weight_growth(fresh("softmax"))
    market = fresh("softmax", CUT)
    assert walked(market) == list(range(CUT - 1))
    torch.testing.assert_close(equal_weight_growth(market), anew, rtol=0, atol=0)


@pytest.mark.parametrize("bar", [0, CUT - 2])
def test_another_past_is_walked_anew(bar: int) -> None:
    shorter, market = fresh("softmax", CUT), fresh("softmax")
    assert begins_as(market, shorter)
    table = market.table.clone()
    table[1, bar] *= 1.01
    assert not begins_as(replace(market, table=table), shorter)


def test_other_costs_are_walked_anew() -> None:
    shorter = fresh("softmax", CUT)
    dearer = tensors(PANEL, "softmax", CostConfig(cash_rate=0.03, multiple=2.0), band=0.01)
    assert not begins_as(dearer, shorter)
    assert not begins_as(fresh("tilt"), shorter)
    assert not begins_as(fresh("softmax").to(dtype=torch.float32), shorter)


@pytest.mark.parametrize("kind", ["softmax", "shares"])
@pytest.mark.parametrize("name", ["table", "open_now", "extra", "lot"])
def test_each_thing_looked_up_must_be_the_same_at_every_decision_and_later_ones_may_differ(
    name: str, kind: str
) -> None:
    shorter, market = fresh(kind, CUT), fresh(kind)
    looked_up = getattr(market, name)
    if looked_up is None:  # only whole shares have a lot
        assert (name, kind) == ("lot", "softmax")
        assert not begins_as(replace(market, lot=market.table[0]), shorter)
        assert not begins_as(market, replace(shorter, lot=market.table[0]))
        return
    for bar, alike in ((0, False), (CUT - 2, False), (CUT - 1, True), (CUT, True)):
        other = looked_up.clone()
        other[..., bar, :] += 0.5
        assert begins_as(replace(market, **{name: other}), shorter) == alike
    if name != "table":
        nothing: dict[str, Any] = {name: None}
        assert not begins_as(replace(market, **nothing), shorter)


@pytest.mark.parametrize("name", ["interest", "bars_per_year"])
def test_other_interest_or_another_length_of_a_year_is_walked_anew(name: str) -> None:
    shorter, market = fresh("softmax", CUT), fresh("softmax")
    assert not begins_as(replace(market, **{name: 2 * getattr(market, name)}), shorter)


def test_a_market_as_long_as_the_earlier_ones_decisions_is_walked_anew() -> None:
    """Its last row has no next bar, so the earlier one knows more than it."""
    market = fresh("softmax", CUT)
    longer = replace(market, features=market.features.new_zeros(CUT + 1, market.assets, 0))
    assert not begins_as(market, longer)
    assert begins_as(market, market)


def test_what_is_known_of_a_market_is_not_walked_twice() -> None:
    market = fresh("softmax", CUT)
    assert walked(market) == list(range(CUT - 1))
    growth._last = None
    assert walked(market) == []
    assert equal_weight_growth(market) is equal_weight_growth(market)


def test_what_comes_later_moves_no_growth_before_it() -> None:
    market = fresh("softmax")
    before = equal_weight_growth(market)
    table = market.table.clone()
    table[:, CUT:] *= 1.5
    after = equal_weight_growth(replace(market, table=table))
    torch.testing.assert_close(after[:CUT], before[:CUT], rtol=0, atol=0)
    assert not torch.equal(after[CUT:], before[CUT:])
