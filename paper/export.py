"""The journal as JSON lines, CSV or Parquet, for whoever works with tables. It shows; `paper.verify` proves.

All entries together have the columns seq, at, kind and body. Those of one kind make a flat table: seq,
at and a column for each field that any of their bodies has. Amounts stay the exact texts that they are.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from kit.errors import UserError
from kit.files import replacing
from paper.chain import Entry, canonical, reading, select

Row = dict[str, Any]
Columns = Mapping[str, type]  # what a column holds: bool, int, float or str
WHOLE: Columns = {"seq": int, "at": str, "kind": str, "body": str}
BATCH = 10_000  # rows of a Parquet group


def export(path: str | Path, out: Path, kind: str = "") -> int:
    """Write all entries, or those of one kind, in the format that the suffix of `out` names: how many there were."""
    write = WRITERS.get(out.suffix)
    if not write:
        raise UserError(f"{out}: expected a name that ends in {', '.join(WRITERS)}")
    count = 0

    def counted(rows: Iterator[Row]) -> Iterator[Row]:
        nonlocal count
        for count, row in enumerate(rows, 1):  # noqa: B007  counted for the caller
            yield row

    with reading(Path(path)) as connection, replacing(out) as temporary:
        try:
            columns = _columns(connection, kind) if kind else WHOLE
            make = _flat if kind else _whole
            write(temporary, columns, counted(make(entry) for entry in select(connection, kinds=[kind] * bool(kind))))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: cannot be read ({error}); python -m paper verify says more") from None
    return count


def _whole(entry: Entry) -> Row:
    return {"seq": entry.seq, "at": entry.at, "kind": entry.kind, "body": entry.body}


def _flat(entry: Entry) -> Row:
    body = entry.body if isinstance(entry.body, dict) else {"body": entry.body}
    named = {f"body.{name}" if name in ("seq", "at") else name: value for name, value in body.items()}
    return {"seq": entry.seq, "at": entry.at, **named}


def _columns(connection: sqlite3.Connection, kind: str) -> Columns:
    """Every field of any body, in the order in which they appear, and the narrowest type that holds all its values."""
    types: dict[str, set[type]] = {}
    for entry in select(connection, kinds=[kind]):
        for name, value in _flat(entry).items():
            types.setdefault(name, set()).update([] if value is None else [_type(value)])
    if not types:
        kinds = ", ".join(found for (found,) in connection.execute("SELECT DISTINCT kind FROM journal ORDER BY kind"))
        raise UserError(f"kind = {kind!r}: there is no such entry yet; the journal has {kinds}")
    return {name: _common(found) for name, found in types.items()}


def _type(value: object) -> type:
    kind = type(value)
    return kind if kind in (bool, float) or (isinstance(value, int) and -(2**63) <= value < 2**63) else str


def _common(types: set[type]) -> type:
    return next(iter(types)) if len(types) == 1 else float if types == {int, float} else str


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)


def _jsonl(path: Path, columns: Columns, rows: Iterator[Row]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({name: row.get(name) for name in columns}, separators=(",", ":")) + "\n")


def _csv(path: Path, columns: Columns, rows: Iterator[Row]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        for row in rows:
            cells = (row.get(name) for name in columns)
            table.writerow(["" if cell is None else _text(cell) for cell in cells])


def _parquet(path: Path, columns: Columns, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            arrays = [pa.array(_cells(batch, name, kind), kinds[kind]) for name, kind in columns.items()]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _cells(rows: list[Row], name: str, kind: type) -> list[Any]:
    values = (row.get(name) for row in rows)
    convert = _text if kind is str else kind
    return [None if value is None else convert(value) for value in values]


WRITERS: dict[str, Callable[[Path, Columns, Iterator[Row]], None]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
