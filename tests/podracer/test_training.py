"""Training is a function of (candidate, spans, seed, start), of nothing else, and of no later bar."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pods import (
    EVERYTHING,
    KINDS,
    ROLLOUTS,
    SAMPLES,
    SPANS,
    STEPS,
    candidate,
    finished,
    market,
    market_of,
    panel,
    policy,
    run,
    same,
    weights_of,
)

from agents.candidate import EXCESS, Candidate
from agents.networks import NetworkConfig
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated
from kit.metrics import sharpe
from market.panel import FIELDS, Observed, Panel
from podracer.training import EVALUATIONS, PATIENCE, Diverged, Progress, Training, surely_behind, train

NO_VALIDATION = replace(SPANS, validation=slice(SPANS.validation.stop, SPANS.validation.stop))
ATTENTIVE = NetworkConfig("attention", "late", (8, 8), lookback=4)


def other_bars(made: Panel, first: int, last: int | None = None) -> Panel:
    """The same panel with every price, volume and signal of some bars another; all still trade."""
    rows, rng = slice(first, last), np.random.default_rng(5)
    arrays = {name: getattr(made, name).copy() for name in FIELDS}
    for name in FIELDS:
        arrays[name][rows] *= rng.lognormal(0.0, 1.0, arrays[name][rows].shape)
    observed = {name: Observed(column.values.copy(), column.known_at) for name, column in made.observed.items()}
    for column in observed.values():
        column.values[rows] = rng.normal(0.0, 30.0, column.values[rows].shape)
    return replace(made, **arrays, observed=observed)


@cache
def market_with_others(first: int, last: int | None = None) -> MarketTensors:
    return market_of(other_bars(panel(), first, last))


def trajectory(made: Candidate, world: MarketTensors) -> tuple[list[dict[str, torch.Tensor]], Training]:
    """Every weight of the agent after each rollout."""
    training, seen = Training(made, world, SPANS, seed=3), []
    for _ in range(ROLLOUTS):
        training.advance()
        seen.append(weights_of(training))
    return seen, training


# -- the same arguments, the same policy


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_policy_to_the_last_bit(kind: str) -> None:
    one, other = finished(kind, EVERYTHING), run(Training(candidate(kind, EVERYTHING), market(), SPANS, seed=0))
    assert same(policy(one), policy(other))
    assert same(weights_of(one), weights_of(other))
    assert one.history == other.history


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_policy_and_side_by_side_they_do_not_disturb_each_other(kind: str) -> None:
    one, other = (Training(candidate(kind), market(), SPANS, seed) for seed in (0, 1))
    while not (one.done and other.done):
        for training in (other, one):
            if not training.done:
                training.advance()
    assert same(weights_of(one), weights_of(finished(kind)))
    assert not same(policy(one), policy(other))
    assert not torch.equal(one.agent.last_state, other.agent.last_state)


@pytest.mark.parametrize("kind", KINDS)
def test_training_neither_reads_nor_moves_any_generator_but_its_own(kind: str) -> None:
    undisturbed = finished(kind, EVERYTHING)
    torch.manual_seed(987)
    np.random.seed(654)  # noqa: NPY002 the one that others share
    random.seed(321)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index] # noqa: NPY002
    again = run(Training(candidate(kind, EVERYTHING), market(), SPANS))
    assert same(policy(again), policy(undisturbed))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index] # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_every_weight(kind: str) -> None:
    training = Training(candidate(kind, EVERYTHING, ATTENTIVE), market(), SPANS)
    before = weights_of(training)
    run(training)
    unmoved = [name for name, value in weights_of(training).items() if torch.equal(value, before[name])]
    assert unmoved == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_does_what_the_policy_would_and_earns_what_is_reported(kind: str) -> None:
    """Without noise, trying is deciding: each portfolio at its own bar, through the same allocation."""
    made = candidate(kind, replace(EVERYTHING, episode=100), ATTENTIVE, **({} if kind == "direct" else {"noise": 1e-9}))
    training, twin = (Training(made, market(), SPANS) for _ in range(2))
    env, state, earned = twin.pod.env, twin.agent.last_state, []
    with torch.no_grad():
        for last in (training.agent.policy.net.each, training.agent.policy.net.whole):
            last.weight.mul_(100.0)  # or it would matter little
        for _ in range(made.algorithm.horizon):
            state, reward, _, _ = env.step(training.agent.act(state))
            earned.append(reward)
    training.advance()
    assert training.progress().reward == pytest.approx(float(torch.stack(earned).mean()), rel=1e-4)


# -- no leak


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", [None, ATTENTIVE], ids=["shared", "attentive"])
def test_no_bar_after_train_and_validation_moves_a_policy(kind: str, network: NetworkConfig | None) -> None:
    last = SPANS.validation.stop  # the close that pays the last decision on the validation span
    one = finished(kind, EVERYTHING, network)
    other = run(Training(candidate(kind, EVERYTHING, network), market_with_others(last + 1), SPANS))
    assert one.history == other.history
    assert same(policy(one), policy(other))
    assert same(weights_of(one), weights_of(other))


@pytest.mark.parametrize("kind", KINDS)
def test_the_validation_span_moves_the_choice_and_no_weight_on_the_way(kind: str) -> None:
    made = candidate(kind, EVERYTHING, ATTENTIVE)
    first = SPANS.train.stop + 1  # after the close that pays the last decision on the train span
    (one, trained), (other, changed) = (trajectory(made, world) for world in (market(), market_with_others(first)))
    assert all(same(before, after) for before, after in zip(one, other, strict=True))
    assert trained.history != changed.history


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_and_the_last_bar_that_may_teach_do(kind: str) -> None:
    """Or the tests above would say nothing about where a span ends. Every episode goes through this span."""
    span = slice(SPANS.train.stop - 30, SPANS.train.stop)
    worlds = [market(), *(market_with_others(row, row + 1) for row in (span.start, span.stop))]
    made, spans = candidate(kind, replace(EXCESS, episode=30)), replace(NO_VALIDATION, train=span)
    found, first, last = (weights_of(run(Training(made, world, spans))) for world in worlds)
    assert not same(found, first)
    assert not same(found, last)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_after_the_spans_does_not_reach_them(kind: str) -> None:
    """Nothing times not-a-number is still not a number: rows that nobody asked for must not enter a sum."""
    features = market().features.clone()
    features[SPANS.validation.stop + 1 :] = torch.nan
    other = run(Training(candidate(kind), replace(market(), features=features), SPANS))
    assert same(policy(finished(kind)), policy(other))


# -- which policy is kept


def test_the_policy_that_is_kept_earned_what_its_evaluation_says() -> None:
    trained = finished("direct").result()
    assert len(trained.history) == EVALUATIONS
    assert trained.trained == SAMPLES
    track = backtest([Allocated(trained.actor)], market(), SPANS.validation)[0]
    assert float(sharpe(track.returns, track.bars_per_year)) == dict(trained.history)[trained.samples]


@pytest.mark.parametrize(
    ("scores", "best", "ran"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 10, 10),
        ([1, 3, 2, 3, -1, 2, 2, 2, 9, 9], 10, 10),  # 1 behind 3 is not surely behind
        ([1, 3, 0, -1, 0, -1, 0, 0, 9, 9], 2, 8),  # 3 behind is, and the 9 comes too late
        ([1, 3, 2, 0, 0, 0, 0, 0, 1.5, 0], 9, 10),
        ([math.nan, -2, -5, -1, -4, math.nan, -5, -6, -7, -8], 4, 10),
        ([9, math.nan, 1, 1, 1, 1, 1, 1, 1, 1], 1, 7),
    ],
)
def test_a_later_policy_is_kept_unless_it_is_surely_behind(
    scores: list[float], best: int, ran: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming, returns = iter(scores), {}

    def scored(daily: np.ndarray, bars_per_year: float) -> float:
        returns[float(daily.sum())] = score = next(coming)
        return score

    def behind(ours: torch.Tensor, leading: torch.Tensor) -> bool:
        return returns[float(leading.numpy().sum())] - returns[float(ours.numpy().sum())] > 2

    monkeypatch.setattr("podracer.training.sharpe", scored)
    monkeypatch.setattr("podracer.training.surely_behind", behind)
    training, policies = Training(candidate("direct"), market(), SPANS), []
    while not training.done:
        training.advance()
        policies.append({name: value.clone() for name, value in training.agent.policy.state_dict().items()})
    assert len(policies) == ran
    assert training.result().samples == STEPS * best
    assert same(policy(training), policies[best - 1])


def test_surely_behind_is_two_standard_errors_of_paired_days_at_one_volatility() -> None:
    days = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64)
    wave = torch.tensor([1.0, 1.0, -1.0, -1.0] * 25, dtype=torch.float64)  # as independent of them as can be
    # with volatility 1 the difference is wave * .1 + gap, of 100 days: its standard error is .01
    assert surely_behind(days, days + 0.1 * wave + 0.022)
    assert not surely_behind(days, days + 0.1 * wave + 0.018)
    assert surely_behind(5 * days, days + 0.1 * wave + 0.022)  # of another size
    assert not surely_behind(days, days)
    assert not surely_behind(days + 1.0, days)


def test_without_a_validation_span_the_last_policy_is_kept() -> None:
    training = run(Training(candidate("direct"), market(), NO_VALIDATION))
    trained = training.result()
    assert trained.history == ()
    assert trained.samples == trained.trained == SAMPLES
    assert same(trained.actor.state_dict(), training.agent.policy.state_dict())


@pytest.mark.parametrize("kind", ["ppo", "td3"])
def test_training_stops_when_it_stays_surely_behind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podracer.training.surely_behind", lambda returns, leading: True)
    training = Training(candidate(kind, learning_rate=1e-30), market(), SPANS)  # nothing moves, nothing is better
    run(training)
    assert len(training.history) == 1 + PATIENCE < EVALUATIONS
    assert training.samples < SAMPLES
    assert training.result().samples == training.history[0][0]


@pytest.mark.parametrize("samples", [1, 60, 64, 65, 500, 1501])
def test_any_number_of_samples_ends_with_an_evaluation(samples: int) -> None:
    training = run(Training(candidate("direct", samples=samples), market(), SPANS))
    assert training.history[-1][0] == training.samples
    assert len(training.history) <= EVALUATIONS
    if training.samples - training.best_samples < PATIENCE:  # not stopped early
        assert samples <= training.samples < samples + STEPS


def test_the_learning_rate_falls_from_the_candidates_to_nothing() -> None:
    training, seen = Training(candidate("ppo", learning_rate=0.008), market(), SPANS), []
    while not training.done:
        training.advance()
        seen.append([group["lr"] for o in training.agent._optimizers() for group in o.param_groups])
    assert [rates[0] for rates in seen] == pytest.approx([0.008 * (1 - k / ROLLOUTS) for k in range(ROLLOUTS)])
    assert all(rates == [rates[0]] * 2 for rates in seen)


def test_progress_tells_how_far_it_is_and_what_was_earned() -> None:
    told: list[Progress] = []
    trained = train(candidate("ppo"), market(), SPANS, report=told.append)
    assert [progress.samples for progress in told] == [STEPS * (k + 1) for k in range(ROLLOUTS)]
    assert {progress.total for progress in told} == {SAMPLES}
    assert [progress.validation for progress in told] == [score for _, score in trained.history]
    assert all(abs(progress.reward) < 0.05 for progress in told)  # in log growth, not times reward_scale
    assert all(np.isfinite(list(progress.losses.values())).all() for progress in told)
    assert {name for progress in told for name in progress.losses} == {"actor", "critic"}


# -- divergence


def with_not_numbers(span: slice) -> MarketTensors:
    world = market()
    features = world.features.clone()
    features[span.start + 5 : span.start + 9, 1, 0] = torch.nan
    return replace(world, features=features)


def refused(made: Candidate, world: MarketTensors, **more: Any) -> str:
    with pytest.raises(Diverged) as caught:
        train(made, world, more.get("spans", SPANS))
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spans", [SPANS, NO_VALIDATION], ids=["validation", "none"])
def test_not_a_number_in_the_train_span_is_a_divergence(kind: str, spans: Any) -> None:
    """A short span and long episodes: some environment meets it."""
    spans = replace(spans, train=slice(SPANS.train.start, SPANS.train.start + 40))
    text = refused(candidate(kind), with_not_numbers(spans.train), spans=spans)
    assert kind in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_is_worth_no_number_on_the_validation_span_is_a_divergence(kind: str) -> None:
    assert kind in refused(candidate(kind), with_not_numbers(SPANS.validation))


@pytest.mark.parametrize("kind", KINDS)
def test_a_hopeless_learning_rate_is_a_divergence(kind: str) -> None:
    assert kind in refused(candidate(kind, learning_rate=1e30, clip_grad_norm=1e30), market())


@pytest.mark.parametrize("kind", KINDS)
def test_a_far_too_high_learning_rate_never_makes_a_policy_of_not_numbers(kind: str) -> None:
    """Huge weights may still be numbers, as tanh bounds every action; if not, it is a divergence."""
    try:
        actor = train(candidate(kind, learning_rate=1e6), market(), SPANS).actor
    except Diverged:
        return
    assert np.isfinite(backtest([Allocated(actor)], market())[0].returns).all()
