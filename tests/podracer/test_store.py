"""An object store: whole objects, the first one stays, and what fails is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from buckets import bucket

from kit.errors import UserError
from podracer.doctor import reached
from podracer.store import Store, StoreError


@pytest.fixture(scope="module")
def runs() -> Iterator[str]:
    with bucket() as address:
        yield address


def test_what_is_put_is_there(runs: str) -> None:
    store = Store(f"{runs}/put/")
    assert store.names() == set()
    assert store.read("config.yaml") is None
    store.write("config.yaml", b"seed: 1")
    store.write("bundle/manifest.json", b"{}")
    assert store.names() == {"config.yaml", "bundle/manifest.json"}
    store.write("config.yaml", b"seed: 2")
    assert store.read("config.yaml") == b"seed: 2"
    store.remove("config.yaml")
    assert store.names() == {"bundle/manifest.json"}


def test_what_another_process_puts_is_seen_at_once(runs: str) -> None:
    ours, theirs = Store(f"{runs}/seen"), Store(f"{runs}/seen")
    assert ours.names() == set()
    theirs.write("a", b"1")
    assert ours.names() == {"a"}


def test_who_claims_a_name_first_keeps_it(runs: str) -> None:
    store = Store(f"{runs}/claimed")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.claim("trial", str(number).encode()), range(8)))
    assert won.count(True) == 1
    assert store.read("trial") == str(won.index(True)).encode()


def test_a_fetched_file_is_whole_or_absent(runs: str, tmp_path: Path) -> None:
    store = Store(f"{runs}/fetched")
    store.write("a/b", b"x" * 1000)
    assert store.fetch("a/b", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").read_bytes() == b"x" * 1000
    assert not store.fetch("a/c", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_bucket_that_is_not_there_is_one_line_and_the_machines_trouble(runs: str) -> None:
    store = Store("s3://elsewhere/runs")
    with pytest.raises(StoreError, match=r"s3://elsewhere/runs: .*expected a store that can be") as caught:
        store.write("a", b"1")
    assert isinstance(caught.value, OSError)  # not the candidate's: it may be tried again
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/mnt/runs", "is no address"),
        ("file:///mnt/runs", "a folder that all machines share needs none"),
        ("s3://bucket", "names no folder in a bucket"),
        ("s3://key:secret@bucket/runs", "the key in the environment"),
        ("nosuch://bucket/runs", "nosuch"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Store(address)
    assert "secret" not in str(caught.value)


def test_the_doctor_writes_and_reads_an_object_store(runs: str) -> None:
    assert [finding.state for finding in reached.storage(f"{runs}/doctor")] == ["ok"]
    assert Store(f"{runs}/doctor").names() == set()
    (found,) = reached.storage("s3://elsewhere/runs")
    assert found.state == "mend"
    assert "s3://elsewhere/runs" in found.found
