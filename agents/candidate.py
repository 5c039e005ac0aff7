"""A candidate: everything that training may vary, as plain data with a hash."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from agents.config import AlgorithmConfig, PPOConfig
from agents.networks import NetworkConfig
from envs.config import EnvConfig, RewardConfig
from kit.config import setting, to_dict
from kit.files import hash_json

EXCESS = EnvConfig(RewardConfig(log_growth=0.0, excess=1.0))


@dataclass(frozen=True)
class PodConfig:
    """Where a candidate trains."""

    kind: Literal["anakin", "sebulba"] = setting(
        "anakin", help="anakin: environment and learner on one device; sebulba: remote actors feed a learner"
    )
    actors: int = setting(2, low=1, help="sebulba: how many actors")
    staleness: int = setting(1, low=0, help="sebulba: how many updates old the actors' weights may be")
    actor_cpus: float = setting(1.0, low=0, help="sebulba: CPUs of each actor")
    actor_gpus: float = setting(0.0, low=0, help="sebulba: GPUs of each actor, e.g. 0.25")


@dataclass(frozen=True)
class Candidate:
    """An algorithm, its network, what it is rewarded for and where it trains."""

    algorithm: AlgorithmConfig = setting(PPOConfig(), help="kind, and its settings")
    network: NetworkConfig = setting(NetworkConfig())
    env: EnvConfig = setting(EXCESS)
    pod: PodConfig = setting(PodConfig())

    @cached_property
    def hash(self) -> str:
        """The same for the same settings, whatever order they were written in."""
        return hash_json(to_dict(self))

    @property
    def name(self) -> str:
        return f"{self.algorithm.kind}-{self.hash[:8]}"
