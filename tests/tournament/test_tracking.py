"""Weights & Biases, offline and for real; and that nothing it does can hold a tournament up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from outcomes import Made, made

from kit.tracking import FOLDER, LOG
from tournament import leaderboard
from tournament.tracking import Tracker, message, mode_of

BLOCK = 1 << 15
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Made:
    run = made(tmp_path_factory.mktemp("usual"))
    run.outcome.bundle.mkdir()
    (run.outcome.bundle / "manifest.json").write_text("{}")
    return run


def entries(data: bytes) -> Iterator[bytes]:
    """Of a log as LevelDB writes it, in blocks of 32 kB, after 7 bytes of its own."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:  # padding
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of it, or the last part
            yield whole
            whole = b""


def logged(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What Weights & Biases has written down, by the name of the run."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        records, name = list[dict[str, Any]](), ""
        for data in entries(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                run = record.run
                name = run.display_name
                config = {item.key: json.loads(item.value_json) for item in run.config.update}
                records.append({"group": run.run_group, "id": run.run_id, "config": config})
            if record.HasField("history"):
                items = record.history.item
                records.append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
            if record.HasField("artifact"):
                files = [entry.path for entry in record.artifact.manifest.contents]
                records.append({"artifact": record.artifact.name, "files": files})
        found.setdefault(name, []).extend(records)
    return found


def test_offline_every_candidate_is_a_run_of_the_group(
    usual: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    tracker = Tracker("offline", tmp_path, "demo-1")
    records = [record for standing in usual.outcome.standings for (record,) in standing.records]
    for record in [*records, *records]:  # a second time is no news
        tracker.record(record)
    rows = leaderboard.rows(usual.outcome.standings, usual.arena)
    tracker.conclude(rows, {"outcome": "promising"}, usual.outcome.bundle)
    tracker.close()
    assert tracker.process.returncode == 0
    found = logged(tmp_path / FOLDER)
    scored = [standing for standing in usual.outcome.standings if standing.folds]
    assert set(found) == {"demo-1", *(standing.name for standing in scored)}
    for standing in scored:
        run, *history = found[standing.name]
        assert run["group"] == "demo-1" and run["id"] == f"demo-1-{standing.hash[:16]}"
        assert run["config"]["algorithm"]["kind"] == standing.entrant.candidate.algorithm.kind
        seed = standing.records[0][0].key.seed
        tests = [row for row in history if f"test/sharpe seed {seed}" in row]
        assert [row["fold"] for row in tests] == list(range(1, standing.folds + 1))
    whole = found["demo-1"]
    assert any("leaderboard" in ".".join(row) for row in whole)
    assert {"artifact": "demo-1-bundle", "files": ["manifest.json"]} in whole
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_a_fold_is_its_validation_curve_and_its_test_figures(usual: Made) -> None:
    (record,) = usual.outcome.standings[0].records[0]
    told = message(replace(record, history=[[10, 0.5], [20, float("nan")], [30, 0.7]]))
    assert told["curve"] == [[10, 0.5], [30, 0.7]]
    assert told["figures"]["samples"] == 20
    assert told["figures"]["return"] == pytest.approx((1 + record.returns).prod() - 1)
    failed = usual.outcome.standings[-1]
    assert not failed.records
    json.dumps(told, allow_nan=False)


HUNG = "import time; time.sleep(60)"
DEAD = "import sys; print('CommError: no such server'); sys.exit(1)"
MISSING = "import sys; sys.modules['wandb'] = None; from tournament.tracking import log, run_tracker; run_tracker(log)"


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        (HUNG, "did not end within 0.3 seconds and was stopped"),
        (DEAD, "CommError: no such server"),
        (MISSING, "wandb is not installed"),
    ],
)
def test_what_fails_or_hangs_is_one_warning(
    program: str, complaint: str, usual: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And much that nobody reads is no obstacle."""
    tracker = Tracker("online", tmp_path, "demo", (sys.executable, "-c", program))
    (record,) = usual.outcome.standings[0].records[0]
    for _ in range(500):  # far more than a pipe holds
        tracker.told.clear()
        tracker.record(record)
    tracker.close(0.3 if program == HUNG else 30.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: Weights & Biases") and complaint in line
    assert str(tmp_path / FOLDER / LOG) in line
    assert tracker.process.poll() is not None
    assert not tracker.thread.is_alive()


def test_a_warning_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    Tracker("online", tmp_path, "demo", (sys.executable, "-c", f"print('bad key {KEY}'); exit(1)")).close()
    complaint = capsys.readouterr().err
    assert "bad key" in complaint and KEY not in complaint


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        ("auto", {}, None),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, None),
        ("offline", {}, "offline"),
        ("offline", {"WANDB_API_KEY": KEY}, "offline"),
        ("disabled", {"WANDB_API_KEY": KEY}, None),
    ],
)
def test_it_goes_online_only_with_a_key_and_only_if_allowed(
    setting: str, environment: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert mode_of(setting) == expected
