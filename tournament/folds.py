"""Folds: train, choose and judge, step by step forward in time; then a hold-out that no choice sees.

    fold 1   |---- train ----|-validation-|test|
    fold 2   |------- train -------|-validation-|test|              train is longer, or moves along (rolling)
    ...                                                     gap
    final    |----------------- train ----------------------|...|-------- hold-out --------|

Folds are numbered from the front in absolute bars, and what does not fill a whole test span widens
the gap. So bars added at the end change no earlier fold: they add folds, and the hold-out moves to
the end again. The bars that it leaves behind become ordinary data, which is fair while nobody has
looked at it; once it was opened, a new one must lie after it (`opened`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from kit.config import setting
from kit.errors import UserError
from podracer.spans import PURGE, SpanConfig, Spans


@dataclass(frozen=True)
class FoldConfig:
    """How long the spans are, in bars. The defaults: 5 years, 1 year, half a year; 5 years held out."""

    scheme: Literal["anchored", "rolling"] = setting(
        "anchored", help="anchored: a fold trains from the first bar on; rolling: on the last `train` bars"
    )
    train: int = setting(1260, low=2, help="bars to train on; anchored: in the first fold, later ones have more")
    validation: int = setting(252, low=0, help="bars on which a checkpoint is chosen; 0: the last one is kept")
    test: int = setting(126, low=1, help="bars on which a fold is scored; the next fold's begin where they end")
    count: int | None = setting(None, low=1, help="how many folds (default: as many as fit)")
    gap: int = setting(21, low=PURGE, help="bars between the folds and the hold-out, at least")
    holdout: int = setting(1260, low=0, help="last bars, which no choice sees: two years or more; 0: none")
    extended: tuple[int, ...] = setting((), low=1, help="folds done each time that bars were added; `extend` says it")

    def __post_init__(self) -> None:
        if list(self.extended) != sorted({*self.extended}):
            raise ValueError(f"extended = {list(self.extended)}: expected numbers that grow")


@dataclass(frozen=True)
class Fold:
    """One step of the walk forward."""

    number: int  # from 1
    spans: Spans

    @property
    def name(self) -> str:
        return f"fold {self.number}"

    @property
    def text(self) -> str:
        """What tells it from every other fold: its decisions, bar by bar."""
        spans = (self.spans.train, self.spans.validation, self.spans.test)
        return " ".join(f"{span.start}:{span.stop}" for span in spans)

    @property
    def seen(self) -> slice:
        """All the bars that its trials need. Given no others they cannot look ahead, nor depend on later ones."""
        return slice(0, self.spans.test.stop + 1)


class Stretch(NamedTuple):
    """A bar of the picture: from the first decision to the close that pays the last."""

    name: str  # of its row
    kind: str  # train, validation, test, gap or hold-out
    start: np.datetime64
    end: np.datetime64


@dataclass(frozen=True)
class Folds:
    """The folds in order of time, and the final fit, whose test span is the hold-out."""

    folds: tuple[Fold, ...]
    final: Spans  # train: all before the hold-out; no validation
    extended: tuple[int, ...] = ()  # after which folds the run ended, and bars were added

    @classmethod
    def cut(cls, bars: int, warmup: int, config: FoldConfig, opened: int = 0) -> Folds:
        """`bars` of the panel, the last of which decides nothing; the first `warmup` have no features yet.

        `opened` is the bar up to which a hold-out was looked at, its `stop`: a new one begins after it.
        """
        end = bars - 1
        holdout = slice(end - config.holdout, end)
        stop = holdout.start - (config.gap if config.holdout else 0)
        first = _first_test(warmup, config)
        least = max((*config.extended, 0)) + 1
        fit, wanted = max(0, (stop - first) // config.test), least if config.count is None else config.count
        if wanted < least:
            raise UserError(f"folds: count = {wanted}: {least - 1} are done already; expected at least {least}")
        if fit < wanted:
            right = f"at least {cls.needed(warmup, config, wanted)} bars"
            if fit >= least:
                right += f", or count at most {fit}"
            raise UserError(
                f"folds: {bars} bars are {warmup} to warm up, {config.train} to train on, {config.validation} for "
                f"validation, {config.test} for each of {wanted} tests, a gap of {config.gap} and {config.holdout} "
                f"held out: {fit} of {wanted} folds fit; expected {right}"
            )
        if opened and config.holdout and holdout.start < opened + PURGE:
            fresh = max(0, end - opened - PURGE)
            raise UserError(
                f"folds: holdout = {config.holdout}: the last one was opened up to bar {opened}, and only {fresh} bars "
                f"came after it; expected at most {fresh} (0: none yet), or {config.holdout - fresh} more bars"
            )
        folds = []
        for number in range(1, (config.count or fit) + 1):
            train = config.train if config.scheme == "rolling" else None
            spans = SpanConfig(config.validation, config.test, train)
            folds.append(Fold(number, Spans.cut(first + number * config.test + 1, warmup, spans)))
        return cls(tuple(folds), Spans(slice(warmup, stop), slice(stop, stop), holdout), config.extended)

    @staticmethod
    def needed(warmup: int, config: FoldConfig, count: int) -> int:
        """The bars of a panel in which so many folds fit."""
        held_out = config.holdout + config.gap if config.holdout else 0
        return _first_test(warmup, config) + count * config.test + held_out + 1

    @property
    def ends(self) -> tuple[int, ...]:
        """After which folds the run ends: once before each time that bars are added, and once more."""
        return (*self.extended, len(self.folds))

    @property
    def holdout(self) -> slice:
        return self.final.test

    def picture(self, dates: np.ndarray) -> list[Stretch]:  # [T] datetime64[ns], the closes
        """What a drawing of the folds shows, row by row."""
        rows = [(fold.name, kind, span) for fold in self.folds for kind, span in vars(fold.spans).items()]
        rows.append(("final fit", "train", self.final.train))
        if self.holdout.start < self.holdout.stop:
            rows.append(("final fit", "gap", slice(self.final.train.stop, self.holdout.start)))
            rows.append(("final fit", "hold-out", self.holdout))
        return [Stretch(name, kind, dates[s.start], dates[s.stop]) for name, kind, s in rows if s.start < s.stop]


def _first_test(warmup: int, config: FoldConfig) -> int:
    """The bar at which the first test span begins."""
    return warmup + config.train + config.validation + (PURGE if config.validation else 0) + PURGE


@dataclass(frozen=True)
class CombinatorialConfig:
    """Every choice of `test_blocks` out of `blocks` is the test once."""

    blocks: int = setting(8, low=2, help="blocks of equal length that the bars are cut into")
    test_blocks: int = setting(2, low=1, help="how many of them are the test")
    embargo: int = setting(21, low=0, help="bars left out after each test block, beyond what the purge takes")

    def __post_init__(self) -> None:
        if self.test_blocks >= self.blocks:
            raise ValueError(f"test_blocks = {self.test_blocks}: expected fewer than blocks, {self.blocks}")


@dataclass(frozen=True, eq=False)
class Split:
    """Bars of decisions, in order; which blocks are the test, numbered from 0."""

    test_blocks: tuple[int, ...]
    train: np.ndarray  # [n] int64
    test: np.ndarray  # [m] int64


def combinatorial_splits(span: slice, config: CombinatorialConfig, lookback: int) -> Iterator[Split]:
    """Combinatorial purged cross-validation: the past is also judged by what was learnt after it.

    For analysis of finished tracks, such as how well a choice among candidates, or weights of an
    ensemble, hold on days that did not make it. Training itself only goes forward in time: its spans
    are whole. `lookback` counts the earlier bars that a decision's features (and networks) read: after
    a test block, decisions that could still see into it are left out too.
    """
    bars, after = span.stop - span.start, PURGE + config.embargo + lookback
    least = PURGE + after + 1  # a block between two tests must keep a bar
    if bars // config.blocks < least:
        raise UserError(
            f"combinatorial splits: {bars} bars in {config.blocks} blocks are {bars // config.blocks} each, and a "
            f"block between two tests loses {PURGE} before and {after} after (purge {PURGE}, embargo {config.embargo}, "
            f"look-back {lookback}); expected at least {config.blocks * least} bars, or fewer blocks"
        )
    edges = [span.start + number * bars // config.blocks for number in range(config.blocks + 1)]
    every = np.arange(span.start, span.stop)
    for chosen in itertools.combinations(range(config.blocks), config.test_blocks):
        test, barred = np.zeros(bars, bool), np.zeros(bars, bool)
        for number in chosen:
            begin, end = edges[number] - span.start, edges[number + 1] - span.start
            test[begin:end] = True
            barred[max(0, begin - PURGE) : end + after] = True
        yield Split(chosen, every[~barred], every[test])
