"""What the registry keeps on record: versions, who moved them when and why, and how they did on paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from agents.manifest import SHA256
from kit.config import setting
from kit.errors import UserError

State = Literal["registered", "shadow", "canary", "champion", "retired"]
REGISTERED: Final = "registered"
SHADOW: Final = "shadow"
CANARY: Final = "canary"
CHAMPION: Final = "champion"
RETIRED: Final = "retired"
STATES: tuple[State, ...] = get_args(State)
ALONE = (CANARY, CHAMPION)  # one version at a time may be that
VERSION_DIGITS = 12
SHORTEST = 4  # digits by which a version may be called


@dataclass(frozen=True)
class Entry:
    """A version as it stands."""

    version: str
    hash: str  # of its bundle
    state: State
    name: str  # of the run or folder that it was registered from
    at: str  # since when it is in this state

    def __post_init__(self) -> None:
        if not SHA256.fullmatch(self.hash):
            raise ValueError(f"hash = {self.hash!r}: expected 64 hexadecimal digits")
        if self.version != version_of(self.hash):
            raise ValueError(f"version = {self.version!r}: expected the hash's first digits, {version_of(self.hash)}")
        moment("at", self.at)


@dataclass(frozen=True)
class Move:
    """One step of a version, never changed afterwards."""

    at: str
    who: str
    version: str
    before: State | None  # none: it was registered
    after: State
    reason: str
    forced: bool  # against the rule for champions
    rollback: bool  # a part of one

    def __post_init__(self) -> None:
        moment("at", self.at)


@dataclass(frozen=True)
class PaperRecord:
    """How a version did in a stretch of paper trading, as the desk reports it."""

    id: str
    started: str
    ended: str
    bars: int = setting(low=1)
    total_return: float = setting()
    benchmark_return: float = setting()
    max_drawdown: float = setting(low=-1, high=0)
    orders: int = setting(low=0)
    halts: int = setting(low=0)

    def __post_init__(self) -> None:
        if not self.id.strip() or not self.id.isprintable():
            raise ValueError(f"id = {self.id!r}: expected a name")
        if moment("ended", self.ended) < moment("started", self.started):
            raise ValueError(f"ended = {self.ended!r}: expected no time before started, {self.started}")


@dataclass(frozen=True)
class PaperRecords:
    """The paper records of one version, in the order in which they came."""

    records: tuple[PaperRecord, ...]

    def __post_init__(self) -> None:
        for id_, count in Counter(record.id for record in self.records).items():
            if count > 1:
                raise ValueError(f"records: the id {id_!r} is given twice")

    def find(self, id_: str) -> PaperRecord | None:
        return next((record for record in self.records if record.id == id_), None)


@dataclass(frozen=True)
class Book:
    """All versions and the whole history. They say the same, or there is no such book."""

    format: int
    entries: tuple[Entry, ...]
    history: tuple[Move, ...]

    def __post_init__(self) -> None:
        found = _replayed(self.history)
        self.reigns()
        versions = [entry.version for entry in self.entries]
        if versions != list(found):
            told = ", ".join(found) or "none"
            raise ValueError(f"entries are {', '.join(versions) or 'none'}; the history tells of {told}")
        for number, entry in enumerate(self.entries):
            if (entry.state, entry.at) != found[entry.version]:
                state, at = found[entry.version]
                stated = f"entries.{number} is {entry.state} since {entry.at}"
                raise ValueError(f"{stated}; the history tells that it is {state} since {at}")

    def added(self, entry: Entry, move: Move) -> Book:
        return Book(self.format, (*self.entries, entry), (*self.history, move))

    def moved(self, *moves: Move) -> Book:
        entries = {entry.version: entry for entry in self.entries}
        for move in moves:
            entries[move.version] = replace(entries[move.version], state=move.after, at=move.at)
        return Book(self.format, tuple(entries.values()), (*self.history, *moves))

    def alone(self, state: State) -> Entry | None:
        """The one version in a state that only one may be in."""
        return next((entry for entry in self.entries if entry.state == state), None)

    def find(self, text: str) -> Entry:
        """By version, by its hash, or by the first digits of either, if only one begins so."""
        if len(text) < SHORTEST:
            raise UserError(f"version = {text!r}: expected at least {SHORTEST} digits of one")
        found = [entry for entry in self.entries if entry.hash.startswith(text)]
        if len(found) > 1:
            raise UserError(f"version = {text!r}: could be {', '.join(e.version for e in found)}; give more digits")
        if not found:
            known = ", ".join(entry.version for entry in self.entries) or "none"
            raise UserError(f"version = {text!r}: is not registered; known versions: {known}")
        return found[0]

    def reigns(self) -> list[str]:
        """Champions one after the other, without those whose promotion a rollback has undone.

        A promotion adds the version at the end, if it is not there already; a rollback that takes a champion
        down takes it off. Who steps down by hand stays: its promotion was not undone.
        """
        reigns: list[str] = []
        for number, move in enumerate(self.history):
            top = reigns[-1:]
            if move.rollback and move.before == CHAMPION and top == [move.version]:
                reigns.pop()
            elif move.rollback and (move.after != CHAMPION or top != [move.version]):
                raise ValueError(f"history.{number}.rollback = true: there is no promotion before it that it undoes")
            elif move.after == CHAMPION and top != [move.version]:
                reigns.append(move.version)
        return reigns

    def former(self) -> Entry | None:
        """Whom a rollback brings back: the champion before the present one; if there is none now, the last one."""
        reigns = self.reigns()
        if self.alone(CHAMPION):
            reigns = reigns[:-1]
        return self.find(reigns[-1]) if reigns else None


def version_of(hash_: str) -> str:
    return hash_[:VERSION_DIGITS]


def moment(key: str, text: str) -> datetime:
    """The time that a text names, if it says that it is UTC."""
    right = f"{key} = {text!r}: expected a time in UTC, e.g. 2020-01-02T21:00:00Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(right) from None
    if found.utcoffset() != timedelta(0):
        raise ValueError(right)
    return found


def _replayed(history: tuple[Move, ...]) -> Mapping[str, tuple[State, str]]:
    """Of every version the state and since when, as the moves tell it."""
    found: dict[str, tuple[State, str]] = {}
    for number, move in enumerate(history):
        before = found[move.version][0] if move.version in found else None
        if move.before != before:
            raise ValueError(f"history.{number}.before = {move.before!r}: {move.version} was {before!r} then")
        for version, (state, _) in found.items():
            if state == move.after and state in ALONE and version != move.version:
                raise ValueError(f"history.{number}.after = {move.after!r}: {version} was that then; expected only one")
        found[move.version] = move.after, move.at
    return found
