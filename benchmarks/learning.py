"""How much of what can be known each algorithm learns, on markets with a known answer and on null markets.

python -m benchmarks.learning [--quick] [--json FILE]

A value is an edge: the Sharpe ratio on the last 1,260 bars, which training does not see, less that of
equal weight there. The oracle rule trades the signal itself. Every algorithm is at its defaults.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from agents.baselines import Oracle
from agents.candidate import Candidate
from agents.config import DirectConfig, PPOConfig, SACConfig, TD3Config
from agents.lens import Lens
from benchmarks.harness import Result, arguments
from envs.backtest import backtest
from envs.config import TradingConfig
from envs.market import MarketTensors
from envs.policy import Allocated, Policy, equal_weight
from kit.memory import keep_freed_memory
from kit.metrics import sharpe
from market import data
from market.features import FeatureSpec, Scaler
from market.synth import SynthSource
from podracer.spans import SpanConfig, Spans
from podracer.training import train

SEEDS = range(100, 110)
SKILL, NULL = 0.08, 0.0
ALGORITHMS = {"ppo": PPOConfig, "sac": SACConfig, "td3": TD3Config, "direct": DirectConfig}


class Job(NamedTuple):
    ic: float
    seed: int  # of the market, and of the training
    arm: str


class Outcome(NamedTuple):
    edge: float
    seconds: float  # of one core, for training alone


def prepared(ic: float, seed: int) -> tuple[MarketTensors, Spans, np.ndarray]:
    """The market, its spans without validation, and the signal [T, A]; the scaler knows the train span alone."""
    panel, _ = data.load(data.DataConfig(source=SynthSource(ic=ic, seed=seed)))
    features = FeatureSpec.default().for_panel(panel).compute(panel)
    spans = Spans.cut(len(panel.closes), features.warmup, SpanConfig(validation=0))
    lens = Lens.of(panel, FeatureSpec.default(), Scaler.fit(features, spans.train), TradingConfig())
    return lens.market(panel), spans, panel.observed["signal"].values


def edge(policy: Policy, market: MarketTensors, span: slice) -> float:
    tracks = backtest([policy, equal_weight], market, span)
    ours, standard = (float(sharpe(track.returns, track.bars_per_year)) for track in tracks)
    return ours - standard


def learn(job: Job) -> Outcome:
    torch.set_num_threads(1)
    keep_freed_memory()
    market, spans, signal = prepared(job.ic, job.seed)
    if job.arm == "oracle":
        return Outcome(edge(Oracle(signal), market, spans.test), 0.0)
    began = time.process_time()
    trained = train(Candidate(ALGORITHMS[job.arm]()), market, spans, job.seed)
    return Outcome(edge(Allocated(trained.actor), market, spans.test), time.process_time() - began)


def case_of(job: Job) -> str:
    return f"ic={job.ic:g} seed={job.seed}"


def summarise(result: Result, outcomes: dict[Job, Outcome]) -> None:
    def edges(ic: float, arm: str) -> list[float]:
        return [outcome.edge for job, outcome in outcomes.items() if (job.ic, job.arm) == (ic, arm)]

    for job, outcome in outcomes.items():
        result.add(case_of(job), "edge", {job.arm: [outcome.edge]})
    best = sum(edges(SKILL, "oracle"))
    learners = [arm for arm in ALGORITHMS if edges(SKILL, arm)]
    for arm in learners:
        result.add("share of skill", "of the oracle's edge", {arm: [sum(edges(SKILL, arm)) / best]})
    for arm in learners:
        luck = edges(NULL, arm)
        result.add("mean edge on null markets", "Sharpe", {arm: [statistics.mean(luck)]})
        if len(luck) > 1:
            error = statistics.stdev(luck) / len(luck) ** 0.5
            result.add("its standard error", "Sharpe", {arm: [error]})
    for arm in learners:
        spent = [outcome.seconds for job, outcome in outcomes.items() if job.arm == arm]
        result.add("training", "s of one core", {arm: spent})


def brief(result: Result) -> str:
    """The README's table: a line a market, a column an algorithm."""
    arms = ["oracle", *ALGORITHMS]
    values = {(row.case, row.arm): row.value for row in result.rows}
    cases = dict.fromkeys(row.case for row in result.rows)
    lines = [f"| | {' | '.join(arms)} |", "|---" + "|---:" * len(arms) + "|"]
    for case in cases:
        cells = (f"{values[case, arm]:.2f}" if (case, arm) in values else "" for arm in arms)
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    seeds = SEEDS[:1] if options.quick else SEEDS
    arms = ["oracle", "direct"] if options.quick else ["oracle", *ALGORITHMS]
    jobs = [Job(ic, seed, arm) for ic in (SKILL, NULL) for seed in seeds for arm in arms]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with multiprocessing.get_context("spawn").Pool() as pool:
        done = list(tqdm(pool.imap(learn, jobs), total=len(jobs), unit="training"))
    result = Result("learning")
    summarise(result, dict(zip(jobs, done)))
    result.finish(options.json)


if __name__ == "__main__":
    main()
