"""The guard: what a person or a limit restricts stays so, whatever lies in the desk's folder, until a person resets."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from journals import opened

from paper.guard import KILL, LETTERS, RESET, Guard, ask_for_reset
from paper.journal import Journal
from paper.risk import State

ACTIVE, REDUCING, HALTED = State
Alert = tuple[str, str, str]


@contextmanager
def guarding(folder: Path) -> Iterator[tuple[Guard, list[Alert]]]:
    """The guard of a desk whose journal goes on where it was left."""
    told: list[Alert] = []
    with opened(folder / "desk.db") as journal:
        yield Guard(journal, folder, lambda kind, level, text: told.append((kind, level, text))), told


def written(journal: Journal) -> list[tuple[str, Any]]:
    return [(entry.kind, entry.body) for entry in journal.entries(kinds=["halt", "stop-loss", "reset"])]


def test_a_new_desk_is_active_and_has_stopped_nothing(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, told):
        guard.heed()
        assert (guard.state, guard.why, guard.stopped) == (ACTIVE, "", frozenset())
        assert (told, written(guard.journal)) == ([], [])


# -- restrictions


@pytest.mark.parametrize(("first", "then"), [*product(State, State)])
def test_a_state_only_tightens(first: State, then: State, tmp_path: Path) -> None:
    tighter = [(ACTIVE, REDUCING), (ACTIVE, HALTED), (REDUCING, HALTED)]
    with guarding(tmp_path) as (guard, told):
        assert guard.restrict(first, "one") == (first != ACTIVE)
        assert guard.restrict(then, "two") == ((first, then) in tighter)
        steps = [step for step in ((ACTIVE, first, "one"), (first, then, "two")) if step[:2] in tighter]
        expected = [{"before": before, "state": after, "why": why} for before, after, why in steps]
        assert written(guard.journal) == [("halt", body) for body in expected]
        assert told == [("halt", "critical", f"{after}: {why}") for _, after, why in steps]
        assert (guard.state, guard.why) == ((steps[-1][1], steps[-1][2]) if steps else (ACTIVE, ""))


def test_a_restriction_and_a_stop_outlive_the_process(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, _):
        guard.restrict(REDUCING, "gross")
        guard.stop("B", "fell")
        assert written(guard.journal)[0] == ("halt", {"before": "active", "state": "reducing", "why": "gross"})
    with guarding(tmp_path) as (guard, told):
        guard.heed()
        assert (guard.state, guard.why, guard.stopped) == (REDUCING, "gross", frozenset("B"))
        assert told == []


def test_a_name_is_stopped_once_and_beside_the_others(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, told):
        assert [guard.stop(*stop) for stop in (("B", "one"), ("A", "two"), ("B", "three"))] == [True, True, False]
        assert guard.stopped == {"A", "B"}
        assert guard.state == ACTIVE
        assert written(guard.journal) == [
            ("stop-loss", {"symbol": "B", "why": "one"}),
            ("stop-loss", {"symbol": "A", "why": "two"}),
        ]
        assert told == [("stop-loss", "warning", "B: one"), ("stop-loss", "warning", "A: two")]


# -- the kill switch


def test_whoever_asks_first_is_named_when_the_desk_next_looks(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, _):
        guard.ask_to_kill("ann")
        guard.ask_to_kill("bob")
        assert guard.state == ACTIVE, "only noted, so that a signal may ask"
        guard.heed()
        assert (guard.state, guard.why) == (HALTED, "ann")


def test_what_was_asked_for_is_heeded_once(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, _):
        guard.ask_to_kill("ann")
        guard.heed()
        ask_for_reset(tmp_path, "ann", "over")
        guard.heed()
        assert guard.state == ACTIVE
        guard.ask_to_kill("bob")
        guard.heed()
        assert (guard.state, guard.why) == (HALTED, "bob")


def _folder(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [Path.touch, _folder, _dangling, os.mkfifo])
def test_whatever_is_called_kill_halts_and_need_not_say_why(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "KILL")
    with guarding(tmp_path) as (guard, _):
        guard.heed()
        assert (guard.state, guard.why) == (HALTED, "kill switch: the file KILL is there")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (b" ann:\n\tearnings  tonight\n", "ann: earnings tonight"),
        ("größer".encode(), "größer"),
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
        (b"x" * (LETTERS + 1), "x" * LETTERS),
    ],
)
def test_the_reason_in_the_file_is_kept_in_one_short_line(said: bytes, kept: str, tmp_path: Path) -> None:
    (tmp_path / KILL).write_bytes(said)
    with guarding(tmp_path) as (guard, _):
        guard.heed()
        assert guard.why == f"kill switch: the file {KILL} is there: {kept}"


def test_a_reason_that_is_gone_when_it_is_read_halts_without_one(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, _):
        assert guard._said() == ""


@pytest.mark.parametrize("make", [Path.touch, shutil.rmtree])
def test_a_desk_halts_where_it_cannot_tell_whether_to(make: Callable[[Path], Any], tmp_path: Path) -> None:
    """Its folder is not there any more, or is none."""
    folder = tmp_path / "desk"
    if make is shutil.rmtree:
        folder.mkdir()
    make(folder)
    with opened(tmp_path / "desk.db") as journal:
        guard = Guard(journal, folder, lambda *_: None)
        guard.heed()
        assert guard.state == HALTED
        assert str(folder) in guard.why


# -- the reset


def test_a_reset_forgets_the_restriction_the_stops_and_the_losses(tmp_path: Path) -> None:
    with guarding(tmp_path) as (guard, told):
        guard.restrict(HALTED, "drawdown")
        guard.stop("B", "fell")
        guard.stop("A", "fell")
        with guard.journal.transition() as step:
            step.write("look", {})
            for key in ("risk-peak", "day", "other"):
                step.set(key, 1)
        told.clear()
        ask_for_reset(tmp_path, "ann", "new money")
        guard.heed()
        assert (guard.state, guard.why, guard.stopped) == (ACTIVE, "", frozenset())
        assert [guard.journal.get(key) for key in ("risk-peak", "day", "other")] == [None, None, 1]
        body = {"who": "ann", "why": "new money", "before": "halted", "stopped": ["A", "B"]}
        assert written(guard.journal)[-1] == ("reset", body)
        assert told == [("reset", "info", "ann: new money")]
        guard.heed()
        assert len(told) == 1, "it was asked for once"
    assert not (tmp_path / RESET).exists()


def test_a_reset_takes_the_kill_file_away_and_waits_for_one_that_comes_later(tmp_path: Path) -> None:
    (tmp_path / KILL).touch()
    with guarding(tmp_path) as (guard, _):
        guard.heed()
        ask_for_reset(tmp_path, "ann", "over")
        assert not (tmp_path / KILL).exists()
        (tmp_path / KILL).touch()
        guard.heed()
        assert (guard.state, (tmp_path / RESET).exists()) == (HALTED, True)
        (tmp_path / KILL).unlink()
        guard.heed()
        assert (guard.state, (tmp_path / RESET).exists()) == (ACTIVE, False)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"7", b"\xff", json.dumps({"who": "ann"}).encode(), json.dumps({"why": "over"}).encode(), None],
)
def test_a_reset_that_cannot_be_read_resets_nothing(
    text: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if text is None:
        (tmp_path / RESET).mkdir()
    else:
        (tmp_path / RESET).write_bytes(text)
    with guarding(tmp_path) as (guard, told):
        guard.restrict(REDUCING, "gross")
        guard.heed()
        assert (guard.state, guard.why, len(told)) == (REDUCING, "gross", 1)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert str(tmp_path / RESET) in record.getMessage()
