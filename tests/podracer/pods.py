"""Trainings small enough for tests: one market, four algorithms, ten rollouts each."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from agents.candidate import EXCESS, Candidate
from agents.config import DirectConfig, PPOConfig, SACConfig, TD3Config
from agents.networks import NetworkConfig
from envs.config import EnvConfig, RewardConfig
from envs.market import MarketTensors
from market.panel import Panel
from market.synth import SIGNAL, SynthSource, generate
from podracer.spans import SpanConfig, Spans
from podracer.training import Training

BARS, WARMUP = 300, 20
SPANS = Spans.cut(BARS, WARMUP, SpanConfig(validation=20, test=60))
ROLLOUTS, STEPS = 10, 64  # environment steps of a rollout
SAMPLES = ROLLOUTS * STEPS
COMMON: dict[str, Any] = {"num_envs": 16, "horizon": 4, "samples": SAMPLES, "learning_rate": 3e-3}
VALUED: dict[str, Any] = {"gamma": 0.9, "noise": 0.3, "reward_scale": 100.0}
REPLAY: dict[str, Any] = {"batch_size": 64, "together": 4, "reuse": 4.3, "buffer": 256, "tau": 0.02}  # it wraps around
ALGORITHMS = {
    "ppo": PPOConfig(batch_size=32, epochs=2, **COMMON, **VALUED),
    "sac": SACConfig(temperature=0.01, **REPLAY, **COMMON, **VALUED),
    "td3": TD3Config(target_noise=0.1, **REPLAY, **COMMON, **VALUED),
    "direct": DirectConfig(**COMMON),
}
KINDS = tuple(ALGORITHMS)
# Every term that has a memory or a baseline of its own, and episodes that end within a rollout or two.
EVERYTHING = EnvConfig(RewardConfig(0.5, 0.5, 0.3, 0.2, 0.001), episode=11)


def candidate(kind: str, env: EnvConfig = EXCESS, network: NetworkConfig | None = None, **settings: Any) -> Candidate:
    """A quick one; `settings` are the algorithm's."""
    return Candidate(replace(ALGORITHMS[kind], **settings), network or NetworkConfig(hidden=(8, 8)), env)


@cache
def panel(seed: int = 7, bars: int = BARS) -> Panel:
    return generate(SynthSource(symbols=5, bars=bars, seed=seed, ic=0.3))


def market_of(made: Panel) -> MarketTensors:
    """Two features: the signal and the last return."""
    returns = np.zeros_like(made.close)
    returns[1:] = 50.0 * np.log(made.close[1:] / made.close[:-1])
    features = np.stack([made.observed[SIGNAL].values, returns], axis=2).astype(np.float32)
    return MarketTensors.build(made, features=features)


@cache
def market(seed: int = 7) -> MarketTensors:
    return market_of(panel(seed))


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    """Every weight of every network of the agent, the critics' too."""
    agent, found = training.agent, {}
    for name in agent._networks():
        found |= {f"{name}.{key}": value.clone() for key, value in getattr(agent, name).state_dict().items()}
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """To the last bit, not-numbers included."""
    assert one.keys() == other.keys()
    return all(torch.equal(one[name].nan_to_num(1e30), other[name].nan_to_num(1e30)) for name in one)


def run(training: Training) -> Training:
    while not training.done:
        training.advance()
    return training


def policy(training: Training) -> dict[str, torch.Tensor]:
    return training.result().actor.state_dict()


@cache
def finished(kind: str, env: EnvConfig = EXCESS, network: NetworkConfig | None = None, seed: int = 0) -> Training:
    """A training that was never interrupted; not to be touched."""
    return run(Training(candidate(kind, env, network), market(), SPANS, seed))
