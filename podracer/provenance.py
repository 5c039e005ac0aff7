"""What a result came from: the code, as a hash, and the version that wrote it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from kit import code

ROOMS = ("kit", "market", "envs", "agents", "podracer")  # what a training depends on


def code_hash() -> str:
    return code.code_hash(*ROOMS)


def created_by() -> str:
    try:
        return f"podracer {version('podracer')}"
    except PackageNotFoundError:  # run from its sources
        return "podracer"
