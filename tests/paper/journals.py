"""A journal to try things on, and what an attacker who has the file but not the key would do."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from paper.chain import anchors_beside
from paper.journal import Journal

KEY = b"a key of the tests, not of a desk"
OTHER = b"another key, also of the tests.."


def clock() -> Callable[[], datetime]:
    """A second later whenever it is asked."""
    time = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)

    def now() -> datetime:
        nonlocal time
        time += timedelta(seconds=1)
        return time

    return now


def opened(path: Path, key: bytes = KEY, old: tuple[bytes, ...] = ()) -> Journal:
    return Journal(path, key, clock(), old=old)


def bar(journal: Journal, number: int) -> None:
    """Two transitions and an anchor: 4 entries."""
    with journal.transition() as step:
        step.write("decision", {"bar": number, "weights": {"AAA": "0.5", "BBB": "0.5"}})
        step.write("intent", {"id": f"run-{number}-AAA-buy-0", "quantity": Decimal("1.25")})
        step.set(f"order/{number % 3}", {"bar": number, "filled": "0"})
        step.set("bar", number)
    with journal.transition() as step:
        step.write("fill", {"id": f"run-{number}-AAA-buy-0", "price": Decimal("100.5")})
        step.remove(f"order/{(number + 1) % 3}")
    journal.anchor()


def written(folder: Path, bars: int = 5) -> Path:
    """A closed journal: entry 1 names the key, then 4 entries a bar, the last of which is its anchor."""
    path = folder / "desk.db"
    with opened(path) as journal:
        for number in range(bars):
            bar(journal, number)
    return path


def copied(path: Path, folder: Path) -> Path:
    """The whole record as it was, to be tampered with."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(path.parent, folder)
    return folder / path.name


def attack(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def cut_back(path: Path, lines: int) -> None:
    """Leave only this many lines of the anchors' file."""
    file = anchors_beside(path)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:lines]))
