"""The journal: what the desk did and what it knows, in one SQLite file that is whole whenever it is killed.

>>> journal = Journal("desk.db", key, now)          # doctest: +SKIP
>>> with journal.transition() as step:              # doctest: +SKIP
...     step.write("intent", request)
...     step.set("order/7", request)

A transition is one transaction: when the block has ended, its entries and its changes of state are on
the disk; before, nothing of it is. A failure to write ends the journal: whoever opens it anew finds all
that was confirmed. `paper.chain` has the format, `paper.verify` finds whether anybody altered it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Self

from kit.errors import UserError
from kit.files import hash_json, sync_folder
from paper.chain import (
    ANCHOR,
    COLUMNS,
    FORMAT,
    GENESIS,
    KEY,
    KEY_CHANGE,
    LONGEST_LINE,
    OLD_KEYS,
    SCHEMA,
    Anchor,
    Entry,
    Walk,
    anchor_number,
    anchors_beside,
    canonical,
    checked_key,
    digest,
    key_id,
    read_entries,
    schema_of,
    select,
    utc,
    wrong_format,
)

TAIL = 1000  # entries that are checked on opening; `paper.verify` checks all
KIND = re.compile(r"[a-z][a-z0-9_.-]*")


class Step:
    """What one transition writes and changes."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.entries: list[tuple[str, str]] = []  # kind, body
        self.changes: dict[str, str | None] = {}  # None: removed
        self.over = False

    def write(self, kind: str, body: object) -> int:
        """Append an entry: its number."""
        assert KIND.fullmatch(kind) and kind not in (ANCHOR, KEY_CHANGE), kind
        assert not self.over
        self.entries.append((kind, canonical(body)))
        return self._last + len(self.entries)

    def set(self, key: str, value: object) -> None:
        assert key and not self.over
        self.changes[key] = canonical(value)

    def remove(self, key: str) -> None:
        assert key and not self.over
        self.changes[key] = None


class Journal:
    """The driver's own: one process has it at a time, and its threads take turns."""

    def __init__(
        self,
        path: str | Path,
        key: bytes,
        now: Callable[[], datetime],
        *,
        old: Sequence[bytes] = (),
        anchors: Path | None = None,
    ) -> None:
        """`old`: former keys. A journal that was signed by one of them goes on with `key`."""
        self._key = checked_key(key)
        self._keys = (key, *(checked_key(former, OLD_KEYS) for former in old))
        self.path, self._now = Path(path), now
        self.anchors = anchors or anchors_beside(self.path)
        self._turn = threading.Lock()
        self._writer = 0  # the thread whose turn it is
        self._ended = False
        self._values: dict[str, str] = {}
        self._hashes: dict[str, str] = {}  # of the values
        self._digest = hash_json({})  # of the hashes
        self._head = (0, GENESIS)
        self._anchored = 0
        with ExitStack() as opened, self._writing("cannot be opened"):
            opened.enter_context(_locked(self.path))
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
            opened.callback(self._db.close)
            self._open()
            self._resources = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._ended = True
        self._resources.close()

    @property
    def head(self) -> tuple[int, str]:
        """How many entries there are, and the signature of the last."""
        return self._head

    def get(self, key: str, default: Any = None) -> Any:
        """What the last transition left there; a copy."""
        text = self._values.get(key)
        return default if text is None else json.loads(text)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self._values if key.startswith(prefix))

    def entries(self, after: int = 0, kinds: Sequence[str] = ()) -> Iterator[Entry]:
        """Those behind number `after`, as they are when the first is asked for; no kinds: all."""
        return read_entries(self.path, after, kinds)

    @contextmanager
    def transition(self) -> Iterator[Step]:
        """All or nothing. Every change of state goes with an entry that tells why."""
        with self._taking_turns():
            step = Step(self._head[0])
            try:
                yield step
            finally:
                step.over = True
            assert step.entries or not step.changes, "a change of state without an entry"
            self._commit(step.entries, step.changes)

    def anchor(self) -> Anchor:
        """Write down how far the journal has come. A copy of the anchor is best kept on another machine."""
        with self._taking_turns():
            self._commit([(ANCHOR, canonical({"number": self._anchored + 1}))])
            with self._writing("has no anchor"):
                return self._append(self._last(ANCHOR), self._key)

    @contextmanager
    def _taking_turns(self) -> Iterator[None]:
        assert self._writer != threading.get_ident(), "a transition within a transition"
        with self._turn:
            if self._ended:
                raise UserError(f"{self.path}: the journal was closed, or could not be written; open it anew")
            self._writer = threading.get_ident()
            try:
                yield
            finally:
                self._writer = 0

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Whatever fails or is interrupted in here may leave the disk ahead of this process: it ends the journal."""
        self._ended = True
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{self.path}: {what} ({reason}); expected a disk with space that may be written") from None
        self._ended = False

    def _commit(self, written: Sequence[tuple[str, str]], changes: Mapping[str, str | None] | None = None) -> None:
        if not written:
            return
        values, hashes, state = self._values, self._hashes, self._digest
        if changes:
            values = _changed(values, changes)
            hashes = _changed(hashes, {name: text and digest(text) for name, text in changes.items()})
            state = hash_json(hashes)
        (seq, mac), at, rows = self._head, utc(self._now()), []
        for kind, text in written:
            seq += 1
            entry = Entry(seq, at, kind, text, state, mac="")
            mac = entry.signed(self._key, mac)
            rows.append(astuple(replace(entry, mac=mac)))
        with self._writing("cannot be written"):
            with _transaction(self._db):
                self._db.executemany(f"INSERT INTO journal ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", rows)
                for name, text_or_none in (changes or {}).items():
                    if text_or_none is None:
                        self._db.execute("DELETE FROM state WHERE key = ?", (name,))
                    else:
                        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, text_or_none))
            self._values, self._hashes, self._digest, self._head = values, hashes, state, (seq, mac)

    def _append(self, entry: Entry | None, key: bytes) -> Anchor:
        assert entry
        anchor = Anchor.of(key, entry)
        with open(self.anchors, "ab") as file:
            file.write(anchor.line.encode())
            file.flush()
            os.fsync(file.fileno())
        if anchor.number == 1:
            sync_folder(self.anchors.parent)
        self._anchored = anchor.number
        return anchor

    def _open(self) -> None:
        """Begin a journal, or make sure that this one is as it was left."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if not schema_of(self._db):
            with _transaction(self._db):
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
            sync_folder(self.path.parent)
            self.anchors.parent.mkdir(parents=True, exist_ok=True)
        if wrong := wrong_format(self._db):
            raise UserError(f"{self.path}: {wrong}")
        signer = self._check_tail()
        self._check_state()
        self._check_anchors(signer)
        if signer != self._key or self._head[0] == 0:
            named = canonical({"id": key_id(self._key)})
            self._key, key = signer, self._key
            self._commit([(KEY_CHANGE, named)])
            self._key = key

    def _check_tail(self) -> bytes:
        """The key that is in force at the end."""
        count = self._db.execute("SELECT max(seq) FROM journal").fetchone()[0] or 0
        if not count:
            return self._key
        start = max(0, count - TAIL)
        before = next(select(self._db, start - 1)) if start else None
        walk, problems = Walk(self._keys, before), []
        for entry in select(self._db, start):
            self._head, self._digest = (entry.seq, entry.mac), entry.state
            if wrong := walk.follow(entry):
                problems.append(f"entry {entry.seq} {wrong}")
        if not walk.good or not walk.key:
            raise UserError(f"{KEY}: is not the key that signed {self.path}; expected that one, here or in {OLD_KEYS}")
        if problems:
            raise self._altered(problems[0])
        return walk.key

    def _check_state(self) -> None:
        self._values = dict(self._db.execute("SELECT key, value FROM state"))
        self._hashes = {name: digest(text) for name, text in self._values.items()}
        if hash_json(self._hashes) != self._digest:
            raise self._altered(f"the state is not what entry {self._head[0]} left")

    def _check_anchors(self, signer: bytes) -> None:
        """The last anchor must be of this journal. Its line is written now if a kill came before that."""
        entry = self._last(ANCHOR)
        number, count = (anchor_number(entry), entry.seq) if entry else (0, 0)
        line, torn = _end_of(self.anchors)
        found = Anchor.parse(line)
        self._anchored = found.number if found else 0
        if line and not found:
            raise self._altered(f"the last line of {self.anchors} is no anchor")
        if entry and count == self._head[0] and self._anchored == number - 1:
            if torn:
                os.truncate(self.anchors, self.anchors.stat().st_size - torn)
            self._append(entry, signer)
        elif torn:
            raise self._altered(f"the last line of {self.anchors} is cut off")
        elif self._anchored > number:
            raise self._altered(f"it ends at entry {self._head[0]}, before anchor {self._anchored} of {self.anchors}")
        elif self._anchored < number:
            raise self._altered(f"{self.anchors} ends before anchor {number}, which entry {count} set")
        elif entry and line not in [Anchor.of(key, entry).line for key in self._keys]:
            raise self._altered(f"the last line of {self.anchors} is not that of entry {count}")

    def _last(self, kind: str) -> Entry | None:
        rows = self._db.execute(f"SELECT {COLUMNS} FROM journal WHERE kind = ? ORDER BY seq DESC LIMIT 1", (kind,))
        return next((Entry(*row) for row in rows), None)

    def _altered(self, what: str) -> UserError:
        return UserError(
            f"{self.path}: {what}; the desk trades on no altered journal, python -m paper verify says more"
        )


def _changed(table: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in {**table, **changes}.items() if text is not None}


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Let go of when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another desk has this journal open; expected one at a time") from None
        yield file


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some failures have rolled it back already
            connection.execute("ROLLBACK")
        raise


def _end_of(path: Path) -> tuple[str, int]:
    """The last whole line of a file, and how many bytes there are after it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 2 * LONGEST_LINE))
            *lines, torn = file.read().split(b"\n")
    except FileNotFoundError:
        return "", 0
    return (lines[-1].decode(errors="replace") + "\n" if lines else ""), len(torn)
