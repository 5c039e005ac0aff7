"""Training is a function of (candidate, spans, seed, start): the loop that every pod runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from agents.build import Agent, build_agent
from agents.candidate import Candidate
from agents.heads import ActorNet
from envs.backtest import backtest
from envs.market import MarketTensors
from envs.policy import Allocated
from envs.trading import TradingEnv
from kit.config import to_dict
from kit.errors import UserError
from kit.files import hash_arrays, hash_json
from kit.metrics import sharpe
from podracer.anakin import Anakin
from podracer.sebulba import Sebulba
from podracer.spans import Spans
from podracer.start import Start

EVALUATIONS = 10  # on the validation span, evenly over the training
PATIENCE = 6  # evaluations in a row that are surely behind the best one, after which training stops
SURELY = 2.0  # standard errors


class Diverged(Exception):
    """A network that is no longer made of numbers."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows."""

    samples: int
    total: int
    reward: float  # mean per step of the last rollout
    losses: dict[str, float]
    validation: float  # the last Sharpe ratio on the validation span; NaN before the first


@dataclass(frozen=True)
class Trained:
    """A policy and how it came about."""

    actor: ActorNet
    samples: int  # after which the policy was taken
    trained: int  # samples in all
    history: tuple[tuple[int, float], ...]  # samples, Sharpe ratio on the validation span
    candidate: Candidate = field(repr=False)


def train(
    candidate: Candidate,
    market: MarketTensors,
    spans: Spans,
    seed: int = 0,
    start: Start | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Trained:
    """The policy that a candidate becomes. The same arguments give the same policy on the same device."""
    with closing(Training(candidate, market, spans, seed, start)) as training:
        while not training.done:
            training.advance()
            if report:
                report(training.progress())
        return training.result()


def build_pod(candidate: Candidate, agent: Agent, market: MarketTensors, span: slice, seed: int) -> Anakin | Sebulba:
    if candidate.pod.kind == "sebulba":
        return Sebulba(agent, candidate, market, span, seed)
    config = candidate.algorithm
    together = getattr(config, "together", 1)
    env = TradingEnv(market, candidate.env, config.num_envs, span, seed, together=together)
    return Anakin(agent, env, config.horizon)


class Training:
    """A candidate in training: advance until done; what `state_dict` holds continues to the same end."""

    def __init__(
        self, candidate: Candidate, market: MarketTensors, spans: Spans, seed: int = 0, start: Start | None = None
    ) -> None:
        self.candidate, self.market, self.spans, self.seed = candidate, market, spans, seed
        self.start = start or Start()
        self.agent = build_agent(candidate, market, seed)
        self.start.into(self.agent, market, spans, seed)
        self.pod = build_pod(candidate, self.agent, market, spans.train, seed)
        self.samples, self.total = 0, candidate.algorithm.samples
        self.history: list[tuple[int, float]] = []
        self.best: dict[str, torch.Tensor] = {}
        self.best_samples = 0
        self.leading = torch.empty(0)  # returns of the evaluation with the highest score
        self._last: dict[str, torch.Tensor] = {}

    @property
    def done(self) -> bool:
        since = sum(samples > self.best_samples for samples, _ in self.history)
        return self.samples >= self.total or since >= PATIENCE

    def advance(self) -> None:
        """One rollout, what is learnt from it, and an evaluation when one is due."""
        self.agent.anneal(self.samples / self.total)
        rollout = self.pod.collect()
        self._last = self.agent.learn(rollout)
        self._last["reward"] = rollout.rewards.detach().mean() / self.agent.reward_scale
        evaluated = self.samples * EVALUATIONS // self.total
        self.samples += self.pod.samples_per_rollout
        if self.samples * EVALUATIONS // self.total > evaluated:
            self._evaluate()

    def close(self) -> None:
        """Give back what the pod holds."""
        self.pod.close()

    def result(self) -> Trained:
        """The last policy that validation does not surely prefer an earlier one to; without validation, the last."""
        actor = build_agent(self.candidate, self.market, self.seed).policy
        actor.load_state_dict(self.best)
        return Trained(actor, self.best_samples, self.samples, tuple(self.history), self.candidate)

    def progress(self) -> Progress:
        losses = {name: float(value) for name, value in self._last.items()}
        reward = losses.pop("reward", math.nan)
        validation = self.history[-1][1] if self.history else math.nan
        return Progress(self.samples, self.total, reward, losses, validation)

    def _evaluate(self) -> None:
        weights = {name: value.detach().clone() for name, value in self.agent.policy.state_dict().items()}
        if not all(value.isfinite().all() for value in weights.values()):
            raise Diverged(f"{self.candidate.name}: a weight is no number after {self.samples:,} samples")
        span = self.spans.validation
        if span.start == span.stop:
            self.best, self.best_samples = weights, self.samples
            return
        track = backtest([Allocated(self.agent.policy)], self.market, span)[0]
        if not np.isfinite(track.returns).all():
            raise Diverged(f"{self.candidate.name}: a return is no number after {self.samples:,} samples")
        score = float(sharpe(track.returns, track.bars_per_year))
        highest = max((earlier for _, earlier in self.history if not math.isnan(earlier)), default=-math.inf)
        self.history.append((self.samples, score))
        returns = torch.from_numpy(track.returns)
        if score > highest:
            self.leading = returns
        if not self.best or (score == score and not surely_behind(returns, self.leading)):
            self.best, self.best_samples = weights, self.samples

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with before it is continued."""
        spans = {name: [span.start, span.stop] for name, span in vars(self.spans).items()}
        market = vars(self.market)
        arrays = {name: value.cpu().numpy() for name, value in market.items() if isinstance(value, torch.Tensor)}
        rest = [market["interest"], market["bars_per_year"], list(market["symbols"]), to_dict(market["trading"])]
        data = hash_json([hash_arrays(arrays), *rest])
        return {
            "candidate": self.candidate.hash,
            "seed": self.seed,
            "start": self.start.hash,
            "spans": spans,
            "market": data,
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity(),
            "ends": str(self.spans.ends(self.market)),
            "agent": self.agent.state_dict(),
            "pod": self.pod.state_dict(),
            "samples": self.samples,
            "history": [list(entry) for entry in self.history],
            "best": self.best,
            "best_samples": self.best_samples,
            "leading": self.leading,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        ours = self.identity()
        for name, value in ours.items():
            if state["identity"][name] != value:
                raise UserError(
                    f"checkpoint: {name} = {state['identity'][name]}: this training's is {value}; "
                    "expected the run that wrote it, or a new folder"
                )
        self.agent.load_state_dict(state["agent"])
        self.pod.load_state_dict(state["pod"])
        self.samples, self.best_samples, self.best = state["samples"], state["best_samples"], state["best"]
        self.leading = state["leading"]
        self.history = [(int(samples), float(score)) for samples, score in state["history"]]


def surely_behind(returns: torch.Tensor, leading: torch.Tensor) -> bool:  # [T], [T]
    """Whether the Sharpe ratio is lower by more than luck explains: paired days, both at one volatility.

    A year is short: whoever takes the best of ten policies by it takes a lucky one, and most often a young one.
    """
    ahead = leading / leading.std() - returns / returns.std()
    return bool(ahead.mean() * math.sqrt(len(ahead)) > SURELY * ahead.std())
