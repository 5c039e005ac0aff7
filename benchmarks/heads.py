"""How late the portfolio may join: PPO's speed and learning with each head.

python -m benchmarks.heads [--quick] [--json FILE]

`joint` encodes every sample; `late` and `bilinear` encode every bar once. A share is of the oracle
rule's edge over the same market seeds, on bars that training does not see.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from tqdm import tqdm

from agents.baselines import Oracle
from agents.candidate import Candidate
from agents.config import PPOConfig
from agents.networks import NetworkConfig
from benchmarks.env import tensors
from benchmarks.harness import Result, arguments, interleave
from benchmarks.learning import SKILL, edge, prepared
from benchmarks.train import per_second, pod_of
from envs.policy import Allocated
from kit.memory import keep_freed_memory
from podracer.training import train

Head = Literal["bilinear", "late", "joint"]
HEADS: tuple[Head, ...] = ("bilinear", "late", "joint")
SEEDS = range(100, 105)


class Job(NamedTuple):
    head: Head
    seed: int


def learn(job: Job) -> tuple[float, float]:
    """Its edge and the oracle's."""
    torch.set_num_threads(1)
    keep_freed_memory()
    market, spans, signal = prepared(SKILL, job.seed)
    trained = train(Candidate(PPOConfig(), NetworkConfig(head=job.head)), market, spans, job.seed)
    policies = Allocated(trained.actor), Oracle(signal)
    ours, best = (edge(policy, market, spans.test) for policy in policies)
    return ours, best


def turn(pod: Any, agent: Any) -> None:
    agent.learn(pod.collect())


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    keep_freed_memory()
    result = Result("heads")
    samples = PPOConfig().num_envs * PPOConfig().horizon
    arms: dict[str, Callable[[], float]] = {}
    for head in HEADS:
        pod, agent = pod_of(tensors(), PPOConfig(), NetworkConfig(head=head))
        arms[head] = per_second(partial(turn, pod, agent), samples, agent.device)
    result.add("training, 30 assets", "samples/s", interleave(arms, 2 if options.quick else 7))
    if not options.quick:
        jobs = [Job(head, seed) for seed in SEEDS for head in HEADS]
        with multiprocessing.get_context("spawn").Pool() as pool:
            done = dict(zip(jobs, tqdm(pool.imap(learn, jobs), total=len(jobs), unit="training")))
        for head in HEADS:
            edges = [value for job, value in done.items() if job.head == head]
            share = sum(ours for ours, _ in edges) / sum(best for _, best in edges)
            result.add("share of skill, 5 markets", "of the oracle's edge", {head: [share]}, compare=False)
    result.finish(options.json)


if __name__ == "__main__":
    main()
