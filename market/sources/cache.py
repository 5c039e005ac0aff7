"""Downloaded bars on disk: a Parquet file per request, named by the request's hash, its own hash beside it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kit.files import Json, hash_file, hash_json, replacing, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Bars of one symbol, in order of time."""

    times: np.ndarray  # [R] datetime64[ns], UTC
    columns: Mapping[str, np.ndarray]  # [R] float64 each

    def __len__(self) -> int:
        return len(self.times)

    def where(self, keep: np.ndarray | slice) -> Rows:  # keep [R]
        return Rows(self.times[keep], {name: column[keep] for name, column in self.columns.items()})

    def same(self, other: Rows) -> bool:
        """Whether times and values are equal in the columns of `self`."""
        return np.array_equal(self.times, other.times) and all(
            np.array_equal(column, other.columns[name], equal_nan=True) for name, column in self.columns.items()
        )


@dataclass(frozen=True)
class Stored:
    rows: Rows
    day: str  # of the download


class Cache:
    """What is in it is whole: a file that does not match its hash counts as absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, request: Json, columns: Sequence[str]) -> Stored | None:
        path, note = self._paths(request)
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            if hash_file(path) != said["sha256"]:
                raise ValueError
            table = pq.read_table(path, columns=["time", *columns])
            day = str(said["day"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            log.warning("%s: the file is damaged; it is downloaded again", path)
            return None
        read = {name: table[name].to_numpy() for name in columns}
        return Stored(Rows(table["time"].to_numpy().astype("datetime64[ns]"), read), day)

    def put(self, request: Json, rows: Rows, day: str) -> None:
        path, note = self._paths(request)
        with replacing(path) as temporary:
            pq.write_table(pa.table({"time": rows.times, **rows.columns}), temporary)
        write_json(note, {"sha256": hash_file(path), "day": day, "request": request})

    def confirm(self, request: Json, day: str) -> None:
        """Note that what is stored is what a download of `day` gives too."""
        path, note = self._paths(request)
        write_json(note, {"sha256": hash_file(path), "day": day, "request": request})

    def forget(self, request: Json) -> None:
        for file in self._paths(request):
            file.unlink(missing_ok=True)

    def _paths(self, request: Json) -> tuple[Path, Path]:
        stem = self.folder / hash_json(request)
        return stem.with_suffix(".parquet"), stem.with_suffix(".json")


def default_cache() -> Path:
    """`PODRACER_CACHE`, or `podracer` in the user's cache folder."""
    if own := os.environ.get("PODRACER_CACHE"):
        return Path(own)
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return user / "podracer"
