"""What a search may vary, as data: a space per algorithm, and the candidates that it is made of.

A space is a tuple of knobs. Each bears the key that it sets in a `Candidate`, and every space names
them in one fixed order. A name has the same kind, scale and choices wherever it stands, so that one
study can hold all algorithms. What the tournament sets for all candidates alike (how many samples,
where they train, how they trade) is no knob.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from agents.candidate import Candidate
from kit.config import build, to_dict

Values = dict[str, Any]  # dotted keys of a candidate
NETWORK = "network."  # what shapes networks: with other values there, weights would not fit


class Suggest(Protocol):
    """Who chooses: an Optuna trial, or anything with its three methods."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...


@dataclass(frozen=True)
class Float:
    name: str
    low: float
    high: float
    log: bool = False
    kind: Literal["float"] = "float"

    def sample(self, suggest: Suggest) -> Values:
        return {self.name: suggest.suggest_float(self.name, self.low, self.high, log=self.log)}

    def move(self, value: float, rng: np.random.Generator, step: float) -> Values:
        return {self.name: min(max(_moved(value, self.low, self.high, self.log, rng, step), self.low), self.high)}


@dataclass(frozen=True)
class Int:
    name: str
    low: int
    high: int
    log: bool = False
    kind: Literal["int"] = "int"

    def sample(self, suggest: Suggest) -> Values:
        return {self.name: suggest.suggest_int(self.name, self.low, self.high, log=self.log)}

    def move(self, value: int, rng: np.random.Generator, step: float) -> Values:
        return {self.name: round(_moved(value, self.low, self.high, self.log, rng, step))}


@dataclass(frozen=True)
class Choice:
    """One of a few values, each with a label; a mapping sets several keys below the name."""

    name: str
    choices: tuple[tuple[str, Any], ...]
    kind: Literal["choice"] = "choice"

    @property
    def labels(self) -> list[str]:
        return [label for label, _ in self.choices]

    def sample(self, suggest: Suggest) -> Values:
        return self.values(suggest.suggest_categorical(self.name, self.labels))

    def values(self, label: str) -> Values:
        value = dict(self.choices)[label]
        if isinstance(value, Mapping):
            return {f"{self.name}.{key}": inner for key, inner in value.items()}
        return {self.name: value}

    def move(self, value: Any, rng: np.random.Generator, step: float) -> Values:
        return self.values(self.labels[int(rng.integers(len(self.choices)))])


Knob = Float | Int | Choice
Space = tuple[Knob, ...]


def choice(name: str, *values: Any, **labelled: Any) -> Choice:
    return Choice(name, (*((str(value), value) for value in values), *labelled.items()))


_NETWORK: Space = (
    choice("network.encoder", "shared", "flat", "attention"),
    choice(
        "network.hidden",
        **{"x".join(map(str, widths)): widths for widths in ((32,), (16, 16), (32, 32), (64, 32), (64, 64))},
    ),
    choice("network.lookback", 1, 2, 4, 8),
)
_BASIS = choice("env.reward", excess={"log_growth": 0.0, "excess": 1.0}, growth={"log_growth": 1.0, "excess": 0.0})
_PENALTIES: Space = (
    Float("env.reward.differential_sharpe", 0.0, 0.5),
    Float("env.reward.drawdown", 0.0, 0.5),
    Float("env.reward.turnover", 0.0, 2e-3),
)
_LEARNING: Space = (
    Float("algorithm.learning_rate", 3e-4, 1e-2, log=True),
    Float("algorithm.weight_decay", 0.0, 0.1),
)
_GAMMA = Float("algorithm.gamma", 0.5, 0.98)
_NOISE = Float("algorithm.noise", 0.1, 2.0, log=True)
_HORIZON = choice("algorithm.horizon", 16, 32, 64)
_OFF_POLICY: Space = (
    Float("algorithm.tau", 2e-3, 5e-2, log=True),
    Float("algorithm.reuse", 2.0, 16.0, log=True),
    Float("algorithm.contrast", 2.0, 32.0, log=True),
)

SPACES: dict[str, Space] = {
    "ppo": (
        *_LEARNING,
        _GAMMA,
        _NOISE,
        _HORIZON,
        Float("algorithm.gae_lambda", 0.0, 0.95),
        Float("algorithm.ratio_clip", 0.1, 0.4),
        Float("algorithm.entropy", 0.0, 0.01),
        Int("algorithm.epochs", 1, 8),
        _BASIS,
        *_PENALTIES,
        *_NETWORK,
    ),
    "sac": (
        *_LEARNING,
        _GAMMA,
        _NOISE,
        *_OFF_POLICY,
        Float("algorithm.temperature", 1e-3, 0.1, log=True),
        Float("algorithm.entropy_per_action", -2.0, 0.0),
        _BASIS,
        *_PENALTIES,
        *_NETWORK,
    ),
    "td3": (
        *_LEARNING,
        _GAMMA,
        _NOISE,
        *_OFF_POLICY,
        Float("algorithm.target_noise", 0.0, 0.3),
        Int("algorithm.policy_delay", 1, 4),
        _BASIS,
        *_PENALTIES,
        *_NETWORK,
    ),
    # What equal weight earns does not depend on actions, so that taking it off changes no gradient: no basis here.
    "direct": (
        *_LEARNING,
        _HORIZON,
        Float("algorithm.clip_grad_norm", 0.3, 3.0, log=True),
        *_PENALTIES,
        *_NETWORK,
    ),
}


def sample(space: Space, suggest: Suggest) -> Values:
    """Dotted keys and their values, each knob asked for once, in the space's order."""
    values: Values = {}
    for knob in space:
        values |= knob.sample(suggest)
    return values


def candidate_from(algorithm: str, values: Mapping[str, Any]) -> Candidate:
    """The algorithm's default candidate with some dotted keys set to other values, all of them checked."""
    tree = to_dict(build(Candidate, {"algorithm": {"kind": algorithm}}, "candidate"))
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = tree
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return build(Candidate, tree, "candidate")


def parameters(candidate: Candidate) -> dict[str, Any]:
    """What a search would have had to choose for it: numbers, and labels of choices. None: no such label."""
    tree = to_dict(candidate)
    chosen: dict[str, Any] = {}
    for knob in SPACES[candidate.algorithm.kind]:
        if isinstance(knob, Choice):
            chosen[knob.name] = next((label for label in knob.labels if _agrees(tree, knob.values(label))), None)
        else:
            chosen[knob.name] = _looked_up(tree, knob.name)
    return chosen


def _agrees(tree: Any, values: Values) -> bool:
    """Whether a candidate has these values; lists and tuples are the same."""
    return all(to_dict(value) == _looked_up(tree, key) for key, value in values.items())


def mutate(candidate: Candidate, rng: np.random.Generator, chance: float = 0.4, step: float = 0.15) -> Candidate:
    """Another candidate whose networks have the same shapes, so that this one's weights fit it.

    Each knob moves with probability `chance`: a number by a normal draw of `step` times its range, a
    choice to any of its labels. The rest of the candidate stays as it is.
    """
    algorithm, tree = candidate.algorithm.kind, to_dict(candidate)
    space = [knob for knob in SPACES[algorithm] if not knob.name.startswith(NETWORK)]
    made = candidate
    while made == candidate:
        values: Values = {}
        for knob in space:
            if rng.random() < chance:
                values |= knob.move(_looked_up(tree, knob.name), rng, step)
        made = candidate_from(algorithm, _flat(tree) | values)
    return made


def _moved(value: float, low: float, high: float, log: bool, rng: np.random.Generator, step: float) -> float:
    """A step away from the value, turned back at the ends of the range."""
    if log:
        return math.exp(_moved(math.log(max(value, low)), math.log(low), math.log(high), False, rng, step))
    share = (min(max(value, low), high) - low) / (high - low) + rng.normal(0.0, step)
    share %= 2.0
    return low + (high - low) * min(share, 2.0 - share)


def _looked_up(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def _flat(tree: Any, prefix: str = "") -> Values:
    """Nested keys as dotted ones."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    inner: Values = {}
    for key, value in tree.items():
        inner |= _flat(value, f"{prefix}.{key}" if prefix else key)
    return inner
