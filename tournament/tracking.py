"""Weights & Biases: a group for the tournament, a run for each candidate, the leaderboard and the bundle.

A process of its own does the talking, so that no network, however slow, holds up a training, and no failure ends one.
It is told what to log in lines of JSON, and is stopped if it takes too long at the end. Keys come from the environment
alone: they are in no message, and what the process prints is written down without them.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, TextIO

from kit.errors import UserError
from kit.log import redact

if TYPE_CHECKING:  # the other process needs none of it
    from tournament.ledger import Record

Mode = Literal["online", "offline"]
FOLDER, LOG = "wandb", "tracking.log"
PROJECT = "podracer"
LIMIT = 60.0  # seconds that it may take at the end
START = 15.0  # seconds that a connection may take
OPEN = 8  # runs at a time
ROOT = Path(__file__).parents[1]


def mode_of(setting: str) -> Mode | None:
    """What `wandb: auto | offline | disabled` comes to here; None: nothing is tracked."""
    if setting == "offline":
        return "offline"
    if setting == "disabled" or os.environ.get("WANDB_MODE") in ("disabled", "dryrun"):
        return None
    if not os.environ.get("WANDB_API_KEY"):
        return None
    return "offline" if os.environ.get("WANDB_MODE") == "offline" else "online"


class Tracker:
    """Sends messages, and never waits but at the end; what fails is one warning."""

    def __init__(self, mode: Mode, folder: Path, name: str, program: Sequence[str] = ()) -> None:
        self.folder = folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self.told: set[str] = set()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(self.folder / LOG, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*(program or (sys.executable, "-m", "tournament.tracking"))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the tournament
            )
        self.thread = Thread(target=self._send, daemon=True)
        self.thread.start()
        group = os.environ.get("WANDB_RUN_GROUP") or name
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        self.messages.put({"mode": mode, "folder": str(folder), "project": project, "group": group})

    def record(self, record: Record) -> None:
        """A fold of a candidate: the curve on validation, and how it ended."""
        if record.key.hash in self.told:
            return
        self.told.add(record.key.hash)
        self.messages.put({"record": message(record)})

    def conclude(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], bundle: Path) -> None:
        self.messages.put({"leaderboard": [dict(row) for row in rows], "summary": dict(summary), "bundle": str(bundle)})

    def close(self, limit: float = LIMIT) -> None:
        """Wait until all is sent, but no longer than so many seconds."""
        self.messages.put(None)
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own group: what it started, too
            self.process.wait()
            self._warn(f"did not end within {limit:g} seconds and was stopped; not everything is there")
        else:
            if code:
                lines = (self.folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
                said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
                self._warn(f"is not told how it goes: {said.strip()}")
        self.thread.join(1.0)

    def _send(self) -> None:
        """In a thread: a full pipe blocks."""
        pipe = self.process.stdin
        assert pipe is not None
        with suppress(OSError):  # the other process is gone; `close` says why
            while (text := self.messages.get()) is not None:
                pipe.write(json.dumps(text) + "\n")
                pipe.flush()
        with suppress(OSError):
            pipe.close()

    def _warn(self, problem: str) -> None:
        print(f"warning: Weights & Biases {redact(problem)} ({self.folder / LOG})", file=sys.stderr)


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


def serve(source: TextIO) -> None:
    """Log what comes, line by line, until there is no more."""
    try:
        import wandb
    except ImportError:
        raise UserError("wandb is not installed; expected pip install wandb, or wandb=disabled") from None
    to: dict[str, Any] = json.loads(source.readline() or "{}")
    if not to:
        return
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

    def __init__(self, wandb: Any, to: dict[str, Any]) -> None:
        self.wandb, self.to = wandb, to
        self.open: OrderedDict[str, Any] = OrderedDict()
        self.seen: set[str] = set()

    def get(self, key: str, name: str, kind: str, config: Mapping[str, Any]) -> Any:
        if key in self.open:
            self.open.move_to_end(key)
            return self.open[key]
        while len(self.open) >= OPEN:
            self.open.popitem(last=False)[1].finish()
        run = self.wandb.init(
            project=self.to["project"],
            group=self.to["group"],
            id=f"{self.to['group']}-{key}"[:128],
            name=name,
            job_type=kind,
            config=dict(config),
            mode=self.to["mode"],
            dir=self.to["folder"],
            reinit="create_new",
            resume="allow" if key in self.seen else None,  # what an earlier process logged comes again as a whole
            settings=self.wandb.Settings(
                init_timeout=START,
                login_timeout=START,
                console="off",
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                silent=True,
            ),
        )
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


def main() -> None:
    try:
        serve(sys.stdin)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(redact(" ".join(said.split())), flush=True)
        os._exit(1)  # without the threads of a library that waits for a network


if __name__ == "__main__":
    main()
