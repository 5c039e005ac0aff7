"""Where the wall time of a tournament goes, second by second: it is played in a process of its own, with a clock.

No benchmark by itself: `benchmarks.tournament` plays with it. The driver and Ray's actors write down
what they did between when and when; the clock is one for all processes of a machine.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.clock import Clock, Span
from podracer.cluster import attach
from tournament import leaderboard
from tournament.execute import begin_beside, execute
from tournament.final import conclude, last_stage
from tournament.leak import self_test
from tournament.ledger import Ledger
from tournament.queue import Chain
from tournament.report import page
from tournament.rounds import Tournament
from tournament.trial import Trial

SPANS = "spans.jsonl"


def play(make: Callable[..., Tournament], folder: Path, *settings: str, whole: bool = False) -> list[Span]:
    """`make(folder, *settings)` played in a fresh process; `whole`: from its self-test to its report."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = _in_a_fresh_process(_play, make, folder, settings, whole)
    return spans + _in_a_fresh_process(_test_alone, make, folder, settings) if whole else spans


def _in_a_fresh_process(work: Callable[..., list[Span]], *given: Any) -> list[Span]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def _test_alone(make: Callable[..., Tournament], folder: Path, settings: Sequence[str]) -> list[Span]:
    """The self-test without Ray beside it, in a process that has loaded as little as the other one had."""
    run = make(folder, *settings)
    began = time.monotonic()
    self_test(run.arena)
    return [Span("self-test", began, time.monotonic())]


def _play(make: Callable[..., Tournament], folder: Path, settings: Sequence[str], whole: bool) -> list[Span]:
    clock = Clock(folder / SPANS)
    with clock("bars and folds"):
        run = make(folder, *settings)
    run.execute = _clocked(clock)
    if whole:
        with clock("self-test and Ray"):
            begin_beside(lambda: self_test(run.arena))
    run.watcher.began = lambda name, trials: clock.note(Span("begin", time.monotonic(), time.monotonic()))
    with clock("run"), patch.object(Ledger, "seal", clock.around("seal", Ledger.seal)):
        run.run(last_stage) if whole else run.run()
    if whole:
        with clock("conclude"):
            outcome = conclude(run, folder)
        with clock("report"):
            leaderboard.write(folder, outcome.standings, run.arena)
            page.write(folder / "report.html", outcome, run.arena, run.config, folder)
    attach().shutdown()
    return clock.read()


def _clocked(clock: Clock) -> Callable[..., None]:
    """`execute`, whose actors keep the clock too."""

    def clocked(stages: Iterator[Sequence[Chain]], *given: Any) -> None:
        def timed() -> Iterator[Sequence[Chain]]:
            while True:
                with clock("stage"):
                    chains = next(stages, None)
                if chains is None:
                    return
                yield chains

        waiting = timed()
        first = next(waiting)
        with clock("ray"):
            attach()
            from tournament import trainable
        spent = time.process_time()
        with clock("execute"), patch.object(trainable, "Actor", _watched(trainable.Actor, clock)):
            execute(chain([first], waiting), *given)
        clock.note(Span("driver", 0.0, time.process_time() - spent))

    return clocked


def _watched(actor: type, clock: Clock) -> type:
    class Watched(actor):
        def setup(self, *given: Any, **named: Any) -> None:
            with clock("setup"):
                super().setup(*given, **named)
            for owner, name, what in ((Trial, "_keep", "checkpoint"), (Ledger, "put", "record")):
                patch.object(owner, name, clock.around(what, getattr(owner, name))).start()

        def step(self) -> Any:
            with clock("step", self.job.name):
                return super().step()

    return Watched


def parts(spans: Sequence[Span], timings: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """Seconds of a tournament with one worker, from its first rung's beginning to its last seal, by what they went to.

    `timings` are the records', by trial; what a record calls training goes from step to step, with what
    lies between. The parts add up to the whole, and to what the self-test took longer because Ray began beside it.
    """
    begin, end = walk(spans)
    within = [span._replace(ended=min(span.ended, end)) for span in spans if begin <= span.began < end]

    def total(what: str) -> float:
        return sum(span.seconds for span in within if span.what == what)

    gaps = dict.fromkeys(("actors begin", "between steps", "between trials"), 0.0)
    first: set[str] = set()  # trials of an actor
    opened = Span("ray", begin, begin)
    events = [opened, *sorted((s for s in within if s.what in ("ray", "setup", "stage", "step")), key=_began)]
    for before, after in pairwise(events):
        name = "actors begin"
        if before.what == after.what == "step" and before.trial == after.trial:
            name = "between steps"
        elif before.what in ("step", "stage"):
            name = "between trials"
        elif after.what == "step":
            first.add(after.trial)
        gaps[name] += after.began - before.ended
    gaps["actors begin"] += total("setup")
    ready = {trial: timing["prepare"] for trial, timing in timings.items()}
    learnt = sum(timing["train"] + timing["finish"] for timing in timings.values()) - gaps["between steps"]
    return {
        "training and judging": learnt - total("checkpoint"),
        "making ready, an actor's first trial": sum(seconds for trial, seconds in ready.items() if trial in first),
        "making ready, others": sum(seconds for trial, seconds in ready.items() if trial not in first),
        "checkpoints": total("checkpoint"),
        "records": total("record"),
        "keys and features": total("step") - sum(ready.values()) - learnt - total("record"),
        "Ray begins": total("ray") + _longer(spans),
        **gaps,
        "standings and seals": total("stage"),
    }


def _longer(spans: Sequence[Span]) -> float:
    """What Ray's beginning added to the self-test."""
    taken = {span.what: span.seconds for span in spans if span.what.startswith("self-test")}
    return taken["self-test and Ray"] - taken["self-test"] if taken else 0.0


def walk(spans: Sequence[Span]) -> tuple[float, float]:
    """From the first rung's beginning to the last seal."""
    return min(s.began for s in spans if s.what == "begin"), max(s.ended for s in spans if s.what == "seal")


def _began(span: Span) -> float:
    return span.began
