"""Has anybody altered the record? Follows the whole chain, the state and the anchors, and says what it cannot find.

It only reads, holds one entry at a time, and may run while the desk does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Self

from kit.errors import UserError
from kit.files import hash_json
from paper.chain import (
    ANCHOR,
    KEY,
    LONGEST_LINE,
    OLD_KEYS,
    Anchor,
    Entry,
    Walk,
    anchors_beside,
    checked_key,
    digest,
    reading,
    select,
    wrong_format,
)

SHOWN = 100  # problems; one edit may leave many
ALWAYS_HIDDEN = (
    "what somebody wrote who holds a key that was in force then",
    "what the desk itself was told wrongly, or was made to write by an altered program",
    "journal and anchors that were both cut back to the same anchor, both removed, or both replaced by an older copy, "
    "unless an anchor that was kept elsewhere is given",
)


@dataclass(frozen=True)
class Problem:
    what: str
    seq: int | None = None  # the entry; None: it is of the state, the anchors or the whole

    def __str__(self) -> str:
        return self.what if self.seq is None else f"entry {self.seq} {self.what}"


@dataclass
class Report:
    entries: int = 0
    anchors: int = 0  # of the entries, those that have their line
    head: str = ""
    problems: list[Problem] = field(default_factory=list)  # the first ones
    more: int = 0  # problems that are not listed
    cannot: list[str] = field(default_factory=lambda: list(ALWAYS_HIDDEN))  # be found, in words

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, what: str, seq: int | None = None) -> None:
        if len(self.problems) < SHOWN:
            self.problems.append(Problem(what, seq))
        else:
            self.more += 1


def verify(
    path: str | Path, keys: Sequence[bytes], anchors: Path | None = None, witnesses: Sequence[tuple[int, str]] = ()
) -> Report:
    """`keys`: the present one and former ones. `witnesses`: count and head of anchors that were kept elsewhere."""
    keys = [checked_key(key) for key in keys]
    with _Lines(anchors or anchors_beside(Path(path))) as lines, reading(Path(path)) as connection:
        check = _Check(keys, lines, dict(witnesses))
        try:
            check.whole(connection)
        except sqlite3.Error as error:
            check.report.add(f"the file is damaged: {error}")
    return check.report


class _Check:
    def __init__(self, keys: Sequence[bytes], lines: _Lines, witnesses: dict[int, str]) -> None:
        self.keys, self.lines, self.witnesses = keys, lines, witnesses
        self.report = Report()
        self.walk = Walk(keys)
        self.state = hash_json({})  # digest of what the last entry left
        self.anchored = 0  # the last entry that an anchor vouches for

    def whole(self, connection: sqlite3.Connection) -> None:
        if wrong := wrong_format(connection):
            return self.report.add(wrong)
        for (damage,) in connection.execute("PRAGMA quick_check"):
            if damage != "ok":
                self.report.add(f"the file is damaged: {damage}")
        missing = ""
        for entry in select(connection):
            if missing:
                self.report.add(missing)
            missing = self.entry(entry)  # a desk that was killed before it wrote the last anchor's line will write it
        if self.report.entries and not self.walk.good:
            raise UserError(f"{KEY}: signed no entry of this journal; expected the key that did, here or in {OLD_KEYS}")
        self.end()
        hashes = {key: digest(value) for key, value in connection.execute("SELECT key, value FROM state")}
        if hash_json(hashes) != self.state:
            self.report.add(f"the state is not what entry {self.walk.seq} left: edited, added, removed or put back")
        return None

    def entry(self, entry: Entry) -> str:
        """Checks one, and says whether its anchor has no line."""
        self.report.entries += 1
        self.report.head, self.state = entry.mac, entry.state
        wrong = self.walk.follow(entry)
        if wrong:
            self.report.add(wrong, entry.seq)
        if self.witnesses.pop(entry.seq, entry.mac) != entry.mac:
            self.report.add("is not the one that an anchor kept elsewhere names", entry.seq)
        if wrong or entry.kind != ANCHOR or not self.walk.key:
            return ""
        anchor = Anchor.of(self.walk.key, entry)
        if not self.lines.take(anchor, self.keys, self.report):
            return f"{self.lines.path}: the line of anchor {anchor.number} is missing"
        self.report.anchors += 1
        self.anchored = entry.seq
        return ""

    def end(self) -> None:
        count = self.walk.seq
        for line in self.lines.left():
            anchor = Anchor.parse(line)
            if not anchor or not anchor.genuine(self.keys):
                self.report.add(f"{self.lines.path}: holds a line that no anchor of this journal has")
            elif anchor.count > count:
                self._cut_off(anchor.count, f"anchor {anchor.number} of {anchor.at}")
            else:
                self.report.add(f"is not the one that anchor {anchor.number} names", anchor.count)
        for number in self.witnesses:
            self._cut_off(number, "an anchor kept elsewhere")
        if not count:
            self.report.add("the journal has no entry: all were removed")
        if count > self.anchored:
            self.report.cannot.append(
                f"whether entries after {count} were cut off: the last anchor is at entry {self.anchored}"
            )

    def _cut_off(self, number: int, witness: str) -> None:
        self.report.add(
            f"the journal ends at entry {self.walk.seq}, but {witness} names entry {number}: it was cut off"
        )


class _Lines:
    """The anchors' file, line by line. It must be opened before the journal: a desk writes the entry first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = open(path, "rb") if path.is_file() else BytesIO()  # noqa: SIM115  closed by `__exit__`
        self._known = self._file.seek(0, os.SEEK_END)  # what is added from now on may be of later entries
        self._file.seek(0)
        self._line, self._start = "", 0  # read, but not taken; where it begins

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, anchor: Anchor, keys: Sequence[bytes], report: Report) -> bool:
        """Whether the anchor has its line, be it an altered one: that is reported here."""
        while line := self._peek():
            found = Anchor.parse(line)
            genuine = found if found and found.genuine(keys) else None
            if genuine and genuine.number > anchor.number:
                return False
            self._line = ""
            if line == anchor.line:
                return True
            if anchor.line.startswith(line):
                return False  # cut short by a kill: it is no line yet
            if not genuine:
                report.add(f"{self.path}: the line of anchor {anchor.number} was altered")
                return True
            report.add(f"{self.path}: before anchor {anchor.number} there is a line that belongs elsewhere")
        return False

    def left(self) -> Iterator[str]:
        """Those that were there from the beginning, and that no anchor took."""
        while (line := self._peek()) and self._start < self._known:
            self._line = ""
            yield line

    def _peek(self) -> str:
        if not self._line:
            self._start = self._file.tell()
            self._line = self._file.readline(LONGEST_LINE).decode(errors="replace")
        return self._line
