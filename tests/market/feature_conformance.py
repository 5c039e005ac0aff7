"""What every feature must keep true. Each check takes any transform and says what broke."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from panels import constant_panel, random_panel, scaled_prices, with_arrays, with_other_future

from market.features import Features, FeatureSpec
from market.features.transform import Transform
from market.panel import FIELDS, PRICES, Panel


def computed(transform: Transform, panel: Panel) -> Features:
    return FeatureSpec((transform,)).compute(panel)


def sample(transform: Transform, seed: int, minutes: bool = False, gaps: bool = True) -> Panel:
    """Late listings come up to half of it, so that some fall before and some after the warm-up."""
    return random_panel(seed, 2 * transform.warmup + 150, 6, gaps=gaps, minutes=minutes)


def has_a_name_and_a_float32_for_each_value(transform: Transform) -> None:
    panel = sample(transform, 1)
    features = computed(transform, panel)
    assert features.values.dtype == np.float32
    assert features.values.shape == (len(panel), 6, len(features.names))
    assert len(set(features.names)) == len(features.names) > 0
    assert features.warmup == transform.warmup


def does_not_see_the_future(transform: Transform) -> None:
    for seed, minutes in ((2, False), (3, True)):
        panel = sample(transform, seed, minutes)
        features = computed(transform, panel).values
        for last in (transform.warmup, transform.warmup + 70, len(panel) - 2):
            other = computed(transform, with_other_future(panel, last)).values
            np.testing.assert_array_equal(other[: last + 1], features[: last + 1])


def forgets_what_is_older_than_its_warmup(transform: Transform) -> None:
    """The last row of a window of warm-up + 1 bars is the row of the whole panel."""
    for seed, minutes, gaps in ((4, False, True), (5, True, True), (6, False, False)):
        panel = sample(transform, seed, minutes, gaps)
        features = computed(transform, panel).values
        for last in range(transform.warmup, len(panel), 29):
            window = computed(transform, panel[last - transform.warmup : last + 1]).values
            np.testing.assert_allclose(window[-1], features[last], rtol=1e-6, atol=1e-6)


def does_not_depend_on_how_the_work_is_cut(transform: Transform, cut: Callable[[int, int], None]) -> None:
    """`cut` sets the size of a block in bars and symbols."""
    panel = sample(transform, 7)
    whole = computed(transform, panel).values
    cut(37, 4)
    np.testing.assert_allclose(computed(transform, panel).values, whole, rtol=1e-6, atol=1e-6)


def is_zero_before_listing_and_finite_after(transform: Transform) -> None:
    for minutes in (False, True):
        panel = sample(transform, 8, minutes)
        assert not panel.listed.all() and not panel.tradable[panel.listed].all(), "the sample must have gaps"
        values = computed(transform, panel).values
        assert np.isfinite(values).all()
        assert (values[~panel.listed] == 0.0).all()


def does_not_know_when_a_symbol_will_list(transform: Transform) -> None:
    """A symbol that lists later changes nothing for the others before it does."""
    panel = sample(transform, 9)
    column = int(panel.listed.sum(axis=0).argmin())
    listing = int(panel.listed[:, column].argmax())
    assert listing > 0
    arrays = {name: getattr(panel, name).copy() for name in (*FIELDS, "tradable")}
    for name in FIELDS:
        arrays[name][:, column] = np.nan
    arrays["tradable"][:, column] = False
    never = computed(transform, with_arrays(panel, **arrays)).values
    np.testing.assert_array_equal(never[:listing], computed(transform, panel).values[:listing])


def does_not_depend_on_the_price_scale(transform: Transform) -> None:
    panel = sample(transform, 10)
    values = computed(transform, panel).values
    for factor in (1000.0, 0.001):
        scaled = computed(transform, scaled_prices(panel, factor)).values
        np.testing.assert_allclose(scaled, values, rtol=2e-5, atol=1e-6)


def gives_one_value_for_constant_prices(transform: Transform) -> None:
    """What does not come from the clock or an observed column stands still where prices do."""
    for price in (100.0, 1e6, 0.0123456789, 7.0 / 3.0):
        panel = constant_panel(price, transform.warmup + 50)
        values = computed(transform, with_arrays(panel, observed={})).values
        np.testing.assert_allclose(values, np.broadcast_to(values[0, 0], values.shape), rtol=0, atol=1e-12)


def stands_still_once_prices_do(transform: Transform) -> None:
    """Nothing is left of earlier moves once they are older than the memory, not even their rounding."""
    moving = sample(transform, 11, gaps=False)
    still = transform.warmup + 1
    arrays = {name: getattr(moving, name).copy() for name in (*PRICES, "volume")}
    for array in arrays.values():
        array[-still:] = moving.close[-still] if array is not arrays["volume"] else 1000.0
    values = computed(transform, with_arrays(moving, **arrays, observed={})).values[-1]
    constant = computed(transform, constant_panel(100.0, still, 6)).values[-1]
    np.testing.assert_allclose(values, constant, rtol=0, atol=1e-12)


def bears_zero_and_missing_volume(transform: Transform) -> None:
    panel = sample(transform, 12)
    for empty in (0.0, np.nan):
        values = computed(transform, with_arrays(panel, volume=np.full(panel.volume.shape, empty))).values
        assert np.isfinite(values).all()


def treats_symbols_alike(transform: Transform) -> None:
    """Another order of symbols gives the same features in that order."""
    panel = sample(transform, 13)
    order = np.array([3, 1, 5, 0, 4, 2])
    arrays = {name: getattr(panel, name)[:, order] for name in (*FIELDS, "tradable")}
    observed = {k: type(v)(v.values[:, order], v.known_at[:, order]) for k, v in panel.observed.items()}
    shuffled = computed(transform, with_arrays(panel, **arrays, observed=observed)).values
    np.testing.assert_allclose(shuffled, computed(transform, panel).values[:, order], rtol=1e-5, atol=1e-6)


def gives_the_same_twice(transform: Transform) -> None:
    panel = sample(transform, 14)
    np.testing.assert_array_equal(computed(transform, panel).values, computed(transform, panel).values)


def survives_its_configuration(transform: Transform) -> None:
    spec = FeatureSpec((transform,))
    assert FeatureSpec.from_config(spec.to_config()) == spec
    assert hash(FeatureSpec.from_config(spec.to_config())) == hash(spec)
