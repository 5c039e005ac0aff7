"""What a check found, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "mend"]
COLOURS = {"ok": "32", "note": "33", "mend": "31"}


@dataclass(frozen=True)
class Finding:
    """`note`: works, but somebody may want to know; `mend`: something will fail."""

    what: str
    state: State
    found: str
    remedy: str = ""

    def lines(self, colour: bool = False) -> list[str]:
        state = f"{self.state:<5}"
        shown = f"\033[{COLOURS[self.state]}m{state}\033[0m" if colour else state
        remedy = [f"{'':19}-> {self.remedy}"] if self.remedy else []
        return [f"{shown} {self.what:<12} {self.found}", *remedy]


Check = Callable[[], Iterable[Finding]]


def examine(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """One by one, each told as soon as it is known. A check that fails by itself is a finding, and the rest go on."""
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(name, "mend", f"could not be checked: {found}", "mend what is above, and look again")
