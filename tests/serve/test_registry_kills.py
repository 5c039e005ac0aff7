"""The registry loses nothing and leaves nothing half done, whoever is killed and whoever else is at work."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import SHARED, saved
from versions import BEGIN, NAMES, STRETCH, clock, crown, judge, states

from agents.bundle import load
from kit.errors import UserError
from serve.registry import Registry

FORK = multiprocessing.get_context("fork")  # what is loaded need not be loaded again


ACTS: dict[str, Callable[[Registry, Path], object]] = {
    "register": lambda registry, newcomer: registry.register(newcomer, "ann"),
    "promote": lambda registry, _: registry.move(registry.entries[1].version, "champion", "ann", "so", force=True),
    "rollback": lambda registry, _: registry.rollback("ann", "so"),
    "record": lambda registry, _: registry.record(registry.entries[0].version, STRETCH),
}


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a verdict, not registered yet."""
    bundle = tmp_path_factory.mktemp("new") / "bundle"
    saved(bundle, (SHARED,))
    judge(bundle)
    return bundle


@pytest.fixture
def start(registry: Registry, versions: list[str]) -> Registry:
    """The first version is champion, after the second."""
    crown(registry, versions[1], versions[0])
    return registry


def copy_of(registry: Registry, folder: Path) -> Registry:
    return Registry(shutil.copytree(registry.folder, folder), clock())


def shown(registry: Registry) -> tuple[Any, ...]:
    """All that a reader can see; what is not whole is refused on the way."""
    entries, last = registry.entries, registry.entries[-1]
    assert load(registry.bundle_of(last.version)).hash == last.hash
    parts = [(registry.verdict_of(e.version), registry.records_of(e.version)) for e in entries]
    return [replace(e, at=BEGIN) for e in entries], [replace(m, at=BEGIN) for m in registry.history], parts


def killed_at(count: int, act: Callable[[], object]) -> int:
    """Run in a child that dies right before its `count`-th change of a folder: the exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = [count]

    def fatal(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **more)

        return change

    try:
        for name in ("replace", "rename", "mkdir", "rmdir", "unlink"):
            setattr(os, name, fatal(getattr(os, name)))
        act()
        os._exit(0)
    finally:
        os._exit(1)


# -- one that ends early


@pytest.mark.parametrize("name", ACTS)
def test_a_kill_at_any_change_of_a_folder_leaves_all_or_nothing(
    start: Registry, newcomer: Path, tmp_path: Path, name: str
) -> None:
    act, before = ACTS[name], shown(start)
    whole = copy_of(start, tmp_path / "whole")
    act(whole, newcomer)
    after = shown(whole)
    assert before != after
    kills, status = 0, signal.SIGKILL
    while status:
        registry = copy_of(start, tmp_path / f"killed-{kills}")
        status = killed_at(kills + 1, lambda registry=registry: act(registry, newcomer))
        found = shown(registry)
        assert status in (0, signal.SIGKILL) and found in (before, after)
        if found == before:
            assert status, "it ended well, and nothing came of it"
            act(registry, newcomer)  # the next one carries on
            assert shown(registry) == after
            left = {path.name for path in (registry.folder / "versions").iterdir()}
            assert left == {entry.version for entry in registry.entries}, "nothing lies about"
        shutil.rmtree(registry.folder)
        kills += bool(status)
    assert kills >= (12 if name == "register" else 2)


@pytest.mark.parametrize("name", ACTS)
def test_a_failure_of_any_rename_changes_nothing(
    start: Registry, newcomer: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full: the process lives on, and tidies up."""
    before = shown(start)
    for failures in range(50):
        registry, left = copy_of(start, tmp_path / f"failed-{failures}"), [failures + 1]

        def failing(real: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def rename(*arguments: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    raise OSError(28, "No space left on device")
                return real(*arguments)

            return rename

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", failing(os.replace))
            patch.setattr(os, "rename", failing(os.rename))
            try:
                ACTS[name](registry, newcomer)
            except OSError:
                pass
            else:
                break
        assert shown(registry) == before
        assert not [path for path in registry.folder.rglob(".*") if path.name != ".lock"], "nothing lies about"
        ACTS[name](registry, newcomer)
        assert shown(registry) != before
    assert failures == {"register": 6, "promote": 1, "rollback": 1, "record": 1}[name]


# -- several at once


def at_once(*works: Callable[[], None]) -> None:
    processes = [FORK.Process(target=work, daemon=True) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(works)


def test_no_move_and_no_record_of_several_processes_is_lost(registry: Registry, versions: list[str]) -> None:
    moves, since = 8, len(registry.history)

    def work(number: int) -> None:
        mine = Registry(registry.folder)
        for turn in range(moves):
            mine.move(versions[number], ("shadow", "retired")[turn % 2], f"p{number}", f"turn {turn}")
            mine.record(versions[0], replace(STRETCH, id=f"{number}-{turn}"))

    def read() -> None:
        mine, seen = Registry(registry.folder), 0
        while seen < since + 3 * moves:  # each reading checks that it all fits together
            assert len(mine.history) >= seen and len(mine.entries) == 3
            seen = len(mine.history)
            time.sleep(0.001)  # a processor is not for readers alone

    at_once(*(lambda number=number: work(number) for number in range(3)), read)
    history = registry.history[since:]
    for number, version in enumerate(versions):
        mine = [(move.who, move.reason) for move in history if move.version == version]
        assert mine == [(f"p{number}", f"turn {turn}") for turn in range(moves)]
    ids = [record.id for record in registry.records_of(versions[0])]
    assert sorted(ids) == sorted(f"{number}-{turn}" for number in range(3) for turn in range(moves))


def test_of_several_that_want_to_be_canary_one_is(registry: Registry, versions: list[str]) -> None:
    def work(version: str) -> None:
        with suppress(UserError):
            Registry(registry.folder).move(version, "canary", "ann")

    at_once(*(lambda version=version: work(version) for version in versions))
    assert sorted(states(registry)) == ["canary", "registered", "registered"]


def test_a_bundle_that_several_register_at_once_is_registered_once(originals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "registry"

    def work(names: tuple[str, ...]) -> None:
        for name in names:
            Registry(folder).register(originals / name / "bundle", "ann")

    at_once(*(lambda k=k: work(NAMES[k:] + NAMES[:k]) for k in range(3)))
    registry = Registry(folder)
    assert sorted(entry.name for entry in registry.entries) == sorted(NAMES)
    assert len(registry.history) == 3
    assert {path.name for path in (folder / "versions").iterdir()} == {entry.version for entry in registry.entries}
    shown(registry)
