"""What is exported is what the journal holds, in every format, whole or not at all."""

from __future__ import annotations

import csv
import json
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from journals import attack, opened, written

from kit.errors import UserError
from paper.chain import read_entries
from paper.export import export

FORMATS = ["jsonl", "csv", "parquet"]


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return pq.read_table(path).to_pylist()


@pytest.fixture
def fills(tmp_path: Path) -> Path:
    path = tmp_path / "desk.db"
    with opened(path) as journal, journal.transition() as step:
        step.write("fill", {"id": "a", "price": Decimal("100.10"), "shares": 3, "late": 1, "at": "09:30", "big": 1})
        step.write("note", "not a fill")
        step.write("fill", {"id": 'b, "c"\n', "late": 0.5, "whole": True, "votes": {"m": [1, 2]}, "big": 2**70})
        step.write("fill", {"id": "c", "price": None, "shares": 4, "mixed": 1, "empty": None})
        step.write("fill", {"id": "d", "mixed": "two"})
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_all_entries_are_there_in_their_order(tmp_path: Path, suffix: str) -> None:
    path, out = written(tmp_path), tmp_path / "out" / f"journal.{suffix}"
    assert export(path, out) == 21
    rows = read(out)
    assert [list(row) for row in rows] == [["seq", "at", "kind", "body"]] * 21
    for row, entry in zip(rows, read_entries(path)):
        body = row["body"] if suffix == "jsonl" else json.loads(str(row["body"]))
        assert (int(str(row["seq"])), row["at"], row["kind"], body) == (entry.seq, entry.at, entry.kind, entry.body)


def test_one_kind_is_a_flat_table_with_types(fills: Path, tmp_path: Path) -> None:
    out = tmp_path / "fills.parquet"
    assert export(fills, out, "fill") == 4
    table = pq.read_table(out)
    assert {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types)} == {
        "seq": "int64",
        "at": "string",
        "body.at": "string",  # a field of that name, beside the entry's own
        "big": "string",
        "id": "string",
        "late": "double",
        "price": "string",
        "shares": "int64",
        "votes": "string",
        "whole": "bool",
        "empty": "string",
        "mixed": "string",
    }
    columns = table.to_pydict()
    assert columns["seq"] == [2, 4, 5, 6]
    assert columns["price"] == ["100.10", None, None, None]
    assert columns["shares"] == [3, None, 4, None]
    assert columns["late"] == [1.0, 0.5, None, None]
    assert columns["whole"] == [None, True, None, None]
    assert columns["votes"] == [None, '{"m":[1,2]}', None, None]
    assert columns["big"] == ["1", str(2**70), None, None]
    assert columns["mixed"] == [None, None, "1", "two"]
    assert columns["body.at"] == ["09:30", None, None, None]


def test_one_kind_as_text(fills: Path, tmp_path: Path) -> None:
    assert export(fills, tmp_path / "fills.csv", "fill") == 4
    second = read(tmp_path / "fills.csv")[1]
    assert (second["id"], second["price"], second["late"], second["whole"]) == ('b, "c"\n', "", "0.5", "true")
    assert second["votes"] == '{"m":[1,2]}'
    assert export(fills, tmp_path / "fills.jsonl", "fill") == 4
    second = read(tmp_path / "fills.jsonl")[1]
    assert (second["id"], second["price"], second["votes"], second["big"]) == ('b, "c"\n', None, {"m": [1, 2]}, 2**70)


def test_bodies_without_fields_have_one_column(fills: Path, tmp_path: Path) -> None:
    assert export(fills, tmp_path / "notes.jsonl", "note") == 1
    assert [(row["seq"], row["body"]) for row in read(tmp_path / "notes.jsonl")] == [(3, "not a fill")]


def test_what_cannot_be_exported_is_one_line_and_leaves_the_file_that_was_there(fills: Path, tmp_path: Path) -> None:
    out = tmp_path / "fills.csv"
    out.write_text("from yesterday")
    with pytest.raises(UserError, match="kind = 'fils': there is no such entry yet; the journal has fill, key, note"):
        export(fills, out, "fils")
    with pytest.raises(UserError, match=r"fills\.xlsx: expected a name that ends in \.jsonl, \.csv, \.parquet"):
        export(fills, tmp_path / "fills.xlsx")
    with pytest.raises(UserError, match=r"nothing\.db: no such file"):
        export(tmp_path / "nothing.db", out)
    attack(fills, "UPDATE journal SET body = '{' WHERE seq = 6")
    with pytest.raises(UserError, match=r"desk\.db: cannot be read .*verify says more"):
        export(fills, out)
    content = fills.read_bytes()
    fills.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(UserError, match=r"desk\.db: cannot be read \(database disk image is malformed\)"):
        export(fills, out)
    assert out.read_text() == "from yesterday"
    assert {file.name for file in tmp_path.iterdir()} <= {
        "fills.csv", "desk.db", "desk.db.lock", "desk.db-wal", "desk.db-shm"
    }  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,001 entries, 8 MB."""
    path = tmp_path_factory.mktemp("large") / "desk.db"
    with opened(path) as journal:
        for _ in range(10):
            with journal.transition() as step:
                for number in range(400):
                    step.write("bar", {"number": number, "text": "x" * 2000})
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["", "bar"])
def test_it_holds_few_entries_at_a_time(
    large: Path, tmp_path: Path, suffix: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paper.export.BATCH", 50)
    export(large, tmp_path / f"first.{suffix}", kind)  # what is loaded by this is not counted
    tracemalloc.start()
    try:
        assert export(large, tmp_path / f"out.{suffix}", kind) == 4000 + (not kind)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    rows = read(tmp_path / f"out.{suffix}")
    assert [int(str(row["seq"])) for row in rows] == list(range(2 - (not kind), 4002))
