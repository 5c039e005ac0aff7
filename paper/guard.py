"""Whether the desk may trade: a state that latches, a kill switch that fails closed, and the looks between bars."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG

from kit.files import write_json
from paper.journal import Journal
from paper.risk import State
from paper.watch.alerts import Level

log = logging.getLogger(__name__)

KILL, RESET = "KILL", "RESET.json"  # files in the desk's folder: their being there is the wish
LETTERS = 500  # of a reason, at most
SEVERITY = (State.ACTIVE, State.REDUCING, State.HALTED)


class Guard:
    """Only a person takes a restriction back, and says why; whoever asks for a halt gets one."""

    def __init__(self, journal: Journal, folder: Path, alert: Callable[[str, Level, str], None]) -> None:
        self.journal, self.folder, self.alert = journal, folder, alert
        self._asked = ""  # by signal or over HTTP

    @property
    def state(self) -> State:
        return State(self.journal.get("risk", {"state": State.ACTIVE})["state"])

    @property
    def why(self) -> str:
        return str(self.journal.get("risk", {"why": ""})["why"])

    @property
    def stopped(self) -> frozenset[str]:
        """Names that a stop-loss has sold: they stay sold until a person resets."""
        return frozenset(self.journal.get("stopped", []))

    def restrict(self, state: State, why: str) -> bool:
        """Never to a milder state. Whether it is a new one."""
        if SEVERITY.index(state) <= SEVERITY.index(self.state):
            return False
        with self.journal.transition() as step:
            step.write("halt", {"state": state.value, "before": self.state.value, "why": why})
            step.set("risk", {"state": state.value, "why": why})
        self.alert("halt", "critical", f"{state.value}: {why}")
        return True

    def stop(self, symbol: str, why: str) -> bool:
        """Whether it is a new one."""
        if symbol in self.stopped:
            return False
        with self.journal.transition() as step:
            step.write("stop-loss", {"symbol": symbol, "why": why})
            step.set("stopped", sorted({*self.stopped, symbol}))
        self.alert("stop-loss", "warning", f"{symbol}: {why}")
        return True

    def ask_to_kill(self, why: str) -> None:
        """From a signal or another thread: only notes it."""
        self._asked = self._asked or why

    def heed(self) -> None:
        """What was asked for since: a halt first, a reset only where no halt is asked for."""
        why = self._asked or self._killed_by_file()
        self._asked = ""
        if why:
            self.restrict(State.HALTED, why)
        elif (reset := self._reset()) is not None:
            self._reset_by(*reset)

    def _killed_by_file(self) -> str:
        """Not being able to tell counts as yes."""
        try:
            found = (self.folder / KILL).lstat()
        except FileNotFoundError:
            return "" if self.folder.is_dir() else f"kill switch: {self.folder} is not there any more"
        except OSError as error:
            return f"kill switch: {self.folder / KILL} cannot be looked at: {error.strerror}"
        return f"kill switch: the file {KILL} is there{self._said() if S_ISREG(found.st_mode) else ''}"

    def _said(self) -> str:
        """Why, where whoever left the file wrote that."""
        try:
            with open(self.folder / KILL, encoding="utf-8", errors="replace") as file:
                said = " ".join(file.read(LETTERS).split())
        except OSError:
            return ""
        return f": {said}" if said else ""

    def _reset(self) -> tuple[str, str] | None:
        file = self.folder / RESET
        try:
            tree = json.loads(file.read_text())
            return str(tree["who"]), str(tree["why"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s: cannot be read, nothing is reset: %s", file, error)
            return None

    def _reset_by(self, who: str, why: str) -> None:
        with self.journal.transition() as step:
            body = {"who": who, "why": why, "before": self.state.value, "stopped": sorted(self.stopped)}
            step.write("reset", body)
            step.set("risk", {"state": State.ACTIVE.value, "why": ""})
            step.set("stopped", [])
            step.remove("risk-peak")  # a drawdown is measured from now on
            step.remove("day")
        (self.folder / RESET).unlink()
        self.alert("reset", "info", f"{who}: {why}")


def ask_for_reset(folder: Path, who: str, why: str) -> None:
    """Left for the desk that runs, or for the next one."""
    (folder / KILL).unlink(missing_ok=True)
    write_json(folder / RESET, {"who": who, "why": why})
