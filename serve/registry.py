"""The registry: which bundles there are to serve, in which state, and who moved them when and why.

    REGISTRY/registry.json                          all versions and the whole history
    REGISTRY/.lock                                  held by whoever changes something
    REGISTRY/versions/VERSION/bundle/               a verified copy
    REGISTRY/versions/VERSION/bundle.verdict.json   the tournament's verdict on it, if there is one
    REGISTRY/versions/VERSION/records.json          how it did on paper

A version is there when registry.json says so, and that file is written last: whatever a kill leaves
half done is in nobody's way. Readers take no lock; every reading is of the files as they are now.

registered -> shadow -> canary -> champion -> retired: any state may follow any other, but there is one
canary and one champion at a time, and a champion has earned it (`Registry.move`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.bundle import load
from agents.manifest import parse_json
from kit.config import build, to_dict
from kit.errors import UserError
from kit.files import replacing, sync_folder, write_json
from serve.record import (
    CANARY,
    CHAMPION,
    REGISTERED,
    RETIRED,
    SHADOW,
    STATES,
    Book,
    Entry,
    Move,
    PaperRecord,
    PaperRecords,
    State,
    version_of,
)

FORMAT = 1
FILE, LOCK, VERSIONS = "registry.json", ".lock", "versions"
BUNDLE, VERDICT, RECORDS = "bundle", "bundle.verdict.json", "records.json"
BETTER = "better than equal weight"  # the outcome of a verdict that lets its bundle become champion
SERVED = (SHADOW, CANARY, CHAMPION)
SHOWN = (CHAMPION, CANARY, SHADOW, REGISTERED, RETIRED)
COLUMNS = ("state", "version", "name", "since", "verdict", "records", "who and why")


def utc_now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Judged:
    """What the registry reads of a verdict."""

    bundle: str  # hash of the bundle that it is about
    outcome: str
    openings: int  # how often the hold-out had been looked at


class Registry:
    """Reads and changes the folder; any number of processes may, at the same time."""

    def __init__(self, folder: str | Path, now: Callable[[], str] = utc_now) -> None:
        self.folder = Path(folder)
        self._now = now
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{folder}: is a file; expected the folder of a registry, or a new name")

    # Reading

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All versions in the order in which they were registered."""
        return self._book().entries

    @property
    def history(self) -> tuple[Move, ...]:
        return self._book().history

    @property
    def champion(self) -> Entry | None:
        return self._book().alone(CHAMPION)

    def active(self) -> dict[str, list[Entry]]:
        """Who is to be served, by state."""
        entries = self.entries
        return {state: [entry for entry in entries if entry.state == state] for state in SERVED}

    def entry(self, text: str) -> Entry:
        """By version, or by so many of its first digits that there is but one."""
        return self._book().find(text)

    def bundle_of(self, version: str) -> Path:
        return self._home(self.entry(version)) / BUNDLE

    def verdict_of(self, version: str) -> dict[str, Any] | None:
        entry = self.entry(version)
        return _read_verdict(self._home(entry) / VERDICT, entry.hash)

    def records_of(self, version: str) -> tuple[PaperRecord, ...]:
        return self._records(self.entry(version)).records

    def lines(self) -> list[str]:
        """A table for the command line, the champion first."""
        book = self._book()
        last = {move.version: move for move in book.history}
        rows = [COLUMNS]
        for entry in sorted(book.entries, key=lambda entry: SHOWN.index(entry.state)):
            move = last[entry.version]
            outcome, count = self._outcome(entry) or "none", len(self._records(entry).records)
            why = f"{move.who}{' (forced)' if move.forced else ''}{f': {move.reason}' if move.reason else ''}"
            rows.append((entry.state, entry.version, entry.name, entry.at, outcome, str(count), why))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]
        return lines if book.entries else ["no bundle is registered yet"]

    # Changing

    def register(self, bundle: str | Path, who: str, reason: str = "") -> Entry:
        """Take a bundle in, with the verdict beside it. Again, it takes over only a verdict that came since."""
        who, reason = _line("who", who), _line("reason", reason, needed=False)
        source = Path(os.path.abspath(bundle))
        hash_ = load(bundle).hash
        verdict = source.with_name(f"{source.name}.verdict.json")
        _read_verdict(verdict, hash_)
        with self._locked() as book:
            known = next((entry for entry in book.entries if entry.version == version_of(hash_)), None)
            if known and known.hash != hash_:
                raise UserError(f"{bundle}: its version {known.version} is that of another bundle, {known.hash}")
            entry = known or Entry(version_of(hash_), hash_, REGISTERED, _name(source), self._now())
            self._keep_bundle(source, entry)
            self._keep_verdict(verdict, entry)
            if not known:
                self._write(
                    book.added(entry, Move(entry.at, who, entry.version, None, REGISTERED, reason, False, False))
                )
            return entry

    def move(self, version: str, state: str, who: str, reason: str = "", force: bool = False) -> Entry:
        """Bring a version into another state; a new champion retires the former one.

        A champion must have a verdict that says `BETTER` and a paper record. What lacks is overruled by force with
        a reason; for the first champion that there ever is, by a reason alone: without an endpoint there can be no
        paper record.
        """
        who, reason = _line("who", who), _line("reason", reason, needed=False)
        if state not in STATES:
            raise UserError(f"state = {state!r}: expected one of {', '.join(STATES)}")
        with self._locked() as book:
            entry = book.find(version)
            if entry.state == state:
                raise UserError(f"{entry.version}: is {state} already; expected another state")
            if state in SERVED:
                self._verify(entry)
            canary = book.alone(CANARY)
            if state == CANARY and canary:
                raise UserError(f"{entry.version}: cannot become canary beside {canary.version}; move that one first")
            forced = state == CHAMPION and self._overruled(book, entry, reason, force)
            return self._moved(book, entry, state, who, reason, forced=forced)

    def rollback(self, who: str, reason: str) -> Entry:
        """Undo the last promotion: the champion before it is champion again, the present one is retired.

        The second rollback in a row undoes the promotion before that, and so on (`Book.reigns`). Where the champion
        has stepped down by hand and none has followed, the rollback brings that one back.
        """
        who, reason = _line("who", who), _line("reason", reason)
        with self._locked() as book:
            former = book.former()
            if not former:
                raise UserError(f"{self.folder}: there is no former champion to roll back to; move a version instead")
            self._verify(former)
            return self._moved(book, former, CHAMPION, who, reason, rollback=True)

    def record(self, version: str, record: PaperRecord) -> bool:
        """Keep what the desk reports; False if it is there already."""
        record = build(PaperRecord, to_dict(record), "paper record")
        with self._locked() as book:
            entry = book.find(version)
            known = self._records(entry)
            there = known.find(record.id)
            if there and there != record:
                stated = f"{entry.version}: id = {record.id!r}: there is another paper record by that id"
                raise UserError(f"{stated}; expected the same again, or a new id")
            if not there:
                write_json(self._home(entry) / RECORDS, to_dict(PaperRecords((*known.records, record))))
            return not there

    def _overruled(self, book: Book, entry: Entry, reason: str, force: bool) -> bool:
        """Whether it takes force to make a champion of the version; refuses where it is not given."""
        lacks, outcome = [], self._outcome(entry)
        if outcome != BETTER:
            lacks.append(f"the verdict {BETTER!r} ({f'it is {outcome!r}' if outcome else 'it has none'})")
        if not self._records(entry).records:
            lacks.append("a paper record")
        first = not book.reigns()
        if lacks and not (reason and (force or first)):
            way = "give a reason (--reason TEXT)" if first else "force it with a reason (--force --reason TEXT)"
            raise UserError(f"{entry.version}: lacks {' and '.join(lacks)} to become champion; to overrule that, {way}")
        return bool(lacks) and not first

    def _moved(
        self,
        book: Book,
        entry: Entry,
        state: State,
        who: str,
        reason: str,
        forced: bool = False,
        rollback: bool = False,
    ) -> Entry:
        at, champion, moves = self._now(), book.alone(CHAMPION), []
        if state == CHAMPION and champion:
            told = f"{entry.version} followed{f': {reason}' if reason else ''}"
            moves.append(Move(at, who, champion.version, CHAMPION, RETIRED, told, False, rollback))
        moves.append(Move(at, who, entry.version, entry.state, state, reason, forced, rollback))
        book = book.moved(*moves)
        self._write(book)
        return book.find(entry.version)

    # Files

    def _home(self, entry: Entry) -> Path:
        return self.folder / VERSIONS / entry.version

    def _book(self) -> Book:
        path = self.folder / FILE
        try:
            tree = parse_json(path.read_bytes(), str(path))
        except FileNotFoundError:
            return Book(FORMAT, (), ())
        if tree.get("format") != FORMAT:
            raise UserError(f"{path}: format = {tree.get('format')!r}: expected {FORMAT}; another version wrote it")
        return build(Book, tree, str(path))

    def _write(self, book: Book) -> None:
        write_json(self.folder / FILE, to_dict(book))

    @contextmanager
    def _locked(self) -> Iterator[Book]:
        """The book, which nobody else changes meanwhile; let go of when this process ends, however it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LOCK, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield self._book()

    def _verify(self, entry: Entry) -> None:
        folder = self._home(entry) / BUNDLE
        found = load(folder).hash
        if found != entry.hash:
            raise UserError(f"{folder}: is the bundle {found}; expected {entry.hash}, register that one again")

    def _keep_bundle(self, source: Path, entry: Entry) -> None:
        """A copy, whole or absent; one that is damaged is made anew."""
        folder = self._home(entry) / BUNDLE
        if _holds(folder, entry.hash):
            return
        temporary = self.folder / VERSIONS / f".{entry.version}"
        _remove(temporary)  # of one that was killed: nobody else is here
        try:
            for name in sorted(os.listdir(source)):
                with replacing(temporary / name) as file:
                    shutil.copyfile(source / name, file)
            if not _holds(temporary, entry.hash):
                raise UserError(f"{source}: was changed while it was copied; expected a bundle that nobody writes to")
            folder.parent.mkdir(exist_ok=True)
            _remove(folder)
            temporary.rename(folder)
        finally:
            _remove(temporary)
        sync_folder(folder.parent)
        sync_folder(self.folder / VERSIONS)

    def _keep_verdict(self, source: Path, entry: Entry) -> None:
        """A copy, unless the hold-out had been opened more often for the one that is there: that one is later."""
        kept = self._home(entry) / VERDICT
        given, there = _read_verdict(source, entry.hash), _read_verdict(kept, entry.hash)
        if given and given != there and (not there or given["openings"] >= there["openings"]):
            write_json(kept, given)

    def _outcome(self, entry: Entry) -> str | None:
        verdict = _read_verdict(self._home(entry) / VERDICT, entry.hash)
        return verdict["outcome"] if verdict else None

    def _records(self, entry: Entry) -> PaperRecords:
        path = self._home(entry) / RECORDS
        try:
            return build(PaperRecords, parse_json(path.read_bytes(), str(path)), str(path))
        except FileNotFoundError:
            return PaperRecords(())


def _read_verdict(path: Path, hash_: str) -> dict[str, Any] | None:
    """The whole of it, if there is one and it is about the bundle with this hash."""
    try:
        tree = parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    names = Judged.__dataclass_fields__
    judged = build(Judged, {name: tree[name] for name in names if name in tree}, str(path))
    if judged.bundle != hash_:
        raise UserError(f"{path}: bundle = {judged.bundle!r}: expected {hash_}, the bundle that it lies beside")
    return tree


def _holds(folder: Path, hash_: str) -> bool:
    try:
        return load(folder).hash == hash_
    except UserError:
        return False


def _name(source: Path) -> str:
    """A run's bundle is called `bundle`, so it is the run that tells it from others."""
    run = source.parent.name if source.name == BUNDLE else ""
    return _line("name", run or source.name)


def _line(key: str, text: str, needed: bool = True) -> str:
    line = " ".join(text.split())
    if not line.isprintable() or (needed and not line):
        raise UserError(f"{key} = {text!r}: expected {'some' if needed else 'printable'} text")
    return line


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
