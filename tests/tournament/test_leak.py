"""What knows the future is found before training, or by its score; what is honest raises no alarm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from outcomes import FEATURES, FOLDS, SOURCE, built_in
from panels import random_panel
from small import arena_of

import agents.networks
import envs.backtest
import envs.market
import tournament.leak
from agents.baselines import BASELINES, Oracle
from agents.candidate import Candidate
from agents.config import PPOConfig
from envs.config import AllocationConfig, CostConfig, TradingConfig
from envs.market import MarketTensors
from envs.policy import Policy
from envs.transition import State
from kit.errors import run_command
from market.features import FeatureSpec, Scaler
from market.features.observed import ObservedColumn
from market.features.price import LogReturn
from market.features.volume import VolumeZScore
from market.panel import Panel
from market.synth import SIGNAL
from tournament.arena import Arena
from tournament.config import LeakConfig
from tournament.folds import FoldConfig
from tournament.leak import LeakFound, alarms, self_test, too_good
from tournament.leak import with_other_future as perturbed
from tournament.score import Entrant, Standing

ONE_FOLD = FoldConfig(train=120, validation=20, test=40, count=1, gap=5, holdout=60)
ALARM = LeakConfig()


def arena(panel: Panel | None = None, spec: FeatureSpec = FEATURES, **trading: Any) -> Arena:
    return Arena.build(panel or built_in(SOURCE)[:400], spec, TradingConfig(**trading), ONE_FOLD)


def found_in(arena: Arena) -> str:
    with pytest.raises(LeakFound) as caught:
        self_test(arena)
    return str(caught.value)


# The self-test


@pytest.mark.parametrize("ic", [0.0, 0.3])
def test_the_built_in_market_has_no_leak_with_or_without_a_signal(ic: float) -> None:
    self_test(arena(built_in(replace(SOURCE, ic=ic))[:400], FeatureSpec.default()))


def test_the_smoke_tournament_has_no_leak() -> None:
    self_test(arena_of())


@pytest.mark.parametrize("kind", ["softmax", "tilt", "long_short", "shares"])
@pytest.mark.parametrize("fill", ["open", "close"])
def test_a_market_with_gaps_and_late_listings_has_no_leak(kind: Any, fill: Any) -> None:
    panel = random_panel(3, 400, 4)
    self_test(arena(panel, allocation=AllocationConfig(kind), fill=fill, costs=CostConfig(cash_rate=0.05)))


def test_a_tournament_without_a_hold_out_can_be_tested() -> None:
    folds = replace(ONE_FOLD, holdout=0, count=None, validation=0)
    self_test(Arena.build(built_in(SOURCE)[:400], FEATURES, TradingConfig(), folds))


def test_another_future_differs_everywhere_after_the_bar_and_nowhere_before() -> None:
    panel, last = random_panel(3, 200, 4), 120
    other = perturbed(panel, last)
    for name in ("open", "high", "low", "close", "volume"):
        one, two = getattr(panel, name), getattr(other, name)
        np.testing.assert_array_equal(one[: last + 1], two[: last + 1])
        assert not np.isclose(one[last + 1 :], two[last + 1 :], rtol=1e-9).any()
    assert (other.high >= np.fmax(other.open, other.close))[last + 1 :].all()
    assert (other.low <= np.fmin(other.open, other.close))[last + 1 :].all()
    assert (panel.tradable != other.tradable).any(axis=1)[last + 1 :].mean() > 0.5
    np.testing.assert_array_equal(panel.tradable[: last + 1], other.tradable[: last + 1])
    one, two = panel.observed[SIGNAL].values, other.observed[SIGNAL].values
    np.testing.assert_array_equal(one[: last + 1], two[: last + 1])
    assert not np.isclose(one[last + 1 :], two[last + 1 :]).any()


def shifted(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Each bar gets what the next one ought to."""
    return lambda self, window: [np.concatenate([a[1:], a[-1:]]) for a in compute(self, window)]


@pytest.mark.parametrize(
    ("transform", "name"), [(LogReturn, "log_return_1"), (ObservedColumn, SIGNAL), (VolumeZScore, "volume_zscore")]
)
def test_a_feature_shifted_by_a_bar_is_found_and_named(
    monkeypatch: pytest.MonkeyPatch, transform: type, name: str
) -> None:
    monkeypatch.setattr(transform, "compute", shifted(transform.compute))  # type: ignore[attr-defined]
    one = arena(spec=FeatureSpec.default())
    last = one.folds.folds[0].spans.train.stop - 1
    message = found_in(one)
    assert f"feature {name}" in message
    assert message.count(f"bar {last} ({np.datetime_as_string(one.panel.closes[last], 'm')})") == 2


def test_a_scaler_fitted_on_everything_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Scaler.fit
    monkeypatch.setattr(Scaler, "fit", classmethod(lambda cls, features, span: fit(features, slice(None))))
    assert "fold 1: scaler of log_return_1 looks ahead" in found_in(arena())


def test_a_scaler_fitted_one_bar_too_far_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Scaler.fit
    further = classmethod(lambda cls, features, span: fit(features, slice(span.start, span.stop + 1)))
    monkeypatch.setattr(Scaler, "fit", further)
    assert "scaler of" in found_in(arena())


def fill_at_the_close(panel: Panel, fill: str) -> tuple[np.ndarray, np.ndarray]:
    drift = np.ones_like(panel.close)
    drift[:-1] = panel.close[1:] / panel.close[:-1]
    return np.ones_like(drift), drift


def test_a_fill_at_the_close_that_decided_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs.market, "_relatives", fill_at_the_close)
    assert "the fill of an order sent at bar" in found_in(arena())


def test_a_network_that_looks_a_bar_ahead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    window = agents.networks.window

    def ahead(features: torch.Tensor, lookback: int, bars: torch.Tensor | None) -> torch.Tensor:
        return window(torch.roll(features, -1, 0), lookback, bars)

    monkeypatch.setattr(agents.networks, "window", ahead)
    assert "decision of a network" in found_in(arena())


def test_a_cost_that_knows_the_next_volume_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trailing = envs.market._trailing_sum
    monkeypatch.setattr(envs.market, "_trailing_sum", lambda v, w: np.roll(trailing(v, w), -1, axis=0))
    assert "market tensor impact" in found_in(arena())


def test_a_panel_scaled_by_its_last_close_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Arena.seen

    def rescaled(self: Arena, spans: Any) -> Panel:
        panel = seen(self, spans)
        return replace(panel, close=panel.close / panel.close[-1])

    monkeypatch.setattr(Arena, "seen", rescaled)
    assert "panel column close" in found_in(arena())


def test_a_fold_that_is_given_the_bars_of_later_ones_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Arena.seen

    def everything(self: Arena, spans: Any) -> Panel:
        later = self.panel.close[spans.test.stop + 2 :].mean(axis=0)
        panel = seen(self, spans)
        volume = panel.volume.copy()
        volume[-1] *= later
        return replace(panel, volume=volume)

    monkeypatch.setattr(Arena, "seen", everything)
    assert "panel column volume" in found_in(arena())


def test_a_portfolio_that_shows_the_next_bar_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = envs.backtest.portfolio_of

    def telling(market: MarketTensors, state: State) -> torch.Tensor:
        portfolio = shown(market, state)
        portfolio[:, -1] -= market.quote(state.bar).drift.std(dim=1)
        return portfolio

    monkeypatch.setattr(envs.backtest, "portfolio_of", telling)
    assert ", in its turn," in found_in(arena())


def test_a_leak_exits_with_code_3_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def leaking() -> int:
        raise LeakFound("leak: fold 1:\n feature rsi_14")

    with pytest.raises(SystemExit) as caught:
        run_command(leaking)
    assert caught.value.code == 3
    assert capsys.readouterr().err == "error: leak: fold 1: feature rsi_14\n"


# The alarm on scores


def whole(panel: Panel | None = None) -> Arena:
    return Arena.build(panel or built_in(SOURCE), FEATURES, TradingConfig(), FOLDS)


def standing(number: int, returns: np.ndarray, folds: int) -> Standing:
    entrant = Entrant(Candidate(PPOConfig(samples=1000 + number)), 1)
    return Standing(entrant, ((),) * folds, "running", "", returns)


def scored(arena: Arena, make: Callable[[MarketTensors], Sequence[Policy]], folds: int = 3) -> list[Standing]:
    tracks = []
    for fold in arena.folds.folds[:folds]:
        market = arena.market(fold.spans)
        tracks.append(
            np.column_stack([t.returns for t in envs.backtest.backtest(make(market), market, fold.spans.test)])
        )
    return [standing(number, returns, folds) for number, returns in enumerate(np.concatenate(tracks).T)]


def signal_of(arena: Arena, market: MarketTensors) -> np.ndarray:
    return arena.panel.observed[SIGNAL].values[: len(market)]


@pytest.mark.parametrize("ic", [0.0, 0.08, 0.3])
@pytest.mark.parametrize("known", [True, False])
def test_honest_rules_raise_no_alarm(ic: float, known: bool) -> None:
    """The oracle's rule among them, where it is known how much can be known."""
    one = whole(built_in(replace(SOURCE, ic=ic)))

    def rules(market: MarketTensors) -> list[Policy]:
        oracles = [Oracle(signal_of(one, market), tilt) for tilt in (0.05, 0.4, 1.5)]
        return [*(oracles if known or ic < 0.3 else []), *(make() for make in BASELINES.values())]

    assert alarms(scored(one, rules), one, ALARM, known) == {}
    assert alarms(scored(one, rules, 1), one, ALARM, known) == {}


@pytest.mark.parametrize("folds", [1, 3])
def test_a_score_that_comes_from_a_shifted_feature_raises_the_alarm(
    monkeypatch: pytest.MonkeyPatch, folds: int
) -> None:
    monkeypatch.setattr(LogReturn, "compute", shifted(LogReturn.compute))
    one = whole(built_in(replace(SOURCE, ic=0.08)))
    found = scored(one, lambda market: [Oracle(0), BASELINES["equal_weight"]()], folds)  # feature 0: the next return
    for known in (True, False):
        caught = alarms(found, one, ALARM, known)
        assert set(caught) == {found[0].hash}
        assert "information ratio" in caught[found[0].hash]


def test_candidates_that_left_early_are_judged_on_their_own_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogReturn, "compute", shifted(LogReturn.compute))
    one = whole()
    early = scored(one, lambda market: [Oracle(0)], 1)
    late = [standing(7, s.returns, 3) for s in scored(one, lambda market: [BASELINES["equal_weight"]()])]
    assert set(alarms([*late, *early, standing(8, np.zeros(0), 0)], one, ALARM)) == {early[0].hash}


def test_whoever_beats_what_can_be_known_raises_the_alarm() -> None:
    """A signal with a little of the next bar in it, whose information ratio alone would pass."""
    one = whole(built_in(replace(SOURCE, ic=0.08)))
    ahead = np.zeros(one.panel.close.shape)
    ahead[:-1] = (one.panel.close[1:] / one.panel.open[1:] - 1) / 0.01

    def rules(market: MarketTensors) -> list[Policy]:
        signal = signal_of(one, market)
        return [Oracle(signal), Oracle(signal + ahead[: len(market)], 0.4)]

    found = scored(one, rules)
    lenient = replace(ALARM, information_ratio=100.0)
    caught = alarms(found, one, lenient, known=True)
    assert set(caught) == {found[1].hash}
    assert "what can be known" in caught[found[1].hash]
    assert alarms(found, one, lenient, known=False) == {}


def test_no_score_tells_of_a_fill_at_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """It flatters the oracle as much, and is no great ratio: the self-test alone finds it."""
    monkeypatch.setattr(envs.market, "_relatives", fill_at_the_close)
    one = whole(built_in(replace(SOURCE, ic=0.08)))
    assert alarms(scored(one, lambda market: [Oracle(signal_of(one, market))]), one, ALARM, known=True) == {}


@pytest.mark.parametrize(("days", "tail"), [(30, 3), (60, 3), (126, 5), (504, 5)])
def test_luck_seldom_raises_an_alarm(days: int, tail: int) -> None:
    """Tournaments of 32 candidates with nothing but luck, heavy tails and all; one known rule that is worthless too."""
    rng, alarmed, runs = np.random.default_rng(days), 0, 150
    for _ in range(runs):
        market = 0.01 * rng.standard_t(tail, days)
        returns = market[:, None] + 0.004 * rng.standard_t(tail, (days, 33))
        alarmed += bool(too_good(returns[:, 1:], market, returns[:, :1], ALARM, 32, 252.0))
    assert alarmed <= 2  # of 150


def test_an_information_ratio_is_held_against_its_days_and_the_number_of_tries() -> None:
    def caught(ratio: float, days: int, tries: int = 1) -> bool:
        excess = np.random.default_rng(1).standard_normal(days)
        excess = (excess - excess.mean()) / excess.std(ddof=1) + ratio / np.sqrt(252)
        return bool(too_good(0.001 * excess[:, None], np.zeros(days), None, ALARM, tries, 252.0))

    assert not caught(4.9, 20_000)
    assert caught(5.5, 20_000)
    assert not caught(6.0, 252)  # standard error 1, so 6.7 is the least at one try
    assert caught(7.5, 252)
    assert not caught(7.5, 252, tries=100)
    assert not caught(9.0, 40)
    assert caught(25.0, 40)


def test_what_hardly_leaves_equal_weight_is_no_leak_however_steady() -> None:
    steady = 1e-7 * (1 + 0.1 * np.random.default_rng(0).standard_normal((252, 1)))
    assert too_good(steady, np.zeros(252), None, ALARM, 1, 252.0) == {}
    assert too_good(1e3 * steady, np.zeros(252), None, ALARM, 1, 252.0) != {}


def test_equal_weight_can_be_known_whatever_the_signal_is_worth() -> None:
    rng = np.random.default_rng(0)
    market = 0.001 + 0.01 * rng.standard_normal(1000)
    returns = market[:, None] + 0.0002 * rng.standard_normal((1000, 1))
    worthless = market[:, None] - 0.002
    assert too_good(returns, market, worthless, ALARM, 1, 252.0) == {}
    assert too_good(returns, market - 0.002, worthless, ALARM, 1, 252.0) != {}


def test_long_short_is_not_held_against_a_long_only_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    trading = TradingConfig(AllocationConfig("long_short"))
    one = Arena.build(built_in(SOURCE), FEATURES, trading, FOLDS)
    monkeypatch.setattr(tournament.leak, "_oracles", lambda *_: pytest.fail("asked"))
    assert alarms(scored(one, lambda market: [BASELINES["cash"]()]), one, ALARM, known=True) == {}
