"""The folder of a run: whole files, or none, whenever the run is killed.

RUN/config.yaml      every setting, so that the run can be continued
RUN/checkpoint.pt    everything that the next update depends on
RUN/history.csv      a row per update
RUN/bundle/          the policy; written at the end
RUN/result.json      how well it did; written last
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TextIO

from kit.errors import UserError
from kit.files import write_text
from podracer.training import Progress

CONFIG, CHECKPOINT, HISTORY, BUNDLE, RESULT = "config.yaml", "checkpoint.pt", "history.csv", "bundle", "result.json"
ADDRESS = re.compile(r"\w{2,}:/")  # of an object store: s3://bucket, of which a path keeps one stroke
COLUMNS = ("samples", "seconds", "reward", "critic", "actor", "validation")


def dated(name: str, now: datetime) -> Path:
    """A folder that is not there yet."""
    name = f"{name}-{now:%Y%m%d-%H%M%S}"
    folders = (Path("runs", name + (f"-{number}" if number > 1 else "")) for number in count(1))
    return next(folder for folder in folders if not folder.exists())


def refuse_unless_vacant(folder: Path, name: str = "--out") -> None:
    """A run begins in a folder of its own; temporary files that a kill left behind do no harm."""
    if ADDRESS.match(str(folder)):
        raise UserError(f"{name} = {str(folder)!r}: is an address; expected a folder on a file system")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{name} = {str(folder)!r}: is a file; expected a new or empty folder")
    if (folder / CONFIG).is_file():
        raise UserError(f"{name} = {str(folder)!r}: holds a run; go on with it by --resume {folder}, or name another")
    if folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
        raise UserError(f"{name} = {str(folder)!r}: is not empty; expected a new or empty folder")


def refuse_unless_run(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{str(folder)!r}: holds no {CONFIG}; expected the folder of a run")


def resumed(folder: Path, out: Path | None) -> Path:
    """The folder of a run that is to be gone on with; another one cannot be asked for beside it."""
    if out and out.absolute() != folder.absolute():
        raise UserError(f"--out = {str(out)!r}: beside --resume the folder is {folder}; leave one of them out")
    refuse_unless_run(folder)
    return folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a second process out; let go of when this one ends, however it ends."""
    with open(folder / CONFIG, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is training there; expected a run that was stopped") from None
        yield


class History:
    """A table that grows by a row an update. Rows later than the checkpoint are dropped: they come again."""

    def __init__(self, path: Path, samples: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if path.is_file() else []
        rows = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last one off
        kept = [row for row in rows if int(row.partition(",")[0]) <= samples]
        self.seconds = float(kept[-1].split(",")[1]) if kept else 0.0  # spent so far, by whichever process
        write_text(path, ",".join(COLUMNS) + "\n" + "".join(kept))
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115  closed by `close`

    def add(self, progress: Progress, seconds: float, evaluated: bool) -> None:
        self.seconds += seconds
        losses = [progress.losses.get(name) for name in ("critic", "actor")]
        values = [progress.reward, *losses, progress.validation if evaluated else None]
        cells = ["" if value is None else f"{value:.9g}" for value in values]
        self._file.write(",".join([str(progress.samples), f"{self.seconds:.3f}", *cells]) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
