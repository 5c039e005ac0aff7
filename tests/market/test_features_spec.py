"""Specifications are data, complaints are one line, and the scaler sees its span only."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
from panels import constant_panel, random_panel, with_arrays, with_other_future

from kit.config import build, load, setting, to_dict
from kit.errors import UserError
from market.features import Features, FeatureSpec, Scaler
from market.panel import Observed

DEFAULT = FeatureSpec.default()


@dataclass(frozen=True)
class Config:
    features: FeatureSpec = setting(DEFAULT)


def spec(*items: object) -> FeatureSpec:
    return FeatureSpec.from_config(list(items))


def test_the_default_set_is_small_and_warms_up_in_256_bars():
    assert len(DEFAULT.names()) == 8
    assert DEFAULT.warmup <= 256


@pytest.mark.parametrize("minutes", [False, True])
def test_the_default_set_varies_on_daily_and_on_minute_bars(minutes):
    features = DEFAULT.compute(random_panel(1, 500, 4, minutes=minutes))
    assert (features.values[features.warmup :].std(axis=(0, 1)) > 0).all()


def test_a_specification_keeps_its_order_and_names_its_values():
    ordered = spec(
        "rsi", {"log_return": {"horizons": [20, 1]}}, {"macd": {"signal": 9}}, {"observed": {"column": "signal"}}
    )
    assert ordered.names() == ("rsi_14", "log_return_20", "log_return_1", "macd_12_26_9", "signal")
    panel = random_panel(2, ordered.warmup + 60, 3)
    together = ordered.compute(panel)
    assert together.names == ordered.names()
    alone = [spec(item).compute(panel).values for item in ordered.to_config()]
    np.testing.assert_allclose(together.values, np.concatenate(alone, axis=2), rtol=1e-6, atol=1e-6)


def test_a_specification_is_hashable_immutable_and_plain_data():
    one, same = spec("rsi", "atr"), spec({"rsi": {"window": 14}}, {"atr": None})
    assert one == same and hash(one) == hash(same) and one != spec("atr", "rsi")
    assert json.loads(json.dumps(one.to_config())) == [{"rsi": {"window": 14}}, {"atr": {"window": 14}}]
    with pytest.raises(FrozenInstanceError):
        one.transforms = ()


def test_a_specification_goes_through_a_command_configuration():
    assert load(Config).features == DEFAULT
    chosen = load(Config, overrides=["features=[rsi, {ewma_volatility: {span: 10}}]"])
    assert chosen.features == spec("rsi", {"ewma_volatility": {"span": 10}})
    assert build(Config, to_dict(chosen)) == chosen


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("rsi", "expected a list of features, e.g. [{log_return: {horizons: [1, 5]}}, rsi]"),
        ([], "expected at least one feature, e.g. [rsi]"),
        (["rssi"], "unknown feature 'rssi'; did you mean rsi?"),
        (["zzzzz"], "unknown feature 'zzzzz'; known features: adx, atr, "),
        ([7], "7 is not a feature"),
        ([{"rsi": None, "atr": None}], "write a name, rsi, or a name with parameters"),
        ([{"rsi": {"windw": 14}}], "rsi: windw = 14: unknown key; did you mean window?"),
        ([{"rsi": {"window": "long"}}], "rsi: window = 'long': expected a whole number"),
        ([{"rsi": {"window": 1}}], "rsi: window = 1: must be at least 2"),
        ([{"rsi": [14]}], "rsi: the whole = [14]: expected keys with values; known keys: window"),
        ([{"log_return": {"horizons": [1, 0]}}], "log_return: horizons.1 = 0: must be at least 1"),
        ([{"log_return": {"horizons": []}}], "horizons must name at least one"),
        ([{"macd": {"fast": 26, "slow": 12}}], "fast must be shorter than slow, 12"),
        ([{"macd": {"signal": 1}}], "signal must be 0 or at least 2"),
        ([{"momentum_rank": {"window": 5, "skip": 5}}], "skip must be less than window, 5"),
        ([{"turbulence": {"shrinkage": 0}}], "shrinkage = 0.0: must be above 0 and at most 1"),
        (["rsi", {"rsi": {"window": 14}}], "the feature rsi_14 is given twice"),
    ],
)
def test_a_bad_specification_is_refused_in_one_line_that_says_what_is_right(value, complaint):
    with pytest.raises(ValueError) as error:
        FeatureSpec.from_config(value)
    assert complaint in str(error.value)
    with pytest.raises(UserError) as line:
        build(Config, {"features": value}, "a.yaml")
    assert str(line.value).startswith("a.yaml: features = ") and complaint in str(line.value)


def test_a_panel_too_short_to_warm_up_is_refused():
    panel = random_panel(0, 30, 2)
    assert len(spec({"cci": {"window": 30}}).compute(panel).values) == 30
    with pytest.raises(UserError, match="at least 31 are needed, 30 to warm up"):
        spec({"cci": {"window": 31}}).compute(panel)
    with pytest.raises(UserError, match="the panel has 30 bars; at least 129 are needed, 128 to warm up"):
        DEFAULT.compute(panel)


def with_columns(**columns: float):
    panel = random_panel(0, 10, 2)
    observed = {k: Observed(np.full((10, 2), v), np.tile(panel.closes[:, None], 2)) for k, v in columns.items()}
    return with_arrays(panel, observed=observed)


def test_observed_without_a_column_takes_every_column_and_pins_their_order():
    features = spec("observed").compute(with_columns(b=2.0, a=1.0))
    assert features.names == ("b", "a")
    assert features.spec == spec({"observed": {"column": "b"}}, {"observed": {"column": "a"}})
    again = features.spec.compute(with_columns(a=1.0, c=3.0, b=2.0))
    np.testing.assert_array_equal(again.values[-1, 0], [2.0, 1.0])


def test_an_observed_column_that_is_not_there_is_named():
    with pytest.raises(UserError, match="observed column 'signl' is not in the panel; it has a, b"):
        spec({"observed": {"column": "signl"}}).compute(with_columns(a=1.0, b=2.0))
    with pytest.raises(UserError, match="on this panel, expected at least one feature"):
        spec("observed").compute(with_columns())
    with pytest.raises(UserError, match="the feature rsi_14 is given twice"):
        spec("observed", "rsi").names(with_columns(rsi_14=1.0))


def test_features_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        DEFAULT.compute(random_panel(0, 300, 2)).values[0, 0, 0] = 1.0


def made(values: list[float], listed: list[bool] | None = None, warmup: int = 0) -> Features:
    """One symbol, one feature."""
    column = np.array(values, np.float32)[:, None, None]
    return Features(column, np.array(listed or [True] * len(values))[:, None], spec("rsi"), ("rsi_14",), warmup)


def test_the_scaler_fits_listed_cells_of_its_span_after_the_warmup():
    features = made([99.0, 0.0, 2.0, 4.0, 77.0], listed=[True, False, True, True, True], warmup=1)
    scaler = Scaler.fit(features, slice(0, 4))
    assert scaler == Scaler(("rsi_14",), (3.0,), (1.0,))
    np.testing.assert_array_equal(scaler.apply(features)[:, 0, 0], [10.0, 0.0, -1.0, 1.0, 10.0])  # clipped; unlisted


def test_the_scaler_makes_mean_0_and_variance_1_on_its_span():
    panel = random_panel(3, 1500, 4)
    features = DEFAULT.compute(panel)
    scaled = Scaler.fit(features, slice(200, 1200)).apply(features)
    assert scaled.dtype == np.float32 and np.isfinite(scaled).all() and np.abs(scaled).max() <= 10.0
    assert (scaled[~panel.listed] == 0.0).all()
    cells = scaled[200:1200][panel.listed[200:1200]].astype(np.float64)
    assert np.abs(cells).max() < 10.0, "nothing may be clipped here"
    np.testing.assert_allclose(cells.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(cells.std(axis=0), 1.0, atol=1e-5)


def test_the_scaler_does_not_see_past_its_span():
    panel = random_panel(4, 700, 4)
    other = with_other_future(panel, 499)
    assert Scaler.fit(DEFAULT.compute(panel), slice(0, 500)) == Scaler.fit(DEFAULT.compute(other), slice(0, 500))


def test_the_scaler_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    features = DEFAULT.compute(random_panel(5, 600, 3))
    whole = Scaler.fit(features, slice(100, 600))
    scaled = whole.apply(features)
    monkeypatch.setattr("market.features.scaler.BLOCK_VALUES", 100)
    parts = Scaler.fit(features, slice(100, 600))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-9)
    np.testing.assert_array_equal(whole.apply(features), scaled)


def test_a_constant_feature_scales_to_zero():
    features = spec("rsi", "observed").compute(constant_panel(7 / 3))
    scaler = Scaler.fit(features, slice(None))
    assert scaler.std[0] == 0.0 and scaler.std[1] > 0.0
    assert (scaler.apply(features)[..., 0] == 0.0).all()
    almost = made(list(np.float32(0.1) + np.float32(1e-8) * np.arange(8)))
    assert (Scaler.fit(almost, slice(None)).apply(almost) == 0.0).all()


def test_the_scaler_survives_json_exactly():
    features = DEFAULT.compute(random_panel(6, 400, 3))
    scaler = Scaler.fit(features, slice(None))
    again = Scaler.from_config(json.loads(json.dumps(scaler.to_config(), allow_nan=False)))
    assert again == scaler
    np.testing.assert_array_equal(again.apply(features), scaler.apply(features))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "expected the keys names, mean and std"),
        ({"names": ["a"], "mean": [0.0]}, "expected the keys names, mean and std"),
        ({"names": ["a"], "mean": ["x"], "std": [1.0]}, "must be numbers"),
        ({"names": ["a"], "mean": "1", "std": [1.0]}, "must be lists"),
        ({"names": ["a"], "mean": [0.0, 1.0], "std": [1.0]}, "the same length"),
        ({"names": ["a"], "mean": [0.0], "std": [-1.0]}, "at least 0"),
        ({"names": ["a"], "mean": [float("nan")], "std": [1.0]}, "must be finite"),
    ],
)
def test_a_bad_scaler_is_refused(value, complaint):
    with pytest.raises(ValueError, match=complaint):
        Scaler.from_config(value)


def test_the_scaler_refuses_a_span_without_data_and_other_features():
    features = made([1.0, 2.0], listed=[False, False])
    with pytest.raises(UserError, match="hold no listed symbol"):
        Scaler.fit(features, slice(None))
    with pytest.raises(UserError, match="hold no listed symbol"):
        Scaler.fit(made([1.0, 2.0], warmup=2), slice(None))
    with pytest.raises(ValueError, match="fitted on atr_14; these are rsi_14"):
        Scaler(("atr_14",), (0.0,), (1.0,)).apply(features)
