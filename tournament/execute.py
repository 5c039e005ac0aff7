"""Trials on Ray Tune: places, fractions of GPUs, retries, TensorBoard files. What is done is in the ledger."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.candidate import PodConfig
from kit.config import to_dict
from kit.errors import UserError
from podracer.cluster import attach
from tournament.arena import Arena
from tournament.config import ExecutionConfig, TournamentConfig
from tournament.ledger import Ledger
from tournament.queue import Chain, Queue, Watcher
from tournament.remote import ledger_of

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
    "RAY_prestart_worker_first_driver": "0",  # Tune's actors never use a process that was started beforehand
}
# What Tune hands on to its actors by a way that Ray writes to its logs. Processes on a machine have that machine's.
HANDED_ON = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def execute(
    stages: Iterator[Sequence[Chain]],
    arena: Arena,
    ledger: Ledger,
    config: ExecutionConfig,
    folder: Path,
    name: str,
    watcher: Watcher,
) -> None:
    """Run what is not recorded yet, to the last stage; as one experiment, so that actors live on from rung to rung."""
    queue = Queue(stages, arena, ledger, watcher)
    if queue.ended():
        return
    begin()
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # its advice on resuming is not ours
    from tournament.trainable import Actor, Proposer

    def places(given: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory(bundles(config, given["job"]["candidate"]["pod"]))

    def named(trial: Any) -> str:
        job = trial.config["job"]
        return f"{job['candidate']['algorithm']['kind']}-fold{job['fold']}-{trial.trial_id}"

    where = {"ledger": str(ledger.folder.absolute()), "store": ledger_of(config.storage)}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Actor, arena=arena, **where), places),
        tune_config=tune.TuneConfig(
            search_alg=Proposer(queue),
            num_samples=-1,
            max_concurrent_trials=config.workers,
            reuse_actors=True,
            trial_name_creator=named,
            trial_dirname_creator=named,
        ),
        run_config=tune.RunConfig(
            name=_fresh(folder, name),
            storage_path=str(folder.absolute()),
            failure_config=tune.FailureConfig(max_failures=config.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    with _hidden(*HANDED_ON):
        tuner.fit()
    if queue.trouble:
        raise queue.trouble
    if not queue.ended():  # Tune was asked to stop
        raise KeyboardInterrupt


def bundles(config: ExecutionConfig, pod: Mapping[str, Any]) -> list[dict[str, float]]:
    """The trial's own place; with remote actors, theirs beside it."""
    own = {"CPU": config.cpus, "GPU": config.gpus}
    if pod["kind"] == "anakin":
        return [own]
    return [own, *[{"CPU": pod["actor_cpus"], "GPU": pod["actor_gpus"]}] * pod["actors"]]


def refuse_unless_room(config: TournamentConfig) -> None:
    """A trial that this machine has no room for would wait for ever. A cluster may grow."""
    if os.environ.get("RAY_ADDRESS"):
        return
    begin()
    have = attach().cluster_resources()
    pods = {name: to_dict(config.search.pods.get(name, PodConfig())) for name in config.search.algorithms}
    for name, pod in pods.items():
        for kind in ("CPU", "GPU"):
            needed, there = sum(bundle[kind] for bundle in bundles(config.execution, pod)), have.get(kind, 0.0)
            if needed > there:
                raise UserError(
                    f"search.pods.{name} and execution: a trial takes {needed:g} {kind}s at a time, "
                    f"this machine has {there:g}; expected fewer, or RAY_ADDRESS of a cluster"
                )


def begin() -> None:
    """Ray; nothing, where it has begun."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    attach()


def begin_beside(work: Callable[[], None]) -> None:
    """Ray begins while this is done: mostly it waits. What it starts ends with the thread that did: the main one."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        begin()
    done.result()


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Variables that nobody sees meanwhile."""
    values = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(values)


def _fresh(folder: Path, name: str) -> str:
    """A run that goes on is a new experiment beside the one that was stopped."""
    taken = {path.name for path in folder.glob(f"{name}*")}
    return next(made for number in range(1, len(taken) + 2) if (made := f"{name}-{number}") not in taken)
