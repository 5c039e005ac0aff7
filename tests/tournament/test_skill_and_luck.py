"""Whole tournaments on small markets with a strong signal and without any; the large ones are a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import SMOKE, runner

from benchmarks.verdict import LEAKS, NO_LEAK, Outcome, caught, played, tournament
from tournament.verdict import BETTER

LONGER = (  # days enough to tell: two folds of 60 are a matter of chance
    "data.source.bars=1300",
    "folds={train: 300, validation: 60, test: 150, count: 3, gap: 5, holdout: 250}",
    "search.samples=0.1",
)


def outcome(folder: Path, ic: float) -> Outcome:
    run = tournament(SMOKE, folder, f"data.source.ic={ic}", *LONGER)
    run.execute = runner()
    return played(run, folder, ungate=True)


def test_skill_is_told_and_carries_over_to_days_that_no_choice_has_seen(tmp_path: Path) -> None:
    found = outcome(tmp_path, 0.3)
    assert found.ensemble > 0.5 * found.oracle > 0
    assert found.verdict == BETTER


def test_luck_is_not_called_skill(tmp_path: Path) -> None:
    assert outcome(tmp_path, 0.0).verdict != BETTER


@pytest.mark.parametrize("planted", LEAKS)
def test_the_benchmarks_leaks_are_found_and_nothing_else(planted: str) -> None:
    assert caught(LEAKS[planted]) == (planted != NO_LEAK)
