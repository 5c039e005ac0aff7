"""A driver that dies at a certain moment, in a process of its own.

Run as a program it loads what a desk needs once, and then forks a desk for every line that it is
sent. A desk notes each moment at which it could be killed, and kills itself at the one it was told:

    before, within, after KIND     of a transition; within: inside the database's transaction
    asked, answered METHOD PATH    of a request that changes something: sent, or answered, with the answer unread
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

EVENTS, LOG = "events", "driver.log"  # files in a desk's folder
WATCHED = re.compile(r"POST /(local|v2/orders|v1)|DELETE")
NUMBERED = re.compile(r"(?<=/v2/orders/).*")


class Drivers:
    """Desks, one after another, each in a process of its own."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        given = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), **secrets}
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given)

    def live(self, folder: Path, words: Sequence[str], kill: str = "", nth: int = 0, by: int = signal.SIGKILL) -> int:
        """Until its market has ended, or until it dies at that moment (of those with this name, or of all)."""
        line = json.dumps({"folder": str(folder), "words": list(words), "kill": kill, "nth": nth, "by": by})
        _of(self._process.stdin).write(f"{line}\n")
        _of(self._process.stdin).flush()
        return int(_of(self._process.stdout).readline())

    def close(self) -> None:
        _of(self._process.stdin).close()
        self._process.wait()
        _of(self._process.stdout).close()


def events(folder: Path) -> list[str]:
    return (folder / EVENTS).read_text().splitlines()


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


class Moments:
    """Notes each where a kill does not undo it."""

    def __init__(self, folder: Path, kill: str, nth: int, by: int) -> None:
        self._file = os.open(folder / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._kill, self._left, self._by = kill, nth, by

    def __call__(self, name: str) -> None:
        os.write(self._file, f"{name}\n".encode())
        if self._kill in ("", name):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._by)


def watch_journal(here: Moments) -> None:
    from paper import journal

    commit, transaction = journal.Journal._commit, journal._transaction
    now = ""

    def watched(self: Any, written: Any, changes: Any = None) -> None:
        nonlocal now
        if not written:
            return
        kind, status = written[0][0], json.loads(written[-1][1]).get("status", "")
        now = f"{kind} {status}".strip()
        here(f"before {now}")
        commit(self, written, changes)
        here(f"after {now}")

    @contextmanager
    def within(connection: Any) -> Iterator[None]:
        with transaction(connection):
            yield
            if now:
                here(f"within {now}")

    journal.Journal._commit, journal._transaction = watched, within  # type: ignore[method-assign]


def watch_requests(here: Moments) -> None:
    connection: Any = http.client.HTTPConnection
    put, get = connection.putrequest, connection.getresponse

    def put_watched(self: Any, method: str, url: str, *more: Any, **options: Any) -> None:
        self.asked = f"{method} {NUMBERED.sub('ID', url.partition('?')[0])}"
        put(self, method, url, *more, **options)

    def get_watched(self: Any) -> Any:
        if WATCHED.match(self.asked):
            here(f"asked {self.asked}")
            self.sock.recv(1, socket.MSG_PEEK)
            here(f"answered {self.asked}")
        return get(self)

    connection.putrequest, connection.getresponse = put_watched, get_watched


def live(folder: str, words: list[str], kill: str, nth: int, by: int) -> int:
    from kit.config import load
    from kit.log import set_up_logging
    from paper.config import PaperConfig
    from paper.run import trade

    set_up_logging("DEBUG")
    here = Moments(Path(folder), kill, nth, by)
    watch_journal(here)
    watch_requests(here)
    return trade(load(PaperConfig, None, words), Path(folder))


def main() -> None:
    for module in ("alpaca.data.historical", "alpaca.trading.requests", "alpaca.trading.stream", "paper.run"):
        importlib.import_module(module)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            log = os.open(f"{told['folder']}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 1
            try:
                code = live(**told)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
