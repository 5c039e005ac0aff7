"""Every algorithm at its defaults learns most of what can be known: one market of `make learning`.

Ten markets are the measurement, and stand in the README; one is enough to notice that learning broke.
"""

from __future__ import annotations

import pytest

from benchmarks.learning import ALGORITHMS, NULL, SKILL, Job, learn

SEED = 100


@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=[pytest.mark.slow] * (name != "direct")) for name in ALGORITHMS]
)
def test_half_of_the_oracles_edge_is_learnt_on_days_that_training_does_not_see(algorithm: str) -> None:
    best = learn(Job(SKILL, SEED, "oracle")).edge
    assert best > 1
    assert learn(Job(SKILL, SEED, algorithm)).edge > best / 2


def test_nothing_is_learnt_where_there_is_nothing_to_learn() -> None:
    """The same days without a signal: far from what it learns with one."""
    assert abs(learn(Job(NULL, SEED, "direct")).edge) < 0.5
