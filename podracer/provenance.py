"""What a result came from: the code, as a hash, and the version that wrote it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kit.files import hash_file, hash_json

ROOMS = ("kit", "market", "envs", "agents", "podracer")  # what a training depends on
ROOT = Path(__file__).parent.parent


def code_hash() -> str:
    """The same for the same source files, wherever they lie."""
    files = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    return hash_json({file.relative_to(ROOT).as_posix(): hash_file(file) for file in files})


def created_by() -> str:
    try:
        return f"podracer {version('podracer')}"
    except PackageNotFoundError:  # run from its sources
        return "podracer"
