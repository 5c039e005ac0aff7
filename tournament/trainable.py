"""The two ends of Ray Tune: who names the next trial, and what runs in an actor. Imported once Ray is attached."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from ray import tune
from ray.tune.search import Searcher

from kit.config import build, to_dict
from kit.errors import UserError
from kit.memory import keep_freed_memory
from podracer.training import Diverged, Progress
from tournament.arena import Arena
from tournament.ledger import Ledger
from tournament.queue import Queue
from tournament.trial import Job, Trial, code, failed

APART = 1.0  # seconds between two results of a trial, at least: Tune takes 4 ms for each
log = logging.getLogger(__name__)


class Actor(tune.Trainable):
    """Holds nothing between trials but the bars. A trial that fails by itself is recorded, not run again."""

    def setup(self, config: dict[str, Any], arena: Arena, ledger: str, store: str) -> None:  # type: ignore[override]
        torch.set_num_threads(1)
        keep_freed_memory()
        self.arena, self.ledger = arena, Ledger(ledger, store)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.job, self.code = build(Job, new_config["job"], "job"), new_config["code"]
        self.trial: Trial | None = None
        self.progress: Iterator[Progress] = iter(())
        return True

    def step(self) -> dict[str, Any]:
        """Some evaluations on; after the last one, judging and the record."""
        if self.code != code():  # it would be recorded as another trial
            text = "code: changed while the run went on, or is another on one of the machines; expected one version"
            return {"done": True, "trouble": text}
        try:
            if self.trial is None:
                self.trial = Trial(self.job, self.arena, self.ledger)
                self.progress = self.trial.steps()
            until = time.monotonic() + APART
            while (progress := next(self.progress, None)) is not None and time.monotonic() < until:
                pass
            if progress is None:
                record = self.trial.finish()
                return {"samples": record.trained, "done": True}
        except Diverged as error:
            return self._failed("diverged", str(error))
        except OSError as error:  # of this machine, not of the candidate: it may be tried again
            log.exception("%s failed", self.job.name)
            return {"done": True, "trouble": f"{error.filename or self.job.name}: {error.strerror or error}"}
        except Exception as error:
            log.exception("%s failed", self.job.name)
            return self._failed("crashed", f"{type(error).__name__}: {error}")
        figures = {"samples": progress.samples, "reward": progress.reward, "validation": progress.validation}
        return figures | progress.losses | {"done": False}

    def cleanup(self) -> None:
        if self.trial is not None:
            self.trial.close()

    def _failed(self, status: Any, reason: str) -> dict[str, Any]:
        self.ledger.put(failed(self.job, self.arena, status, reason))
        return {"done": True}


class Proposer(Searcher):
    """Hands the queue's jobs to Tune, and tells the queue how they ended."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue = queue
        self.chains: dict[str, int] = {}  # by trial

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        """Tune pickles all that it is given, and nobody reads that."""
        return Searcher, ()

    def suggest(self, trial_id: str) -> Any:
        if self.queue.trouble:
            return Searcher.FINISHED
        try:
            found = self.queue.next()
        except Exception as error:  # Tune would wrap it; those who run may end first
            self.queue.trouble = error
            return Searcher.FINISHED
        if found is None:
            return None if self.queue.running else Searcher.FINISHED
        number, job = found
        self.chains[trial_id] = number
        return {"job": to_dict(job), "code": code()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.queue.watcher.progressed(self.queue.running[self.chains[trial_id]], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trouble := (result or {}).get("trouble"):
            self.queue.trouble = UserError(trouble)
        else:
            self.queue.finished(self.chains[trial_id], "its process died, again and again" if error else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never asked: a run that goes on is a new experiment over the same ledger."""
