"""Which code made a result: a hash of source files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from kit.files import hash_file, hash_json


def code_hash(*packages: str) -> str:
    """SHA-256 over every .py file of the packages: the same wherever they lie, and in whatever order they are named."""
    files = {}
    for package in packages:
        spec = find_spec(package)
        assert spec and spec.submodule_search_locations, f"{package} is not a package"
        for folder in map(Path, spec.submodule_search_locations):
            for file in folder.rglob("*.py"):
                files[f"{package}/{file.relative_to(folder).as_posix()}"] = hash_file(file)
    return hash_json(files)
