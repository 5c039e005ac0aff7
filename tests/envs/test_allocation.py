"""Actions become weights: known answers, and what holds for any action on any market."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markets import KINDS, NO_COSTS, priced, random_actions, tensors, wild_panel
from panels import random_panel, with_arrays

from envs.allocation import approach, project, shares, target
from envs.config import AllocationConfig, TradingConfig
from envs.market import MarketTensors
from envs.transition import State, cash_only, transition
from kit.config import load
from kit.errors import UserError

LONG_ONLY = ("softmax", "tilt")
FULL = priced(np.full((3, 4), 100.0))
SEEDS = st.integers(0, 2**31)


def wanted(market: MarketTensors, action: list[float], weights: list[float] | None = None) -> list[float]:
    """What one portfolio at bar 0, by default all in cash, is asked to become."""
    state = cash_only(market, torch.tensor([0]))
    held = state.weights if weights is None else torch.tensor([weights], dtype=torch.float64)
    row = torch.tensor([action], dtype=torch.float64)
    return target(market, state.bar, held, state.wealth, row)[0].tolist()


def somewhere(market: MarketTensors, seed: int, count: int = 24) -> State:
    """Portfolios at random bars with holdings, some of them in what does not trade now."""
    state = cash_only(market, torch.as_tensor(np.random.default_rng(seed).integers(0, len(market) - 8, count)))
    for action in random_actions(seed, 6, count, market.assets + 1):
        asked = target(market, state.bar, state.weights, state.wealth, action)
        state = transition(market, state, approach(state.weights, asked, market.trading.allocation))[0]
    return state


def asked_of(market: MarketTensors, state: State, action: torch.Tensor) -> torch.Tensor:
    return target(market, state.bar, state.weights, state.wealth, action)


def test_softmax_weighs_by_the_exponential_of_the_action() -> None:
    market = tensors(priced(np.full((3, 2), 100.0)), kappa=2.0)
    odds = np.exp([1.0, -0.5])
    assert wanted(market, [0.5, -0.25, -1.0]) == pytest.approx([*odds / odds.sum(), 0.0])
    assert wanted(market, [0.5, -0.25, 0.3]) == pytest.approx([*0.7 * odds / odds.sum(), 0.3])


def test_tilt_adds_to_equal_weight_and_drops_what_falls_below_zero() -> None:
    """[.65, .25, .25, -.15] sums to 1; without the last, 1.15 is .05 a name too much."""
    market = tensors(FULL, "tilt", strength=0.4)
    assert wanted(market, [1.0, 0.0, 0.0, -1.0, 0.0]) == pytest.approx([0.6, 0.2, 0.2, 0.0, 0.0], abs=1e-12)
    assert wanted(market, [1.0, 0.0, 0.0, -1.0, 0.5]) == pytest.approx([0.3, 0.1, 0.1, 0.0, 0.5], abs=1e-12)


def test_long_short_takes_a_share_of_the_name_cap_and_shrinks_to_the_gross_cap() -> None:
    market = tensors(FULL, "long_short", gross_cap=1.0, name_cap=0.4)
    assert wanted(market, [1.0, -0.5, 0.0, 0.0, 0.9]) == pytest.approx([0.4, -0.2, 0.0, 0.0, 0.8])
    assert wanted(market, [1.0, -1.0, 1.0, 1.0, 0.0]) == pytest.approx([0.25, -0.25, 0.25, 0.25, 0.5])


def shut(market: MarketTensors, *open_now: float) -> MarketTensors:
    """The same market in which only some assets trade, at every bar."""
    return replace(market, open_now=torch.tensor([[*open_now, 0.0]] * len(market), dtype=market.dtype))


def test_an_action_beyond_one_asks_for_no_more_than_the_name_cap() -> None:
    market = tensors(FULL, "long_short", gross_cap=1.0, name_cap=0.4)
    assert wanted(market, [1.5, -3.0, 0.0, 0.0, 0.0]) == pytest.approx([0.4, -0.4, 0.0, 0.0, 1.0])


def test_a_short_that_cannot_trade_takes_its_part_of_the_gross_cap_and_leaves_nothing_beyond_it() -> None:
    """Of a gross sum of 1, .3 are stuck: .7 for three names that ask for .4 each; then 1.3 are."""
    market = shut(tensors(FULL, "long_short", gross_cap=1.0, name_cap=0.4), 1.0, 1.0, 1.0, 0.0)
    asked = wanted(market, [1.0, -1.0, 1.0, 1.0, 0.0], [0.1, 0.0, 0.0, -0.3, 1.2])
    assert asked == pytest.approx([0.7 / 3, -0.7 / 3, 0.7 / 3, -0.3, 1.3 - 0.7 / 3])
    asked = wanted(market, [1.0, -1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, -1.3, 2.3])
    assert asked == pytest.approx([0.0, 0.0, 0.0, -1.3, 2.3])


@pytest.mark.parametrize("kind", LONG_ONLY)
def test_cash_and_what_trades_share_what_the_others_leave(kind: str) -> None:
    """.3 and .1 are stuck; half of the other .6 becomes cash, and two names get .15 each."""
    market = shut(tensors(FULL, kind), 1.0, 0.0, 1.0, 0.0)
    asked = wanted(market, [0.2, 1.0, 0.2, -1.0, 0.5], [0.2, 0.3, 0.0, 0.1, 0.4])
    assert asked == pytest.approx([0.15, 0.3, 0.15, 0.1, 0.3])
    asked = wanted(shut(market, 0.0, 0.0, 0.0, 0.0), [1.0, 1.0, 1.0, 1.0, 0.5], [0.2, 0.3, 0.0, 0.1, 0.4])
    assert asked == pytest.approx([0.2, 0.3, 0.0, 0.1, 0.4])


def test_shares_are_whole_and_a_tenth_of_an_action_is_nothing() -> None:
    """100 shares at 100 are 1 % of a million."""
    market = tensors(FULL, "shares", max_stock=100, capital=1e6)
    held = [0.005, 0.0, 0.0, 0.0, 0.995]
    asked = wanted(market, [-0.777, 0.555, 0.0999, -0.5, 1.0], held)
    assert asked == pytest.approx([0.0, 0.0055, 0.0, 0.0, 0.9945])


def test_shares_of_what_does_not_trade_are_not_ordered() -> None:
    market = shut(tensors(FULL, "shares", max_stock=100, capital=1e6), 0.0, 1.0, 0.0, 1.0)
    asked = wanted(market, [-1.0, 1.0, 1.0, 0.0, 0.0], [0.005, 0.0, 0.0, 0.0, 0.995])
    assert asked == pytest.approx([0.005, 0.01, 0.0, 0.0, 0.985])


@pytest.mark.parametrize(("held", "sold"), [(2.985, 2), (2.993, 3), (3.0, 3), (3.007, 3)])
def test_a_sale_of_everything_sells_the_whole_shares_up_to_a_hundredth(held: float, sold: int) -> None:
    weights, share = torch.tensor([[0.01 * held, 0.5]], dtype=torch.float64), torch.full((1, 2), 0.01)
    asked = shares(torch.tensor([[-1.0, 0.3]], dtype=torch.float64), weights, share, None, max_stock=100)
    assert asked[0].tolist() == pytest.approx([0.01 * (held - sold), 0.5 + 0.01 * sold], abs=1e-7)


@given(seed=SEEDS, kind=st.sampled_from(LONG_ONLY))
def test_the_zero_action_is_equal_weight_without_cash(seed: int, kind: str) -> None:
    """Over what trades now; what does not keeps its weight."""
    market = tensors(wild_panel(seed), kind)
    state = somewhere(market, seed)
    asked = asked_of(market, state, torch.zeros(24, 5, dtype=torch.float64)).numpy()
    assert market.open_now is not None
    open_now = market.open_now[state.bar, :-1].numpy().astype(bool)
    held = state.weights.numpy()
    for row in range(24):
        stuck = held[row, :-1][~open_now[row]]
        np.testing.assert_allclose(asked[row, :-1][~open_now[row]], stuck, rtol=0, atol=1e-15)
        if open_now[row].any():
            share = (1 - stuck.sum()) / open_now[row].sum()
            np.testing.assert_allclose(asked[row, :-1][open_now[row]], share, rtol=1e-12)
            assert asked[row, -1] == pytest.approx(0, abs=1e-12)
        else:
            assert asked[row, -1] == pytest.approx(held[row, -1])


@given(seed=SEEDS, kind=st.sampled_from(KINDS))
def test_what_does_not_trade_keeps_its_holding_and_all_weights_sum_to_one(seed: int, kind: str) -> None:
    market = tensors(wild_panel(seed), kind)
    state = somewhere(market, seed)
    asked = asked_of(market, state, random_actions(seed + 1, 24, 5))
    assert market.open_now is not None
    stuck = market.open_now[state.bar, :-1] == 0
    torch.testing.assert_close(asked[:, :-1][stuck], state.weights[:, :-1][stuck], rtol=0, atol=1e-15)
    torch.testing.assert_close(asked.sum(1), torch.ones(24, dtype=torch.float64))
    if kind in LONG_ONLY:
        assert float(asked.min()) > -1e-12


@given(seed=SEEDS, gross=st.floats(0.2, 2.0), name=st.floats(0.05, 1.0))
def test_long_short_respects_both_caps_when_it_orders(seed: int, gross: float, name: float) -> None:
    """What trades is within its cap, and all within the gross cap unless what is stuck alone exceeds it."""
    market = tensors(wild_panel(seed), "long_short", gross_cap=gross, name_cap=name)
    state = somewhere(market, seed)
    asked = asked_of(market, state, random_actions(seed + 1, 24, 5))[:, :-1]
    assert market.open_now is not None
    open_now = market.open_now[state.bar, :-1]
    assert float((asked * open_now).abs().max()) <= name + 1e-12
    stuck = (state.weights[:, :-1] * (1 - open_now)).abs().sum(1)
    assert bool((asked.abs().sum(1) <= stuck.clamp_min(gross) + 1e-12).all())


@given(seed=SEEDS, kind=st.sampled_from(KINDS))
def test_a_path_with_every_asset_tradable_equals_the_masked_one(seed: int, kind: str) -> None:
    """Markets without any gap take a shorter way."""
    panel = random_panel(seed, bars=20, symbols=4, gaps=False)
    plain = tensors(panel, kind)
    assert plain.open_now is None
    state = somewhere(plain, seed)
    masked = replace(plain, open_now=torch.ones_like(plain.table[0]))
    masked.open_now[:, -1] = 0.0
    action = random_actions(seed + 1, 24, 5)
    torch.testing.assert_close(asked_of(masked, state, action), asked_of(plain, state, action), rtol=0, atol=1e-14)


@given(seed=SEEDS, count=st.integers(1, 8))
def test_the_projection_is_the_nearest_point_of_the_simplex(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = torch.as_tensor(rng.normal(0, 1, (16, count)))
    available = torch.as_tensor((rng.random((16, count)) < 0.7).astype(float))
    available[:, 0] = 1.0
    nearest = project(points, available)
    assert float(nearest.min()) >= 0
    torch.testing.assert_close(nearest.sum(1), torch.ones(16, dtype=torch.float64))
    assert not (nearest * (1 - available)).any()
    other = torch.as_tensor(rng.dirichlet(np.full(count, 0.3), (200, 16))) * available
    other = other / other.sum(2, keepdim=True).clamp_min(1e-300)
    distance = ((points - nearest) ** 2 * available).sum(1)
    distances = ((points - other) ** 2 * available).sum(2)
    whole = (other.sum(2) - 1).abs() < 1e-9
    assert bool((distances[whole] >= distance.expand_as(distances)[whole] - 1e-12).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_nothing_is_available_the_projection_gives_nothing(dtype: torch.dtype) -> None:
    points, available = torch.tensor([[0.3, -0.2], [0.5, 0.1]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert project(points.to(dtype), available.to(dtype)).tolist() == [[0.0, 0.0], [1.0, 0.0]]


@given(seed=SEEDS, kind=st.sampled_from(LONG_ONLY))
def test_an_average_of_targets_is_a_portfolio(seed: int, kind: str) -> None:
    market = tensors(wild_panel(seed), kind)
    state = somewhere(market, seed)
    votes = [asked_of(market, state, random_actions(seed + k, 24, 5)) for k in range(3)]
    average = sum(votes[1:], votes[0]) / 3
    torch.testing.assert_close(average.sum(1), torch.ones(24, dtype=torch.float64))
    assert float(average.min()) > -1e-12


def test_the_rate_moves_part_of_the_way() -> None:
    here = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    there = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64)
    ordered = approach(here, there, AllocationConfig(rate=0.25))
    torch.testing.assert_close(ordered, torch.tensor([[0.325, 0.3, 0.375]], dtype=torch.float64))
    torch.testing.assert_close(approach(here, there, AllocationConfig(rate=1.0)), there)


def test_the_rate_approaches_the_target_geometrically() -> None:
    market = tensors(priced(np.full((12, 2), 100.0)), costs=NO_COSTS, rate=0.4)
    state = cash_only(market, torch.tensor([0]))
    for step in range(1, 11):
        asked = asked_of(market, state, torch.zeros(1, 3, dtype=torch.float64))
        state = transition(market, state, approach(state.weights, asked, market.trading.allocation))[0]
        assert state.weights[0].tolist() == pytest.approx([0.5 - 0.5 * 0.6**step] * 2 + [0.6**step])


def test_the_band_stops_orders_that_are_small_after_the_rate() -> None:
    """Of changes .06, -.04 and -.02 at half the way, .03 is ordered and the others are not."""
    here = torch.tensor([[0.20, 0.30, 0.50]], dtype=torch.float64)
    there = torch.tensor([[0.26, 0.26, 0.48]], dtype=torch.float64)
    ordered = approach(here, there, AllocationConfig(rate=0.5, band=0.025))
    torch.testing.assert_close(ordered, torch.tensor([[0.23, 0.30, 0.50]], dtype=torch.float64))


def test_a_change_of_exactly_the_band_is_ordered() -> None:
    here = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64)
    there = torch.tensor([[0.0, 0.25, 0.75]], dtype=torch.float64)
    ordered = approach(here, there, AllocationConfig(rate=0.5, band=0.125))
    assert ordered.tolist() == [[0.25, 0.125, 0.625]]


@given(seed=SEEDS, band=st.floats(0.001, 0.3))
def test_no_order_is_smaller_than_the_band(seed: int, band: float) -> None:
    market = tensors(wild_panel(seed), costs=NO_COSTS, rate=0.7, band=band)
    state = somewhere(market, seed)
    asked = asked_of(market, state, random_actions(seed + 1, 24, 5))
    change = (approach(state.weights, asked, market.trading.allocation) - state.weights).abs()
    assert bool(((change == 0) | (change >= band - 1e-12)).all())


def test_an_asset_that_is_not_listed_gets_nothing() -> None:
    panel = random_panel(0, bars=10, symbols=3, gaps=False)
    tradable, close = panel.tradable.copy(), panel.close.copy()
    tradable[:5, 1], close[:5, 1] = False, np.nan
    arrays = {name: np.where(np.isnan(close), np.nan, getattr(panel, name)) for name in ("open", "high", "low")}
    market = tensors(with_arrays(panel, tradable=tradable, close=close, **arrays))
    assert wanted(market, [0.0, 1.0, 0.0, -1.0]) == pytest.approx([0.5, 0.0, 0.5, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("fill=now", "open"),
        ("allocation.kind=equal", "softmax"),
        ("allocation.rate=0", "rate"),
        ("allocation.rate=1.5", "rate"),
        ("allocation.band=1", "band"),
        ("costs.multiple=-1", "multiple"),
        ("capital=0", "capital"),
    ],
)
def test_an_impossible_setting_is_refused_in_one_line(override: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        load(TradingConfig, overrides=[override])
    assert override.split("=")[0] in str(refused.value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
