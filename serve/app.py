"""The service as a Ray Serve application. `user_config` names the versions; a new one is loaded without a gap."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve._private import replica

from kit.config import build
from kit.errors import UserError
from kit.log import set_up_logging
from kit.memory import keep_freed_memory
from serve.config import EndpointConfig, tokens
from serve.deploy import wanted
from serve.http import create_app
from serve.registry import Registry
from serve.service import Service

log = logging.getLogger(__name__)


@serve.deployment(name="Endpoint", num_replicas=2, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
@serve.ingress()
class Endpoint:
    """A replica: bundles loaded and verified once, one torch thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        set_up_logging()
        keep_freed_memory()
        close_the_back_door()
        self.config = build(EndpointConfig, settings, "endpoint")
        self.registry = Registry(self.config.registry)
        self.service = Service(self.config, Shadow(self.config.registry))

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(self.service, self.registry, *tokens())

    async def reconfigure(self, versions: dict[str, Sequence[str]]) -> None:
        """Versions by state; none: the registry's. Never raises: who cannot load serves on what it has, and says so."""
        await asyncio.to_thread(self._load, versions)

    def _load(self, versions: dict[str, Sequence[str]]) -> None:
        try:
            there = versions or wanted(self.registry)
            folders = {state: [self.registry.bundle_of(v) for v in these] for state, these in there.items()}
        except UserError as error:
            self.service.trouble = str(error)
            log.error("not loaded, what was served before is served on: %s", error)
            return
        self.service.load(folders)

    async def decide(self, body: bytes) -> str:
        """The same as a post to /v1/actions, for callers on the cluster."""
        return (await self.service.actions(body)).model_dump_json()

    def check_health(self) -> None:
        if self.service.versions is None:
            raise RuntimeError(self.service.trouble or "no version is loaded")


def close_the_back_door() -> None:
    """Every replica of Serve opens a port for calls of other deployments, pickled, to every interface and whoever asks.

    Here none is needed, as requests come over HTTP or through Ray itself; so it stays on this machine.
    """
    inner: Any = replica
    opened = inner.add_port_to_grpc_server
    inner.add_port_to_grpc_server = lambda server, address: opened(server, address.replace("[::]", "127.0.0.1"))


class Shadow:
    """A file a replica, so that nobody waits for anybody."""

    def __init__(self, registry: Path) -> None:
        self.file = registry / "shadow" / f"{time.time_ns()}-{os.getpid()}.jsonl"

    def __call__(self, line: str) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            log.error("%s: %s", self.file, error.strerror)


def application(settings: dict[str, Any]) -> serve.Application:
    """What serve/config.yaml names; its `args` are the settings."""
    return Endpoint.options(user_config={}).bind(settings)  # type: ignore[attr-defined]
