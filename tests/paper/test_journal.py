"""A transition is on the disk as a whole or not at all, one driver has it at a time, no altered journal is opened."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import KEY, OTHER, attack, bar, clock, copied, opened, written

from kit.errors import UserError
from paper.chain import Anchor, anchors_beside, key_id, keys_from, read_state
from paper.journal import TAIL, Journal
from paper.verify import verify


def bodies(journal: Journal, *kinds: str) -> list[object]:
    return [entry.body for entry in journal.entries(kinds=kinds)]


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal:
        with journal.transition() as step:
            assert [step.write("start", {"run": "one"}), step.write("bar", [1, "AAA", None])] == [2, 3]
            step.set("halted", {"reason": "drawdown"})
        head = journal.head
    with opened(path) as journal:
        assert journal.head == head and head[0] == 3
        assert [entry.seq for entry in journal.entries()] == [1, 2, 3]
        assert bodies(journal, "start", "bar") == [{"run": "one"}, [1, "AAA", None]]
        assert journal.get("halted") == {"reason": "drawdown"}
        assert journal.get("never set", "nothing") == "nothing"
        with journal.transition() as step:
            assert step.write("bar", {}) == 4
    assert verify(path, [KEY]).ok


def test_signatures_as_worked_out_by_hand(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        with journal.transition() as step:
            step.write("fill", {"price": Decimal("1.50"), "id": "a"})
            step.set("cash", "9")
        first, second = journal.entries()
    value = hashlib.sha256(b'"9"').hexdigest()
    state = hashlib.sha256(f'{{"cash":"{value}"}}'.encode()).hexdigest()
    assert (second.at, second.text) == ("2026-01-05T14:30:02.000000+00:00", '{"id":"a","price":"1.50"}')
    message = json.dumps(["entry", first.mac, 2, second.at, "fill", second.text, state])
    assert second.state == state
    assert second.mac == hmac.new(KEY, message.encode(), "sha256").hexdigest()
    assert (first.kind, first.body) == ("key", {"id": key_id(KEY)})


def test_a_transition_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        bar(journal, 0)
        head, keys = journal.head, journal.keys()
        with pytest.raises(ZeroDivisionError), journal.transition() as step:
            step.write("order", {})
            step.set("bar", 1)
            step.remove("order/0")
            raise ZeroDivisionError
        assert (journal.head, journal.keys(), journal.get("bar")) == (head, keys, 0)
        bar(journal, 1)
    assert verify(journal.path, [KEY]).ok


def test_a_transition_sees_what_the_one_before_it_left(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        with journal.transition() as step:
            step.write("bar", 1)
            step.set("bar", 1)
            assert journal.get("bar") is None
        assert journal.get("bar") == 1


def test_a_transition_without_an_entry_is_none(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        head = journal.head
        with journal.transition():
            pass
        assert journal.head == head
        with pytest.raises(AssertionError, match="without an entry"), journal.transition() as step:
            step.set("bar", 1)
        assert (journal.head, journal.get("bar")) == (head, None)


def test_transitions_do_not_nest_and_end_with_their_block(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        with journal.transition() as step:
            step.write("outer", 1)
            with pytest.raises(AssertionError, match="within a transition"):
                journal.anchor()
        with pytest.raises(AssertionError):
            step.write("late", 1)
        assert bodies(journal, "outer", "late", "anchor") == [1]


@pytest.mark.parametrize("kind", ["anchor", "key", "", "Fill", "fill\n", "a b"])
def test_kinds_of_its_own_and_odd_ones_are_refused(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path / "desk.db") as journal, pytest.raises(AssertionError), journal.transition() as step:
        step.write(kind, {})


def test_state_is_set_removed_and_listed(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        with journal.transition() as step:
            step.write("start", {})
            for name in ("order/2", "order/1", "peak"):
                step.set(name, [name])
        assert journal.keys() == ["order/1", "order/2", "peak"]
        with journal.transition() as step:
            step.write("ended", {})
            step.remove("order/1")
            step.remove("not there")
            step.set("order/3", 3)
            step.remove("order/3")
        assert journal.keys("order/") == ["order/2"]
        journal.get("order/2").append("changed")
        assert journal.get("order/2") == ["order/2"]
        assert read_state(journal.path) == {"order/2": ["order/2"], "peak": ["peak"]}


@dataclass(frozen=True)
class Fill:
    symbol: str
    price: Decimal
    at: datetime


def test_amounts_are_exact_and_times_are_utc(tmp_path: Path) -> None:
    eastern = timezone(timedelta(hours=-5))
    with opened(tmp_path / "desk.db") as journal:
        with journal.transition() as step:
            step.write("fill", Fill("AAA", Decimal("0.100"), datetime(2026, 1, 5, 9, 30, tzinfo=eastern)))
            step.set("tiny", [Decimal("1E-9"), date(2026, 1, 5)])
        assert bodies(journal, "fill") == [
            {"symbol": "AAA", "price": "0.100", "at": "2026-01-05T14:30:00.000000+00:00"}
        ]
        assert journal.get("tiny") == ["0.000000001", "2026-01-05"]


@pytest.mark.parametrize("value", [math.nan, math.inf, Decimal("NaN"), Decimal("Infinity"), {1, 2}, object()])
def test_what_is_no_amount_is_refused(tmp_path: Path, value: object) -> None:
    with opened(tmp_path / "desk.db") as journal:
        head = journal.head
        for where in ("entry", "state"):
            with pytest.raises((ValueError, TypeError)), journal.transition() as step:
                step.write("fill", {"price": value if where == "entry" else "1"})
                step.set("price", value)
        assert (journal.head, journal.keys()) == (head, [])


def test_entries_are_chosen_by_number_and_kind(tmp_path: Path) -> None:
    with opened(written(tmp_path, bars=2)) as journal:
        assert [entry.seq for entry in journal.entries(after=6)] == [7, 8, 9]
        assert [entry.seq for entry in journal.entries(kinds=["anchor", "fill"])] == [4, 5, 8, 9]
        assert [entry.seq for entry in journal.entries(5, ["anchor"])] == [9]


def test_a_second_driver_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal:
        bar(journal, 0)
        with pytest.raises(UserError, match=r"desk\.db: another desk has this journal open"):
            opened(path)
        assert read_state(path)["bar"] == 0
        assert verify(path, [KEY]).ok
        bar(journal, 1)
    opened(path).close()


def test_a_closed_journal_is_not_written(tmp_path: Path) -> None:
    journal = opened(tmp_path / "desk.db")
    journal.close()
    with pytest.raises(UserError, match="was closed"), journal.transition() as step:
        step.write("bar", 1)
    with pytest.raises(UserError, match="was closed"):
        journal.anchor()


def test_threads_take_turns(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:

        def work(name: str) -> None:
            for number in range(25):
                with journal.transition() as step:
                    step.write("turn", [name, number])
                    step.set(name, number)
                    assert step.write("second", name) == journal.head[0] + 2

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.head[0] == 1 + 4 * 25 * 2
        turns = bodies(journal, "turn")
        assert all([turn for turn in turns if turn[0] == name] == [[name, n] for n in range(25)] for name in "abcd")
    assert verify(journal.path, [KEY]).ok


CHANGES = st.lists(
    st.dictionaries(st.sampled_from("abcde"), st.none() | st.integers() | st.text(max_size=3)), max_size=8
)


@settings(max_examples=25)
@given(transitions=CHANGES, restart=st.integers(0, 8))
def test_state_is_what_the_transitions_made_of_it(transitions: list[dict[str, object]], restart: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "desk.db", {}
        journal = opened(path)
        for number, changes in enumerate(transitions):
            if number == restart:
                journal.close()
                journal = opened(path)
            with journal.transition() as step:
                step.write("change", changes)
                for key, value in changes.items():
                    step.remove(key) if value is None else step.set(key, value)
            model = {key: value for key, value in {**model, **changes}.items() if value is not None}
            assert {key: journal.get(key) for key in journal.keys()} == model  # noqa: SIM118  a method
        journal.close()
        assert read_state(path) == model
        assert verify(path, [KEY]).ok


def test_an_anchor_tells_how_far_the_journal_has_come(tmp_path: Path) -> None:
    with opened(tmp_path / "desk.db") as journal:
        bar(journal, 0)
        anchor = journal.anchor()
        assert (anchor.number, (anchor.count, anchor.head)) == (2, journal.head)
        lines = anchors_beside(journal.path).read_text().splitlines(keepends=True)
        assert [Anchor.parse(line) for line in lines][1] == anchor
        assert anchor.genuine([KEY]) and not anchor.genuine([OTHER])


def test_anchors_lie_where_they_are_told_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "other disk" / "desk.anchors"
    with Journal(tmp_path / "desk.db", KEY, clock(), anchors=elsewhere) as journal:
        bar(journal, 0)
        bar(journal, 1)
    assert verify(tmp_path / "desk.db", [KEY], elsewhere).anchors == 2
    with pytest.raises(UserError, match="ends before anchor 2"):
        opened(tmp_path / "desk.db")


# --- keys


@pytest.mark.parametrize(("value", "words"), [(None, "not set"), ("", "not set"), ("short", "5 bytes long")])
def test_a_key_that_is_missing_or_short_is_refused_by_its_name(value: str | None, words: str) -> None:
    with pytest.raises(UserError, match=f"^PODRACER_JOURNAL_KEY: is {words}; expected 16 bytes or more"):
        keys_from({} if value is None else {"PODRACER_JOURNAL_KEY": value})


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    environ = {"PODRACER_JOURNAL_KEY": "k" * 16, "PODRACER_JOURNAL_KEYS_OLD": f"{'o' * 16} {'p' * 20}"}
    assert keys_from(environ) == (b"k" * 16, b"o" * 16, b"p" * 20)
    with pytest.raises(UserError, match=r"^PODRACER_JOURNAL_KEYS_OLD: is 3 bytes long"):
        keys_from({**environ, "PODRACER_JOURNAL_KEYS_OLD": "abc"})
    with pytest.raises(UserError, match=r"^PODRACER_JOURNAL_KEY: is 15 bytes long"):
        opened(tmp_path / "desk.db", b"k" * 15)
    assert list(tmp_path.iterdir()) == []


def test_no_key_is_in_any_file(tmp_path: Path) -> None:
    path = written(tmp_path)
    with opened(path, OTHER, (KEY,)) as journal:
        bar(journal, 5)
        files = [file.read_bytes() for file in tmp_path.iterdir()]
    assert len(files) >= 4
    for key in (KEY, OTHER):
        assert not any(text in file for file in files for text in (key, key.hex().encode(), repr(key).encode()))


def test_another_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^PODRACER_JOURNAL_KEY: is not the key that signed .*desk\.db") as caught:
        opened(written(tmp_path), OTHER)
    assert OTHER.decode() not in str(caught.value)


def test_a_new_key_is_named_under_the_old_one(tmp_path: Path) -> None:
    path = written(tmp_path, bars=2)
    with opened(path, OTHER, (KEY,)) as journal:
        assert next(journal.entries(9)).body == {"id": key_id(OTHER)}
        bar(journal, 2)
        head = journal.head
    assert verify(path, [OTHER, KEY]).ok
    with opened(path, OTHER, (KEY,)) as journal:  # once is enough
        assert journal.head == head
    with pytest.raises(UserError, match=f"signed by key {key_id(OTHER)}"):
        opened(path, KEY)
    with pytest.raises(UserError, match=f"signed by key {key_id(OTHER)}"):
        verify(path, [KEY])


def test_a_new_key_survives_a_kill_right_after_it_was_named(tmp_path: Path) -> None:
    path = written(tmp_path, bars=2)
    opened(path, OTHER, (KEY,)).close()  # the last entry is the old key's
    with opened(path, OTHER, (KEY,)) as journal:
        assert journal.head[0] == 10
        bar(journal, 2)
    with opened(path, KEY, (OTHER,)) as journal:  # and back
        bar(journal, 3)
    assert verify(path, [KEY, OTHER]).ok


def test_the_old_key_may_be_forgotten_when_it_is_far_behind(tmp_path: Path) -> None:
    path = written(tmp_path, bars=1)
    with opened(path, OTHER, (KEY,)) as journal:
        with journal.transition() as step:
            for number in range(TAIL):
                step.write("bar", number)
        journal.anchor()
    opened(path, OTHER).close()


# --- a journal that is not as it was left


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE journal SET body = '{}' WHERE seq = 12", "entry 12 is not what was written there"),
        ("UPDATE journal SET at = '2020-01-01' WHERE seq = 2", "entry 2 is not what"),
        ("DELETE FROM journal WHERE seq = 7", "entry 8 comes after a gap: 7 is missing"),
        ("DELETE FROM journal WHERE seq = 21", "ends at entry 20, before anchor 5"),
        (
            "INSERT INTO journal SELECT 22, at, kind, body, state, mac FROM journal WHERE seq = 21",
            "entry 22 is not what",
        ),
        ("UPDATE state SET value = '\"0\"' WHERE key = 'bar'", "the state is not what entry 21 left"),
        ("DELETE FROM state WHERE key = 'bar'", "the state is not what entry 21 left"),
        ("INSERT INTO state VALUES ('halted', 'false')", "the state is not what entry 21 left"),
        ("CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM state; END", "something was added"),
        ("ALTER TABLE state ADD COLUMN more TEXT", "something was added"),
        ("PRAGMA user_version = 2", "format = 2: expected 1"),
    ],
)
def test_an_altered_journal_is_not_opened(tmp_path: Path, statement: str, words: str) -> None:
    path = written(tmp_path)
    attack(path, statement)
    with pytest.raises(UserError, match=words):
        opened(path)


def test_the_tail_is_checked_and_what_is_before_it_is_left_to_verify(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal, journal.transition() as step:
        for number in range(TAIL + 10):
            step.write("bar", number)
    tail = copied(path, tmp_path / "tail")
    attack(tail, "UPDATE journal SET body = '0' WHERE seq = 12")
    with pytest.raises(UserError, match="entry 12 is not"):
        opened(tail)
    attack(path, "UPDATE journal SET body = '0' WHERE seq = 11")
    opened(path).close()
    assert [problem.seq for problem in verify(path, [KEY]).problems] == [11]


def test_an_older_copy_is_not_opened(tmp_path: Path) -> None:
    path = written(tmp_path / "a", bars=3)
    old = copied(path, tmp_path / "old")
    with opened(path) as journal:
        bar(journal, 3)
    shutil.copy(old, path)
    with pytest.raises(UserError, match="ends at entry 13, before anchor 4"):
        opened(path)


def test_a_journal_whose_file_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="ends at entry 0, before anchor 5"):
        opened(path)


def test_anchors_that_are_not_of_this_journal_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    file = anchors_beside(path)
    good = file.read_text()
    *others, last = good.splitlines(keepends=True)
    for text, words in [
        ("", "ends before anchor 5, which entry 21 set"),
        ("".join(others[:3]), "ends before anchor 5"),
        (good + last.replace('"number":5', '"number":6'), "before anchor 6"),
        (good.replace('"number":5', '"number": 5'), "is not that of entry 21"),
        (good + "nonsense\n", "is no anchor"),
        (good + "nonsense", "is cut off"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            opened(path)
    file.write_text(good)
    opened(path).close()


@pytest.mark.parametrize("rest", [0, 1, 100])
def test_a_kill_before_the_anchors_line_is_made_good(tmp_path: Path, rest: int) -> None:
    path = written(tmp_path)
    file = anchors_beside(path)
    whole = file.read_text()
    *lines, last = whole.splitlines(keepends=True)
    file.write_text("".join(lines) + last[:rest])
    assert verify(path, [KEY]).ok  # the desk may be about to write it
    opened(path).close()
    assert file.read_text() == whole


# --- a disk that does not do as it should


def test_a_folder_that_may_not_be_written_is_one_line(sealed: Path) -> None:
    with pytest.raises(UserError, match=r"desk\.db: cannot be opened \(Permission denied\)"):
        opened(sealed / "desk.db")


def test_a_file_that_is_no_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "desk.db").write_bytes(b"bars, not a journal" * 100)
    with pytest.raises(UserError, match=r"desk\.db: cannot be opened \(file is not a database\)"):
        opened(tmp_path / "desk.db")
    opened(tmp_path / "other.db").close()


def test_a_failure_to_anchor_ends_the_journal_and_the_next_start_makes_it_good(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    with opened(path) as journal:
        bar(journal, 0)
        kept = anchors_beside(path).rename(tmp_path / "kept")
        anchors_beside(path).mkdir()
        with pytest.raises(UserError, match=r"has no anchor \(Is a directory\)"):
            journal.anchor()
        with pytest.raises(UserError, match="could not be written"), journal.transition() as step:
            step.write("order", {})
        anchors_beside(path).rmdir()
        kept.rename(anchors_beside(path))
    with opened(path) as journal:
        assert journal.head[0] == 6
        bar(journal, 1)
    assert verify(path, [KEY]).ok


FILL_THE_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from journals import opened
from kit.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = opened(Path({path!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(10_000):
        with journal.transition() as step:
            step.write("first", number)
            step.set("number", number)
            step.write("second", "x" * 1000)
        confirmed = number
except UserError as error:
    print(confirmed, error)
"""


def test_a_full_disk_is_one_line_and_nothing_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "desk.db"
    tests = Path(__file__).parent
    script = FILL_THE_DISK.format(tests=str(tests), root=str(tests.parent.parent), path=str(path))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    confirmed, _, line = run.stdout.partition(" ")
    assert "desk.db: cannot be written (" in line and line.count("\n") == 1
    assert verify(path, [KEY]).ok
    with opened(path) as journal:
        assert journal.get("number") == int(confirmed)
        assert bodies(journal, "first") == list(range(int(confirmed) + 1))
        assert len(bodies(journal, "second")) == int(confirmed) + 1
        bar(journal, 0)
    assert verify(path, [KEY]).ok


def test_times_are_stored_in_utc(tmp_path: Path) -> None:
    with Journal(tmp_path / "desk.db", KEY, lambda: datetime(2026, 1, 5, 9, 30, tzinfo=UTC)) as journal:
        assert [entry.at for entry in journal.entries()] == ["2026-01-05T09:30:00.000000+00:00"]
