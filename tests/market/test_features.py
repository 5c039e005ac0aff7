"""Every registered feature, at its defaults and with other parameters, through the conformance suite."""

from __future__ import annotations

import feature_conformance as conformance
import pytest

from market.features import FeatureSpec
from market.features import spec as spec_module
from market.features.transform import REGISTRY, Transform

# Without parameters unless named here; a feature that is registered cannot escape the suite.
OTHER_PARAMETERS = {
    "log_return": [{"horizons": [3]}],
    "ewma_volatility": [{"span": 5}],
    "atr": [{"window": 5}],
    "distance_from_high": [{"window": 7}],
    "rsi": [{"window": 5}],
    "macd": [{"fast": 3, "slow": 8, "signal": 5}],
    "bollinger": [{"window": 7, "width": 1.5}],
    "cci": [{"window": 20}],
    "adx": [{"window": 4}],
    "volume_zscore": [{"window": 7}],
    "momentum_rank": [{"window": 20, "skip": 5}],
    "turbulence": [{"window": 4}],  # fewer bars than symbols
    "observed": [{"column": "signal", "age": True}],
}
CASES = [(name, p) for name in sorted(REGISTRY) for p in [{}, *OTHER_PARAMETERS.get(name, [])]]
SPECS = [FeatureSpec.from_config([{name: parameters}]) for name, parameters in CASES]
CLAIMS = [
    conformance.has_a_name_and_a_float32_for_each_value,
    conformance.does_not_see_the_future,
    conformance.forgets_what_is_older_than_its_warmup,
    conformance.is_zero_before_listing_and_finite_after,
    conformance.does_not_know_when_a_symbol_will_list,
    conformance.does_not_depend_on_the_price_scale,
    conformance.bears_zero_and_missing_volume,
    conformance.treats_symbols_alike,
    conformance.gives_the_same_twice,
    conformance.survives_its_configuration,
]
OF_PRICES_AND_VOLUME = [s for s in SPECS if s.transforms[0].name not in ("observed", "time_of_day", "session_position")]


def name(value: object) -> str:
    if isinstance(value, FeatureSpec):
        return "-".join(value.names()) or "observed"
    return getattr(value, "__name__", str(value))


@pytest.fixture(params=SPECS, ids=name)
def transform(request: pytest.FixtureRequest) -> Transform:
    return request.param.transforms[0]


@pytest.mark.parametrize("claim", CLAIMS, ids=name)
def test_feature(transform, claim):
    claim(transform)


def test_feature_does_not_depend_on_how_the_work_is_cut(transform, monkeypatch):
    def cut(bars: int, symbols: int) -> None:
        monkeypatch.setattr(spec_module, "BLOCK_WARMUPS", 0)
        monkeypatch.setattr(spec_module, "BLOCK_BARS", bars)
        monkeypatch.setattr(spec_module, "BLOCK_CELLS", 0)
        monkeypatch.setattr(spec_module, "BLOCK_SYMBOLS", symbols)

    conformance.does_not_depend_on_how_the_work_is_cut(transform, cut)


@pytest.mark.parametrize("spec", OF_PRICES_AND_VOLUME, ids=name)
@pytest.mark.parametrize(
    "claim", [conformance.gives_one_value_for_constant_prices, conformance.stands_still_once_prices_do], ids=name
)
def test_feature_at_constant_prices(spec, claim):
    claim(spec.transforms[0])
