"""A real head of Ray's on loopback, with a token, that ends with all that it began."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
STARTS = 3
RAY = Path(sys.executable).with_name("ray")
PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "node-manager-port",
         "object-manager-port", "metrics-export-port", "runtime-env-agent-port")  # fmt: skip


@dataclass
class Head:
    """`ray start --head --block`."""

    folder: str
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    def __post_init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ports = dict(zip(PORTS, free_ports(len(PORTS))))
        self.address = f"127.0.0.1:{self.ports['port']}"
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

    def start(self, options: Sequence[str], variables: Mapping[str, str]) -> None:
        self.environment |= variables
        ports = [f"--{name}={port}" for name, port in self.ports.items()]
        place = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}"]
        command = [RAY, "start", "--head", "--block", *place, *ports, *options]
        for _ in range(STARTS):  # Ray gives up after half a minute, which a busy machine may need
            quiet = subprocess.DEVNULL
            self.process = subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=quiet, stderr=quiet)
            until = time.monotonic() + 90
            while self.process.poll() is None:
                if self._ready():
                    return
                assert time.monotonic() < until, "no head"
                time.sleep(0.2)
        raise AssertionError(f"no head, {STARTS} times")

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [*map(str, words)]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=200)

    def end(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def _ready(self) -> bool:
        request = urllib.request.Request(f"{self.url}/api/version", headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def head() -> Iterator[Head]:
    """Not started yet: its ports are known, and its folder is there."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Head(folder)
        try:
            yield made
        finally:
            made.end()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for found in sockets:
        found.bind(("127.0.0.1", 0))
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports
