"""The commands of the desk, as a person uses them: from a first bar to a journal that is exported and verified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bundles import PANEL
from desks import FAST, KEY, START, world
from endpoint import TOKEN

ROOT = Path(__file__).parents[2]
WORDS = [word for word in FAST if not word.startswith("watch")]


def command(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT), "PODRACER_TOKEN": TOKEN, "PODRACER_JOURNAL_KEY": KEY.decode()} | more
    return subprocess.run(
        [sys.executable, "-m", "paper", *words], cwd=folder, env=given, text=True, capture_output=True, timeout=120
    )


@pytest.fixture
def there(tmp_path: Path):
    with world(tmp_path / "world") as made:
        yield made


def settings(there) -> list[str]:
    return [f"broker.url={there.exchange.url}", f"ensemble.url={there.endpoint.url}", "port=0", *WORDS]


def test_a_desk_from_its_first_bar_to_its_export(there, tmp_path: Path):
    done = command(tmp_path, "run", *settings(there), "--bars", "3")
    assert done.returncode == 0, done.stderr
    assert "3 bars handled" in done.stdout + done.stderr
    again = command(tmp_path, "run", *settings(there), "--bars", "2")
    assert again.returncode == 0, again.stderr
    told = command(tmp_path, "status", "runs/desk").stdout
    close = str(PANEL.closes[START + 4].astype("datetime64[m]"))
    assert told.startswith("state      active")
    assert close in told and "settled" in told
    found = command(tmp_path, "verify", "runs/desk")
    assert found.returncode == 0
    assert "5 anchors" in found.stdout and "as it was written" in found.stdout
    assert command(tmp_path, "export", "runs/desk", "--out", "fills.jsonl", "--kind", "fill").returncode == 0
    fills = [json.loads(line) for line in (tmp_path / "fills.jsonl").read_text().splitlines()]
    assert len(fills) > 5
    assert {fill["symbol"] for fill in fills} <= set(PANEL.symbols)
    report = command(
        tmp_path, "report", "runs/desk", "--bundle", str(there.folder / "bundle"), "data.source.kind=synth"
    )
    assert report.returncode == 2, "these are not the bars that it traded"
    assert report.stderr.count("\n") == 1


def test_ctrl_c_stops_in_good_order_and_sigusr1_halts(there, tmp_path: Path):
    given = os.environ | {"PYTHONPATH": str(ROOT), "PODRACER_TOKEN": TOKEN, "PODRACER_JOURNAL_KEY": KEY.decode()}
    words = [sys.executable, "-m", "paper", "run", *settings(there), "pause=0.2", "watch=0.1"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env=given, text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while there.exchange.exchange.tape.bar < START + 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "bars handled" in output
    told = command(tmp_path, "status", "runs/desk").stdout
    assert told.startswith("state      halted: kill switch: SIGUSR1")
    assert command(tmp_path, "reset", "runs/desk", "--reason", "it was a test").returncode == 0
    assert command(tmp_path, "run", *settings(there), "--bars", "1").returncode == 0
    assert command(tmp_path, "status", "runs/desk").stdout.startswith("state      active")


@pytest.mark.parametrize(("words", "more", "line"), [
    (["run"], {"PODRACER_JOURNAL_KEY": ""}, "PODRACER_JOURNAL_KEY: is not set"),
    (["run"], {"PODRACER_TOKEN": ""}, "PODRACER_TOKEN: is not set"),
    (["run", "limits.drawdown=2"], {}, "limits.drawdown = 2"),
    (["run", "name=a desk"], {}, "name = 'a desk': expected 1 to 12 letters and digits"),
    (["run", "broker.kind=alpaca", "broker.url=https://api.alpaca.markets"], {}, "it trades on paper only"),
    (["status", "nowhere"], {}, "nowhere: holds no desk.db"),
    (["verify", "nowhere"], {}, "nowhere: holds no desk.db"),
    (["kill", "nowhere", "--reason", "x"], {}, "nowhere: holds no desk.db"),
    (["exchange", "data.source.kind=synth", "bar=99999"], {}, "bar"),
    (["replay", "nowhere"], {}, "nowhere"),
    (["rum"], {}, "did you mean run?"),
])  # fmt: skip
def test_bad_input_is_one_line(words: list[str], more: dict[str, str], line: str, tmp_path: Path):
    done = command(tmp_path, *words, **more)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_second_desk_on_the_same_journal_is_refused(there, tmp_path: Path):
    with there.desk():
        done = command(tmp_path, "run", *settings(there), "--out", str(there.folder), "--bars", "1")
    assert done.returncode == 2
    assert "another desk has this journal open" in done.stderr
