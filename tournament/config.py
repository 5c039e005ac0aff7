"""What a tournament's configuration file holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.candidate import PodConfig
from envs.config import TradingConfig
from kit.config import setting
from market import data
from market.features import FeatureSpec
from market.synth import SynthSource
from tournament.folds import FoldConfig
from tournament.statistics.bootstrap import BLOCK

LEAST_HOLDOUT = 2 * BLOCK  # bars: with fewer the bootstrap has nothing to draw from
WHERE = ("execution", "wandb")  # settings that no result depends on

Algorithm = Literal["ppo", "sac", "td3", "direct"]


@dataclass(frozen=True)
class SearchConfig:
    """Who enters, for how long they train, and who stays."""

    rounds: int = setting(1, low=1, help="each proposes new candidates, knowing how the earlier ones did")
    candidates: int = setting(16, low=1, help="that Optuna proposes in a round")
    offspring: int = setting(4, low=0, help="of the leaderboard's best, in every round but the first")
    seeds: int = setting(1, low=1, help="trainings of each candidate; their returns are averaged")
    algorithms: tuple[Algorithm, ...] = setting(("ppo", "sac", "td3", "direct"), help="among which Optuna chooses")
    defaults: bool = setting(True, help="each algorithm at its defaults is among the first round's candidates")
    pods: dict[Algorithm, PodConfig] = setting(
        {}, help="where an algorithm trains, if not in one process: {ppo: {kind: sebulba, actors: 4}}"
    )
    samples: float = setting(1.0, above=0, help="length of a training, as a share of its algorithm's default")
    warm: float = setting(
        0.5, low=0, help="the same from the second fold on, as a share of the first's; 0: each fold starts anew"
    )
    keep: int = setting(5, low=1, help="candidates that no elimination goes below")
    eta: float = setting(2.0, above=1, help="an elimination leaves one candidate in so many")
    halving: Literal["synchronous", "asynchronous"] = setting(
        "synchronous",
        help="asynchronous: who is among the better ones so far goes on at once; no worker waits, but no run repeats",
    )
    rank: Literal["bound", "sharpe"] = setting(
        "bound", help="bound: the 20 % lower bound of the Sharpe ratio's edge over equal weight; sharpe: the ratio"
    )

    def __post_init__(self) -> None:
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError("algorithms must be at least one, each named once")
        if "direct" in self.pods and self.pods["direct"].kind == "sebulba":
            raise ValueError("pods.direct must be anakin: it needs the gradients of its own environments")


@dataclass(frozen=True)
class ExecutionConfig:
    """Where trials run. Nothing here changes a result."""

    workers: int | None = setting(None, low=1, help="trials at a time (default: as many as there is room for)")
    cpus: float = setting(1.0, above=0, help="of each trial")
    gpus: float = setting(0.0, low=0, help="of each trial, e.g. 0.25")
    retries: int = setting(2, low=0, help="of a trial whose process died")
    storage: str = setting(
        "", help="an object store that keeps the run beside its folder, such as s3://bucket/runs/first"
    )


@dataclass(frozen=True)
class EnsembleConfig:
    """The winners as one."""

    size: int = setting(5, low=1, help="members at most")
    weights: Literal["equal", "softmax", "mean_variance"] = "equal"


@dataclass(frozen=True)
class LeakConfig:
    """When a result is too good to be true."""

    self_test: bool = setting(True, help="before training: perturb the future, nothing before it may move")
    information_ratio: float = setting(5.0, above=0, help="a year's, over equal weight; above it a candidate is held")
    p_value: float = setting(0.001, above=0, below=1, help="that it beats what can be known, on the built-in market")


@dataclass(frozen=True)
class TournamentConfig:
    """Everything that a run's result depends on, and where it runs."""

    data: data.DataConfig = setting(data.DataConfig(SynthSource()))
    features: FeatureSpec = setting(FeatureSpec.default(), help="what policies see of the market")
    trading: TradingConfig = setting(TradingConfig())
    folds: FoldConfig = setting(FoldConfig())
    search: SearchConfig = setting(SearchConfig())
    ensemble: EnsembleConfig = setting(EnsembleConfig())
    leak: LeakConfig = setting(LeakConfig())
    execution: ExecutionConfig = setting(ExecutionConfig())
    seed: int = setting(0, low=0, help="another seed is another tournament")
    wandb: Literal["auto", "offline", "disabled"] = setting(
        "auto", help="auto: Weights & Biases online where WANDB_API_KEY is set, else not at all"
    )

    def __post_init__(self) -> None:
        if 0 < self.folds.holdout < LEAST_HOLDOUT:
            raise ValueError(f"folds.holdout must be 0 or at least {LEAST_HOLDOUT} bars, fewer tell nothing")
