"""A trial: one candidate, with one seed, on one fold. A function of its job, the arena and the code."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from agents.build import build_policy
from agents.candidate import Candidate
from agents.heads import ActorNet
from envs.backtest import backtest
from envs.policy import Allocated
from kit.code import code_hash
from kit.config import build, setting, to_dict
from podracer import checkpoint
from podracer.provenance import ROOMS
from podracer.spans import Spans
from podracer.start import Start
from podracer.training import EVALUATIONS, Progress, Training
from tournament.arena import Arena
from tournament.folds import Fold
from tournament.ledger import Ledger, Record, TrialKey

NET = "net."  # the policy among what an actor holds


@dataclass(frozen=True)
class Job:
    """What is to be trained, and where it stands in the tournament."""

    candidate: Candidate
    fold: int = setting(low=0, help="its number; 0 is the final fit")
    seed: int = setting(0, low=0)
    start: str = setting("", help="SHA-256 of a checkpoint in the ledger; empty: from nothing")
    budget: int = setting(1, low=1, help="samples")
    round: int = setting(1, low=1)
    parent: str = setting("", help="hash of the candidate that it is an offspring of")

    @property
    def name(self) -> str:
        return f"{self.candidate.name}-fold{self.fold}-seed{self.seed}"

    def trained(self) -> Candidate:
        """The candidate with this job's number of samples."""
        algorithm: Any = replace(self.candidate.algorithm, samples=self.budget)
        return replace(self.candidate, algorithm=algorithm)


def spans_of(arena: Arena, number: int) -> Spans:
    """A fold's; those of the final fit end with the gap before the hold-out, and judge nothing."""
    if number:
        return arena.folds.folds[number - 1].spans
    final = arena.folds.final
    nothing = slice(final.train.stop, final.train.stop)
    return Spans(final.train, nothing, nothing)


def key_of(job: Job, arena: Arena) -> TrialKey:
    spans = spans_of(arena, job.fold)
    text = Fold(max(job.fold, 1), spans).text
    data = arena.data_hash(spans)
    return TrialKey(job.candidate.hash, text, job.start, data, code(), job.seed, job.budget)


def draw(*seed: int) -> int:
    """A seed of one's own for each part of a run."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


@cache
def code() -> str:
    return code_hash(*ROOMS, "tournament")


class Trial:
    """Trains in steps, each up to the next evaluation; the last one writes the record."""

    def __init__(self, job: Job, arena: Arena, ledger: Ledger) -> None:
        self.job, self.arena, self.ledger = job, arena, ledger
        self.spans = spans_of(arena, job.fold)
        self.key = key_of(job, arena)
        self.began = time.perf_counter()
        start = Start(str(ledger.checkpoint(job.start)) if job.start else "")
        self.market = arena.market(self.spans)
        self.training = Training(job.trained(), self.market, self.spans, job.seed, start)
        self.prepared = time.perf_counter()

    def steps(self) -> Iterator[Progress]:
        with closing(self.training):
            shown = 0
            while not self.training.done:
                self.training.advance()
                due = self.training.samples * EVALUATIONS // self.training.total
                if due > shown or self.training.done:
                    shown = due
                    yield self.training.progress()

    def finish(self) -> Record:
        """Judge what validation chose on the test span, and write it down."""
        learnt = time.perf_counter()
        trained = self.training.result()
        span = self.spans.test
        track = backtest([Allocated(trained.actor)], self.market, span)[0] if span.stop > span.start else None
        names = ("dates", "returns", "traded", "weights")
        figures = {} if track is None else {name: getattr(track, name) for name in names}
        kept = self._keep()
        now = time.perf_counter()
        parts = {"prepare": self.prepared - self.began, "train": learnt - self.prepared, "finish": now - learnt}
        record = Record(
            self.key,
            to_dict(self.job.candidate),
            "done",
            self.job.round,
            self.job.fold,
            parent=self.job.parent,
            chosen=trained.samples,
            trained=trained.trained,
            checkpoint=kept,
            history=np.array(trained.history, float).reshape(-1, 2),
            timing={name: round(seconds, 4) for name, seconds in parts.items()},
            **figures,
        )
        self.ledger.put(record)
        return record

    def close(self) -> None:
        self.training.close()

    def _keep(self) -> str:
        """What another fold may start from: the policy that validation chose, and what it was learnt with."""
        agent = self.training.agent
        agent.policy.load_state_dict(self.training.best)
        state = {name: value for name, value in agent.state_dict().items() if name not in ("buffer", "last_state")}
        with TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.pt"
            checkpoint.write(file, {"ends": str(self.spans.ends(self.market)), "agent": state})
            return self.ledger.keep(file)


def failed(job: Job, arena: Arena, status: Literal["diverged", "crashed"], reason: str) -> Record:
    return Record(
        key_of(job, arena), to_dict(job.candidate), status, job.round, job.fold, reason=reason, parent=job.parent
    )


def policy_of(record: Record, arena: Arena, ledger: Ledger) -> ActorNet:
    """The network of a finished trial."""
    candidate = build(Candidate, record.candidate, "ledger")
    market = arena.market(spans_of(arena, record.fold))
    actor = build_policy(candidate, market)
    state = checkpoint.read(ledger.checkpoint(record.checkpoint))["agent"]["act"]
    actor.load_state_dict({name.removeprefix(NET): value for name, value in state.items() if name.startswith(NET)})
    return actor
