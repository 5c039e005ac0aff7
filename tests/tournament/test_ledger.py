"""The ledger holds whole trials or none, keeps the first, and says the same whatever happened on the way."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.candidate import Candidate
from envs.backtest import Track
from kit.config import build, to_dict
from kit.errors import BAD_INPUT, UserError, run_command
from kit.files import hash_json
from tournament import ledger as ledger_module
from tournament.ledger import Ledger, Record, TrialKey

CANDIDATE = to_dict(Candidate())
FORK = multiprocessing.get_context("fork")  # what is loaded need not be loaded again
DAYS = 40


def key(seed: int = 0, fold: str = "0:10 12:20 22:30") -> TrialKey:
    return TrialKey(
        candidate=Candidate().hash, seed=seed, fold=fold, start="", budget=1000, data="d" * 64, code="c" * 64
    )


def record(seed: int = 0, luck: int | None = None, days: int = DAYS, **changes: Any) -> Record:
    rng = np.random.default_rng(seed if luck is None else luck)
    facts: dict[str, Any] = {
        "key": key(seed),
        "candidate": CANDIDATE,
        "round": 1,
        "fold": 2,
        "status": "done",
        "chosen": 500,
        "trained": 1000,
        "history": np.array([[500.0, 1.25], [1000.0, np.nan]]),
        "dates": np.datetime64("2020-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D"),
        "returns": rng.normal(0, 0.01, days),
        "traded": rng.uniform(0, 1, days),
        "weights": rng.dirichlet(np.ones(4), days),
        "timing": {"train": 12.5},
    }
    return Record(**{**facts, **changes})


def failed(seed: int = 0, status: str = "crashed") -> Record:
    return Record(key(seed), CANDIDATE, status, 0, 1, reason="out of memory")


def same(one: Record, other: Record) -> bool:
    return one.hash == other.hash and one.timing == other.timing


def test_a_trial_comes_back_as_it_was_put(tmp_path: Path) -> None:
    put = record(parent="p" * 64, checkpoint="e" * 64)
    assert Ledger(tmp_path).put(put)
    back = Ledger(tmp_path).get(put.key)
    assert back is not None and same(back, put)
    assert back.key == put.key and build(Candidate, back.candidate) == Candidate()
    assert (back.round, back.fold, back.status, back.parent) == (1, 2, "done", "p" * 64)
    assert (back.chosen, back.trained, back.checkpoint) == (500, 1000, "e" * 64)
    for name, kind in (("dates", "M8[ns]"), ("returns", "f8"), ("traded", "f8"), ("weights", "f4"), ("history", "f8")):
        array = getattr(back, name)
        assert array.dtype == np.dtype(kind) and not array.flags.writeable
        np.testing.assert_array_equal(array, getattr(put, name))


@pytest.mark.parametrize("status", ["diverged", "leaked", "crashed"])
def test_a_failed_trial_is_finished_too(tmp_path: Path, status: str) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.put(failed(status=status))
    back = ledger.get(key())
    assert back is not None and (back.status, back.reason, len(back.returns)) == (status, "out of memory", 0)


def test_it_takes_a_track_as_the_backtest_makes_it() -> None:
    made = record()
    track = Track(made.dates, made.returns, made.weights, made.traded, {}, ("A", "B", "C"), 252.0)
    names = ("dates", "returns", "weights", "traded")
    assert record(**{name: getattr(track, name) for name in names}).hash == made.hash


def test_the_final_fit_is_done_without_a_track(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.put(Record(key(), CANDIDATE, "done", 1, 0, checkpoint="e" * 64))
    assert [(made.fold, len(made.dates), made.checkpoint) for made in ledger.records()] == [(0, 0, "e" * 64)]


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "not yet")
    assert ledger.get(key()) is None
    assert ledger.records() == []
    assert ledger.sealed(1, 1) is None
    assert not (tmp_path / "not yet").exists()


@pytest.mark.parametrize("name", ["candidate", "fold", "start", "data", "code", "seed", "budget"])
def test_every_part_of_the_key_tells_trials_apart(name: str) -> None:
    value = getattr(key(), name)
    other = replace(key(), **{name: value + 1 if isinstance(value, int) else value + "x"})
    assert other.hash != key().hash


def test_timing_is_no_part_of_the_result() -> None:
    assert record(timing={"train": 1.0}).hash == record(timing={}).hash


@pytest.mark.parametrize("name", ["history", "dates", "returns", "traded", "weights"])
def test_every_number_is_part_of_the_result(name: str) -> None:
    changed = getattr(record(), name).copy()
    changed.reshape(-1).view("u1")[0] ^= 1
    assert record(**{name: changed}).hash != record().hash


@pytest.mark.parametrize(("name", "value"), [("round", 5), ("fold", 3), ("chosen", 9), ("parent", "x"), ("trained", 9)])
def test_every_fact_is_part_of_the_result(name: str, value: object) -> None:
    assert record(**{name: value}).hash != record().hash


def test_a_record_owns_its_arrays() -> None:
    returns = np.full(DAYS, 0.01)
    made = record(returns=returns)
    returns[:] = 9.0
    assert made.returns.max() == 0.01


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"returns": np.full(DAYS, np.nan)}, "returns must be numbers"),
        ({"returns": np.zeros(DAYS - 1)}, "must have 40 rows"),
        ({"traded": np.zeros((DAYS, 1))}, "must have 40 rows"),
        ({"weights": np.zeros((DAYS + 1, 4))}, "must have 40 rows"),
        ({"history": np.zeros(2)}, r"history must be \[E, 2\]"),
        ({"days": 0}, "expected a track if status is done"),
        ({"reason": "why"}, "expected one unless status is done"),
        ({"status": "crashed"}, "expected one unless status is done"),
        ({"candidate": {}}, "key.candidate must be the hash of candidate"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        record(**changes)


@pytest.mark.parametrize("changes", [{"round": -1}, {"status": "unknown", "reason": "?"}, {"timing": {"train": "x"}}])
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Ledger(tmp_path).put(record(**changes))
    assert os.listdir(tmp_path) == []


def test_putting_it_again_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.put(record())
    before = {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)}
    assert not ledger.put(record(timing={"train": 99.0}))
    assert {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)} == before
    assert caplog.text == ""


def test_the_first_result_is_kept_and_another_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record(luck=1))
    with caplog.at_level(logging.WARNING):
        assert not ledger.put(record(luck=2))
    assert f"{key().hash}.trial: this trial was run again with another result; the first one is kept" in caplog.text
    assert [found.hash for found in ledger.records()] == [record(luck=1).hash]


@settings(max_examples=20)
@given(st.permutations(range(4)))
def test_the_order_of_completion_leaves_no_trace(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    for seed in order:
        Ledger(folder).put(record(seed))
    found = Ledger(folder).records()
    hashes = [made.key.hash for made in found]
    assert hashes == sorted(key(seed).hash for seed in range(4))
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == {
        f"{key(seed).hash}.trial": record(seed).encoded() for seed in range(4)
    }


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_the_folder_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    for seed in range(4):
        Ledger(tmp_path).put(record(seed))
    names = sorted(os.listdir(tmp_path), reverse=reverse)
    monkeypatch.setattr(os, "listdir", lambda folder: names)
    hashes = [made.key.hash for made in Ledger(tmp_path).records()]
    assert hashes == sorted(hashes) and len(hashes) == 4


def test_files_of_others_and_temporary_ones_are_ignored(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record())
    name = f"{key(1).hash}.trial"
    for other in (f".{name}.0123", f"{name}.part", f"{'E' * 64}.trial", f"{'e' * 63}.trial", f"{'e' * 64}.pt", "notes"):
        (tmp_path / other).write_bytes(b"half")
    assert len(ledger.records()) == 1


def test_a_second_look_reads_only_what_is_new(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record(0))
    first = ledger.records()
    (tmp_path / f"{key(0).hash}.trial").write_bytes(b"would be refused if it were read")
    ledger.put(record(1))
    assert {made.key.seed for made in ledger.records()} == {0, 1}
    assert any(made is first[0] for made in ledger.records())
    (tmp_path / f"{key(0).hash}.trial").unlink()
    assert {made.key.seed for made in ledger.records()} == {1}
    ledger.put(record(0, luck=7))
    assert {made.hash for made in ledger.records()} == {record(0, luck=7).hash, record(1).hash}


def test_damage_at_any_place_is_found_and_the_file_is_named(tmp_path: Path) -> None:
    Ledger(tmp_path).put(record(days=2))
    path = tmp_path / f"{key().hash}.trial"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(UserError) as caught:
            Ledger(tmp_path).records()
        assert str(caught.value).startswith(f"{path}: "), place
    for data in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\n", whole + whole):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"is damaged.* delete it, and it is made again"):
            Ledger(tmp_path).get(key())
    path.unlink()
    assert Ledger(tmp_path).put(record())


def test_a_trial_under_another_name_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).put(record(0))
    (tmp_path / f"{key(0).hash}.trial").rename(tmp_path / f"{key(1).hash}.trial")
    with pytest.raises(UserError, match=f"is the trial {key(0).hash}; expected the name"):
        Ledger(tmp_path).records()


def test_another_version_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ledger_module, "FORMAT", 2)
        Ledger(tmp_path).put(record())
        Ledger(tmp_path).seal(1, 1, {})
    with pytest.raises(UserError, match="format = 2: expected 1; another version wrote this run"):
        Ledger(tmp_path).records()
    with pytest.raises(UserError, match="format = 2: expected 1; another version wrote this run"):
        Ledger(tmp_path).sealed(1, 1)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]\n", b"{}\nnonsense", b'{"key": NaN}\n', b"pickle\x80\x04." + b"x" * 99]
)
def test_a_stamp_on_nonsense_is_one_line(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / f"{key().hash}.trial"
    path.write_bytes(ledger_module._stamped(body))
    with pytest.raises(UserError) as caught:
        Ledger(tmp_path).records()
    assert str(path) in str(caught.value)


def test_a_stamped_trial_with_an_unknown_fact_is_one_line(tmp_path: Path) -> None:
    body = record().encoded().partition(b"\n")[2]
    text, _, arrays = body.partition(b"\n")
    tree = json.dumps({**json.loads(text), "score": 1}).encode()
    path = tmp_path / f"{key().hash}.trial"
    path.write_bytes(ledger_module._stamped(tree + b"\n" + arrays))
    with pytest.raises(UserError, match="score = 1: unknown key"):
        Ledger(tmp_path).records()


@pytest.mark.parametrize("dates", [None, np.zeros(DAYS, "i4"), np.zeros((DAYS, 3), "i1"), np.zeros(DAYS + 1, "i8")])
def test_a_stamped_trial_without_a_track_is_one_line(tmp_path: Path, dates: np.ndarray | None) -> None:
    made = record()
    arrays = {name: getattr(made, name) for name in ("history", "returns", "traded", "weights")}
    if dates is not None:
        arrays["dates"] = dates
    text = made.encoded().split(b"\n")[1]
    path = tmp_path / f"{key().hash}.trial"
    path.write_bytes(ledger_module._stamped(text + b"\n" + safetensors.numpy.save(arrays)))
    with pytest.raises(UserError) as caught:
        Ledger(tmp_path).records()
    assert str(path) in str(caught.value)


# What happens to processes


def child(work: Callable[[], None]) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=work, daemon=True)
    process.start()
    return process


def test_a_writer_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    tried = range(400)

    def write() -> None:
        ledger = Ledger(tmp_path)
        for trial in tried:
            ledger.put(record(trial, days=500))
            ledger.seal(trial, 1, {"alive": [trial] * 500})

    kills, counts = 0, [0]
    while kills < 15 and counts[-1] < len(tried):
        process = child(write)
        while len(list(tmp_path.glob("*.trial"))) <= counts[-1] and process.is_alive():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        found = Ledger(tmp_path).records()  # refuses what is half written
        counts.append(len(found))
        assert counts[-1] > counts[-2]
        assert [made.hash for made in found] == [record(made.key.seed, days=500).hash for made in found]
        for trial in range(counts[-1] + 1):
            assert Ledger(tmp_path).sealed(trial, 1) in (None, {"alive": [trial] * 500})
    assert kills > 0


@pytest.mark.parametrize("what", ["trial", "seal", "checkpoint"])
def test_a_writer_killed_at_any_line_leaves_all_or_nothing(tmp_path: Path, what: str) -> None:
    made, content, weights = record(), {"alive": ["a", "b"]}, tmp_path / "checkpoint.pt"
    weights.write_bytes(b"weights")
    touching = {"keep", "_publish", "replacing", "write_bytes"}  # the functions that touch the disk

    def write(folder: Path) -> str | None:
        ledger = Ledger(folder)
        if what == "checkpoint":
            return ledger.keep(weights)
        ledger.put(made) if what == "trial" else ledger.seal(1, 1, content)
        return None

    def killed_after(lines: int, folder: Path) -> None:
        left = lines

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_name not in touching:
                return None
            left -= event == "line"
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        write(folder)

    def found(folder: Path) -> bool:
        ledger = Ledger(folder)
        if what == "trial":
            there: list[Any] = [one.hash for one in ledger.records()]
        elif what == "seal":
            there = [sealed] if (sealed := ledger.sealed(1, 1)) else []
        else:
            there = [file.read_bytes() for file in folder.glob("[!.]*.pt")]
        assert there in ([], [{"trial": made.hash, "seal": content, "checkpoint": b"weights"}[what]])
        return bool(there)

    outcomes = []
    for lines in range(10_000):
        folder = tmp_path / str(lines)
        process = child(lambda lines=lines, folder=folder: killed_after(lines, folder))
        process.join()
        outcomes.append(found(folder))
        write(folder)  # whatever was left lying about is in nobody's way
        assert found(folder)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert outcomes == sorted(outcomes) and outcomes[-1] and outcomes.count(False) > 10


@pytest.mark.parametrize("luck", [(1, 2), (1, 1)])
def test_of_two_writers_one_wins_and_readers_never_see_it_change(tmp_path: Path, luck: tuple[int, int]) -> None:
    rounds, barrier, wins = 30, FORK.Barrier(2), FORK.Array("i", 60)

    def write(number: int) -> None:
        logging.disable()
        ledger = Ledger(tmp_path)
        for trial in range(rounds):
            made = record(trial, luck=luck[number])
            barrier.wait(30)
            wins[2 * trial + number] = ledger.put(made)

    writers = [child(lambda number=number: write(number)) for number in (0, 1)]
    seen: dict[int, str] = {}
    while any(writer.is_alive() for writer in writers):
        for made in Ledger(tmp_path).records():
            assert seen.setdefault(made.key.seed, made.hash) == made.hash
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for made in Ledger(tmp_path).records():
        won = [wins[2 * made.key.seed + number] for number in (0, 1)]
        assert sum(won) == 1
        assert made.hash == record(made.key.seed, luck=luck[won.index(1)]).hash
    assert len(os.listdir(tmp_path)) == rounds


@pytest.mark.parametrize("what", ["trial", "seal", "checkpoint"])
def test_a_disk_without_room_is_one_line_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(bytes(9000))
    made, folder = record(days=500), tmp_path / "ledger"

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        ledger = Ledger(folder)
        acts = {
            "trial": lambda: ledger.put(made),
            "seal": lambda: ledger.seal(1, 1, {"alive": "x" * 9000}),
            "checkpoint": lambda: ledger.keep(checkpoint),
        }
        run_command(lambda: acts[what]() and None)

    process = child(write)
    process.join()
    error = capfd.readouterr().err
    assert process.exitcode == BAD_INPUT, error
    assert error.startswith(f"error: {folder}/") and error.count("\n") == 1
    assert os.listdir(folder) == []


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space") as caught:
        Ledger(tmp_path).put(record())
    assert str(caught.value.filename).startswith(str(tmp_path / f".{key().hash}"))
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_hard_links_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links")

    monkeypatch.setattr(os, "link", refuse)
    assert Ledger(tmp_path).put(record(luck=1))
    assert not Ledger(tmp_path).put(record(luck=2))
    assert [made.hash for made in Ledger(tmp_path).records()] == [record(luck=1).hash]
    assert os.listdir(tmp_path) == [f"{key().hash}.trial"]


def test_any_other_trouble_with_a_link_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "broken disk", str(source))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="broken disk"):
        Ledger(tmp_path).put(record())
    assert os.listdir(tmp_path) == []


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    Ledger(tmp_path).put(record())
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / f"{key().hash}.trial").stat().st_mode) == 0o666 & ~mask


# Checkpoints and seals


def test_a_checkpoint_lies_beside_under_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint.pt"
    source.write_bytes(b"weights")
    ledger = Ledger(tmp_path / "ledger")
    name = ledger.keep(source)
    before = ledger.checkpoint(name).stat()
    assert ledger.keep(source) == name
    assert ledger.checkpoint(name).stat().st_ino == before.st_ino  # not written again
    source.write_bytes(b"other weights of the same trial")
    assert ledger.keep(source) != name
    assert ledger.checkpoint(name).read_bytes() == b"weights"
    assert ledger.records() == []


def test_a_seal_says_what_was_decided(tmp_path: Path) -> None:
    content = {"alive": ["a", "b"], "score": 1.5, "leader": None}
    Ledger(tmp_path).seal(1, 2, content)
    before = (tmp_path / "round-1-rung-2.seal").read_bytes()
    assert Ledger(tmp_path).sealed(1, 2) == content
    assert Ledger(tmp_path).sealed(2, 1) is None
    Ledger(tmp_path).seal(1, 2, {"leader": None, "score": 1.5, "alive": ("a", "b")})
    assert (tmp_path / "round-1-rung-2.seal").read_bytes() == before


@pytest.mark.parametrize("content", [{"alive": ["b", "a"], "score": 1}, {"alive": ["a", "b"]}])
def test_a_seal_that_no_longer_follows_is_an_error(tmp_path: Path, content: dict[str, Any]) -> None:
    Ledger(tmp_path).seal(1, 2, {"alive": ["a", "b"], "score": 1})
    name = next(name for name in ("alive", "score") if content.get(name) != {"alive": ["a", "b"], "score": 1}[name])
    with pytest.raises(UserError, match=rf"round-1-rung-2.seal: {name} no longer follow from the ledger's trials"):
        Ledger(tmp_path).seal(1, 2, content)
    assert Ledger(tmp_path).sealed(1, 2) == {"alive": ["a", "b"], "score": 1}


def test_damage_to_a_seal_is_found_at_any_place(tmp_path: Path) -> None:
    Ledger(tmp_path).seal(1, 2, {"alive": ["a", "b"]})
    path = tmp_path / "round-1-rung-2.seal"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError) as caught:
            Ledger(tmp_path).sealed(1, 2)
        assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(whole)
    path.rename(tmp_path / "round-1-rung-3.seal")
    with pytest.raises(UserError, match="is the seal of another rung"):
        Ledger(tmp_path).sealed(1, 3)


def test_a_seal_without_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Ledger(tmp_path).seal(1, 1, {"score": float("nan")})
    assert os.listdir(tmp_path) == []


def test_the_key_is_hashed_as_json_says_it() -> None:
    assert key().hash == hash_json(to_dict(key()))
