"""What the desk's record is made of: its tables, keys, signatures and anchors, and how it is read.

    journal   an entry a row, numbered from 1; each is signed together with the signature of the one before
    state     what the desk knows now, a row per key; every entry carries the digest of them all
    anchors   a file beside it: for every entry of kind "anchor" a line, which can be computed from that entry

Signatures are HMAC-SHA256. Entry 1 and every change of the key are entries of kind "key": they name
the key that signs what follows, and are signed by the one before. Reading takes no lock and may be
done while the desk runs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kit.errors import UserError

FORMAT = 1
KEY, OLD_KEYS = "PODRACER_JOURNAL_KEY", "PODRACER_JOURNAL_KEYS_OLD"
SHORTEST_KEY = 16  # bytes
GENESIS = "0" * 64  # stands for the signature before the first
ANCHOR, KEY_CHANGE = "anchor", "key"  # kinds of entries that the journal writes itself
SCHEMA = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
    state TEXT NOT NULL, mac TEXT NOT NULL
) STRICT;
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
LONGEST_LINE = 4096  # of the anchors' file, in bytes; they have about 250
COLUMNS = "seq, at, kind, body, state, mac"


@dataclass(frozen=True)
class Entry:
    seq: int
    at: str  # UTC, ISO 8601 with microseconds
    kind: str
    text: str  # the body as canonical JSON
    state: str  # digest of the state that its transition left
    mac: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    def signed(self, key: bytes, previous: str) -> str:
        """The signature that it must carry after the one with this signature."""
        return sign(key, "entry", previous, self.seq, self.at, self.kind, self.text, self.state)


@dataclass(frozen=True)
class Anchor:
    """How long the journal was, and its last signature; kept elsewhere, it proves that nothing was cut off."""

    number: int
    count: int  # of entries, the anchor's own included
    head: str  # signature of the last
    at: str
    mac: str

    @classmethod
    def of(cls, key: bytes, entry: Entry) -> Anchor:
        facts = (anchor_number(entry), entry.seq, entry.mac, entry.at)
        return cls(*facts, mac=sign(key, "anchor", *facts))

    @classmethod
    def parse(cls, line: str) -> Anchor | None:
        """None where it is not one of ours."""
        try:
            made = cls(**json.loads(line))
        except (TypeError, ValueError, RecursionError):
            return None
        return made if type(made.number) is int and type(made.count) is int else None

    def genuine(self, keys: Sequence[bytes]) -> bool:
        return any(self.mac == sign(key, "anchor", self.number, self.count, self.head, self.at) for key in keys)

    @property
    def line(self) -> str:
        return canonical(asdict(self)) + "\n"


class Walk:
    """Follows entries in their order and says what is wrong with each."""

    def __init__(self, keys: Sequence[bytes], last: Entry | None = None) -> None:
        self.keys = keys
        self.key: bytes | None = None  # in force; None: whichever signs the next
        self.seq, self.mac = (last.seq, last.mac) if last else (0, GENESIS)
        self.good = 0  # entries that are as they were written

    def follow(self, entry: Entry) -> str:
        """What is wrong with it; empty: nothing. Then it goes on from there."""
        expected, previous = self.seq + 1, self.mac
        self.seq, self.mac = max(entry.seq, self.seq), entry.mac
        if entry.seq < expected:
            return "was put in"
        if entry.seq > expected:
            missing = f"{expected} to {entry.seq - 1} are" if entry.seq > expected + 1 else f"{expected} is"
            return f"comes after a gap: {missing} missing, and without that it cannot be checked itself"
        candidates = (self.key, *self.keys) if self.key else self.keys
        signer = next((key for key in candidates if entry.signed(key, previous) == entry.mac), None)
        if not signer:
            return "is not what was written there: edited, put in, or moved here from elsewhere"
        in_force, self.key = self.key, signer
        if in_force and signer != in_force:
            return "is signed by a key that was not in force"
        self.good += 1
        if entry.kind == KEY_CHANGE:
            named = entry.body["id"]
            self.key = next((key for key in self.keys if key_id(key) == named), None)
            if not self.key:
                raise UserError(f"{KEY}: from entry {entry.seq} on the journal is signed by key {named}; expected that")
        return ""


def keys_from(environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """The key first, then former ones, which are separated by spaces."""
    keys = (environ.get(KEY, "").strip(), *environ.get(OLD_KEYS, "").split())
    return tuple(checked_key(key.encode(), OLD_KEYS if number else KEY) for number, key in enumerate(keys))


def checked_key(key: bytes, name: str = KEY) -> bytes:
    if len(key) < SHORTEST_KEY:
        found = f"{len(key)} bytes long" if key else "not set"
        raise UserError(f"{name}: is {found}; expected {SHORTEST_KEY} bytes or more, as from openssl rand -hex 32")
    return key


def anchor_number(entry: Entry) -> int:
    """Which anchor the entry stands for; 0: its body was altered."""
    try:
        return int(entry.body["number"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return 0


def key_id(key: bytes) -> str:
    """Names a key without giving it away."""
    return sign(key, "id")[:16]


def sign(key: bytes, *parts: str | int) -> str:
    return hmac.digest(key, json.dumps(parts).encode(), "sha256").hex()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: object) -> str:
    """One text for one value. Decimals, times and dataclasses are taken; what is not a number is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def utc(time: datetime) -> str:
    assert time.tzinfo, f"{time} has no time zone"
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def anchors_beside(path: Path) -> Path:
    return path.with_name(path.name + ".anchors")


def schema_of(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """All that can be in a database besides rows: a trigger would write what the desk did not."""
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


def schema() -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(SCHEMA)
        return schema_of(connection)
    finally:
        connection.close()


def wrong_format(connection: sqlite3.Connection) -> str:
    """Why this is no journal of ours; empty: it is."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT:
        return f"format = {version}: expected {FORMAT}; another version, or another program, wrote it"
    if schema_of(connection) != schema():
        return "its tables are not those that were made: something was added, removed or altered"
    return ""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of the database, as of now, whatever the desk writes meanwhile."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the journal of a desk")
    connection = _snapshot(path)
    try:
        yield connection
    except sqlite3.Error as error:
        raise UserError(f"{path}: cannot be read ({error}); python -m paper verify says more") from None
    finally:
        connection.close()


def read_entries(path: Path, after: int = 0, kinds: Sequence[str] = ()) -> Iterator[Entry]:
    """As they stand, unverified; no kinds: all."""
    with reading(path) as connection:
        yield from select(connection, after, kinds)


def select(connection: sqlite3.Connection, after: int | None = None, kinds: Sequence[str] = ()) -> Iterator[Entry]:
    where = ["TRUE"] if after is None else [f"seq > {int(after)}"]
    where += [f"kind IN ({', '.join('?' * len(kinds))})"] * bool(kinds)
    rows = connection.execute(f"SELECT {COLUMNS} FROM journal WHERE {' AND '.join(where)} ORDER BY seq", tuple(kinds))
    return (Entry(*row) for row in rows)


def read_state(path: Path) -> dict[str, Any]:
    """What the desk knows, as it stands, unverified."""
    with reading(path) as connection:
        return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM state")}


def _snapshot(path: Path) -> sqlite3.Connection:
    unwritten = path.with_name(path.name + "-wal")
    modes = ["mode=ro"] if unwritten.exists() else ["mode=ro", "immutable=1"]  # the latter where no lock can be made
    for mode in modes:
        with ExitStack() as opened:
            try:
                address = f"file:{quote(str(path.absolute()))}?{mode}"
                connection = sqlite3.connect(address, uri=True, isolation_level=None)
                opened.callback(connection.close)
                connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # an edit may leave anything
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on nothing changes
                opened.pop_all()
                return connection
            except sqlite3.Error as error:
                reason = error
    raise UserError(f"{path}: {reason}; expected the journal of a desk, in a folder that can be read")


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is no amount")
        return format(value, "f")
    if isinstance(value, datetime):
        return utc(value)
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{value!r} has no place in a journal")
