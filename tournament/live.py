"""What a run shows while it goes on: a bar per rung on a terminal, a line per rung's tenth anywhere else."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from tournament.ledger import Record
from tournament.queue import Watcher
from tournament.trial import Job


class Live(Watcher):
    """Trials done, of how many; how fast samples come; what failed."""

    def __init__(self) -> None:
        super().__init__(self._started, self._progressed, self._finished, self._began)
        self.bar: tqdm[Any] | None = None
        self.samples: dict[str, int] = {}
        self.counted: set[str] = set()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def _began(self, name: str, total: int) -> None:
        self.close()
        self.counted.clear()
        self.bar = tqdm(total=total, desc=name, unit="trial", dynamic_ncols=True, file=sys.stderr, disable=None)
        if self.bar.disable:
            print(f"{name}: {total} trials", file=sys.stderr, flush=True)

    def _started(self, job: Job) -> None:
        self.samples[job.name] = 0

    def _progressed(self, job: Job, figures: dict[str, Any]) -> None:
        self.samples[job.name] = int(figures.get("samples", 0))
        if self.bar is not None and not self.bar.disable:
            self.bar.set_postfix_str(f"{sum(self.samples.values()):,} samples", refresh=True)

    def _finished(self, record: Record) -> None:
        if record.key.hash in self.counted:
            return
        self.counted.add(record.key.hash)
        if record.status != "done":
            tqdm.write(f"{record.candidate['algorithm']['kind']}: {record.status}: {record.reason}", file=sys.stderr)
        if self.bar is not None:
            self.bar.update()
