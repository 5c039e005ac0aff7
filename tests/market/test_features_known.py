"""Features against TA-Lib and against arithmetic worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import talib
from panels import MINUTE, constant_panel, flat, price_panel, random_panel, with_arrays

from market.features import FeatureSpec
from market.panel import Observed, Panel


def feature(panel: Panel, name: str, **parameters: object) -> np.ndarray:
    """[T, A] of a feature with one value."""
    features = FeatureSpec.from_config([{name: parameters}]).compute(panel)
    assert len(features.names) == 1
    return features.values[:, :, 0]


# TA-Lib's exponential averages start at the first bar and never forget; ours stop at a weight of
# e^-9 = 1.2e-4 and count what is left as the whole. An average can therefore differ by about 1e-4 of
# the range of what is averaged: 0.01 points of an index from 0 to 100, some 1e-3 of a standard
# deviation. Indicators of a finite window agree to float32.
PANEL = random_panel(21, 1500, 3, gaps=False)
SETTLED = slice(600, None)  # where TA-Lib's start no longer matters


def by_symbol(function, *fields: str) -> np.ndarray:
    columns = [[np.ascontiguousarray(getattr(PANEL, field)[:, i]) for field in fields] for i in range(3)]
    return np.stack([function(*arrays) for arrays in columns], axis=1)


@pytest.mark.parametrize(
    ("name", "parameters", "expected", "tolerance"),
    [
        ("rsi", {"window": 14}, lambda: by_symbol(lambda c: talib.RSI(c, 14), "close"), 0.02),
        ("rsi", {"window": 5}, lambda: by_symbol(lambda c: talib.RSI(c, 5), "close"), 0.02),
        (
            "adx",
            {"window": 14},
            lambda: by_symbol(lambda *hlc: talib.ADX(*hlc, 14), "high", "low", "close"),
            0.02,
        ),
        (
            "cci",
            {"window": 14},
            lambda: by_symbol(lambda *hlc: talib.CCI(*hlc, 14), "high", "low", "close"),
            1e-4,
        ),
        (
            "cci",
            {"window": 20},
            lambda: by_symbol(lambda *hlc: talib.CCI(*hlc, 20), "high", "low", "close"),
            1e-4,
        ),
        (
            "atr",
            {"window": 14},
            lambda: by_symbol(lambda *hlc: talib.ATR(*hlc, 14) / hlc[2], "high", "low", "close"),
            1e-5,
        ),
        ("macd", {"fast": 12, "slow": 26}, lambda: by_symbol(lambda c: talib.MACD(c)[0] / c, "close"), 5e-5),
        (
            "macd",
            {"fast": 12, "slow": 26, "signal": 9},
            lambda: by_symbol(lambda c: talib.MACD(c, 12, 26, 9)[2] / c, "close"),
            5e-5,
        ),
        ("log_return", {"horizons": [5]}, lambda: by_symbol(lambda c: np.log1p(talib.ROCP(c, 5)), "close"), 1e-6),
        (
            "distance_from_high",
            {"window": 50},
            lambda: by_symbol(lambda h, c: c / talib.MAX(h, 50) - 1, "high", "close"),
            1e-6,
        ),
    ],
)
def test_feature_agrees_with_talib(name, parameters, expected, tolerance):
    ours, theirs = feature(PANEL, name, **parameters), expected()
    assert theirs[SETTLED].std() > 50 * tolerance, "the tolerance must be small beside the feature"
    np.testing.assert_allclose(ours[SETTLED], theirs[SETTLED], rtol=0, atol=tolerance)


def test_bollinger_agrees_with_talib():
    upper, _, lower = (by_symbol(lambda c, k=k: talib.BBANDS(c, 20, 2.0, 2.0)[k], "close") for k in range(3))
    expected = (PANEL.close - lower) / (upper - lower)
    # TA-Lib takes its variance as a difference of sums, which costs it digits.
    np.testing.assert_allclose(feature(PANEL, "bollinger")[SETTLED], expected[SETTLED], rtol=0, atol=1e-5)


def test_log_returns_count_bars_back():
    panel = price_panel([1.0, 2.0, 4.0, 2.0])
    values = FeatureSpec.from_config([{"log_return": {"horizons": [1, 3]}}]).compute(panel).values[-1, 0]
    np.testing.assert_allclose(values, [-math.log(2), math.log(2)], rtol=1e-6)


def test_a_gap_returns_nothing_until_trading_resumes():
    panel = price_panel([100.0, 100.0, 100.0, 110.0])  # bars 1 and 2 repeat the last close
    tradable = np.array([True, False, False, True])[:, None]
    values = feature(with_arrays(panel, tradable=tradable), "log_return", horizons=[1])[:, 0]
    np.testing.assert_allclose(values, [0.0, 0.0, 0.0, math.log(1.1)], rtol=1e-6)


def test_prices_before_the_listing_count_as_the_first_close():
    close = np.array([[1.0, np.nan], [1.0, np.nan], [1.0, 50.0], [1.0, 100.0]])
    listed = ~np.isnan(close)
    panel = with_arrays(price_panel(np.ones((4, 2))), tradable=listed, **flat(close))
    values = feature(panel, "log_return", horizons=[2])[:, 1]
    np.testing.assert_allclose(values, [0.0, 0.0, 0.0, math.log(2)], rtol=1e-6)


def test_ewma_volatility_of_a_move_decays_by_its_span():
    moves = np.zeros(120)
    moves[-3] = 0.1
    values = feature(price_panel(100 * np.exp(np.cumsum(moves))), "ewma_volatility", span=3)[-3:, 0]
    np.testing.assert_allclose(values**2, 0.01 * np.array([1 / 2, 1 / 4, 1 / 8]), rtol=1e-3)  # alpha = 1/2


@pytest.mark.parametrize(
    ("name", "value"), [("rsi", 50.0), ("bollinger", 0.5), ("cci", 0.0), ("adx", 0.0), ("macd", 0.0), ("atr", 0.0)]
)
@pytest.mark.parametrize("price", [1e6, 7 / 3])
def test_a_price_that_does_not_move_has_the_neutral_value(name, value, price):
    assert (feature(constant_panel(price), name) == value).all()


def test_rsi_counts_gains_against_moves():
    up = feature(price_panel(100 + np.arange(200.0)), "rsi")[-1, 0]
    zigzag = feature(price_panel(100 + np.tile([0.0, 1.0], 200)), "rsi", window=25)[-1, 0]
    assert up == 100.0
    assert zigzag == pytest.approx(100 * 25 / 49, rel=1e-6)  # alpha 1/25: after a gain, gains weigh 1 / (2 - 1/25)


def test_distance_from_high_is_zero_at_the_high_and_a_share_below_it():
    values = feature(price_panel([100.0, 200.0, 150.0, 100.0, 100.0]), "distance_from_high", window=3)[:, 0]
    np.testing.assert_allclose(values, [0.0, 0.0, -0.25, -0.5, -1 / 3], rtol=1e-6)


def test_volume_zscore_leaves_out_bars_without_volume():
    volume = np.exp([[1.0], [3.0], [0.0], [2.0], [5.0]])
    volume[2], volume[3] = 0.0, np.nan
    values = feature(price_panel(np.ones(5), volume), "volume_zscore", window=5)[:, 0]
    # The last window holds logs 1, 3 and 5: mean 3, standard deviation sqrt(8/3).
    np.testing.assert_allclose(values[2:], [0.0, 0.0, 2 / math.sqrt(8 / 3)], rtol=1e-6)
    np.testing.assert_allclose(values[1], 1.0, rtol=1e-6)  # logs 1 and 3


def test_constant_and_missing_volume_score_zero():
    for volume in (1234.0, 0.0, np.nan):
        assert (np.abs(feature(price_panel(np.ones(100), volume), "volume_zscore")) == 0.0).all()


def test_momentum_ranks_the_listed_from_minus_one_to_one():
    close = np.ones((3, 5))
    close[2] = [1.3, 0.9, 1.1, 1.1, 7.0]
    close[:2, 4] = np.nan  # lists today: its return is 0
    panel = with_arrays(price_panel(np.ones((3, 5))), **flat(close), tradable=~np.isnan(close))
    values = feature(panel, "momentum_rank", window=2)
    np.testing.assert_allclose(values[2], [1.0, -1.0, 0.25, 0.25, -0.5], rtol=1e-6)
    np.testing.assert_array_equal(values[1], 0.0)  # all four equal


def test_momentum_rank_of_a_single_symbol_is_zero():
    assert (feature(price_panel(np.arange(1.0, 9.0)), "momentum_rank", window=3) == 0.0).all()


def test_turbulence_is_the_mahalanobis_distance_from_the_bars_before_today():
    panel = random_panel(5, 40, 3, gaps=False)
    returns = np.diff(np.log(panel.close), axis=0)
    past, today = returns[-31:-1], returns[-1]
    covariance = np.cov(past, rowvar=False, bias=True)
    shrunk = 0.75 * covariance + 0.25 * np.trace(covariance) / 3 * np.eye(3)
    apart = today - past.mean(axis=0)
    expected = math.sqrt(apart @ np.linalg.inv(shrunk) @ apart / 3)
    np.testing.assert_allclose(feature(panel, "turbulence", window=30, shrinkage=0.25)[-1], expected, rtol=1e-5)


def test_turbulence_is_larger_where_symbols_part_that_used_to_move_together():
    def last(today: list[float]) -> float:
        moves = np.r_[np.tile([[0.01, 0.01], [-0.01, -0.01]], (40, 1)), [today]]
        return float(feature(price_panel(np.exp(np.cumsum(moves, axis=0))), "turbulence", shrinkage=0.2)[-1, 0])

    # Variance 1 and correlation 1, shrunk by .2: 1.8 along the diagonal, .2 across it.
    assert last([0.01, 0.01]) == pytest.approx(1 / math.sqrt(1.8), rel=1e-5)
    assert last([0.01, -0.01]) == pytest.approx(1 / math.sqrt(0.2), rel=1e-5)


def minutes(start: str, count: int, bars_per_year: float) -> Panel:
    panel = price_panel(np.ones(count), minutes=True)
    times = np.datetime64(start, "ns") + np.arange(count) * MINUTE
    return with_arrays(panel, times=times, closes=times + MINUTE, bars_per_year=bars_per_year, observed={})


@pytest.mark.parametrize(("day", "opens"), [("2024-01-16", "14:30"), ("2024-07-16", "13:30")])
def test_session_position_runs_from_the_us_open_to_the_close_in_winter_and_summer(day, opens):
    panel = minutes(f"{day}T{opens}", 400, 252 * 390)
    values = feature(panel, "session_position")[:, 0]
    np.testing.assert_allclose(values[[0, 194, 389, 399]], [1 / 390, 0.5, 1.0, 1.0], rtol=1e-6)


def test_session_position_round_the_clock_is_the_share_of_the_utc_day():
    values = feature(minutes("2024-01-16T23:58", 4, 365 * 1440), "session_position")[:, 0]
    np.testing.assert_allclose(values, [1439 / 1440, 1.0, 1 / 1440, 2 / 1440], rtol=1e-6)


def test_time_of_day_lies_on_a_circle():
    panel = minutes("2024-01-16T17:59", 1, 365 * 1440)  # closes at 18:00 UTC, three quarters of the day
    values = FeatureSpec.from_config(["time_of_day"]).compute(panel).values[0, 0]
    np.testing.assert_allclose(values, [-1.0, 0.0], atol=1e-6)
    new_york = FeatureSpec.from_config(["time_of_day"]).compute(minutes("2024-01-16T16:59", 1, 252 * 390)).values[0, 0]
    np.testing.assert_allclose(new_york, [0.0, -1.0], atol=1e-6)  # noon


@pytest.mark.parametrize("name", ["time_of_day", "session_position"])
def test_the_clock_is_zero_on_daily_bars(name):
    assert (FeatureSpec.from_config([name]).compute(random_panel(0, 10, 2)).values == 0.0).all()


def test_an_observed_column_comes_with_its_age_in_days():
    panel = price_panel(np.ones(3))
    closes = panel.closes[:, None]
    known_at = np.array([["NaT"], [closes[1, 0] - np.timedelta64(36, "h")], [closes[2, 0]]], "datetime64[ns]")
    panel = with_arrays(panel, observed={"signal": Observed(np.array([[np.nan], [2.5], [-1.0]]), known_at)})
    values = FeatureSpec.from_config([{"observed": {"column": "signal", "age": True}}]).compute(panel).values[:, 0]
    np.testing.assert_allclose(values, [[0.0, 0.0], [2.5, 1.5], [-1.0, 0.0]], rtol=1e-6)
