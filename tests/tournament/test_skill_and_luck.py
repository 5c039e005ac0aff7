"""Whole tournaments on small markets with a strong signal and without any; the large ones are a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from small import SMOKE, runner

from benchmarks.verdict import LEAKS, NO_LEAK, Outcome, caught, played, tournament
from tournament.verdict import BETTER


def outcome(folder: Path, ic: float) -> Outcome:
    run = tournament(SMOKE, folder, f"data.source.ic={ic}", "search.samples=0.1")
    run.execute = runner()
    return played(run, folder)


def test_skill_is_told_and_carries_over_to_days_that_no_choice_has_seen(tmp_path: Path) -> None:
    found = outcome(tmp_path, 0.3)
    assert found.ensemble > 0.5 * found.oracle > 0
    assert found.verdict == BETTER


def test_luck_is_not_called_skill(tmp_path: Path) -> None:
    assert outcome(tmp_path, 0.0).verdict != BETTER


@pytest.mark.parametrize("planted", LEAKS)
def test_the_benchmarks_leaks_are_found_and_nothing_else(planted: str) -> None:
    assert caught(LEAKS[planted]) == (planted != NO_LEAK)
