"""Machines that are namespaces of this one, each with an address, an SSH server and a Docker daemon; and their EC2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BRIDGE, GATEWAY = "rehearsal", "10.77.0.1"
HOST = Path(__file__).with_name("host.sh")


def command(*words: object) -> str:
    """Run it; what it wrote. A failure shows what it wrote, too."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def until(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """Wait for it; the first value that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


class Host:
    def __init__(self, number: int, folder: Path, shared: Path) -> None:
        self.name, self.address = f"rehearsal{number}", f"10.77.0.{10 + number}"
        self.folder, self.shared = folder / self.name, shared
        self.keys = self.folder / "authorized_keys"

    def up(self, image: Path) -> None:
        """Begin it, with an image in its Docker."""
        self.folder.mkdir(parents=True)
        self.keys.touch()
        outside = f"v{self.name}"
        command("ip", "netns", "add", self.name)
        command("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        command("ip", "link", "set", outside, "master", BRIDGE, "up")
        command("ip", "-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            command("ip", "-n", self.name, "link", "set", device, "up")
        command("ip", "-n", self.name, "route", "add", "default", "via", GATEWAY)
        spaces = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--mount", "--pid", "--fork", "--mount-proc"]
        words = [*spaces, "--kill-child=SIGKILL", "sh", str(HOST), str(self.folder), str(self.shared)]
        with open(self.folder / "host.log", "w") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(f"Docker of {self.name}, {self.folder}/docker.log", self._ready, 60)
        self.docker("load", "--quiet", "--input", image)

    def _ready(self) -> bool:
        with suppress(RuntimeError):
            self.docker("info")
            return True
        return False

    def docker(self, *words: object) -> str:
        return command("docker", "--host", f"unix://{self.folder}/docker.sock", *words)

    @property
    def serves(self) -> bool:
        """Whether it has a container of the cluster."""
        return bool(self.docker("ps", "--quiet"))

    def trust(self, private: Path) -> None:
        """Let in whoever has this key."""
        public = command("ssh-keygen", "-y", "-f", private)
        if public not in self.keys.read_text():
            self.keys.write_text(self.keys.read_text() + public)

    def lend(self, *addresses: str) -> None:
        """Be at these addresses, too, and send from the last one."""
        for address in addresses:
            command("ip", "-n", self.name, "addr", "add", f"{address}/32", "dev", "eth0")
            command("ip", "route", "add", address, "dev", BRIDGE)
        command("ip", "-n", self.name, "route", "replace", "default", "via", GATEWAY, "src", addresses[-1])

    def take_back(self, *addresses: str) -> None:
        self.docker("rm", "--force", "podracer")
        for address in addresses:
            command("ip", "-n", self.name, "addr", "del", f"{address}/32", "dev", "eth0")
            command("ip", "route", "del", address, "dev", BRIDGE)

    def down(self) -> None:
        if hasattr(self, "process"):
            with suppress(RuntimeError):
                self.docker("rm", "--force", "podracer")
            self.process.kill()
            self.process.wait()
        for words in (["link", "del", f"v{self.name}"], ["netns", "del", self.name]):  # as far as they came about
            subprocess.run(["ip", *words], capture_output=True)


@contextmanager
def machines(count: int, folder: Path, image: str) -> Iterator[list[Host]]:
    """That many hosts on a network of their own, which see one folder as /mnt/podracer."""
    shared, archive = folder / "shared", folder / "image.tar"
    shared.mkdir(parents=True)
    os.chown(shared, 1000, 1000)
    command("docker", "save", "--output", archive, image)
    command("ip", "link", "add", BRIDGE, "type", "bridge")
    hosts = [Host(number, folder, shared) for number in range(count)]
    try:
        command("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        command("ip", "link", "set", BRIDGE, "up")
        for host in hosts:
            host.up(archive)
        archive.unlink()
        yield hosts
    finally:
        for host in hosts:
            host.down()
        command("ip", "link", "del", BRIDGE)


class Amazon:
    """EC2 and IAM played by moto; whatever machine is asked for is the next host that is free."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts, self.lent = hosts, dict[str, tuple[Host, list[str]]]()
        self.seen: list[str] = []  # kinds of machines, in the order in which they came
        self.url = f"http://{GATEWAY}:5555"
        self.variables = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def __enter__(self) -> Amazon:
        os.environ |= self.variables
        program = shutil.which("moto_server") or Path(sys.executable).with_name("moto_server")
        self.server = subprocess.Popen(
            [program, "-H", GATEWAY, "-p", "5555"],
            env=os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        import boto3  # reads the variables

        self.ec2 = boto3.client("ec2")
        until("moto", lambda: not self._failed(self.ec2.describe_instances), 30)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()
        return self

    @staticmethod
    def _failed(call: Callable[[], object]) -> bool:
        from botocore.exceptions import BotoCoreError

        try:
            call()
        except BotoCoreError:
            return True
        return False

    def image(self) -> str:
        """One that its catalogue has."""
        found = self.ec2.describe_images(Filters=[{"Name": "name", "Values": ["ubuntu/*"]}])["Images"]
        return found[0]["ImageId"]

    def _follow(self) -> None:
        while not self.ended.wait(1.0):
            found = [one for group in self.ec2.describe_instances()["Reservations"] for one in group["Instances"]]
            live = {one["InstanceId"]: one for one in found if one["State"]["Name"] in ("pending", "running")}
            for gone in set(self.lent) - set(live):
                host, addresses = self.lent.pop(gone)
                host.take_back(*addresses)
            busy = [host for host, _ in self.lent.values()]
            free = [host for host in self.hosts if host not in busy]
            for name, one in live.items():
                if name in self.lent or not free:
                    continue
                host, addresses = free.pop(0), [one["PublicIpAddress"], one["PrivateIpAddress"]]
                for key in Path.home().glob(".ssh/ray-autoscaler*.pem"):
                    host.trust(key)
                host.lend(*addresses)
                self.lent[name] = host, addresses
                self.seen.append(f"{one['InstanceType']} {one.get('InstanceLifecycle', 'on demand')}")

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.server.terminate()
        self.server.wait()
