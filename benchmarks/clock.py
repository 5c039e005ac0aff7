"""A clock that several processes of one machine write by: who did what between when and when.

Light, as actors that are timed import it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple


class Span(NamedTuple):
    what: str
    began: float
    ended: float
    trial: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Clock(NamedTuple):
    """Appends to a file; any number of processes may."""

    file: Path

    @contextmanager
    def __call__(self, what: str, trial: str = "") -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.note(Span(what, began, time.monotonic(), trial))

    def note(self, span: Span) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(span) + "\n")

    def around(self, what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*given: Any, **named: Any) -> Any:
            with self(what):
                return method(*given, **named)

        return timed

    def read(self) -> list[Span]:
        return [Span(*json.loads(line)) for line in self.file.read_text().splitlines()]
