"""Every registered algorithm through the conformance suite, and the suite through algorithms that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args, get_type_hints

import agent_conformance as conformance
import pytest
import torch

from agents.build import AGENTS
from agents.candidate import Candidate
from agents.config import DirectConfig, PPOConfig
from agents.direct import AgentDirect
from agents.heads import ActorNet
from agents.ppo import AgentPPO
from podracer.training import Diverged

DEFAULTS: dict[str, Any] = {made().kind: made() for made in get_args(get_type_hints(Candidate)["algorithm"])}
# Samples that an algorithm at its defaults needs; who is not named here gets them all.
ENOUGH = {"ppo": 131_072, "sac": 65_536, "td3": 65_536}


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("claim", conformance.CLAIMS, ids=lambda claim: claim.__name__)
def test_algorithm(claim: Any, kind: str) -> None:
    claim(conformance.quick(DEFAULTS[kind]))


@pytest.mark.parametrize("kind", AGENTS)
def test_algorithm_learns(kind: str) -> None:
    settings = DEFAULTS[kind]
    conformance.learns(replace(settings, samples=ENOUGH.get(kind, settings.samples)))


def test_the_rule_that_it_is_measured_by_has_an_edge_and_equal_weight_has_none() -> None:
    world = conformance.signal_market()
    assert conformance.edge(conformance.follows_the_signal, world) > 1.0
    idle = conformance.edge(lambda market, bar, portfolio: torch.zeros(len(bar), 6), world)
    assert idle == pytest.approx(0.0, abs=1e-9)


# -- what does not fit is found


class Shares(AgentDirect):
    """Draws from the generator that everybody shares."""

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        losses = super().learn(rollout)
        _move(self, 1e-3 * torch.rand(1))
        return losses


class Unseeded(AgentDirect):
    """Begins the same whatever its seed, and has nothing else to draw."""

    def __init__(self, market: Any, config: Any, network: Any, seed: int) -> None:
        super().__init__(market, config, network, 0)

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        return {"actor": rollout.rewards.mean().detach()}


class Forgets(AgentPPO):
    """Leaves its generator out of what it keeps."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "explorer": self.explorer.get_state()})


class Overreaches(AgentDirect):
    """Acts beyond 1."""

    def explore_vec_env(self, env: Any, horizon_len: int, if_random: bool = False) -> Any:
        env.step(torch.full((env.num_envs, self.action_dim), 1.5))
        return super().explore_vec_env(env, horizon_len, if_random)


class LooksAhead(AgentDirect):
    """Learns from the bars after its span."""

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        losses = super().learn(rollout)
        _move(self, 1e-6 * self.market.features[-20:].mean())
        return losses


class Brittle(AgentDirect):
    """Divides by how many assets trade."""

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        losses = super().learn(rollout)
        if self.market.open_now is not None:
            counts = self.market.open_now[:, :-1].sum(1)
            _move(self, 1e-6 * (1.0 / counts - 1.0 / counts).sum())
        return losses


class Hides(AgentDirect):
    """Decides by more than the network that it hands over."""

    @property
    def policy(self) -> ActorNet:
        act = super().policy
        act.forward = lambda *given: 0.5 * ActorNet.forward(act, *given)  # type: ignore[method-assign]
        return act


class Renames(AgentDirect):
    """Keeps its policy where no ledger looks for it."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["act"] = {f"own.{name}": value for name, value in state["act"].items()}
        return state


class StartsAnew(AgentDirect):
    """Takes nothing over."""

    def take_over(self, state: dict[str, Any]) -> None:
        pass


class Idle(AgentDirect):
    """Learns nothing."""

    def learn(self, rollout: Any) -> dict[str, torch.Tensor]:
        return {"actor": rollout.rewards.mean().detach()}


def _move(agent: Any, by: torch.Tensor) -> None:
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.add_(by.to(parameter.dtype))


@pytest.mark.parametrize(
    ("agent", "claim", "words"),
    [
        (Shares, conformance.neither_hears_nor_disturbs_other_generators, "drew from a generator that it shares"),
        (Shares, conformance.is_a_function_of_its_seed, "the same seed must give the same policy"),
        (Unseeded, conformance.is_a_function_of_its_seed, "another seed must give another policy"),
        (Forgets, conformance.goes_on_from_a_checkpoint_to_the_same_bits, "it ends elsewhere"),
        (Overreaches, conformance.acts_between_minus_1_and_1, "an action lies beyond 1"),
        (LooksAhead, conformance.learns_without_the_future, "its training saw bars after its span"),
        (Brittle, conformance.bears_gaps_and_halts, "a weight is no number"),
        (Hides, conformance.enters_a_bundle, "Arrays are not equal"),
        (Renames, conformance.starts_where_another_ended, "must hold the policy under net"),
        (StartsAnew, conformance.starts_where_another_ended, "it does not start as its parent"),
        (Idle, conformance.starts_where_another_ended, "it learns no further"),
    ],
)
def test_an_algorithm_that_does_not_fit_is_found(
    agent: Any, claim: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = PPOConfig() if issubclass(agent, AgentPPO) else DirectConfig()
    monkeypatch.setitem(AGENTS, settings.kind, agent)
    with pytest.raises((AssertionError, Diverged), match=words):
        claim(conformance.quick(settings))


def test_a_policy_that_looks_a_bar_ahead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = ActorNet.prepare

    def ahead(self: ActorNet, market: Any, bars: torch.Tensor | None = None) -> torch.Tensor:
        bars = torch.arange(len(market)) if bars is None else bars
        return prepare(self, market, (bars + 1).clamp_max(len(market) - 1))

    monkeypatch.setattr(ActorNet, "prepare", ahead)
    with pytest.raises(AssertionError):
        conformance.decides_without_the_future(conformance.quick(DirectConfig()))


def test_an_algorithm_that_learns_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS, "direct", Idle)
    with pytest.raises(AssertionError, match="its edge is"):
        conformance.learns(replace(DirectConfig(), samples=8192))
