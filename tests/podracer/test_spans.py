"""Spans lie in order of time, apart from each other, and after the warm-up."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pods import BARS, SPANS, market

from envs.backtest import backtest
from envs.policy import equal_weight
from kit.config import build
from kit.errors import UserError
from podracer.spans import PURGE, SpanConfig, Spans


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, SpanConfig, Spans]:
    bars, warmup = draw(st.integers(8, 900)), draw(st.integers(0, 100))
    config = SpanConfig(
        validation=draw(st.integers(0, 300)),
        test=draw(st.integers(0, 300)),
        train=draw(st.none() | st.integers(2, 300)),
    )
    try:
        return bars, warmup, config, Spans.cut(bars, warmup, config)
    except UserError:
        assume(False)
        raise


@given(cuts())
def test_spans_have_the_lengths_asked_for_lie_in_order_and_never_touch(
    cut: tuple[int, int, SpanConfig, Spans],
) -> None:
    bars, warmup, config, spans = cut
    assert spans.validation.stop - spans.validation.start == config.validation
    assert spans.test.stop - spans.test.start == config.test
    asked = [spans.train] + [span for span in (spans.validation, spans.test) if span.start < span.stop]
    for before, after in pairwise(asked):
        assert after.start - before.stop == PURGE  # no bar lost, and no reward of one reaches into the next
    assert asked[-1].stop == bars - 1  # the last bar has no next one
    assert spans.train.start >= warmup
    assert spans.train.stop - spans.train.start >= 2
    if config.train is None:
        assert spans.train.start == warmup


@given(cuts())
def test_a_train_span_is_the_last_bars_before_the_purge_and_no_longer_than_asked(
    cut: tuple[int, int, SpanConfig, Spans],
) -> None:
    bars, warmup, config, spans = cut
    everything = Spans.cut(bars, warmup, SpanConfig(config.validation, config.test))
    assert spans.train.stop == everything.train.stop
    if config.train is not None:
        length = spans.train.stop - spans.train.start
        assert length == min(config.train, everything.train.stop - everything.train.start)


def test_spans_by_hand() -> None:
    """20 bars: decisions 0 to 18; test 14 to 18, validation 8 to 11, train 3 to 5."""
    assert PURGE == 2
    spans = Spans.cut(20, 3, SpanConfig(validation=4, test=5))
    assert spans == Spans(slice(3, 6), slice(8, 12), slice(14, 19))
    assert Spans.cut(20, 3, SpanConfig(validation=0, test=0)).train == slice(3, 19)


def test_what_one_span_earned_ends_before_the_next_one_decides() -> None:
    """The last decision of a span fills a bar later and is paid by that bar's close."""
    made, spans = market(), SPANS
    for before, after in ((spans.train, spans.validation), (spans.validation, spans.test)):
        track = backtest([equal_weight], made, before)[0]
        assert track.dates[-1] == made.dates[before.stop] < made.dates[after.start]


@pytest.mark.parametrize(
    ("config", "last"),
    [(SpanConfig(40, 100), "validation"), (SpanConfig(0, 100), "train"), (SpanConfig(40, 0), "validation")],
)
def test_spans_end_with_the_last_close_that_training_or_choosing_saw(config: SpanConfig, last: str) -> None:
    made, spans = market(), Spans.cut(BARS, 20, config)
    track = backtest([equal_weight], made, getattr(spans, last))[0]
    assert spans.ends(made) == track.dates[-1]


@pytest.mark.parametrize(
    ("bars", "warmup", "config"),
    [
        (20, 3, SpanConfig(validation=4, test=8)),
        (20, 3, SpanConfig(validation=0, test=500)),
        (20, 19, SpanConfig(validation=0, test=0)),
        (20, 40, SpanConfig(validation=0, test=0, train=5)),
        (3, 0, SpanConfig()),
    ],
)
def test_too_few_bars_are_one_clear_line(bars: int, warmup: int, config: SpanConfig) -> None:
    with pytest.raises(UserError) as caught:
        Spans.cut(bars, warmup, config)
    text = str(caught.value)
    assert "\n" not in text
    for number in (bars, warmup, config.validation, config.test):
        assert str(number) in text


@given(warmup=st.integers(0, 50), validation=st.integers(0, 50), test=st.integers(0, 50))
def test_the_complaint_says_how_many_bars_would_do(warmup: int, validation: int, test: int) -> None:
    config = SpanConfig(validation, test)
    enough = next(bars for bars in range(400) if fits(bars, warmup, config))
    with pytest.raises(UserError, match=rf"at least {enough} bars"):
        Spans.cut(enough - 1, warmup, config)


def fits(bars: int, warmup: int, config: SpanConfig) -> bool:
    try:
        return Spans.cut(bars, warmup, config).train.stop > warmup
    except UserError:
        return False


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"validation": -1}, "validation = -1: must be at least 0"),
        ({"test": 2.5}, "test = 2.5: expected a whole number"),
        ({"train": 1}, "train = 1: must be at least 2"),
        ({"purge": 3}, "purge = 3: unknown key"),
    ],
)
def test_impossible_spans_are_one_clear_line(tree: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        build(SpanConfig, tree, "spans.yaml")
    assert words in str(caught.value)
