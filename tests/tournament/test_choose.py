"""Who becomes a member of the ensemble."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small import arena_of, config_of

from tournament.choose import choose
from tournament.config import EnsembleConfig
from tournament.propose import propose
from tournament.score import Standing, Status


def chosen(*bounds: float, size: int = 5, status: Status = "finished") -> list[float]:
    """The bounds of the members, of finished candidates and of one with the given status, the first."""
    entrants = propose(1, [], config_of(f"search.candidates={len(bounds)}").search, 0)
    standings = [
        Standing(entrant, (), "finished" if k else status, "", np.zeros(9), ((2, bound),), bound=bound)
        for k, (entrant, bound) in enumerate(zip(entrants, bounds))
    ]
    found = choose(standings, EnsembleConfig(size=size), arena_of())
    assert sum(choice.weight for choice in found) == pytest.approx(1 if found else 0)
    return [choice.standing.bound for choice in found]


def test_the_best_are_members_the_leader_first() -> None:
    assert chosen(0.5, 0.7, 0.6, 0.8, size=3) == [0.8, 0.7, 0.6]


def test_who_has_less_than_half_of_the_leaders_bound_would_only_dilute_it() -> None:
    assert chosen(0.8, 0.4, 0.39, 0.01) == [0.8, 0.4]


def test_nobody_below_equal_weight_is_a_member() -> None:
    assert chosen(0.1, 0.0, -0.1, math.nan) == [0.1]
    assert chosen(0.0, -0.1, math.nan, -1.0) == []


@pytest.mark.parametrize("status", ["eliminated", "leaked", "diverged", "crashed", "running"])
def test_only_who_did_every_fold_is_a_member_or_leads(status: Status) -> None:
    assert chosen(9.0, 0.5, 0.3, 0.2, status=status) == [0.5, 0.3]
