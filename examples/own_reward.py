"""A reward of one's own: growth, less a price on putting much into few names.

    python examples/own_reward.py

A term is a function, and its weight is the setting of the same name. To name it in a configuration,
give `RewardConfig` in envs/config.py the setting, and put the function into envs/rewards.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from agents.candidate import EXCESS, Candidate
from agents.config import DirectConfig
from envs.backtest import backtest
from envs.config import EnvConfig, RewardConfig
from envs.market import MarketTensors
from envs.policy import Allocated
from envs.rewards import TERMS
from envs.transition import Costs, State
from market.features import FeatureSpec, Scaler
from market.synth import SynthSource, generate
from podracer.spans import SpanConfig, Spans
from podracer.training import train


def concentration(before: State, after: State, growth: torch.Tensor, costs: Costs) -> torch.Tensor:  # [N]
    """Less the squared differences of the weights from their mean: 0 for equal weight, with cash or without."""
    assets = after.weights[:, :-1]
    return -(assets - assets.mean(1, keepdim=True)).square().sum(1)


TERMS["concentration"] = concentration


@dataclass(frozen=True)
class SpreadOut(RewardConfig):
    concentration: float = 0.0


def main() -> None:
    panel = generate(SynthSource(symbols=6, bars=900, ic=0.3))
    features = FeatureSpec.from_config([{"log_return": {"horizons": [1, 5]}}, "observed"]).compute(panel)
    spans = Spans.cut(len(panel), features.warmup, SpanConfig(validation=0, test=250))
    market = MarketTensors.build(panel, features=Scaler.fit(features, spans.train).apply(features))
    algorithm = replace(DirectConfig(), samples=100_000)
    for price in (0.0, 0.1):
        env: EnvConfig = replace(EXCESS, reward=SpreadOut(log_growth=0.0, excess=1.0, concentration=price))
        made = train(Candidate(algorithm, env=env), market, spans)
        track = backtest([Allocated(made.actor)], market, spans.test)[0]
        spread = track.weights[:, :-1].std(axis=1).mean()
        print(f"price {price:g}: weights differ by {spread:.3f}, Sharpe ratio {track.metrics()['sharpe']:.2f}")


if __name__ == "__main__":
    main()
