"""The simulation of many devices, by hand and by its bounds; and where the wall time of a tournament goes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.clock import Clock, Span
from benchmarks.simulate import Plan, Ran, asynchronous, drawn, synchronous
from benchmarks.timeline import parts

BOTH = (synchronous, asynchronous)
WAYS = pytest.mark.parametrize("way", BOTH, ids=lambda way: way.__name__)


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def table(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, float)


@WAYS
def test_four_trials_on_two_devices_end_when_the_later_device_does(way):
    ran = way(column(3, 4, 2, 2), column(0, 0, 0, 0), 2, Plan((1,), ()))
    # 0 until 3, then 2 until 5; 1 until 4, then 3 until 6
    assert (ran.seconds, ran.work, ran.longest) == (6, 11, 4)
    assert ran.idle(2) == pytest.approx(1 / 12)


def test_synchronous_rungs_wait_for_the_slowest_of_each():
    durations = table((1, 9), (1, 1), (1, 1), (6, 1))
    ran = synchronous(durations, column(4, 3, 2, 1), 4, Plan((1, 2), (0.5,)))
    assert ran.seconds == 6 + 9  # 0 has waited from 1 to 6
    assert ran.trained.tolist() == [10, 2, 1, 6]


def test_a_promotion_does_not_wait_for_who_is_slow():
    durations = table((1, 9), (1, 1), (1, 1), (6, 1))
    ran = asynchronous(durations, column(4, 3, 2, 1), 4, Plan((1, 2), (0.5,)))
    # 0 goes on at 1, the best of three so far, until 10; 1 at 6, when all are known, until 7
    assert ran.seconds == 10
    assert ran.trained.tolist() == [10, 2, 1, 6]


def test_promotion_may_be_slower_than_rungs():
    durations, scores, plan = table((3, 4), (3, 4), (2, 4), (2, 4)), column(4, 3, 2, 1), Plan((1, 2), (0.5,))
    # both devices 3 + 2, then 4 each
    assert synchronous(durations, scores, 2, plan).seconds == 9
    # one: 0 until 3, 2 until 5, 3 until 7, then 1 until 11, as only now it is known to be among the best
    # other: 1 until 3, 0 goes on until 7
    assert asynchronous(durations, scores, 2, plan).seconds == 11


def test_promotion_trains_some_who_do_not_stay_among_the_best():
    durations, plan = table((1, 1), (1, 1), (1, 1), (1, 1)), Plan((1, 2), (0.5,))
    worst_first = column(1, 2, 3, 4)
    assert synchronous(durations, worst_first, 2, plan).work == 6
    assert asynchronous(durations, worst_first, 2, plan).trained.tolist() == [1, 2, 2, 2]


@WAYS
def test_several_folds_of_a_rung_stay_in_order_on_their_device(way):
    ran = way(table((1, 2), (2, 2), (1, 1)), column(0, 0, 0), 2, Plan((2,), ()))
    assert ran.seconds == 5  # 0 until 3, then 2 until 5; 1 until 4


@WAYS
def test_an_opening_is_paid_once(way):
    durations, scores, plan = table((1, 1), (1, 1)), column(1, 2), Plan((1, 2), (1.0,), opening=10.0)
    assert way(durations, scores, 2, plan).seconds == 12


@WAYS
def test_the_driver_hands_out_one_trial_after_the_other(way):
    ran = way(column(1, 1, 1), column(0, 0, 0), 3, Plan((1,), (), handing=0.5))
    assert ran.seconds == 2.5  # they begin at .5, 1 and 1.5


rounds = st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 10**6), st.floats(0.1, 1.0))


def ran_both(candidates: int, devices: int, seed: int, share: float) -> tuple[np.ndarray, Plan, list[Ran]]:
    random = np.random.default_rng(seed)
    durations, scores = drawn(random.exponential(10.0, (5, 6)), candidates, (1, 2, 4, 6), seed)
    plan = Plan((1, 2, 4, 6), (share, 0.5, 0.5), opening=1.0, handing=0.01)
    return durations, plan, [way(durations, scores, devices, plan) for way in BOTH]


@settings(max_examples=60, deadline=None)
@given(rounds)
def test_no_round_is_faster_than_its_work_shared_out_nor_than_its_longest_candidate(case):
    _, plan, found = ran_both(*case)
    for ran in found:
        least = max(ran.work / case[1], ran.longest)
        assert ran.seconds >= least + plan.opening - 1e-9


@settings(max_examples=60, deadline=None)
@given(rounds)
def test_everybody_does_the_first_fold_and_enough_do_all(case):
    durations, plan, found = ran_both(*case)
    left = len(durations)
    for share in plan.shares:
        left = int(np.ceil(share * left))
    for ran in found:
        assert (ran.trained >= durations[:, 0] - 1e-9).all()
        assert (ran.trained >= durations.sum(axis=1) - 1e-9).sum() >= left


@settings(max_examples=60, deadline=None)
@given(rounds)
def test_without_elimination_both_do_all_the_work_and_barriers_never_help(case):
    candidates, devices, seed, _ = case
    durations, scores = drawn(np.random.default_rng(seed).exponential(10.0, (5, 1)), candidates, (1,), seed)
    one, other = (way(durations, scores, devices, Plan((1,), ())) for way in BOTH)
    assert one.seconds == other.seconds
    assert one.seconds <= one.work / devices + one.longest + 1e-9  # Graham's bound of any list


def test_drawn_candidates_are_as_long_as_measured_ones_and_the_same_again():
    measured = table((1, 2), (3, 4))
    durations, scores = drawn(measured, 100, (1, 2), 7)
    assert {tuple(row) for row in durations} == {(1, 2), (3, 4)}
    assert scores.shape == (100, 2)
    again = drawn(measured, 100, (1, 2), 7)
    assert (durations == again[0]).all()
    assert (scores == again[1]).all()


def test_the_parts_of_a_tournament_add_up_to_its_wall_time():
    spans = [
        Span("self-test and Ray", -12, -5),
        Span("self-test", -5, -1),
        Span("run", 0, 101),
        Span("execute", 0, 100),
        Span("stage", 0, 2),
        Span("begin", 2, 2),
        Span("ray", 2, 6),
        Span("setup", 9, 10),
        Span("step", 12, 30, "a"),
        Span("step", 31, 40, "a"),
        Span("checkpoint", 36, 38),
        Span("record", 39, 40),
        Span("stage", 41, 42.5),
        Span("begin", 42.5, 42.5),
        Span("step", 43, 75, "b"),
        Span("checkpoint", 70, 72),
        Span("record", 73, 75),
        Span("seal", 84, 85),
        Span("stage", 76, 86),
        Span("step", 90, 95, "final"),
    ]
    timings = {
        "a": {"prepare": 3.0, "train": 17.0, "finish": 5.0},  # 25 and a record of 1 in 28 seconds, 1 between steps
        "b": {"prepare": 1.0, "train": 20.0, "finish": 7.0},
    }
    found = parts(spans, timings)
    assert found == {
        "training and judging": 17 + 5 + 20 + 7 - 1 - 4,
        "making ready, an actor's first trial": 3,
        "making ready, others": 1,
        "checkpoints": 4,
        "records": 3,
        "keys and features": (18 + 9 + 32) - 4 - 48 - 3,
        "Ray begins": 4 + (7 - 4),
        "actors begin": 3 + 1 + 2,
        "between steps": 1,
        "between trials": 1 + 0.5 + 1,
        "standings and seals": 1.5 + 9,
    }
    assert sum(found.values()) == 85 - 2 + (7 - 4)


def test_a_clock_keeps_what_raised_too(tmp_path):
    clock = Clock(tmp_path / "spans")
    with pytest.raises(ZeroDivisionError), clock("first"):
        _ = 1 / 0
    with clock("second", "trial"):
        pass
    first, second = clock.read()
    assert (first.what, second.what, second.trial) == ("first", "second", "trial")
    assert first.began <= first.ended <= second.began <= second.ended
