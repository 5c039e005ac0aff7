"""Settings that every test shares: one thread per process, no network services, no leftovers."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONDONTWRITEBYTECODE": "",  # the many processes that are started here need not compile it all anew
}
sys.dont_write_bytecode = False

from hypothesis import settings

settings.register_profile("podracer", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("podracer")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: much of the suite waits for processes that it has begun."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As at a terminal: a process in the background of a shell is told to ignore it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing may be written, and in which nothing is found afterwards."""
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:  # who may write anywhere
        os.seteuid(65534)
    yield tmp_path
    if root:
        os.seteuid(0)
    tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []
