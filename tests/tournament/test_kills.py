"""Workers, nodes and the driver die at moments that nobody chose; the leaderboard is the same in the end."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from small import SMOKE, TINY, runner

from tournament.__main__ import main
from tournament.leaderboard import TIMING
from tournament.rounds import Tournament

ROOT = Path(__file__).parents[2]
MARK = "PODRACER_FAMILY"  # a variable that children inherit, and orphans keep
SETTINGS = [*TINY, "folds.count=3", "search.samples=0.004", "leak.self_test=false"]
PATIENCE = 150  # seconds that a single step may take


@dataclass
class Family:
    """The processes that descend from a test, whoever their parent is by now."""

    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def launch(self, *words: str | Path, **variables: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), MARK: self.mark, "RAY_USAGE_STATS_ENABLED": "0"}
        pipe = subprocess.PIPE
        command = [sys.executable, *map(str, words)]
        process = subprocess.Popen(
            command, env=environment | variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.children.append(process)
        return process

    def run(self, *words: str | Path, **variables: str) -> subprocess.Popen[str]:
        return self.launch("-m", "tournament", "run", *words, **variables)

    def members(self) -> list[int]:
        """Their numbers; the dead that nobody has buried have no environment."""
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [number for number in numbers if self.mark.encode() in read(number, "environ")]

    def kill(self) -> None:
        strike(*self.members())
        for child in self.children:
            child.communicate(timeout=30)


def read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # it is gone, or not ours
        return b""


def title(pid: int) -> bytes:
    return read(pid, "cmdline").replace(b"\0", b" ").strip()


def trains(pid: int) -> bool:
    """Ray names a process after the method that it runs."""
    return title(pid).startswith(b"ray::") and title(pid).endswith(b".train")


def parent(pid: int) -> int:
    fields = read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def strike(*pids: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What it answers, once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@contextmanager
def family() -> Iterator[Family]:
    """Nobody is left behind: what has not gone by itself is ended here."""
    made = Family()
    try:
        yield made
    finally:
        made.kill()
        wait_for(lambda: not made.members(), 30)


@pytest.fixture
def chance() -> random.Random:
    seed = time.time_ns()
    print(f"seed {seed}")
    return random.Random(seed)


def trials(folder: Path) -> int:
    return len(list(folder.glob("ledger/*.trial")))


def leaderboard(folder: Path) -> list[dict[str, Any]]:
    rows = json.loads((folder / "leaderboard.json").read_text())
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]


def ends_well(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, in this process."""
    folder = tmp_path_factory.mktemp("clean") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("tournament.run.Tournament", partial(Tournament, execute=runner()))
        assert main(["run", str(SMOKE), *SETTINGS, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_trial_changes_nothing(
    clean: Path, tmp_path: Path, chance: random.Random
) -> None:
    folder, before = tmp_path / "run", chance.randrange(trials(clean) - 2)
    with family() as ours:
        process = ours.run(SMOKE, *SETTINGS, "execution.workers=2", "--out", folder)
        wait_for(lambda: trials(folder) >= before or process.poll() is not None)
        victim = wait_for(lambda: [pid for pid in ours.members() if trains(pid)])[0]
        strike(victim)
        ends_well(process)
        wait_for(lambda: not ours.members())  # by themselves
    assert len(list(folder.glob("tune/*/*/error.txt"))) == 1  # Tune knows of one death
    assert leaderboard(folder) == leaderboard(clean)


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
print(cluster.address, *(node.all_processes["raylet"][0].process.pid for node in nodes), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on loopback
    "RAY_AUTH_MODE": "token",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
}


def test_one_of_three_nodes_that_dies_with_its_trials_changes_nothing(
    clean: Path, tmp_path: Path, chance: random.Random
) -> None:
    folder, before = tmp_path / "run", chance.randrange(trials(clean) // 2)
    private = PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with family() as ours:
        cluster = ours.launch("-c", CLUSTER, **private)
        assert cluster.stdout is not None
        address, *numbers = cluster.stdout.readline().split()
        raylets = [int(number) for number in numbers]  # the head has no room for a trial
        process = ours.run(SMOKE, *SETTINGS, "execution.workers=3", "--out", folder, RAY_ADDRESS=address, **private)

        def at_work() -> list[int]:
            """The nodes on which a trial trains at this moment."""
            return sorted({parent(pid) for pid in ours.members() if trains(pid)} & {*raylets})

        wait_for(lambda: trials(folder) >= before or process.poll() is not None)
        raylet = chance.choice(wait_for(at_work))
        strike(raylet, *(pid for pid in ours.members() if parent(pid) == raylet))
        ends_well(process)
        cluster.communicate(timeout=60)
        wait_for(lambda: not ours.members())
    assert list(folder.glob("tune/*/*/error.txt"))
    assert leaderboard(folder) == leaderboard(clean)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_five_times_changes_nothing(clean: Path, tmp_path: Path, chance: random.Random) -> None:
    folder = tmp_path / "run"
    moments = sorted(chance.randint(0, trials(clean)) for _ in range(5))
    with family() as ours:
        for before in moments:
            begun = (folder / "config.yaml").is_file()
            process = ours.run(*(["--resume", folder] if begun else [SMOKE, *SETTINGS, "--out", folder]))
            wait_for(lambda: trials(folder) >= before or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0, 6))
            strike(process.pid)
            process.communicate(timeout=30)
        ends_well(ours.run("--resume", folder))
    assert leaderboard(folder) == leaderboard(clean)
