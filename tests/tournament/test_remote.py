"""A run in an object store: whoever finds it there goes on with it, on whatever machine."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import bucket
from small import SMOKE, TINY, Killed, here, runner

from kit.config import load
from kit.errors import UserError
from podracer.store import Store
from tournament.__main__ import main
from tournament.config import TournamentConfig
from tournament.leaderboard import TIMING
from tournament.ledger import Ledger


@pytest.fixture(scope="module")
def runs() -> Iterator[str]:
    with bucket() as address:
        yield address


def leaderboard(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def files(folder: Path) -> dict[str, bytes]:
    """But for what stays where it was made."""
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if not name.startswith(("tune/", "wandb/"))}


@pytest.fixture(scope="module")
def ended(runs: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that went through, and its address."""
    folder, address = tmp_path_factory.mktemp("ended") / "run", f"{runs}/ended"
    with pytest.MonkeyPatch.context() as monkeypatch:
        here(monkeypatch, runner())
        assert main(["run", str(SMOKE), *TINY, f"execution.storage={address}", "--out", str(folder)]) == 0
    return folder, address


def test_all_of_a_run_is_in_the_store(ended: tuple[Path, str]) -> None:
    folder, address = ended
    store = Store(address)
    assert {name: store.read(name) for name in store.names()} == files(folder)
    assert {"config.yaml", "origin.json", "result.json", "report.html", "bundle/manifest.json"} <= store.names()
    assert any(name.endswith(".trial") for name in store.names())


def test_a_run_fetched_elsewhere_is_the_same(ended: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = ended
    assert main(["fetch", address, str(tmp_path / "copy")]) == 0
    assert files(tmp_path / "copy") == files(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_run_whose_machine_is_lost_ends_on_another_as_if_nothing_had_been(
    ended: tuple[Path, str], runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, _ = ended
    jobs = random.SystemRandom().randrange(len(list(clean.glob("ledger/*.trial"))) - 1)
    print(f"killed after {jobs}")
    lost, found, address = tmp_path / "lost", tmp_path / "found", f"{runs}/lost"
    here(monkeypatch, runner(jobs=jobs))
    with pytest.raises(Killed):
        main(["run", str(SMOKE), *TINY, f"execution.storage={address}", "--out", str(lost)])
    shutil.rmtree(lost)
    assert main(["fetch", address, str(found)]) == 0
    assert len(list(found.glob("ledger/*.trial"))) == jobs
    here(monkeypatch, runner(jobs=len(list(clean.glob("ledger/*.trial"))) - jobs))  # none that was done is done again
    assert main(["run", "--resume", str(found)]) == 0
    assert leaderboard(found) == leaderboard(clean)
    assert files(found).keys() == files(clean).keys() == Store(address).names()


def test_a_run_that_began_without_a_store_may_move_to_one(
    ended: tuple[Path, str], runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = tmp_path / "run", f"{runs}/moved"
    here(monkeypatch, runner(jobs=3))
    with pytest.raises(Killed):
        main(["run", str(SMOKE), *TINY, "--out", str(folder)])
    here(monkeypatch, runner())
    assert main(["run", "--resume", str(folder), f"execution.storage={address}"]) == 0
    assert files(folder).keys() == Store(address).names()
    assert load(TournamentConfig, folder / "config.yaml").execution.storage == address
    assert leaderboard(folder) == leaderboard(ended[0])


def test_a_look_at_the_hold_out_is_in_the_store_before_it_is_taken(
    ended: tuple[Path, str], runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address = ended
    assert main(["fetch", address, str(tmp_path / "copy")]) == 0

    def cut_off(*given: object) -> None:
        raise Killed

    monkeypatch.setattr("tournament.final.backtest", cut_off)
    with pytest.raises(Killed):
        main(["final", str(tmp_path / "copy")])
    held = Store(address).read("openings.json")
    assert held is not None
    assert len(json.loads(held)["openings"]) == 1
    Store(address).remove("openings.json")


def test_a_finished_run_may_move_to_a_store(ended: tuple[Path, str], runs: str, tmp_path: Path) -> None:
    folder, address = ended
    copy, other = tmp_path / "copy", f"{runs}/other"
    assert main(["fetch", address, str(copy)]) == 0
    assert main(["run", "--resume", str(copy), f"execution.storage={other}"]) == 0
    assert Store(other).names() == files(copy).keys() == files(folder).keys()


def test_whoever_is_behind_undoes_nothing(ended: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = ended
    for name in ("ours", "theirs"):
        assert main(["fetch", address, str(tmp_path / name)]) == 0
    assert main(["final", str(tmp_path / "theirs")]) == 0
    before = {name: Store(address).read(name) for name in Store(address).names()}
    for command in ("final", "report"):
        with pytest.raises(UserError, match="is further on"):
            main([command, str(tmp_path / "ours")])
    assert {name: Store(address).read(name) for name in Store(address).names()} == before
    assert not (tmp_path / "ours" / "openings.json").exists()
    for name, data in files(folder).items():  # as it was, for the others
        Store(address).write(name, data)
    Store(address).remove("openings.json")


def test_a_finished_run_that_was_killed_before_its_last_files_were_put_is_put_whole(
    ended: tuple[Path, str],
) -> None:
    folder, address = ended
    for name in ("result.json", "report.html"):
        Store(address).remove(name)
    assert main(["run", "--resume", str(folder)]) == 0
    assert {name: Store(address).read(name) for name in Store(address).names()} == files(folder)


def test_a_network_that_comes_back_costs_nothing(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = Store(f"{runs}/patient"), iter([ConnectionError("away"), TimeoutError("away")])
    monkeypatch.setattr("podracer.store.PAUSES", (0.0, 0.0, 0.0))
    real = store.files.pipe_file

    def away(*given: Any, **named: Any) -> Any:
        for error in calls:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(store.files, "pipe_file", away)
    assert store.claim("trial", b"1")
    assert store.read("trial") == b"1"


def test_a_place_that_is_taken_is_refused_and_stays_as_it_was(
    ended: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = ended
    here(monkeypatch, runner())
    with pytest.raises(UserError, match="holds a run; expected an empty place"):
        main(["run", str(SMOKE), *TINY, "--seed", "5", f"execution.storage={address}", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run" / "config.yaml").exists()
    assert Store(address).read("config.yaml") == (folder / "config.yaml").read_bytes()


@pytest.mark.timeout(60)
def test_a_watch_ends_when_the_run_has_ended_elsewhere(
    ended: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address = ended
    copy = tmp_path / "copy"
    assert main(["fetch", address, str(copy)]) == 0
    (copy / "result.json").unlink()  # as one that was fetched before
    trial = next(copy.glob("ledger/*.trial"))
    trial.unlink()
    assert main(["leaderboard", str(copy), "--watch"]) == 0
    assert leaderboard(folder)[0]["hash"][:8] in capsys.readouterr().out
    assert trial.is_file()  # it came when it was asked for


def test_what_is_no_run_is_not_fetched(runs: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        main(["fetch", f"{runs}/nothing", str(tmp_path / "run")])
    assert not list(tmp_path.iterdir())


def test_a_key_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"execution\.storage: .*holds a key") as caught:
        main(["run", str(SMOKE), "execution.storage=s3://who:secret@bucket/runs", "--out", str(tmp_path / "run")])
    assert "secret" not in str(caught.value)


def test_the_first_writer_wins_across_machines(ended: tuple[Path, str], runs: str, tmp_path: Path) -> None:
    record = Ledger(ended[0] / "ledger").records()[0]
    ours, theirs = (Ledger(tmp_path / name, f"{runs}/two/ledger") for name in ("ours", "theirs"))
    assert theirs.get(record.key) is None
    assert ours.put(record)
    assert not theirs.put(record)
    (seen,) = theirs.records()
    assert seen.hash == record.hash
    ours.seal(1, 1, {"kept": ["a"]})
    assert theirs.sealed(1, 1) == {"kept": ["a"]}
    with pytest.raises(UserError, match="no longer follow"):
        theirs.seal(1, 1, {"kept": ["b"]})


def test_a_checkpoint_of_another_machine_is_fetched(runs: str, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint.pt"
    source.write_bytes(b"weights")
    ours, theirs = (Ledger(tmp_path / name, f"{runs}/kept/ledger") for name in ("ours", "theirs"))
    name = ours.keep(source)
    assert theirs.checkpoint(name).read_bytes() == b"weights"
