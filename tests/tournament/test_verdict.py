"""The verdict: its four endings, what it must not be moved by, and how often it is wrong."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from kit.metrics import sharpe
from tournament.statistics.bootstrap import day_counts
from tournament.statistics.compare import scaled_excess, step_down, superior_ability
from tournament.statistics.sharpe import deflated_sharpe, effective_trials, shape
from tournament.verdict import BETTER, NOT_BETTER, PROMISING, HoldOut, Verdict, WalkForward, verdict, walk_forward

SHAPES = {"64 on 8 half-years": (64, 8, 126), "12 on 4 years": (12, 4, 252)}  # candidates, folds, days of a fold
SKILLED = WalkForward(1008, 64, 192, 150.0, 0.01, (3, 5), 0.01, 3, 2.1, 0.97, 0.96)
UNSEEN = HoldOut(504, 1.31, 0.46, 0.85, 0.2, 0.004)


def arena(generator, shape, kind="alike", edge=0.0):
    """Daily returns of candidates and of equal weight. `edge`: every candidate's true annual information ratio."""
    candidates, folds, length = SHAPES[shape]
    days = folds * length

    def tails(size, freedom):
        return generator.standard_t(freedom, size) / np.sqrt(freedom / (freedom - 2))

    volatility = np.ones(days)
    if kind == "high beta":
        for day in range(1, days):
            volatility[day] = volatility[day - 1] ** 0.97 * np.exp(0.15 * generator.standard_normal())
    beta = generator.uniform(0.5, 1.6, candidates) if kind == "high beta" else np.ones(candidates)
    own = tails((days, candidates), 3 if kind == "fat tails" else 20)
    if kind == "correlated":
        own = np.sqrt(0.5) * tails((days, 1), 5) + np.sqrt(0.5) * own
    own = (own + edge / np.sqrt(252)) * 0.004 * volatility[:, None]
    benchmark = 0.01 * volatility * tails(days, 5)
    return benchmark[:, None] * beta + own * beta, benchmark


def halved(returns, benchmark, shape):
    """The better half after folds 1, 2 and 4; NaN from the elimination on."""
    _, folds, length = SHAPES[shape]
    returns, alive = returns.copy(), np.arange(returns.shape[1])
    for fold in (1, 2, 4):
        if fold < folds:
            day = fold * length
            score = sharpe(returns[:day, alive]) - sharpe(benchmark[:day])
            order = alive[np.argsort(-score)]
            alive, out = np.split(order, [(len(order) + 1) // 2])
            returns[day:, out] = np.nan
    return returns


def rounds(shape, kind, runs, edge=0.0):
    for run in range(runs):
        generator = np.random.default_rng([run, 7])
        returns, benchmark = arena(generator, shape, kind, edge)
        yield halved(returns, benchmark, shape), benchmark


# --- the four endings


def test_promising_until_the_hold_out_is_opened():
    found = Verdict(SKILLED)
    assert found.outcome == PROMISING == "promising, hold-out unopened"
    assert found.text == (
        "Promising, hold-out unopened: over 1,008 test days, the best of 192 tries did better than luck alone "
        "explains; whether that lasts, only the days held out can tell."
    )


def test_better_only_with_both_halves():
    found = Verdict(SKILLED, UNSEEN)
    assert found.outcome == BETTER == "better than equal weight"
    assert found.text == (
        "Better than equal weight: the ensemble also did better on 504 days that no choice had seen "
        "(Sharpe ratio 1.31 against 0.46); luck alone does so once in 250 runs."
    )


def test_not_better_when_the_hold_out_fails():
    found = Verdict(SKILLED, replace(UNSEEN, p_value=0.051))
    assert found.outcome == NOT_BETTER == "not better than equal weight"
    assert found.text.startswith("Not better than equal weight: what looked promising did not hold on the 504 days")


@pytest.mark.parametrize("failing", [{"spa_p": 0.051}, {"stepm": ()}, {"deflated": 0.949}])
@pytest.mark.parametrize("hold_out", [None, UNSEEN])
def test_each_of_the_three_can_say_no_and_no_hold_out_overrules_it(failing, hold_out):
    found = Verdict(replace(SKILLED, **failing), hold_out)
    assert found.outcome == NOT_BETTER
    assert found.text.startswith("Not better than equal weight: over 1,008 test days, the best of 192 tries did no")


def test_limits_belong_to_the_yes():
    assert Verdict(replace(SKILLED, spa_p=0.05, deflated=0.95), replace(UNSEEN, p_value=0.05)).outcome == BETTER


def test_one_candidate_that_is_better_is_enough():
    assert Verdict(replace(SKILLED, stepm=(3,))).outcome == PROMISING


@pytest.mark.parametrize("part", [SKILLED, UNSEEN, Verdict(SKILLED)])
def test_nobody_can_change_a_verdict(part):
    with pytest.raises(FrozenInstanceError):
        part.days = 3


def test_one_try_is_not_tries():
    assert "the best of 1 try did" in Verdict(replace(SKILLED, trials=1)).text


def test_every_figure_is_in_the_json():
    told = Verdict(SKILLED, UNSEEN).to_dict()
    figures = json.loads(json.dumps(told, allow_nan=False))
    assert figures == told
    assert (figures["outcome"], figures["level"]) == (BETTER, 0.05)
    assert figures["text"].startswith("Better")
    assert figures["walk_forward"] == {
        "days": 1008,
        "candidates": 64,
        "trials": 192,
        "effective_trials": 150.0,
        "spa_p": 0.01,
        "stepm": [3, 5],
        "stepm_p": 0.01,
        "leader": 3,
        "leader_sharpe": 2.1,
        "deflated": 0.97,
        "deflated_empirical": 0.96,
        "holds": True,
    }
    assert figures["hold_out"]["edge_lower"] == 0.2
    assert Verdict(SKILLED).to_dict()["hold_out"] is None


def test_those_that_are_better_are_plain_json_too():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1, edge=4.0))
    found = verdict(returns, benchmark)
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert figures["walk_forward"]["stepm"] == list(found.walk_forward.stepm) != []


def test_a_real_verdict_is_plain_json():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1))
    found = verdict(returns, benchmark, hold_out=(benchmark, benchmark))
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert figures["hold_out"]["p_value"] == 1.0
    assert figures["hold_out"]["edge_lower"] is None


# --- what it looks at


@pytest.mark.parametrize("idle", [0, 1])
@pytest.mark.parametrize("skilled", [1, 2, 12])
def test_every_figure_is_that_of_its_part(skilled, idle):
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1, edge=2.0))
    returns = np.column_stack([*[benchmark] * idle, *returns.T[:skilled]])
    found = verdict(returns, benchmark, trials=30).walk_forward
    excess = np.nan_to_num(scaled_excess(returns, benchmark))
    counts, p_values = day_counts(1008), step_down(excess, day_counts(1008))
    ratios = sharpe(excess, periods=1)[idle:]  # who is equal weight has none
    best = int(np.argmax(ratios))
    figures = (ratios[best], 1008, *shape(excess[:, idle + best]))
    spread = np.var(ratios, ddof=1) if skilled > 1 else None
    assert found == WalkForward(
        days=1008,
        candidates=idle + skilled,
        trials=30,
        effective_trials=effective_trials(excess, 30),
        spa_p=superior_ability(excess, counts),
        stepm=tuple(np.flatnonzero(p_values <= 0.05)),
        stepm_p=p_values[idle + best],
        leader=idle + best,
        leader_sharpe=sharpe(excess)[idle + best],
        deflated=deflated_sharpe(*figures, effective_trials(excess, 30)),
        deflated_empirical=deflated_sharpe(*figures, 30, spread),
    )


def test_skill_is_promising_and_what_the_hold_out_says_decides():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1, edge=4.0))
    generator = np.random.default_rng(1)
    days = 0.01 * generator.standard_normal(504)
    noise = 0.002 * generator.standard_normal(504)
    assert verdict(returns, benchmark).outcome == PROMISING
    opened = verdict(returns, benchmark, hold_out=(days + noise + 0.001, days))
    assert opened.outcome == BETTER
    figures = opened.hold_out
    assert figures.days == 504
    assert figures.edge == pytest.approx(figures.sharpe - figures.benchmark_sharpe)
    assert figures.benchmark_sharpe == pytest.approx(sharpe(days))
    assert 0 < figures.edge_lower < figures.edge
    assert verdict(returns, benchmark, hold_out=(days + noise - 0.001, days)).outcome == NOT_BETTER
    luck, other = next(rounds("12 on 4 years", "alike", 1))
    assert verdict(luck, other, hold_out=(days + noise + 0.001, days)).outcome == NOT_BETTER


def test_the_leader_is_named_whatever_the_order():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1, edge=4.0))
    order = np.random.default_rng(2).permutation(12)
    one, other = walk_forward(returns, benchmark), walk_forward(returns[:, order], benchmark)
    assert one.leader == order[other.leader]
    assert set(one.stepm) == {order[column] for column in other.stepm}
    assert (one.spa_p, one.stepm_p) == (other.spa_p, other.stepm_p)
    assert one.deflated == pytest.approx(other.deflated)
    assert one.leader in one.stepm


def test_leverage_and_cash_are_no_skill():
    generator = np.random.default_rng(3)
    benchmark = 0.01 * generator.standard_normal(1008) + 0.001  # equity pays well
    geared = benchmark[:, None] * np.array([0.5, 1.0, 1.5, 3.0])
    found = walk_forward(geared, benchmark)
    assert found.spa_p == found.stepm_p == 1.0
    assert not found.holds
    assert found.leader is None
    assert found.deflated == found.deflated_empirical == 0.0


def test_an_idle_tournament_is_told_in_plain_json():
    benchmark = 0.01 * np.random.default_rng(4).standard_normal(300)
    found = verdict(np.repeat(benchmark[:, None], 3, axis=1), benchmark)
    figures = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (figures["outcome"], figures["walk_forward"]["leader"]) == (NOT_BETTER, None)
    assert figures["walk_forward"]["leader_sharpe"] is None


def test_an_eliminated_candidate_still_counts_as_a_try():
    returns, benchmark = next(rounds("64 on 8 half-years", "alike", 1, edge=1.0))
    last = np.isfinite(returns[-1])
    everyone, survivors = walk_forward(returns, benchmark), walk_forward(returns[:, last], benchmark)
    assert (everyone.candidates, survivors.candidates) == (64, last.sum())
    assert everyone.spa_p > survivors.spa_p
    assert everyone.deflated < survivors.deflated


def test_more_trials_deflate_more():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1, edge=2.0))
    few, many = walk_forward(returns, benchmark), walk_forward(returns, benchmark, trials=600)
    assert few.trials == 12
    assert many.effective_trials > few.effective_trials > 10
    assert many.deflated < few.deflated
    assert many.spa_p == few.spa_p


def test_refuses_fewer_trials_than_candidates_and_returns_with_holes():
    returns, benchmark = next(rounds("12 on 4 years", "alike", 1))
    with pytest.raises(ValueError, match="3 trials, but 12 candidates"):
        walk_forward(returns, benchmark, trials=3)
    returns[40, 0] = np.nan
    with pytest.raises(ValueError, match="whole from the first day until its elimination"):
        walk_forward(returns, benchmark)


# --- how often it is wrong, and how often it finds what is there

KINDS = ("alike", "correlated", "fat tails", "high beta")
QUICK = [("12 on 4 years", kind, 60) for kind in KINDS] + [("64 on 8 half-years", "alike", 40)]
SLOW = [pytest.param(shape, kind, 1000, marks=pytest.mark.slow) for shape in SHAPES for kind in KINDS]


@pytest.mark.parametrize(("shape", "kind", "runs"), QUICK + SLOW)
def test_luck_is_promising_in_at_most_seven_of_a_hundred_tournaments(shape, kind, runs):
    found = [walk_forward(*run) for run in rounds(shape, kind, runs)]
    assert np.mean([each.holds for each in found]) <= 0.07
    slack = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([each.spa_p <= 0.05 for each in found]) <= 0.07 + slack  # not only because another says no


@pytest.mark.parametrize("shape", SHAPES)
def test_skill_of_two_a_year_is_found(shape):
    found = [walk_forward(*run).holds for run in rounds(shape, "alike", 30, edge=2.0)]
    assert np.mean(found) >= 0.9


def test_the_survivors_alone_would_fool_the_test():
    fooled = []
    for returns, benchmark in rounds("12 on 4 years", "alike", 100):
        excess = np.nan_to_num(scaled_excess(returns, benchmark))[:, np.isfinite(returns[-1])]
        fooled.append(superior_ability(excess, day_counts(len(excess))) <= 0.05)
    assert np.mean(fooled) > 0.1
