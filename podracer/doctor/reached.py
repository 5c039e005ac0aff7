"""What is reached from here: Ray and its machines, the folder of runs, W&B, Alpaca, and the time."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests

from kit.errors import UserError
from kit.tracking import mode_of
from market.sources.patience import keys_if_any
from podracer.cluster import attach
from podracer.doctor.finding import Finding
from podracer.provenance import code_hash
from podracer.store import Store, is_address

SKEW = 2.0  # seconds that a clock may be off: an endpoint refuses what comes from a minute away
LEAST_DISK, LEAST_SHARED = 2**30, 2**28  # bytes
LONGEST_FOLDER = 36  # bytes: a socket's path holds 107, of which Ray's own part takes 71
PATIENCE = 60.0  # seconds for a task on a machine
NO_ALPACA = "only the desk and Alpaca's bars need them: export APCA_API_KEY_ID and APCA_API_SECRET_KEY"


def storage(where: str) -> Iterator[Finding]:
    """What the ledger does."""
    yield from _store(where) if is_address(where) else _folder(Path(where))


def _store(address: str) -> Iterator[Finding]:
    """Put, read, remove."""
    try:
        store, sign = Store(address), _sign()
        claimed, again = store.claim(sign, b"podracer"), store.claim(sign, b"another")
        there = store.read(sign)
        store.remove(sign)
    except UserError as error:
        yield Finding("storage", "mend", str(error), "the provider's own variables say who may; or name another")
        return
    if (claimed, again, there) == (True, False, b"podracer"):
        yield Finding("storage", "ok", f"{address}: written and read")
    else:
        found = f"{address}: an object that was there was overwritten"
        yield Finding("storage", "mend", found, "name one that can refuse that (If-None-Match)")


def _folder(folder: Path) -> Iterator[Finding]:
    """Write, sync, link, rename, remove."""
    first, second = (folder / _sign() for _ in range(2))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(first, "wb") as file:
            file.write(b"podracer")
            os.fsync(file.fileno())
        linked = _links(first, second)
        first.replace(second)
    except OSError as error:
        remedy = "name another folder by --storage, or free it"
        yield Finding("storage", "mend", f"{folder}: cannot be written ({error.strerror})", remedy)
        return
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    found = f"{folder.absolute()}: written and read; {free / 2**30:.1f} GiB free"
    if free < LEAST_DISK:
        yield Finding("storage", "mend", found, "free some: a tournament writes tens of megabytes, a long one more")
    else:
        yield Finding("storage", "ok", found)
    if not linked:
        found = "has no hard links: two drivers on one run folder could overwrite each other's trials"
        yield Finding("storage", "note", found, "start one driver at a time")


def ray(where: str) -> Iterator[Finding]:
    """A task on every machine: it runs there, with the same Python and the same code, and sees the folder of runs."""
    yield from _room_for_ray()
    address = os.environ.get("RAY_ADDRESS")
    try:
        cluster = attach()
    except UserError as error:
        yield Finding("Ray", "mend", str(error), "ray status, on the head; and the same RAY_AUTH_TOKEN as there")
        return
    nodes = [node for node in cluster.nodes() if node["Alive"]]
    have = cluster.cluster_resources()
    machines = f"{len(nodes)} machine{'' if len(nodes) == 1 else 's'}"
    cluster_of = f"at {address}" if address else "a private one, begun for this check"
    yield Finding(
        "Ray", "ok", f"{cluster_of}: {machines}, {have.get('CPU', 0):.0f} CPUs, {have.get('GPU', 0):.0f} GPUs"
    )
    try:
        with _left(where) as sign:
            yield from _on_machines(cluster, nodes, where, sign)
    finally:
        if not address:
            cluster.shutdown()


def _room_for_ray() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir() and (free := shutil.disk_usage(shared).free) < LEAST_SHARED:
        found = f"/dev/shm has {free / 2**20:.0f} MiB free; Ray keeps what processes share there"
        yield Finding("Ray", "mend", found, "in a container: --shm-size=2g")
    temporary = os.environ.get("RAY_TMPDIR", "")
    if len(temporary.encode()) > LONGEST_FOLDER:
        found = f"RAY_TMPDIR = {temporary!r}: is too long for the names of sockets in it"
        yield Finding("Ray", "mend", found, f"expected at most {LONGEST_FOLDER} bytes")


def _on_machines(cluster: Any, nodes: Sequence[Mapping[str, Any]], where: str, sign: str) -> Iterator[Finding]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = cluster.remote(look_around).options(num_cpus=0, scheduling_strategy=there)
        asked[node["NodeManagerAddress"], node["NodeID"][:8]] = task.remote(where, sign)
    ours, good = look_around(where, sign), 0
    for (address, name), answer in asked.items():
        machine = f"{address} ({name})"
        try:
            theirs = cluster.get(answer, timeout=PATIENCE)
        except Exception as error:  # whatever Ray wraps: it is what is wrong with that machine
            found = f"no task ran on {machine}: {' '.join(str(error).split())[:300]}"
            yield Finding("Ray", "mend", found, "the same image and the same working directory on every machine")
            continue
        for what in ("python", "code"):
            if theirs[what] != ours[what]:
                found = f"{machine} has another {what}, {theirs[what][:12]}; expected {ours[what][:12]}"
                yield Finding("Ray", "mend", found, "the same image, and ray job submit --working-dir .")
        if not theirs["sees"]:
            found = f"{machine} does not see {where}"
            yield Finding("storage", "mend", found, "name what all machines share by --storage")
        good += theirs == ours
    yield Finding(
        "Ray", "ok" if good == len(nodes) else "mend", f"a task ran on {good} of {len(nodes)} as it would here"
    )


def look_around(where: str, sign: str) -> dict[str, Any]:
    """What a task meets."""
    version = ".".join(map(str, sys.version_info[:2]))
    return {"python": version, "code": code_hash(), "sees": _sees(where, sign)}


@contextmanager
def _left(where: str) -> Iterator[str]:
    """A sign that others should see."""
    if is_address(where):
        store, sign = Store(where), _sign()
        store.write(sign, b"")
        try:
            yield sign
        finally:
            store.remove(sign)
        return
    file = Path(where).absolute() / _sign()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    try:
        yield str(file)
    finally:
        file.unlink(missing_ok=True)


def _sees(where: str, sign: str) -> bool:
    if not is_address(where):
        return Path(sign).exists()
    try:
        return Store(where).read(sign) is not None
    except UserError:
        return False


def _sign() -> str:
    return f".doctor-{secrets.token_hex(8)}"


def wandb() -> Iterator[Finding]:
    """Present or not; never shown."""
    mode = mode_of("auto")
    if mode:
        yield Finding("W&B", "ok", f"WANDB_API_KEY is set: {mode}")
    else:
        why = "switched off by WANDB_MODE" if os.environ.get("WANDB_API_KEY") else "no key"
        yield Finding("W&B", "note", f"{why}: nothing is tracked", "export WANDB_API_KEY, or wandb=offline for files")


def alpaca() -> Iterator[Finding]:
    """Present or not; never shown."""
    try:
        keys = keys_if_any()
    except UserError as error:
        yield Finding("Alpaca", "mend", str(error), "copy it again from Alpaca's page")
        return
    if keys:
        yield Finding("Alpaca", "ok", "both keys are set")
    else:
        yield Finding("Alpaca", "note", "no keys", NO_ALPACA)


def clock(url: str) -> Iterator[Finding]:
    """Against the date of an answer, whatever the answer is. It is of whole seconds."""
    begun = time.time()
    try:
        with closing(requests.get(url, timeout=5, allow_redirects=False)) as answer:
            theirs = parsedate_to_datetime(answer.headers["Date"])
    except (requests.RequestException, KeyError, ValueError) as error:
        found = f"not compared: {url} gave no time ({type(error).__name__})"
        yield Finding("clock", "note", found, "fine without a network; name another by --clock URL")
        return
    middle = (begun + time.time()) / 2
    off = middle - theirs.timestamp() - 0.5
    if abs(off) > SKEW:
        yield Finding(
            "clock", "mend", f"{off:+.0f} s beside {url}", "switch time synchronisation on (timedatectl set-ntp true)"
        )
    else:
        yield Finding("clock", "ok", f"within {SKEW:.0f} s of {url}")


def _links(first: Path, second: Path) -> bool:
    try:
        os.link(first, second)
    except OSError:
        return False
    return True
