"""Folds go forward in time, stay apart, add up to one track, and leave the hold-out alone."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from math import comb
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kit.config import build
from kit.errors import UserError
from market.clock import TRADING_DAYS
from podracer.spans import PURGE, Spans
from tournament.folds import CombinatorialConfig, Fold, FoldConfig, Folds, combinatorial_splits

SMALL = FoldConfig(train=20, validation=5, test=7, gap=3, holdout=15)
DATES = np.datetime64("2000-01-03", "ns") + np.arange(6000) * np.timedelta64(1, "D")


def by_hand(*starts_and_stops: tuple[int, int]) -> Spans:
    return Spans(*(slice(start, stop) for start, stop in starts_and_stops))


def test_anchored_folds_by_hand() -> None:
    folds = Folds.cut(100, 10, SMALL)  # the last decision is bar 98
    assert folds.holdout == slice(84, 99)
    assert [fold.spans for fold in folds.folds] == [
        by_hand((10, 30), (32, 37), (39, 46)),
        by_hand((10, 37), (39, 44), (46, 53)),
        by_hand((10, 44), (46, 51), (53, 60)),
        by_hand((10, 51), (53, 58), (60, 67)),
        by_hand((10, 58), (60, 65), (67, 74)),
        by_hand((10, 65), (67, 72), (74, 81)),
    ]
    assert [fold.number for fold in folds.folds] == [1, 2, 3, 4, 5, 6]
    assert folds.final == by_hand((10, 81), (81, 81), (84, 99))


def test_rolling_folds_by_hand() -> None:
    folds = Folds.cut(100, 10, FoldConfig("rolling", train=20, validation=5, test=7, count=2, gap=3, holdout=15))
    assert [fold.spans for fold in folds.folds] == [
        by_hand((10, 30), (32, 37), (39, 46)),
        by_hand((17, 37), (39, 44), (46, 53)),
    ]
    assert folds.final.train == slice(10, 81)  # the final fit uses what no fold did


def test_without_validation_and_hold_out() -> None:
    folds = Folds.cut(38, 10, FoldConfig(train=20, validation=0, test=5, gap=3, holdout=0))
    assert [fold.spans for fold in folds.folds] == [by_hand((10, 30), (30, 30), (32, 37))]
    assert folds.final == by_hand((10, 37), (37, 37), (37, 37))


def test_the_built_in_market_has_folds_by_default() -> None:
    folds = Folds.cut(5040, 60, FoldConfig())
    assert len(folds.folds) >= 8
    assert folds.holdout == slice(3779, 5039)  # the last 1,260 returns
    assert folds.folds[0].spans.train == slice(60, 60 + 5 * TRADING_DAYS)


def test_by_default_five_years_train_one_validates_half_a_year_tests_and_five_are_held_out() -> None:
    assert FoldConfig() == FoldConfig(
        "anchored", train=1260, validation=252, test=126, count=None, gap=21, holdout=1260, extended=()
    )
    assert CombinatorialConfig() == CombinatorialConfig(blocks=8, test_blocks=2, embargo=21)


def test_nobody_can_change_a_fold() -> None:
    folds = Folds.cut(100, 10, SMALL)
    parts = ((SMALL, "test"), (folds, "folds"), (folds.folds[0], "number"), (CombinatorialConfig(), "blocks"))
    for part, name in parts:
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)


def test_bars_that_were_added_add_a_fold_at_least() -> None:
    config = replace(SMALL, extended=(2, 4))
    folds = Folds.cut(100, 10, config)
    assert (folds.extended, folds.ends) == ((2, 4), (2, 4, 6))
    assert len(Folds.cut(100, 10, replace(config, count=5)).folds) == 5
    with pytest.raises(UserError, match=r"folds: count = 4: 4 are done already; expected at least 5$"):
        Folds.cut(100, 10, replace(config, count=4))
    # 10 to warm up, 20 and 5 with a purge after each, 5 tests of 7, a gap of 3, 15 held out, and the last close
    assert Folds.needed(10, config, 5) == 10 + 20 + 2 + 5 + 2 + 35 + 3 + 15 + 1
    assert len(Folds.cut(93, 10, config).folds) == 5
    with pytest.raises(UserError, match=r"4 of 5 folds fit; expected at least 93 bars$"):
        Folds.cut(92, 10, config)


def test_fewer_folds_are_only_offered_where_one_is_left_to_do() -> None:
    config = replace(SMALL, count=9)
    with pytest.raises(UserError, match=r"6 of 9 folds fit; expected at least 121 bars, or count at most 6$"):
        Folds.cut(100, 10, replace(config, extended=(5,)))
    with pytest.raises(UserError, match=r"6 of 9 folds fit; expected at least 121 bars$"):
        Folds.cut(100, 10, replace(config, extended=(6,)))


class Cut(NamedTuple):
    bars: int
    warmup: int
    config: FoldConfig
    folds: Folds


@st.composite
def configs(draw: st.DrawFn) -> FoldConfig:
    return FoldConfig(
        scheme=draw(st.sampled_from(["anchored", "rolling"])),
        train=draw(st.integers(2, 60)),
        validation=draw(st.integers(0, 30)),
        test=draw(st.integers(1, 30)),
        count=draw(st.none() | st.integers(1, 9)),
        gap=draw(st.integers(PURGE, 20)),
        holdout=draw(st.integers(0, 90)),
    )


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    bars, warmup, config = draw(st.integers(8, 400)), draw(st.integers(0, 40)), draw(configs())
    try:
        return Cut(bars, warmup, config, Folds.cut(bars, warmup, config))
    except UserError:
        assume(False)
        raise AssertionError from None


def parts(spans: Spans) -> list[slice]:
    return [span for span in (spans.train, spans.validation, spans.test) if span.start < span.stop]


@given(cuts())
def test_spans_of_a_fold_lie_in_order_and_a_purge_apart(cut: Cut) -> None:
    for spans in [fold.spans for fold in cut.folds.folds] + [cut.folds.final]:
        assert parts(spans)[0].start >= cut.warmup
        assert parts(spans)[-1].stop <= cut.bars - 1  # every decision has a next bar
        for before, after in pairwise(parts(spans)):
            assert after.start - before.stop >= PURGE


@given(cuts())
def test_spans_have_the_lengths_that_were_asked_for(cut: Cut) -> None:
    config = cut.config
    for fold in cut.folds.folds:
        train, validation, test = (span.stop - span.start for span in vars(fold.spans).values())
        assert (validation, test) == (config.validation, config.test)
        assert train == config.train + (fold.number - 1) * config.test * (config.scheme == "anchored")
    assert cut.folds.holdout.stop - cut.folds.holdout.start == config.holdout


@given(cuts())
def test_tests_adjoin_and_come_after_all_that_chose_for_them(cut: Cut) -> None:
    folds = cut.folds.folds
    days = [day for fold in folds for day in range(fold.spans.test.start, fold.spans.test.stop)]
    assert days == list(range(days[0], days[0] + len(days)))
    for earlier, later in pairwise(folds):
        assert later.spans.test.start == earlier.spans.test.stop
        assert later.spans.train.stop > earlier.spans.train.stop  # what `train` asks of a warm start
        if cut.config.scheme == "anchored":
            assert later.spans.train.start == earlier.spans.train.start


@given(cuts())
def test_nothing_reaches_into_the_gap_or_the_hold_out(cut: Cut) -> None:
    stops = [span.stop for fold in cut.folds.folds for span in parts(fold.spans)]
    last = max(*stops, cut.folds.final.train.stop)
    assert last == cut.folds.final.train.stop
    if cut.config.holdout:
        assert cut.folds.holdout == slice(cut.bars - 1 - cut.config.holdout, cut.bars - 1)
        assert last + cut.config.gap == cut.folds.holdout.start
    assert max(fold.seen.stop for fold in cut.folds.folds) <= last + 1


@given(cuts())
def test_as_many_folds_as_fit(cut: Cut) -> None:
    left = cut.folds.final.train.stop - cut.folds.folds[-1].spans.test.stop
    if cut.config.count is None:
        assert 0 <= left < cut.config.test
    else:
        assert len(cut.folds.folds) == cut.config.count


@given(cuts(), st.integers(1, 200))
def test_a_longer_panel_keeps_the_folds_and_adds_to_them(cut: Cut, more: int) -> None:
    longer = Folds.cut(cut.bars + more, cut.warmup, cut.config)
    before = cut.folds.folds
    assert longer.folds[: len(before)] == before
    assert [fold.text for fold in longer.folds[: len(before)]] == [fold.text for fold in before]
    if cut.config.count is None:
        left = cut.folds.final.train.stop - before[-1].spans.test.stop
        assert len(longer.folds) - len(before) == (left + more) // cut.config.test
    if cut.config.holdout:
        assert longer.holdout.start == cut.folds.holdout.start + more


def test_a_hold_out_that_was_opened_is_not_held_out_again() -> None:
    opened = Folds.cut(100, 10, SMALL).holdout.stop
    with pytest.raises(UserError) as caught:
        Folds.cut(115, 10, SMALL, opened)
    assert str(caught.value) == (
        "folds: holdout = 15: the last one was opened up to bar 99, and only 13 bars came after it; "
        "expected at most 13 (0: none yet), or 2 more bars"
    )
    with pytest.raises(UserError, match=r"only 0 bars came after it; expected at most 0 .*, or 15 more bars"):
        Folds.cut(100, 10, SMALL, opened)
    anew = Folds.cut(117, 10, SMALL, opened)
    assert anew.holdout.start == opened + PURGE
    assert anew.folds[-1].spans.test.stop > opened - SMALL.holdout  # the old one is ordinary data now
    smaller = FoldConfig(train=20, validation=5, test=7, gap=3, holdout=13)
    assert Folds.cut(115, 10, smaller, opened).holdout.start == opened + PURGE
    none = FoldConfig(train=20, validation=5, test=7, gap=3, holdout=0)
    assert Folds.cut(100, 10, none, opened).folds[-1].spans.test.stop > opened - 7


@given(st.integers(0, 40), configs())
def test_too_few_bars_are_one_line_that_says_how_many_would_do(warmup: int, config: FoldConfig) -> None:
    enough = next(bars for bars in range(1, 1000) if fits(bars, warmup, config))
    with pytest.raises(UserError, match=rf"expected at least {enough} bars") as caught:
        Folds.cut(enough - 1, warmup, config)
    assert str(caught.value).startswith(f"folds: {enough - 1} bars are {warmup} to warm up, {config.train} to train on")


def fits(bars: int, warmup: int, config: FoldConfig) -> bool:
    try:
        return bool(Folds.cut(bars, warmup, config))
    except UserError:
        return False


def test_too_many_folds_are_one_line_that_says_how_many_fit() -> None:
    config = FoldConfig(train=20, validation=5, test=7, count=9, gap=3, holdout=15)
    with pytest.raises(UserError, match="6 of 9 folds fit; expected at least 121 bars, or count at most 6"):
        Folds.cut(100, 10, config)
    with pytest.raises(UserError, match=r"0 of 9 folds fit; expected at least 121 bars$"):
        Folds.cut(30, 10, config)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"scheme": "walk"}, "scheme = 'walk': expected one of anchored, rolling"),
        ({"train": 1}, "train = 1: must be at least 2"),
        ({"test": 0}, "test = 0: must be at least 1"),
        ({"gap": PURGE - 1}, f"gap = {PURGE - 1}: must be at least {PURGE}"),
        ({"count": 0}, "count = 0: must be at least 1"),
        ({"validation": -1}, "validation = -1: must be at least 0"),
        ({"holdout": -1}, "holdout = -1: must be at least 0"),
        ({"extended": [0]}, "extended.0 = 0: must be at least 1"),
        ({"extended": [2, 2]}, "extended = [2, 2]: expected numbers that grow"),
        ({"extended": [3, 2]}, "extended = [3, 2]: expected numbers that grow"),
        ({"hold_out": 9}, "hold_out = 9: unknown key; did you mean holdout?"),
    ],
)
def test_impossible_folds_are_one_clear_line(tree: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(FoldConfig, tree, "folds.yaml")
    assert words in str(caught.value)


def test_the_least_that_may_be_asked_for() -> None:
    tree = {"train": 2, "validation": 0, "test": 1, "count": 1, "gap": PURGE, "holdout": 0, "extended": [1, 2]}
    least = FoldConfig("anchored", 2, 0, 1, 1, PURGE, 0, (1, 2))
    assert build(FoldConfig, tree) == least
    assert build(CombinatorialConfig, {"blocks": 2, "test_blocks": 1, "embargo": 0}) == CombinatorialConfig(2, 1, 0)
    for name, low in (("blocks", 2), ("test_blocks", 1), ("embargo", 0)):
        with pytest.raises(UserError, match=f"{name} = {low - 1}: must be at least {low}"):
            build(CombinatorialConfig, {name: low - 1})


def test_a_fold_is_named_by_its_bars() -> None:
    fold = Folds.cut(100, 10, SMALL).folds[1]
    assert (fold.name, fold.text, fold.seen) == ("fold 2", "10:37 39:44 46:53", slice(0, 54))
    assert Fold(7, fold.spans).text == fold.text  # the number says nothing about the result


@given(cuts())
def test_the_picture_shows_every_span_from_its_first_decision_to_its_last_pay(cut: Cut) -> None:
    shown = cut.folds.picture(DATES)
    assert all(row.start < row.end for row in shown)
    assert len({(row.name, row.kind) for row in shown}) == len(shown)
    for fold in cut.folds.folds:
        rows = {row.kind: row for row in shown if row.name == fold.name}
        assert list(rows) == [kind for kind, span in vars(fold.spans).items() if span.start < span.stop]
        assert rows["test"].start == DATES[fold.spans.test.start]
        assert rows["test"].end == DATES[fold.seen][-1]
    kinds = [row.kind for row in shown if row.name == "final fit"]
    assert kinds == (["train", "gap", "hold-out"] if cut.config.holdout else ["train"])
    if cut.config.holdout:
        assert shown[-2].end == shown[-1].start and shown[-1].end == DATES[cut.bars - 1]


def test_combinatorial_splits_by_hand() -> None:
    config = CombinatorialConfig(blocks=4, test_blocks=2, embargo=1)
    splits = list(combinatorial_splits(slice(100, 140), config, lookback=3))  # 2 bars before, 2 + 1 + 3 after
    assert [split.test_blocks for split in splits] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [split.train.tolist() for split in splits] == [
        [*range(126, 140)],
        [116, 117, *range(136, 140)],
        [*range(116, 128)],
        [*range(100, 108), *range(136, 140)],
        [*range(100, 108), 126, 127],
        [*range(100, 118)],
    ]
    assert splits[1].test.tolist() == [*range(100, 110), *range(120, 130)]


@given(st.data())
def test_a_combinatorial_train_neither_pays_into_nor_sees_into_a_test(data: st.DataObject) -> None:
    blocks = data.draw(st.integers(2, 6))
    config = CombinatorialConfig(blocks, data.draw(st.integers(1, blocks - 1)), data.draw(st.integers(0, 5)))
    lookback, start = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 50))
    least = 2 * PURGE + config.embargo + lookback + 1
    bars = blocks * least + data.draw(st.integers(0, 30))
    splits = list(combinatorial_splits(slice(start, start + bars), config, lookback))
    assert len(splits) == comb(blocks, config.test_blocks)
    tested = np.concatenate([split.test for split in splits])
    assert set(np.bincount(tested)[start:]) == {comb(blocks - 1, config.test_blocks - 1)}
    for split in splits:
        apart = split.train[:, None] - split.test[None, :]
        assert len(split.train)
        assert (np.diff(split.train) > 0).all() and (np.diff(split.test) > 0).all()
        # The bars that a decision reads and is paid by: a purge lies between theirs, whoever comes first.
        before, after = apart[apart < 0], apart[apart > 0]
        assert len(before) == 0 or before.max() < -PURGE
        assert len(after) == 0 or after.min() > PURGE + config.embargo + lookback
        assert (apart != 0).all()


def test_combinatorial_splits_agree_with_another_library() -> None:
    """Whose intervals are half open, and whose embargo counts from a test's last decision."""
    purgedcv = pytest.importorskip("purgedcv")
    import pandas as pd

    config = CombinatorialConfig(blocks=6, test_blocks=2, embargo=4)
    times = pd.Series(pd.date_range("2024-01-01", periods=240, freq="D"))
    paid = times + pd.Timedelta(days=PURGE + 1)
    oracle = purgedcv.CombinatorialPurgedCV(
        6, 2, prediction_times=times, evaluation_times=paid, embargo_observations=PURGE + 4 + 3
    )
    ours = list(combinatorial_splits(slice(0, 240), config, lookback=3))
    theirs = list(oracle.split(np.zeros((240, 1))))
    assert len(ours) == len(theirs) == 15
    for split, (train, test) in zip(ours, theirs):
        assert split.test.tolist() == sorted(test)
        assert split.train.tolist() == sorted(train)


def test_blocks_too_short_for_their_purge_are_one_line() -> None:
    config = CombinatorialConfig(blocks=4, test_blocks=2, embargo=1)  # 2 before, 6 after, 1 to keep
    assert list(combinatorial_splits(slice(0, 36), config, lookback=3))
    with pytest.raises(UserError, match=r"35 bars in 4 blocks.*look-back 3\); expected at least 36 bars, or fewer bl"):
        list(combinatorial_splits(slice(0, 35), config, lookback=3))
    with pytest.raises(UserError, match="test_blocks = 8: expected fewer than blocks, 8"):
        build(CombinatorialConfig, {"test_blocks": 8})
