"""Jobs in chains: the folds of one candidate and seed, each from where the one before ended.

Chains come in stages, one for each rung: the next stage is asked for when all chains of the one before have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tournament.arena import Arena
from tournament.ledger import Ledger, Record
from tournament.trial import Job, failed, key_of

Link = Callable[[Record | None], Job]  # from the record before, None at first
MaybeLink = Callable[[Record | None], Job | None]  # None: not yet
Chain = Sequence[MaybeLink]


@dataclass
class Watcher:
    """Who is told how it goes; the live view is one."""

    started: Callable[[Job], None] = lambda job: None
    progressed: Callable[[Job, dict[str, Any]], None] = lambda job, figures: None
    finished: Callable[[Record], None] = lambda record: None
    began: Callable[[str, int], None] = lambda name, trials: None  # a rung


@dataclass
class Queue:
    """What is recorded already is passed over; a chain ends at its first failure."""

    stages: Iterator[Sequence[Chain]]
    arena: Arena
    ledger: Ledger
    watcher: Watcher
    running: dict[int, Job] = field(default_factory=dict)  # by chain
    trouble: Exception | None = None  # why nothing more should be begun: a full disk, for one
    _chains: Sequence[Chain] = ()  # of the stage
    _place: dict[int, int] = field(default_factory=dict)  # of each chain: what comes next
    _last: dict[int, Record] = field(default_factory=dict)

    def next(self) -> tuple[int, Job] | None:
        """A job to be run, with the number of its chain; None: not now, or not any more."""
        if self.ended():
            return None
        for number in range(len(self._chains)):
            if number not in self.running and (job := self._due(number)):
                self.running[number] = job
                self.watcher.started(job)
                return number, job
        return None

    def ended(self) -> bool:
        """Whether there is nothing left to run; goes on to the stage in which there is something."""
        while not self.running and not any(self._due(number) for number in range(len(self._chains))):
            if (chains := next(self.stages, None)) is None:
                return True
            self._chains, self._place, self._last = chains, {}, {}
        return False

    def finished(self, number: int, problem: str = "") -> None:
        """The chain's job has ended: it is recorded, or its process died for good."""
        job = self.running.pop(number)
        key = key_of(job, self.arena)
        if self.ledger.get(key) is None:
            reason = problem or "its process ended without a record"
            self.ledger.put(failed(job, self.arena, "crashed", reason))

    def _due(self, number: int) -> Job | None:
        """The chain's first job that is not recorded."""
        chain = self._chains[number]
        while (place := self._place.get(number, 0)) < len(chain):
            if (job := chain[place](self._last.get(number))) is None:
                return None
            record = self.ledger.get(key_of(job, self.arena))
            if record is None:
                return job
            self._last[number] = record
            self._place[number] = place + 1 if record.status == "done" else len(chain)
            self.watcher.finished(record)
        return None
