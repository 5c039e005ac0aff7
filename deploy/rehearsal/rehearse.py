"""Bring a cluster file up on this machine alone, take it through what may happen to it, and take it down.

    docker build -f deploy/Dockerfile -t podracer .
    sudo .venv/bin/python deploy/rehearsal/rehearse.py deploy/cluster-onprem.yaml
    sudo .venv/bin/python deploy/rehearsal/rehearse.py cluster.yaml      # EC2 is played by moto

Real are `ray up`, SSH, Docker, the image, Ray's autoscaler, the job and the tournament. The machines are three network
namespaces (hosts.py); they have no GPU, so it is the smoke tournament that runs. One machine dies under it, then the
head; another head goes on with it, and it must end with the leaderboard of a run that nothing happened to.

Needs root, Linux, iproute2, util-linux, sudo, rsync, and the programs of Docker's daemon and of OpenSSH's server; some
15 GB of disk at --folder, on a file system that overlays can write to. What it began ends with it.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from hosts import Amazon, Host, command, machines, until

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
SETTINGS = ["configs/smoke.yaml", "search.candidates=12", "search.samples=0.5", "execution.workers=4"]
TOURNAMENT = ["python", "-m", "tournament", "run", *SETTINGS]
PROGRAMS = ("ip", "nsenter", "unshare", "dockerd", "docker", "rsync", "sudo", "ssh", "sshd")
LOGGED = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\s+[A-Z]+ ")  # how Ray begins a line
RUN, URL = "/mnt/podracer/runs/first", "http://127.0.0.1:8265"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="cluster.yaml or deploy/cluster-onprem.yaml")
    parser.add_argument("--image", default="podracer", help="in Docker here (default: podracer)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the machines' disks lie")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is taken down then, too
    if os.geteuid():
        parser.error("only root may make namespaces")
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        parser.error(f"{', '.join(missing)}: not installed, or not on root's PATH")
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=words.folder) as made, ExitStack() as stack:
        folder = Path(made)
        folder.chmod(0o755)
        os.environ |= {"HOME": str(folder), "RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": URL}
        say("hosts", "three, each with the image")
        hosts = stack.enter_context(machines(3, folder, words.image))
        config = yaml.safe_load(words.file.read_text())
        amazon = stack.enter_context(Amazon(hosts)) if config["provider"]["type"] == "aws" else None
        adapt(config, words.image, hosts, amazon)
        file = folder / "cluster.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        rehearse(file, words.image, hosts, folder)
        if amazon:
            say("machines", ", ".join(amazon.seen))
    say("done", "and all taken down")


def adapt(config: dict[str, Any], image: str, hosts: list[Host], amazon: Amazon | None) -> None:
    """What is marked CHANGE, and what this machine lacks: limits that may be raised, a file system of Amazon's."""
    config |= {"cluster_name": "rehearsal", "idle_timeout_minutes": 1}
    docker = config["docker"]
    docker |= {"image": image, "pull_before_run": False}
    docker["run_options"] = [option for option in docker["run_options"] if "ulimit" not in option]
    if amazon:
        docker["run_options"] += [f"--env {name}={value}" for name, value in amazon.variables.items()]
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = amazon.image()
    else:
        key = Path.home() / "key"
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        for host in hosts:
            host.trust(key)
        head, *workers = [host.address for host in hosts]
        config["provider"] |= {"head_ip": head, "worker_ips": workers}
        config["auth"]["ssh_private_key"] = str(key)


def rehearse(file: Path, image: str, hosts: list[Host], folder: Path) -> None:
    """The tutorial's commands, with two deaths between them."""
    command(RAY, "get-auth-token", "--generate")
    head, *workers = hosts
    run = head.shared / "runs" / "first"

    def trials() -> int:
        return len(list(run.glob("ledger/*.trial")))

    up(file)
    try:
        with tunnel(file):
            say("doctor", last(job("python", "-m", "podracer", "doctor", "--storage", "/mnt/podracer/runs")))
            job(*TOURNAMENT, "--out", RUN, wait=False)
            until("a trial", trials, 300)
            victim = until("a worker", lambda: next((host for host in workers if host.serves), None), 60)
            say("kill", f"a machine, after {trials()} trials")
            victim.docker("kill", "podracer")
            killed = trials()
            until("trials after it", lambda: trials() > killed + 1, 300)
            say("kill", f"the head, after {trials()} trials")
            assert not (run / "result.json").exists(), "the tournament was over before that"
            head.docker("kill", "podracer")
        up(file)
        with tunnel(file):
            say("resume", f"with {trials()} trials in the ledger")
            job("python", "-m", "tournament", "run", "--resume", RUN)
        fetched = folder / "fetched"
        fetched.mkdir()
        command(RAY, "rsync-down", file, f"{RUN}/", f"{fetched}/")
    finally:
        assert "No nodes remaining" in command(RAY, "down", file, "--yes"), "a machine is left"
        say("ray down", "no machine is left")
    say("compare", "the same tournament in one container, without a cluster")
    mounts = ["--volume", "/mnt/podracer:/mnt/podracer", "--network", "host", "--shm-size", "4g"]
    head.docker("run", "--rm", *mounts, image, *TOURNAMENT, "--out", "/mnt/podracer/runs/alone")
    ours, alone = leaderboard(fetched), leaderboard(run.with_name("alone"))
    assert ours == alone, f"another leaderboard:\n{ours}\n{alone}"
    say("compare", f"the same leaderboard, {len(ours)} candidates")


def leaderboard(folder: Path) -> list[dict[str, str]]:
    """All of it but how long it took."""
    with open(folder / "leaderboard.csv", newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@contextmanager
def tunnel(file: Path) -> Iterator[None]:
    """The cluster's dashboard, and its jobs, at this machine's URL."""
    with subprocess.Popen([RAY, "dashboard", file], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until("the dashboard", lambda: not subprocess.run([RAY, "job", "list"], capture_output=True).returncode, 60)
            yield
        finally:
            process.terminate()


def up(file: Path) -> None:
    began = time.monotonic()
    command(RAY, "up", file, "--yes", "--no-config-cache")
    say("ray up", f"{time.monotonic() - began:.0f} s")


def job(*words: str, wait: bool = True) -> str:
    """Submit it, and wait for its end; what it wrote."""
    say("job", " ".join(words))
    return command(RAY, "job", "submit", "--working-dir", ROOT, *([] if wait else ["--no-wait"]), "--", *words)


def last(text: str) -> str:
    """The last line that says something, without Ray's own."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not LOGGED.match(line)]
    return (said or lines)[-1]


def say(what: str, text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what:9} {text}", flush=True)


if __name__ == "__main__":
    main()
