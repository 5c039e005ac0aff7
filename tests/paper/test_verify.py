"""Whoever alters the record without the key is found; what cannot be found is said."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from journals import KEY, OTHER, attack, bar, copied, cut_back, opened, written

from kit.errors import UserError
from paper.chain import COLUMNS, anchors_beside, read_entries, read_state
from paper.verify import SHOWN, verify

ENTRIES = 21  # of five bars


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "record")


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    """Written once, for the tests that try many things on copies."""
    with tempfile.TemporaryDirectory() as folder:
        yield written(Path(folder) / "record")


def found(path: Path) -> list[tuple[int | None, str]]:
    return [(problem.seq, problem.what) for problem in verify(path, [KEY]).problems]


def test_a_journal_as_it_was_written_has_no_problem(path: Path) -> None:
    report = verify(path, [KEY])
    assert (report.ok, report.entries, report.anchors, report.problems, report.more) == (True, ENTRIES, 5, [], 0)
    assert report.head == list(read_entries(path))[-1].mac
    assert not any("after" in text for text in report.cannot)  # the last entry is anchored


def test_verify_writes_nothing(path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {
            file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith(("-wal", "-shm"))
        }

    before = content()
    verify(path, [KEY])
    assert content() == before


def test_it_works_in_a_folder_that_may_not_be_written(path: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path.parent.chmod(0o555)
    root = os.geteuid() == 0
    parents = [parent for parent in path.parents if parent.owner() == path.owner() and parent != Path("/")]
    modes = {parent: parent.stat().st_mode for parent in parents}
    if root:
        for parent in parents[1:]:
            parent.chmod(modes[parent] | 0o011)
        os.seteuid(65534)
    try:
        assert verify(path, [KEY]).ok
    finally:
        if root:
            os.seteuid(0)
            for parent, mode in modes.items():
                parent.chmod(mode)


# --- entries

EDITS = {
    "seq": "seq = 99",
    "at": "at = '2026-01-05T14:30:59.000000+00:00'",
    "kind": "kind = 'canceled'",
    "body": """body = '{"bar":1,"weights":{"AAA":"0.6","BBB":"0.4"}}'""",
    "state": "state = (SELECT state FROM journal WHERE seq = 12)",
    "mac": "mac = (SELECT mac FROM journal WHERE seq = 12)",
}


@pytest.mark.parametrize("column", EDITS)
def test_an_edited_entry_is_found_where_it_is(path: Path, column: str) -> None:
    assert list(EDITS) == COLUMNS.split(", ")
    attack(path, f"UPDATE journal SET {EDITS[column]} WHERE seq = 6")
    problems = found(path)
    if column == "seq":
        assert [seq for seq, _ in problems] == [7, 99, None]  # and the state is not what the last, 99, left
        assert problems[0][1].startswith("comes after a gap: 6 is missing")
    elif column == "mac":  # the next one was signed together with the former
        assert [seq for seq, _ in problems] == [6, 7]
    else:
        assert [seq for seq, _ in problems] == [6] and "edited" in problems[0][1]


def test_a_body_that_only_looks_the_same_is_found(path: Path) -> None:
    attack(path, "UPDATE journal SET body = replace(body, ':', ': ') WHERE seq = 8")
    assert [seq for seq, _ in found(path)] == [8]


def test_removed_entries_are_found(path: Path) -> None:
    attack(path, "DELETE FROM journal WHERE seq IN (6, 7)")
    ((seq, what),) = found(path)
    assert seq == 8 and "6 to 7 are missing" in what


def test_removed_entries_are_found_where_the_rest_was_renumbered(path: Path) -> None:
    attack(path, "DELETE FROM journal WHERE seq = 8", "UPDATE journal SET seq = seq - 1 WHERE seq > 8")
    assert {seq for seq, _ in found(path)} >= {*range(8, 21)}


def test_reordered_entries_are_found(path: Path) -> None:
    attack(
        path,
        "UPDATE journal SET seq = -1 WHERE seq = 6",
        "UPDATE journal SET seq = 6 WHERE seq = 7",
        "UPDATE journal SET seq = 7 WHERE seq = -1",
    )
    assert [seq for seq, _ in found(path)] == [6, 7, 8]


@pytest.mark.parametrize("seq", [-3, 0, 22])
def test_an_entry_that_was_put_in_is_found(path: Path, seq: int) -> None:
    attack(path, f"INSERT INTO journal SELECT {seq}, at, kind, body, state, mac FROM journal WHERE seq = 21")
    assert (seq in [where for where, _ in found(path)]) and not verify(path, [KEY]).ok


def test_entries_signed_with_another_key_are_found(path: Path, tmp_path: Path) -> None:
    with opened(path, OTHER, (KEY,)) as journal:
        bar(journal, 5)
    assert verify(path, [OTHER, KEY]).ok
    forged = copied(path, tmp_path / "forged")
    entry = list(read_entries(forged))[-1]  # whoever has the former key signs with it
    mac = entry.signed(KEY, list(read_entries(forged))[-2].mac)
    attack(forged, f"UPDATE journal SET mac = '{mac}' WHERE seq = {entry.seq}")
    report = verify(forged, [OTHER, KEY])
    assert (report.problems[0].seq, report.problems[0].what) == (entry.seq, "is signed by a key that was not in force")


def test_many_problems_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal, journal.transition() as step:
        for number in range(SHOWN + 50):
            step.write("bar", number)
    attack(path, "UPDATE journal SET kind = 'x' WHERE seq > 21")
    report = verify(path, [KEY])
    assert len(report.problems) == SHOWN and report.problems[0].seq == 22
    assert SHOWN + report.more == SHOWN + 30


# --- truncation


def test_a_journal_that_was_cut_back_behind_an_anchor_is_found(path: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "then" / "desk.db") as journal:
        for number in range(3):
            bar(journal, number)
    shutil.copy(tmp_path / "then" / "desk.db", path)  # a perfect copy of the record as it was then
    problems = found(path)
    assert [seq for seq, _ in problems] == [None, None]
    assert "ends at entry 13, but anchor 4" in problems[0][1] and "names entry 17" in problems[0][1]


def test_what_is_cut_off_after_the_last_anchor_is_not_found_and_said_not_to_be(path: Path, tmp_path: Path) -> None:
    then = copied(path, tmp_path / "then")
    with opened(path) as journal, journal.transition() as step:
        step.write("order", {})
    report = verify(path, [KEY])
    assert report.ok and "entries after 22 were cut off: the last anchor is at entry 21" in report.cannot[-1]
    shutil.copy(then, path)
    assert verify(path, [KEY]).ok


def test_cutting_back_both_is_found_only_by_an_anchor_that_was_kept_elsewhere(path: Path, tmp_path: Path) -> None:
    with opened(path) as journal:
        kept = journal.anchor()
    assert verify(path, [KEY], witnesses=[(kept.count, kept.head)]).ok
    copied(written(tmp_path / "then" / "record", bars=3), path.parent)
    report = verify(path, [KEY])
    assert report.ok and any("both cut back" in text for text in report.cannot)
    (problem,) = verify(path, [KEY], witnesses=[(kept.count, kept.head)]).problems
    assert "ends at entry 13, but an anchor kept elsewhere names entry 22" in problem.what
    (problem,) = verify(path, [KEY], witnesses=[(13, kept.head)]).problems
    assert problem.seq == 13


def test_a_journal_without_entries_is_found(path: Path) -> None:
    attack(path, "DELETE FROM journal", "DELETE FROM state")
    cut_back(path, 0)
    assert found(path) == [(None, "the journal has no entry: all were removed")]


# --- the state


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET value = '5' WHERE key = 'bar'",
        "UPDATE state SET value = '4 ' WHERE key = 'bar'",
        "UPDATE state SET key = 'Bar' WHERE key = 'bar'",
        "DELETE FROM state WHERE key = 'bar'",
        "INSERT INTO state VALUES ('halted', 'false')",
    ],
)
def test_an_edited_state_is_found(path: Path, statement: str) -> None:
    attack(path, statement)
    assert found(path) == [(None, "the state is not what entry 21 left: edited, added, removed or put back")]


def test_a_state_that_was_true_once_is_found(path: Path, tmp_path: Path) -> None:
    old = written(tmp_path / "then", bars=4)
    attack(path, f"ATTACH '{old}' AS former", "DELETE FROM state", "INSERT INTO state SELECT * FROM former.state")
    assert read_state(path)["bar"] == 3
    assert [seq for seq, _ in found(path)] == [None]


# --- the anchors


def test_altered_anchors_are_found(path: Path) -> None:
    file = anchors_beside(path)
    lines = file.read_text().splitlines(keepends=True)

    def problems(*changed: str) -> list[str]:
        file.write_text("".join(changed))
        return [what.removeprefix(f"{file}: ") for _, what in found(path)]

    one, two, three, four, five = lines
    assert problems(*lines) == []
    assert problems(one, two.replace('"count":9', '"count":8'), three, four, five) == [
        "the line of anchor 2 was altered"
    ]
    assert problems(one, "nonsense\n", three, four, five) == ["the line of anchor 2 was altered"]
    assert problems(one, "[" * 4000 + "\n", three, four, five) == ["the line of anchor 2 was altered"]
    assert problems(one, three, four, five) == ["the line of anchor 2 is missing"]
    assert problems(one, two, three) == ["the line of anchor 4 is missing"]  # that of 5 may be about to be written
    assert problems(one, three, two, four, five) == [
        "the line of anchor 2 is missing",
        "before anchor 4 there is a line that belongs elsewhere",
    ]
    assert problems(*lines, five) == ["is not the one that anchor 5 names"]
    assert problems(*lines, "nonsense\n") == ["holds a line that no anchor of this journal has"]
    assert problems(*lines, "\n") == ["holds a line that no anchor of this journal has"]
    assert problems("") == [f"the line of anchor {number} is missing" for number in (1, 2, 3, 4)]


def test_anchors_that_are_gone_are_found(path: Path) -> None:
    anchors_beside(path).unlink()
    assert len(found(path)) == 4


# --- anything at all


@settings(max_examples=100)
@given(data=st.data())
def test_any_edit_of_any_cell_is_found(original: Path, data: st.DataObject) -> None:
    path = copied(original, original.parent.parent / "edited")
    table = data.draw(st.sampled_from(["journal", "state"]))
    connection = sqlite3.connect(path)
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    row = data.draw(st.sampled_from(rows))
    column = data.draw(st.integers(0, len(names) - 1))
    former = row[column]
    if isinstance(former, int):
        value: object = data.draw(st.integers(-(2**62), 2**62))
    else:
        at = data.draw(st.integers(0, len(former)))
        put = data.draw(st.text(st.characters(codec="utf-8"), max_size=3))
        cut = data.draw(st.integers(0, 3))
        anywhere = former[:at] + put + former[at + cut :]
        elsewhere = st.sampled_from([other[column] for other in rows])
        value = data.draw(st.just(anywhere) | elsewhere | st.text(st.characters(codec="utf-8"), max_size=10))
    assume(value != former)
    try:
        with connection:
            connection.execute(f"UPDATE {table} SET {names[column]} = ? WHERE {names[0]} = ?", (value, row[0]))
    except sqlite3.IntegrityError:  # that number or key is taken
        assume(False)
    finally:
        connection.close()
    assert not verify(path, [KEY]).ok


@settings(max_examples=100)
@given(data=st.data())
def test_any_changed_byte_of_the_anchors_is_found(original: Path, data: st.DataObject) -> None:
    path = copied(original, original.parent.parent / "anchors")
    file = anchors_beside(path)
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert not verify(path, [KEY]).ok


def test_no_changed_byte_of_the_file_makes_another_record_look_right(original: Path) -> None:
    """Some bytes carry nothing: then the record reads as before. Or they do, and that is found."""
    path = copied(original, original.parent.parent / "bytes")
    content = path.read_bytes()
    entries, state = list(read_entries(original)), read_state(original)
    rng, harmless = random.Random(7), 0
    for _ in range(200):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        for left in ("-wal", "-shm"):
            path.with_name(path.name + left).unlink(missing_ok=True)
        try:
            report = verify(path, [KEY])
        except UserError:
            continue
        if report.ok:
            harmless += 1
            assert (list(read_entries(path)), read_state(path)) == (entries, state), at
    assert harmless < 200


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM state; END",
        "CREATE VIEW v AS SELECT * FROM journal",
        "CREATE TABLE extra (a)",
        "ALTER TABLE journal ADD COLUMN more TEXT",
        "DROP TABLE state",
        "PRAGMA user_version = 7",
    ],
)
def test_altered_tables_are_found(path: Path, statement: str) -> None:
    attack(path, statement)
    assert len(found(path)) == 1


# --- how it goes about it


def test_a_wrong_key_is_bad_input_and_no_thousand_problems(path: Path) -> None:
    with pytest.raises(UserError, match=r"^PODRACER_JOURNAL_KEY: signed no entry of this journal"):
        verify(path, [OTHER])
    with pytest.raises(UserError, match=r"no such file"):
        verify(path.with_name("nothing.db"), [KEY])


def test_the_desk_may_go_on_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal:
        bar(journal, 0)

        def trade() -> None:
            for number in range(1, 60):
                bar(journal, number)

        thread = threading.Thread(target=trade)
        thread.start()
        reports = []
        while thread.is_alive():
            reports.append(verify(path, [KEY]))
        assert [report.problems for report in reports] == [[]] * len(reports) != []
        assert (verify(path, [KEY]).entries, verify(path, [KEY]).anchors) == (241, 60)


def test_it_holds_one_entry_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal:
        for _ in range(10):
            with journal.transition() as step:
                for number in range(300):
                    step.write("bar", [number, "x" * 2000])
    assert path.stat().st_size > 6_000_000
    verify(path, [KEY])
    tracemalloc.start()
    try:
        assert verify(path, [KEY]).entries == 3001
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
