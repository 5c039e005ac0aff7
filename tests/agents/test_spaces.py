"""Search spaces: whatever they offer is a candidate that can be built, and offspring keep their parent's shapes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markets import tensors
from panels import random_panel

from agents.build import build_agent
from agents.candidate import Candidate
from agents.config import PPOConfig
from agents.networks import NetworkConfig
from agents.spaces import SPACES, Choice, Knob, candidate_from, mutate, sample
from kit.config import to_dict
from kit.errors import UserError

ALGORITHMS = sorted(SPACES)
DEFAULTS = {made().kind: made() for made in get_args(get_type_hints(Candidate)["algorithm"])}


class Corner:
    """Suggests every range's lower or upper end, and a choice by its place."""

    def __init__(self, upper: bool, place: int = 0) -> None:
        self.upper, self.place = upper, place
        self.asked: list[str] = []

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return high if self.upper else low

    suggest_int = suggest_float

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        self.asked.append(name)
        return choices[self.place % len(choices)]


class Dice:
    """Draws evenly."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if not log:
            return float(self.rng.uniform(low, high))
        return min(max(math.exp(self.rng.uniform(math.log(low), math.log(high))), low), high)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self.rng.integers(low, high + 1))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]


def drawn(algorithm: str, seed: int) -> Candidate:
    return candidate_from(algorithm, sample(SPACES[algorithm], Dice(seed)))


def value_at(candidate: Candidate, key: str) -> Any:
    value: Any = candidate
    for part in key.split("."):
        value = getattr(value, part)
    return value


def holds(knob: Knob, candidate: Candidate) -> bool:
    """Whether the knob could have set what the candidate has."""
    if isinstance(knob, Choice):
        return any(
            all(value_at(candidate, key) == value for key, value in knob.values(label).items()) for label in knob.labels
        )
    return knob.low <= value_at(candidate, knob.name) <= knob.high


def small(candidate: Candidate) -> Candidate:
    """The same with few environments, so that its agent is quickly made."""
    return replace(candidate, algorithm=replace(candidate.algorithm, num_envs=16))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("place", range(6))
def test_the_corners_of_a_space_are_valid_candidates(algorithm: str, upper: bool, place: int) -> None:
    values = sample(SPACES[algorithm], Corner(upper, place))
    candidate = candidate_from(algorithm, values)
    assert candidate.algorithm.kind == algorithm
    assert {key: value_at(candidate, key) for key in values} == values


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_hundred_draws_are_valid_candidates_of_which_no_two_are_the_same(algorithm: str) -> None:
    candidates = [drawn(algorithm, seed) for seed in range(200)]
    assert len({candidate.hash for candidate in candidates}) == 200
    assert all(holds(knob, candidate) for candidate in candidates for knob in SPACES[algorithm])
    assert [drawn(algorithm, seed).hash for seed in range(20)] == [candidate.hash for candidate in candidates[:20]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_drawn_candidate_is_rewarded_for_something(algorithm: str) -> None:
    for seed in range(200):
        reward = drawn(algorithm, seed).env.reward
        assert reward.log_growth + reward.excess == 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_candidate_of_no_values_is_the_default(algorithm: str) -> None:
    assert candidate_from(algorithm, {}) == Candidate(DEFAULTS[algorithm])


def test_one_value_changes_nothing_else() -> None:
    changed = candidate_from("ppo", {"env.reward.turnover": 0.001, "algorithm.samples": 77})
    default = Candidate()
    reward = replace(default.env.reward, turnover=0.001)
    wanted = replace(default, env=replace(default.env, reward=reward), algorithm=PPOConfig(samples=77))
    assert changed == wanted
    assert changed.hash == wanted.hash != default.hash


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_lie_inside_the_space(algorithm: str) -> None:
    default = Candidate(DEFAULTS[algorithm])
    assert [knob.name for knob in SPACES[algorithm] if not holds(knob, default)] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_space_asks_for_each_name_once_and_always_in_the_same_order(algorithm: str) -> None:
    asked = []
    for upper, place in ((False, 0), (True, 1)):
        corner = Corner(upper, place)
        sample(SPACES[algorithm], corner)
        asked.append(corner.asked)
    assert asked[0] == asked[1] == [knob.name for knob in SPACES[algorithm]]
    assert len(set(asked[0])) == len(asked[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_space_varies_network_reward_and_algorithm_but_neither_budget_nor_pod(algorithm: str) -> None:
    names = {knob.name for knob in SPACES[algorithm]}
    assert {"network.encoder", "network.hidden", "network.lookback", "algorithm.learning_rate"} <= names
    assert any(name.startswith("env.reward") for name in names)
    assert not any(name in ("algorithm.samples", "algorithm.kind") or name.startswith("pod") for name in names)


def test_a_name_has_one_kind_scale_and_set_of_choices_in_every_space() -> None:
    """Or a study could not hold all four algorithms."""
    seen: dict[str, Any] = {}
    for space in SPACES.values():
        for knob in space:
            trait = (knob.kind, knob.choices if isinstance(knob, Choice) else knob.log)
            assert seen.setdefault(knob.name, trait) == trait


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_labels_are_plain_text_which_any_storage_of_a_study_takes(algorithm: str) -> None:
    for knob in SPACES[algorithm]:
        if isinstance(knob, Choice):
            assert all(isinstance(label, str) for label in knob.labels)
            assert len(set(knob.labels)) == len(knob.labels) > 1


@pytest.mark.filterwarnings("error")
def test_an_optuna_trial_fits_as_it_is_and_its_parameters_give_the_same_candidate_again() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=5))
    kinds, again = set(), []
    for kind in ALGORITHMS:
        study.enqueue_trial({"algorithm.kind": kind})
    for number in range(24):
        trial = study.ask()
        algorithm = trial.suggest_categorical("algorithm.kind", ALGORITHMS)
        candidate = candidate_from(algorithm, sample(SPACES[algorithm], trial))
        assert list(trial.params) == ["algorithm.kind", *(knob.name for knob in SPACES[algorithm])]
        study.tell(trial, float(number % 7))
        kinds.add(candidate.algorithm.kind)
        fixed = optuna.trial.FixedTrial(trial.params)
        again.append(candidate_from(algorithm, sample(SPACES[algorithm], fixed)) == candidate)
    assert kinds == set(ALGORITHMS)
    assert all(again)


@given(algorithm=st.sampled_from(ALGORITHMS), seed=st.integers(0, 2**31))
def test_offspring_stay_in_the_space_keep_the_network_and_are_never_their_parent(algorithm: str, seed: int) -> None:
    parent = replace(drawn(algorithm, seed), algorithm=replace(drawn(algorithm, seed).algorithm, samples=123))
    child = mutate(parent, np.random.default_rng(seed))
    assert child.hash != parent.hash
    assert all(holds(knob, child) for knob in SPACES[algorithm])
    assert (child.network, child.pod, child.algorithm.samples) == (parent.network, parent.pod, 123)
    assert child == mutate(parent, np.random.default_rng(seed))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mutation_changes_only_what_the_space_names_and_reaches_all_of_it(algorithm: str) -> None:
    parent = candidate_from(algorithm, {})
    children = [mutate(parent, np.random.default_rng(seed)) for seed in range(60)]
    before = to_dict(parent)
    changed = set()
    for child in children:
        after = to_dict(child)
        for part in ("algorithm", "env", "network", "pod"):
            inner, other = before[part], after[part]
            if part == "env":
                assert {k: v for k, v in inner.items() if k != "reward"} == {
                    k: v for k, v in other.items() if k != "reward"
                }
                part, inner, other = "env.reward", inner["reward"], other["reward"]
            changed |= {f"{part}.{name}" for name in inner if inner[name] != other[name]}
    names: set[str] = set()
    for knob in SPACES[algorithm]:
        if not knob.name.startswith("network."):
            names |= set(knob.values(knob.labels[0])) if isinstance(knob, Choice) else {knob.name}
    assert changed == names


def test_a_parent_outside_the_space_has_offspring_inside() -> None:
    parent = candidate_from("ppo", {"algorithm.learning_rate": 1e-9, "algorithm.epochs": 40})
    children = [mutate(parent, np.random.default_rng(seed), chance=1.0) for seed in range(30)]
    assert all(holds(knob, child) for child in children for knob in SPACES["ppo"])


def test_small_steps_stay_near_and_large_ones_go_far() -> None:
    parent = candidate_from("ppo", {"algorithm.learning_rate": 2e-3})

    def spread(step: float) -> float:
        rng = np.random.default_rng(0)
        moved = [mutate(parent, rng, 1.0, step).algorithm.learning_rate for _ in range(200)]
        return float(np.abs(np.log(np.array(moved) / 2e-3)).mean())

    whole = math.log(1e-2 / 3e-4)
    assert spread(0.02) == pytest.approx(0.02 * whole * math.sqrt(2 / math.pi), rel=0.15)  # mean of |normal|
    assert spread(0.3) > 0.15 * whole


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_childs_agent_takes_over_its_parents_weights(algorithm: str) -> None:
    panel = random_panel(1, bars=40, symbols=3, gaps=False)
    features = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)
    market = tensors(panel, features=features, dtype=torch.float32)
    for seed in range(3):
        parent = small(drawn(algorithm, seed))
        child = mutate(parent, np.random.default_rng(seed))
        old, young = build_agent(parent, market, 1), build_agent(child, market, 2)
        old.last_state = torch.zeros(1)
        young.take_over(old.state_dict())
        for name, value in old.act.state_dict().items():
            torch.testing.assert_close(young.act.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("algorithm", "values", "words"),
    [
        ("pppo", {}, "candidate: algorithm.kind = 'pppo': expected one of"),
        ("ppo", {"algorithm.gamma": 1.5}, "candidate: algorithm.gamma = 1.5: must be"),
        ("ppo", {"algorithm.tau": 0.1}, "candidate: algorithm.tau = 0.1: unknown key"),
        ("sac", {"network.hidden": []}, "candidate: network = {"),
        ("sac", {"net.hidden": (3,)}, "candidate: net = {'hidden': (3,)}: unknown key"),
    ],
)
def test_impossible_values_are_one_clear_line(algorithm: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        candidate_from(algorithm, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["algorithm", "network", "env", "pod"])
def test_hashes_differ_where_candidates_do_and_agree_where_they_agree(change: str) -> None:
    default = Candidate()
    others = {
        "algorithm": PPOConfig(gamma=0.12345),
        "network": NetworkConfig(hidden=(8,)),
        "env": replace(default.env, episode=17),
        "pod": replace(default.pod, staleness=5),
    }
    assert {f.name for f in fields(Candidate)} == set(others)
    assert replace(default, **{change: others[change]}).hash != default.hash
    assert replace(default).hash == default.hash


def test_spaces_do_not_load_optuna() -> None:
    code = "import sys, agents.spaces; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
