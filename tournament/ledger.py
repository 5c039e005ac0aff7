"""The ledger: a folder of finished trials, and the only truth of a tournament.

    LEDGER/<hash of the key>.trial       one trial, written once, whole or absent
    LEDGER/<SHA-256>.pt                  a checkpoint, named by what it holds
    LEDGER/round-1-rung-2.seal           what a rung decided

Everything else, such as the leaderboard, the study and who is still alive, is computed from it, in
the order of hashes and never of completion, so that any process may be killed at any moment and the
next one comes to the same end. What is there is never changed: the first writer wins.

A trial's file is a line with the SHA-256 of the rest, a line of JSON, and arrays as safetensors;
reading it executes nothing. The folder must be one that every machine of a cluster can reach,
or there is an object store beside it: then that is the truth, and a folder holds what its machine has seen of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from agents.manifest import parse_json
from kit.config import build, setting, to_dict
from kit.errors import UserError
from kit.files import hash_arrays, hash_json, replacing
from podracer.store import Store

FORMAT = 1
TRIAL = re.compile(r"([0-9a-f]{64})\.trial")
FIRST_LINE = re.compile(rb"podracer (\d{1,9}) ([0-9a-f]{64})")
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # of file systems without hard links
WAY_OUT = "delete it, and it is made again"
ARRAYS = {"history": "f8", "dates": "M8[ns]", "returns": "f8", "traded": "f8", "weights": "f4"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialKey:
    """All that a trial's result depends on: two trials with the same key are the same trial."""

    candidate: str  # its hash
    fold: str  # `Fold.text`: the bars, not the number
    start: str  # `Start.hash`: empty, imitate:BASELINE or the SHA-256 of a checkpoint
    data: str  # hash of the bars of `Fold.seen`, and of the lens through which they are seen
    code: str  # `kit.code.code_hash`
    seed: int = setting(low=0, below=10**18)
    budget: int = setting(low=1)  # samples

    @cached_property
    def hash(self) -> str:
        return hash_json(to_dict(self))


def _array(kind: str, *shape: int) -> Any:
    return field(default_factory=lambda: np.zeros(shape, kind), repr=False)


@dataclass(frozen=True, eq=False)
class Record:
    """A finished trial: one (candidate, seed, fold), with its track if it is done."""

    key: TrialKey
    candidate: dict[str, Any]  # as plain data
    status: Literal["done", "diverged", "leaked", "crashed"]
    round: int = setting(low=0)
    fold: int = setting(low=0)  # its number; 0 is the final fit
    reason: str = ""  # why it is not done
    parent: str = ""  # hash of the candidate that this one is an offspring of
    chosen: int = setting(0, low=0)  # samples after which the policy was taken
    trained: int = setting(0, low=0)  # samples in all
    checkpoint: str = ""  # SHA-256 of its file in the ledger
    history: np.ndarray = _array("f8", 0, 2)  # [E, 2] samples, Sharpe ratio on the validation span
    dates: np.ndarray = _array("M8[ns]", 0)  # [T] and likewise the next three: the track on the test span
    returns: np.ndarray = _array("f8", 0)  # [T]
    traded: np.ndarray = _array("f8", 0)  # [T]
    weights: np.ndarray = _array("f4", 0, 0)  # [T, A+1] cash last
    timing: dict[str, float] = field(default_factory=dict)  # seconds by part: no part of the result

    def __post_init__(self) -> None:
        for name, kind in ARRAYS.items():
            array = np.array(getattr(self, name), kind, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.key.candidate != hash_json(self.candidate):
            raise ValueError("key.candidate must be the hash of candidate")
        if (self.status == "done") == bool(self.reason):
            raise ValueError(f"reason = {self.reason!r}: expected one unless status is done, {self.status!r} is given")
        days = len(self.dates)
        if self.status == "done" and self.fold and not days:
            raise ValueError("dates: none; expected a track if status is done, but for the final fit, fold 0")
        if self.history.shape[1:] != (2,) or self.weights.ndim != 2:
            raise ValueError("history must be [E, 2] and weights [T, A+1]")
        if self.returns.shape != (days,) or self.traded.shape != (days,) or len(self.weights) != days:
            raise ValueError(f"returns, traded and weights must have {days} rows, as dates")
        if not np.isfinite(self.returns).all():
            raise ValueError("returns must be numbers; what has none is diverged")

    @property
    def hash(self) -> str:
        """Of all but the timing: the same whoever ran it, and however long that took."""
        tree, arrays = self._parts()
        return hash_json([{name: value for name, value in tree.items() if name != "timing"}, hash_arrays(arrays)])

    def encoded(self) -> bytes:
        tree, arrays = self._parts()
        text = json.dumps(tree, allow_nan=False).encode()
        return _stamped(text + b"\n" + safetensors.numpy.save(arrays))

    @classmethod
    def decoded(cls, data: bytes, source: str) -> Record:
        text, _, tensors = _verified(data, source).partition(b"\n")
        try:
            arrays = safetensors.numpy.load(tensors)
            arrays["dates"] = arrays["dates"].view("M8[ns]")
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{source}: holds no track ({error}); {WAY_OUT}") from None
        return build(cls, {**parse_json(text, source), **arrays}, source)

    def _parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays["dates"] = arrays["dates"].view("i8")  # safetensors knows no dates
        return {name: value for name, value in to_dict(self).items() if name not in ARRAYS}, arrays


class Ledger:
    """Reads and writes the folder; any number of processes may, at the same time."""

    def __init__(self, folder: str | Path, store: str = "") -> None:
        self.folder = Path(folder)
        self.store = Store(store) if store else None
        self._read: dict[str, Record] = {}  # by key hash: a file is read once

    def put(self, record: Record) -> bool:
        """Write a finished trial; False if it is there already: what was there stays."""
        path, data = self._path(record.key.hash), record.encoded()
        Record.decoded(data, str(path))  # what cannot be read back is refused before it is written
        if self._publish(path, data):
            return True
        if Record.decoded(path.read_bytes(), str(path)).hash != record.hash:
            log.warning("%s: this trial was run again with another result; the first one is kept", path)
        return False

    def get(self, key: TrialKey) -> Record | None:
        """The trial, if it is finished."""
        return self._load(key.hash)

    def records(self) -> list[Record]:
        """All finished trials in the order of their hashes; a second call reads only what is new."""
        names = {*os.listdir(self.folder)} if self.folder.is_dir() else set()
        if self.store:
            names |= self.store.names()
        keys = sorted(match[1] for match in map(TRIAL.fullmatch, names) if match)
        self._read = {key: record for key in keys if (record := self._load(key))}
        return list(self._read.values())

    def keep(self, checkpoint: Path) -> str:
        """Put a copy of a checkpoint beside the trials: its SHA-256, for `Record.checkpoint`."""
        data = checkpoint.read_bytes()
        name = hashlib.sha256(data).hexdigest()
        self._publish(self._checkpoint(name), data)
        return name

    def checkpoint(self, name: str) -> Path:
        """Its file; what another machine has kept is fetched first."""
        self._found(self._checkpoint(name))
        return self._checkpoint(name)

    def entrust(self) -> None:
        """Put into the store what it lacks: a run may have begun without one."""
        if self.store:
            names = {path.name for path in self.folder.glob("[!.]*")}
            for name in sorted(names - self.store.names(), key=_checkpoints_first):
                self.store.claim(name, (self.folder / name).read_bytes())

    def seal(self, round: int, rung: int, content: Mapping[str, Any]) -> None:
        """Write down what a rung decided. Decided anew, it must come out the same."""
        path = self._seal(round, rung)
        text = json.dumps({"round": round, "rung": rung, "content": content}, indent=2, allow_nan=False) + "\n"
        if self._publish(path, _stamped(text.encode())):
            return
        there = self.sealed(round, rung) or {}
        differ = [name for name in {**there, **content} if hash_json(there.get(name)) != hash_json(content.get(name))]
        if differ:
            raise UserError(
                f"{path}: {', '.join(differ)} no longer follow from the ledger's trials; "
                "expected the trials and the configuration that the rung was decided with"
            )

    def sealed(self, round: int, rung: int) -> dict[str, Any] | None:
        """What a rung decided; None: not yet."""
        path = self._seal(round, rung)
        if not self._found(path):
            return None
        data = path.read_bytes()
        tree = parse_json(_verified(data, str(path)), str(path))
        if (tree.get("round"), tree.get("rung")) != (round, rung):
            raise UserError(f"{path}: is the seal of another rung; {WAY_OUT}")
        return tree["content"]

    def _load(self, key: str) -> Record | None:
        if key in self._read:
            return self._read[key]
        path = self._path(key)
        if not self._found(path):
            return None
        data = path.read_bytes()
        record = Record.decoded(data, str(path))
        if record.key.hash != key:
            raise UserError(f"{path}: is the trial {record.key.hash}; expected the name that it was written under")
        self._read[key] = record
        return record

    def _found(self, path: Path) -> bool:
        """It is there; what only the store has is fetched."""
        return path.exists() or (self.store is not None and self.store.fetch(path.name, path))

    def _publish(self, path: Path, data: bytes) -> bool:
        """Write a file that is whole or absent; False: there is one already, which stays."""
        if self.store and not path.exists() and not self.store.claim(path.name, data):
            self.store.fetch(path.name, path)
            return False
        return _publish(path, data)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.trial"

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _seal(self, round: int, rung: int) -> Path:
        return self.folder / f"round-{round}-rung-{rung}.seal"


def _checkpoints_first(name: str) -> tuple[bool, str]:
    """A trial that is there has its checkpoint."""
    return not name.endswith(".pt"), name


def _stamped(body: bytes) -> bytes:
    return f"podracer {FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def _verified(data: bytes, source: str) -> bytes:
    """The body of a stamped file; refuses one of another version, and one that differs in any bit."""
    first, _, body = data.partition(b"\n")
    stamp = FIRST_LINE.fullmatch(first)
    if stamp and stamp[1] != str(FORMAT).encode():
        raise UserError(f"{source}: format = {stamp[1].decode()}: expected {FORMAT}; another version wrote this run")
    if not stamp or stamp[2].decode() != hashlib.sha256(body).hexdigest():
        raise UserError(f"{source}: is damaged, its SHA-256 is not the one it states; {WAY_OUT}")
    return body


def _publish(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    waiting = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with replacing(waiting) as temporary:
        temporary.write_bytes(data)
    try:
        os.link(waiting, path)  # unlike a rename, it fails where a file is
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)
    return True
