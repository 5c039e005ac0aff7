"""Weights & Biases: a group for the tournament, a run for each candidate, the leaderboard and the bundle."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from kit import tracking
from kit.tracking import LIMIT, mode_of, open_run, run_tracker

if TYPE_CHECKING:  # the other process needs none of it
    from tournament.ledger import Record

__all__ = ["LIMIT", "Tracker", "mode_of"]

OPEN = 8  # runs at a time


class Tracker(tracking.Tracker):
    """Told of every fold, and of the end."""

    module = "tournament.tracking"

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.told: set[str] = set()

    def record(self, record: Record) -> None:
        """A fold of a candidate: the curve on validation, and how it ended."""
        if record.key.hash in self.told:
            return
        self.told.add(record.key.hash)
        self.messages.put({"record": message(record)})

    def conclude(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], bundle: Path) -> None:
        self.messages.put({"leaderboard": [dict(row) for row in rows], "summary": dict(summary), "bundle": str(bundle)})


def message(record: Record) -> dict[str, Any]:
    from kit.metrics import sharpe

    curve = [[int(samples), float(value)] for samples, value in record.history]
    figures = {"samples": record.trained, "chosen": record.chosen, "seconds": sum(record.timing.values())}
    if len(record.returns) > 1:
        figures |= {"sharpe": float(sharpe(record.returns)), "return": float((1 + record.returns).prod() - 1)}
    return {
        "candidate": record.key.candidate,
        "name": f"{record.candidate['algorithm']['kind']}-{record.key.candidate[:8]}",
        "config": {**record.candidate, "round": record.round, "parent": record.parent},
        "fold": record.fold,
        "seed": record.key.seed,
        "status": record.status,
        "reason": record.reason,
        "curve": [[samples, value] for samples, value in curve if math.isfinite(value)],
        "figures": {name: value for name, value in figures.items() if math.isfinite(value)},
    }


# -- the other process


def log(wandb: Any, to: Mapping[str, Any], source: TextIO) -> None:
    """Log what comes, line by line, until there is no more."""
    runs = Runs(wandb, to)
    try:
        for line in source:
            told = json.loads(line)
            if "record" in told:
                _log_record(runs, told["record"])
            else:
                _log_end(wandb, runs, told)
    finally:
        runs.close()


class Runs:
    """Of candidates, a few open at a time; one that comes again goes on."""

    def __init__(self, wandb: Any, to: Mapping[str, Any]) -> None:
        self.wandb, self.to = wandb, to
        self.open: OrderedDict[str, Any] = OrderedDict()
        self.seen: set[str] = set()

    def get(self, key: str, name: str, kind: str, config: Mapping[str, Any]) -> Any:
        if key in self.open:
            self.open.move_to_end(key)
            return self.open[key]
        while len(self.open) >= OPEN:
            self.open.popitem(last=False)[1].finish()
        again = key in self.seen  # what an earlier process logged comes again as a whole
        run = open_run(self.wandb, self.to, key, name, kind, config, again)
        if kind == "candidate":
            run.define_metric("samples")
            run.define_metric("fold")
            run.define_metric("validation/*", step_metric="samples")
            run.define_metric("test/*", step_metric="fold")
        self.seen.add(key)
        self.open[key] = run
        return run

    def close(self) -> None:
        while self.open:
            self.open.popitem()[1].finish()


def _log_record(runs: Runs, told: dict[str, Any]) -> None:
    fold, seed = told["fold"], told["seed"]
    name = f"fold {fold}" if fold else "final fit"
    run = runs.get(told["candidate"][:16], told["name"], "candidate", told["config"])
    for samples, value in told["curve"]:
        run.log({"samples": samples, f"validation/{name} seed {seed}": value})
    run.log({"fold": fold, **{f"test/{key} seed {seed}": value for key, value in told["figures"].items()}})
    run.summary.update({"status": told["status"], "reason": told["reason"], "folds": fold})


def _log_end(wandb: Any, runs: Runs, told: dict[str, Any]) -> None:
    run = runs.get("tournament", runs.to["group"], "tournament", {})
    rows = told["leaderboard"]
    if rows:
        run.log({"leaderboard": wandb.Table(list(rows[0]), [list(row.values()) for row in rows])})
    run.summary.update(told["summary"])
    artifact = wandb.Artifact(f"{runs.to['group']}-bundle", "bundle", metadata=told["summary"])
    artifact.add_dir(told["bundle"])
    run.log_artifact(artifact)


if __name__ == "__main__":
    run_tracker(log)
