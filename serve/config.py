"""How an endpoint behaves. Tokens are no settings: they come from the environment alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.config import setting
from kit.errors import UserError

TOKEN, ADMIN_TOKEN = "PODRACER_TOKEN", "PODRACER_ADMIN_TOKEN"
LEAST_TOKEN = 16  # characters
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class EndpointConfig:
    """What every replica is told."""

    registry: Path = setting(Path("runs/registry"), help="the folder of versions; every replica must reach it")
    freshness: Literal["strict", "request"] = setting(
        "strict", help="strict: asked_at is the server's time, to a minute; request: any time, for replays"
    )
    max_age: float = setting(96.0, above=0, help="hours from the last bar's close to asked_at, weekends included")
    body_limit: int = setting(16 << 20, low=1 << 10, help="bytes of a request's body")
    timeout: float = setting(5.0, above=0, help="seconds until an answer is given up")
    queue: int = setting(64, low=1, help="requests that may wait in a replica; more are told to come again")
    batch: int = setting(
        1, low=1, help="requests decided in one pass, at most; 1: each by itself, which is faster alone"
    )
    batch_wait: float = setting(0.002, low=0, help="seconds that a request waits for others")
    docs: bool = setting(False, help="a page that describes the interface, at /docs")


@dataclass(frozen=True)
class ServeConfig:
    """Where an endpoint listens, and on how many processes."""

    endpoint: EndpointConfig = setting(EndpointConfig())
    host: str = setting("127.0.0.1", help="what to listen on; others than loopback need TLS in front")
    port: int = setting(8000, low=0, high=65535)
    replicas: int = setting(2, low=1, help="with two, one may die or load without anybody noticing")
    fast: bool = setting(True, help="Ray Serve's HAProxy and throughput mode; off: its own proxy, several times slower")


def tokens() -> tuple[str, str]:
    """That of callers, and that of administrators (empty: nobody is one)."""
    found = []
    for name in (TOKEN, ADMIN_TOKEN):
        value = os.environ.get(name, "")
        if value and (len(value) < LEAST_TOKEN or not value.isascii() or not value.isprintable() or " " in value):
            raise UserError(f"{name}: has {len(value)} characters; expected {LEAST_TOKEN} or more, letters and digits")
        found.append(value)
    token, admin = found
    if not token:
        make = "python -c 'import secrets; print(secrets.token_urlsafe())'"
        raise UserError(f"{TOKEN}: is not set; expected a secret that callers show, e.g. export {TOKEN}=$({make})")
    if token == admin:
        raise UserError(f"{ADMIN_TOKEN}: is that of callers; expected another one")
    return token, admin
