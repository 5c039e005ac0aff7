"""The built-in market follows its law, bar by bar the same for ever, and its bars are consistent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kit.config import build
from kit.errors import UserError
from market import process, synth
from market.data import DataConfig, load, load_file
from market.synth import GAP, SIGNAL, SynthSource, generate, write

SEEDS = range(16)  # all of them, stated before anything was measured
SMALL = SynthSource(symbols=4, bars=300, seed=3)
GOLDEN = "fa593ab438974ea266035b3686e61466506bfb285a5929d4f131b7d16848c8ce"


def signal_of(panel):
    return panel.observed[SIGNAL].values


def returns_of(panel):
    return panel.close[1:] / panel.close[:-1] - 1.0


def autocorrelation(x, lag):
    x = x - x.mean()
    return (x[lag:] * x[:-lag]).mean() / (x * x).mean()


def law(source):
    """The stretches of a market, joined: returns, signal, v, deviation, traits."""
    streams = process.Streams(source.seed)
    traits = process.draw_traits(streams, source.symbols, 252)
    parts = list(process.simulate(streams, traits, source.bars, 252, source.ic))
    joined = [np.concatenate([getattr(p, name) for p in parts]) for name in ("returns", "signal", "v", "deviation")]
    return *joined, traits


@pytest.fixture(scope="module")
def panels():
    return [generate(SynthSource(seed=seed)) for seed in SEEDS]


def moments(panel):
    returns = returns_of(panel)
    index = returns.mean(axis=1)
    correlation = np.corrcoef(returns.T)
    return {
        "index volatility": index.std() * np.sqrt(252),
        "index kurtosis": stats.kurtosis(index, fisher=False),
        "stock volatility": returns.std(axis=0).mean() * np.sqrt(252),
        "correlation": correlation[np.triu_indices(10, 1)].mean(),
        "clustering at lag 1": autocorrelation(np.abs(index), 1),
        "clustering at lag 20": autocorrelation(np.abs(index), 20),
    }


def test_the_moments_are_those_of_a_stock_market(panels):
    stated = {
        "index volatility": 0.187,
        "index kurtosis": 10.2,
        "stock volatility": 0.31,
        "correlation": 0.29,
        "clustering at lag 1": 0.23,
        "clustering at lag 20": 0.10,
    }
    measured = pd.DataFrame([moments(panel) for panel in panels])
    # the stated figures are themselves means of 20 paths, given to two or three digits
    errors = measured.std(ddof=1) * np.sqrt(1 / 16 + 1 / 20)
    distance = (measured.mean() - pd.Series(stated)).abs() / errors
    assert (distance < 3).all(), pd.DataFrame({"measured": measured.mean(), "error": errors, "stated": stated})


def test_the_stated_constants_follow_from_the_law():
    transitions = np.array(process.TRANSITIONS)
    stationary = np.array(process.STATIONARY)
    assert transitions.sum(axis=1) == pytest.approx(1)
    assert stationary @ transitions == pytest.approx(stationary)
    log_variance = process.SLOW_SHOCK**2 / (1 - process.SLOW**2) + process.FAST_SHOCK**2 / (1 - process.FAST**2)
    mean_square = stationary @ np.array(process.REGIMES) ** 2 * np.exp(log_variance)
    assert mean_square == pytest.approx(process.MEAN_SQUARE_V, abs=5e-6)


def test_the_volatility_multiplier_has_the_stated_mean_square():
    squares = [np.mean(process.draw_volatility(process.Streams(seed), 100_000)[0] ** 2) for seed in range(8)]
    error = np.std(squares, ddof=1) / np.sqrt(8)
    assert abs(np.mean(squares) - process.MEAN_SQUARE_V) < 3 * error


def test_a_falling_market_raises_volatility_of_the_next_bar():
    v, z = process.draw_volatility(process.Streams(0), 100_000)
    fit = stats.linregress(z[:-1], np.diff(np.log(v)))
    assert abs(fit.slope - process.FAST_SHOCK * process.LEVERAGE) < 3 * fit.stderr


def test_the_signal_is_a_stationary_autoregression(panels):
    signals = np.stack([signal_of(panel) for panel in panels])  # [16, T, A]
    squares = (signals**2).mean(axis=(1, 2))
    assert abs(squares.mean() - 1) < 3 * squares.std(ddof=1) / 4
    persistence = (signals[:, 1:] * signals[:, :-1]).mean(axis=(1, 2)) / squares
    assert abs(persistence.mean() - process.PERSISTENCE) < 3 * persistence.std(ddof=1) / 4
    assert abs((signals[:, 0] ** 2).mean() - 1) < 3 * np.sqrt(2 / signals[:, 0].size), "it starts in its stationary law"


def test_the_signal_foretells_its_share_of_the_next_own_return():
    returns, signal, v, _, traits = law(SynthSource(ic=0.08))
    without = law(SynthSource(ic=0.0))[0]
    own = (returns - without)[1:] / (v[1:, None] * traits.own)  # 0.08 s - 0.0032 eps: all else is common
    assert np.corrcoef(own.ravel(), signal[:-1].ravel())[0, 1] > 0.999
    assert (own * signal[:-1]).mean() / (signal[:-1] ** 2).mean() == pytest.approx(0.08, abs=1e-4)


def test_the_close_to_close_returns_of_the_bars_are_the_law(panels):
    returns = law(SynthSource(seed=0))[0]
    assert returns_of(panels[0]) == pytest.approx(returns[1:], abs=1e-7)


def test_another_ic_moves_no_shock():
    strong, null = generate(SynthSource(bars=500, ic=0.5)), generate(SynthSource(bars=500, ic=0.0))
    assert (signal_of(strong) == signal_of(null)).all()
    assert (strong.volume == null.volume).all()
    assert not (strong.close == null.close).any()


@pytest.mark.parametrize("bar", ["day", "minute"])
def test_more_bars_extend_the_same_history(bar):
    long, short = SynthSource(bars=5040, bar=bar), SynthSource(bars=1000, bar=bar)
    assert generate(long)[:1000].hash == generate(short).hash


def test_how_the_market_is_cut_into_stretches_changes_nothing(monkeypatch):
    whole = generate(SMALL).hash
    monkeypatch.setattr(process, "_BLOCK", 7 * SMALL.symbols)
    assert generate(SMALL).hash == whole


def test_the_market_is_the_same_on_every_machine():
    """Pinned: a change here means that results no longer compare with those before."""
    assert generate(SMALL).hash == GOLDEN


def test_the_last_digit_of_the_mathematical_library_changes_nothing(monkeypatch):
    whole, exact = generate(SMALL), np.exp
    monkeypatch.setattr(np, "exp", lambda x: np.nextafter(exact(x), np.inf))
    assert generate(SMALL).hash == whole.hash


def test_another_seed_is_another_market():
    assert generate(SMALL).hash != generate(SynthSource(symbols=4, bars=300, seed=4)).hash


@pytest.mark.parametrize("bar", ["day", "minute"])
def test_bars_are_consistent(bar):
    panel = generate(SynthSource(bar=bar, symbols=20))
    assert (panel.low > 0).all()
    assert (panel.low <= np.minimum(panel.open, panel.close)).all()
    assert (panel.high >= np.maximum(panel.open, panel.close)).all()
    assert (panel.volume >= 1).all()
    assert (panel.volume == np.rint(panel.volume)).all()
    assert panel.tradable.all()


def test_the_open_is_the_stated_share_of_the_way(panels):
    """Of variance, of the index and of a symbol, and of what the signal foretells."""
    shares = []
    for panel in panels:
        gap, whole = panel.open[1:] / panel.close[:-1] - 1, returns_of(panel)
        shares.append([gap.var() / whole.var(), gap.mean(axis=1).var() / whole.mean(axis=1).var()])
    errors = np.std(shares, axis=0, ddof=1) / 4
    assert (np.abs(np.mean(shares, axis=0) - GAP["day"]) < 3 * errors).all()
    strong, null = generate(SynthSource(ic=0.5)), generate(SynthSource(ic=0.0))
    moved_open, moved_close = strong.open[0] - null.open[0], strong.close[0] - null.close[0]
    assert moved_open == pytest.approx(GAP["day"] * moved_close, abs=2e-6)


def test_high_and_low_have_the_law_of_a_brownian_bridge(panels):
    """P(high > h) = exp(-2 (h - open)(h - close) / variance), so that this figure is uniform."""
    panel, deviation = panels[0], law(SynthSource(seed=0))[3]
    variance = (1 - GAP["day"]) * (deviation[1:] * panel.close[:-1]) ** 2
    for extreme in (panel.high[1:], panel.low[1:]):
        chance = np.exp(-2 * (extreme - panel.open[1:]) * (extreme - panel.close[1:]) / variance)
        assert stats.kstest(chance.ravel(), "uniform").pvalue > 0.001


def test_volume_follows_volatility():
    panel, v = generate(SynthSource()), law(SynthSource())[2]
    fit = stats.linregress(np.log(v), np.log(panel.volume).mean(axis=1))
    assert abs(fit.slope - synth.VOLUME_ELASTICITY) < 3 * fit.stderr


def test_a_minute_has_a_390th_of_a_days_variance_and_the_same_premium_a_year():
    day, minute = (process.draw_traits(process.Streams(7), 10, year) for year in (252, 252 * 390))
    assert minute.own == pytest.approx(day.own / np.sqrt(390))
    (days,) = process.simulate(process.Streams(7), day, 100, 252, 0.0)
    (minutes,) = process.simulate(process.Streams(7), minute, 100, 252 * 390, 0.0)
    assert minutes.deviation == pytest.approx(days.deviation / np.sqrt(390))
    drift = days.returns - np.sqrt(390) * minutes.returns  # the noise cancels; the premium scales with time
    scale = (day.beta * process.PREMIUM * process.MARKET * (days.v**2)[:, None]) / np.sqrt(process.MEAN_SQUARE_V) / 252
    assert drift == pytest.approx(scale * (1 - 1 / np.sqrt(390)), abs=1e-12)


def test_days_are_weekdays_that_close_in_new_york():
    panel = generate(SynthSource(bars=300, symbols=2))
    days = pd.DatetimeIndex(panel.times)
    assert days[0] == pd.Timestamp("2000-01-03")
    assert (days.day_of_week < 5).all()
    assert (days == days.normalize()).all()
    closes = pd.DatetimeIndex(panel.closes).tz_localize("UTC").tz_convert("America/New_York")
    assert set(closes.strftime("%H:%M")) == {"16:00"}
    assert panel.bars_per_year == 252


def test_minutes_are_sessions_of_new_york_through_summer_time():
    panel = generate(SynthSource(bars=70 * 390, symbols=2, bar="minute"))
    labels = pd.DatetimeIndex(panel.times).tz_localize("UTC")
    local = labels.tz_convert("America/New_York").strftime("%H:%M").to_numpy().reshape(70, 390)
    assert set(local[:, 0]) == {"09:30"}
    assert set(local[:, -1]) == {"15:59"}
    assert set(labels[::390].strftime("%H:%M")) == {"14:30", "13:30"}
    assert (panel.closes - panel.times == np.timedelta64(1, "m")).all()
    assert panel.bars_per_year == 252 * 390


def test_the_rows_are_those_of_the_panel_in_order_of_time():
    panel, bars = generate(SMALL), SMALL.read()
    assert bars.times.reshape(300, 4)[:, 2].tolist() == panel.times.tolist()
    assert bars.codes[:5].tolist() == [0, 1, 2, 3, 0]
    assert bars.names == ("open", "high", "low", "close", "volume", "signal")
    assert (bars.column("close").reshape(300, 4) == panel.close).all()
    assert (bars.column("signal").reshape(300, 4) == signal_of(panel)).all()
    assert bars.row_name(0) == "built-in market (seed 3) row 1"


@pytest.mark.parametrize("bar", ["day", "minute"])
def test_the_source_gives_the_same_market(bar):
    source = SynthSource(symbols=4, bars=800, seed=3, bar=bar)
    panel, _ = load(DataConfig(source=source))
    assert panel.hash == generate(source).hash


@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
@pytest.mark.parametrize("bar", ["day", "minute"])
def test_the_file_holds_the_same_market(tmp_path, name, bar):
    source = SynthSource(symbols=4, bars=800, seed=3, bar=bar)
    panel, _ = load_file(write(source, tmp_path / name))
    assert panel.hash == generate(source).hash
    assert [file.name for file in tmp_path.iterdir()] == [name], "nothing is left beside it"


def test_the_csv_is_plain(tmp_path):
    lines = write(SMALL, tmp_path / "bars.csv").read_text().splitlines()
    assert lines[0] == "timestamp,symbol,open,high,low,close,volume,signal"
    assert lines[1].startswith("2000-01-03,SYN00,")
    assert len(lines) == 1 + 300 * 4


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"bars.xlsx: cannot write '.xlsx'; end it on .csv or .parquet"):
        write(SMALL, Path(tmp_path) / "bars.xlsx")


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("symbols", 1, "must be at least 2"),
        ("bars", 1, "must be at least 2"),
        ("ic", 1, "must be at least 0 and below 1"),
        ("ic", -0.1, "must be at least 0 and below 1"),
        ("seed", -1, "must be at least 0"),
        ("bar", "week", "expected one of day, minute"),
        ("bars", 25_201, "bars must be at most 25200, 100 years of day bars"),
    ],
)
def test_an_impossible_market_is_refused(key, value, right):
    with pytest.raises(UserError, match=right):
        build(SynthSource, {key: value}, "run.yaml")
