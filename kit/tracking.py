"""Weights & Biases from a process of its own, so that no network, however slow, holds up what is tracked.

It is told what to log in lines of JSON, and is stopped if it takes too long at the end. Keys come from the environment
alone: they are in no message, and what the process prints is written down without them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, TextIO

from kit.errors import UserError
from kit.log import redact

Mode = Literal["online", "offline"]
FOLDER, LOG = "wandb", "tracking.log"
PROJECT = "podracer"
LIMIT = 60.0  # seconds that it may take at the end
START = 15.0  # seconds that a connection may take
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

    module = ""  # whose main logs what it is told

    def __init__(self, mode: Mode, folder: Path, name: str, program: Sequence[str] = ()) -> None:
        self.folder = folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with open(self.folder / LOG, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*(program or (sys.executable, "-m", self.module))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for those who are tracked
            )
        self.thread = Thread(target=self._send, daemon=True)
        self.thread.start()
        group = os.environ.get("WANDB_RUN_GROUP") or name
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        self.messages.put({"mode": mode, "folder": str(folder), "project": project, "group": group})

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


# -- the other process


def open_run(
    wandb: Any, to: Mapping[str, Any], key: str, name: str, kind: str, config: Mapping[str, Any], resume: bool
) -> Any:
    """A run that logs what it is told and nothing about this machine."""
    return wandb.init(
        project=to["project"],
        group=to["group"],
        id=f"{to['group']}-{key}"[:128],
        name=name,
        job_type=kind,
        config=dict(config),
        mode=to["mode"],
        dir=to["folder"],
        reinit="create_new",
        resume="allow" if resume else None,
        settings=wandb.Settings(
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


def serve(source: TextIO, log: Callable[[Any, Mapping[str, Any], TextIO], None]) -> None:
    """`log` gets wandb, where to log, and what comes."""
    try:
        import wandb
    except ImportError:
        raise UserError("wandb is not installed; expected pip install wandb, or wandb=disabled") from None
    if to := json.loads(source.readline() or "{}"):
        log(wandb, to, source)


def run_tracker(log: Callable[[Any, Mapping[str, Any], TextIO], None]) -> None:
    try:
        serve(sys.stdin, log)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(redact(" ".join(said.split())), flush=True)
        os._exit(1)  # without the threads of a library that waits for a network
