"""A policy that is built without its agent decides as the agent does."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tasks import task_market

from agents.build import AGENTS, build_agent, build_policy
from agents.candidate import AlgorithmConfig, Candidate
from envs.policy import portfolio_width

SETTINGS = [kind() for kind in get_args(AlgorithmConfig)]


def test_every_algorithm_is_asked() -> None:
    assert {settings.kind for settings in SETTINGS} == {*AGENTS}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.kind)
def test_with_the_weights_of_an_agent_it_decides_as_the_agent_does(settings: AlgorithmConfig) -> None:
    candidate, market = Candidate(settings), task_market()
    theirs, ours = build_agent(candidate, market, 3).policy, build_policy(candidate, market)
    ours.load_state_dict(theirs.state_dict())
    bars = torch.arange(8)
    portfolio = torch.rand(8, portfolio_width(market), generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(market, bars, portfolio), theirs(market, bars, portfolio))
