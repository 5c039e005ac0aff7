"""A desk is killed at any moment: what was confirmed is there, nothing is half there, and the chain holds."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from journals import KEY, opened

from paper.journal import Journal
from paper.verify import verify

KILLS = 50


def trade(path: Path, confirm: int) -> None:
    """Until it is killed: every transition moves one share from one row to another; it is confirmed when it is done."""
    with opened(path) as journal:
        number = journal.get("number", -1)
        while True:
            number += 1
            with journal.transition() as step:
                step.write("sell", {"number": number})
                step.set("number", number)
                step.set("left", 1_000_000 - number)
                step.set(f"row/{number % 7}", "x" * (number % 500))
                step.remove(f"row/{(number + 3) % 7}")
                step.write("buy", {"number": number})
                step.set("right", number)
            os.write(confirm, number.to_bytes(8))
            if number % 3 == 0:
                journal.anchor()


def killed(path: Path, count: int, after: float) -> int:
    """So many seconds after it has confirmed that many: the last number that it confirmed, -1 for none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            trade(path, writer)
        finally:
            os._exit(1)  # it does not end by itself
    os.close(writer)
    with open(reader, "rb") as pipe:
        confirmed = pipe.read(8 * count)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
        confirmed += pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it failed before it was killed"
    return int.from_bytes(confirmed[-8:]) if confirmed else -1


def check(journal: Journal, confirmed: int) -> None:
    number = journal.get("number", -1)
    assert confirmed <= number <= confirmed + 1
    if number >= 0:
        assert (journal.get("left"), journal.get("right")) == (1_000_000 - number, number)
        assert len(journal.get(f"row/{number % 7}")) == number % 500
    pairs = [(entry.kind, entry.body["number"]) for entry in journal.entries(kinds=["sell", "buy"])]
    assert pairs == [(kind, count) for count in range(number + 1) for kind in ("sell", "buy")]


def test_what_was_confirmed_outlives_every_kill(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    opened(path).close()
    rng, last = random.Random(1), -1
    for _ in range(KILLS):
        count = rng.randrange(6)
        confirmed = killed(path, count, rng.uniform(0.0, 0.03 if count == 0 else 0.005))  # 0: as it opens, too
        assert confirmed == -1 or confirmed > last
        report = verify(path, [KEY])  # as the kill left it
        assert report.problems == []
        with opened(path) as journal:
            check(journal, max(last, confirmed))
            assert journal.get("number", -1) >= last + count
            last = journal.get("number", -1)
    report = verify(path, [KEY])
    assert report.problems == [] and report.anchors > 0
