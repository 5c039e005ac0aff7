"""A tournament submitted as a job, as to a cluster in the cloud: a real head of Ray's on loopback, with a token."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small import SMOKE, TINY

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "node-manager-port",
         "object-manager-port", "metrics-export-port", "runtime-env-agent-port")  # fmt: skip


@dataclass
class Head:
    """`ray start --head --block`, which ends with all that it began."""

    folder: str
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    def __post_init__(self) -> None:
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.url = f"http://127.0.0.1:{self.ports['dashboard-port']}"
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_API_SERVER_ADDRESS": self.url,
            "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),  # a job's `python` is that of its head
        }
        options = [f"--{name}={port}" for name, port in self.ports.items()]
        place = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}"]
        words = [RAY, "start", "--head", "--block", "--num-cpus=2", *place, *options]
        self.process = subprocess.Popen(
            words, env=self.environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ray(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [RAY, *map(str, words)]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=200)

    def ready(self) -> bool:
        request = urllib.request.Request(f"{self.url}/api/version", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            return False

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for found in sockets:
        found.bind(("127.0.0.1", 0))
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


@pytest.fixture
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Head(folder)
        try:
            until = time.monotonic() + 90
            while not made.ready():
                assert made.process.poll() is None and time.monotonic() < until, "no head"
                time.sleep(0.2)
            yield made
        finally:
            made.end()


@pytest.mark.timeout(400)
def test_a_tournament_is_submitted_as_a_job_and_its_results_are_in_the_shared_folder(
    head: Head, tmp_path: Path
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.url}/api/jobs/", timeout=10)
    folder = tmp_path / "run"
    run = ["--", "python", "-m", "tournament", "run", SMOKE.relative_to(ROOT), *TINY, "--out", folder]
    done = head.ray("job", "submit", "--working-dir", ".", "--submission-id", "first", *run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hold-out unopened" in done.stdout or "than equal weight" in done.stdout
    assert len(json.loads((folder / "leaderboard.json").read_text())) == 4
    again = head.ray("job", "submit", "--working-dir", ".", "--submission-id", "first", *run)
    assert again.returncode != 0, "a submission id serves once"
    look = head.ray("job", "submit", "--working-dir", ".", "--", "python", "-m", "tournament", "leaderboard", folder)
    assert look.returncode == 0, look.stdout + look.stderr
