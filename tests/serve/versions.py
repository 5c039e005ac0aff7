"""What tests do with a registry, and how they look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.bundle import load
from kit.errors import UserError
from serve.record import PaperRecord
from serve.registry import BETTER, Registry

BEGIN = "2024-01-01T00:00:00Z"
NAMES = ("alpha", "beta", "gamma")
STRETCH = PaperRecord("week-1", BEGIN, "2024-01-08T00:00:00Z", 5, 0.01, 0.005, max_drawdown=-0.02, orders=7, halts=0)


def clock() -> Callable[[], str]:
    """A minute passes between any two looks."""

    def ticks() -> Iterator[str]:
        moment = datetime(2024, 1, 1, tzinfo=UTC)
        while True:
            moment += timedelta(minutes=1)
            yield f"{moment:%Y-%m-%dT%H:%M:%SZ}"

    return ticks().__next__


def judge(bundle: Path, outcome: str = BETTER, openings: int = 1, hash_: str = "") -> Path:
    """What a tournament writes beside its bundle."""
    path = bundle.with_name("bundle.verdict.json")
    tree = {"bundle": hash_ or load(bundle).hash, "openings": openings, "outcome": outcome, "level": 0.05}
    path.write_text(json.dumps(tree))
    return path


def refusal(act: Callable[..., object], *arguments: object, **more: object) -> str:
    with pytest.raises(UserError) as error:
        act(*arguments, **more)
    line = str(error.value)
    assert "\n" not in line and len(line) < 600
    return line


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def states(registry: Registry) -> list[str]:
    return [entry.state for entry in registry.entries]


def told(registry: Registry, since: int = 0) -> list[tuple[int, str | None, str]]:
    """The moves as (which version, before, after)."""
    order = [entry.version for entry in registry.entries]
    return [(order.index(move.version), move.before, move.after) for move in registry.history[since:]]


def crown(registry: Registry, *versions: str) -> None:
    for version in versions:
        registry.move(version, "champion", "ann", "next", force=True)


def with_verdict(registry: Registry, version: str, outcome: str) -> None:
    path = registry.folder / "versions" / version / "bundle.verdict.json"
    tree = {"bundle": registry.entry(version).hash, "openings": 1, "outcome": outcome}
    path.write_text(json.dumps(tree))
