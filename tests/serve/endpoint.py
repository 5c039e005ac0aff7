"""A real endpoint for tests: small bundles, a request that fits them, and an HTTP server on a port of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import requests
import uvicorn
from bundles import PANEL, SHARED, lens_of, saved
from versions import clock

from agents.bundle import Bundle
from agents.networks import NetworkConfig
from envs.config import AllocationConfig, TradingConfig
from market.panel import FIELDS, Panel
from serve.config import EndpointConfig
from serve.http import create_app
from serve.registry import Registry
from serve.service import Service

TOKEN, ADMIN = "callers-t0ken-of-32-characters-ab", "admins-t0ken-which-is-another-one"
JSON = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
LOOKING = NetworkConfig("attention", "late", (8, 4), 4)  # back
NETWORKS = (SHARED, SHARED, LOOKING)  # two of one shape, and look-backs of 1 and 4
KINDS = ("softmax", "tilt", "long_short", "shares")
CAPITAL = 1e5
REPLAY: dict[str, Any] = {"freshness": "request"}  # requests may be about any time
SOON = np.timedelta64(5, "s")  # after a close


def bundle_of(folder: Path, kind: Any = "softmax", networks: Sequence[NetworkConfig] = NETWORKS, **more: Any) -> Bundle:
    """`more`: settings of the allocation."""
    trading = TradingConfig(AllocationConfig(kind, **more), capital=CAPITAL)
    return saved(folder, tuple(networks), lens_of(trading=trading))


# -- requests


@dataclass(frozen=True)
class Held:
    """A portfolio when asking."""

    cash: float = 1000.0
    positions: Mapping[str, float] = field(default_factory=dict)
    peak: float = 1e9


def request_of(panel: Panel, held: Held | None = None, **more: Any) -> dict[str, Any]:
    """What a caller would send, made without the project's own client."""
    held = held or Held()
    made = {
        "symbols": list(panel.symbols),
        "times": [moment(time) for time in panel.times],
        "closes": [moment(time) for time in panel.closes],
        **{name: grid(getattr(panel, name)) for name in FIELDS},
        "tradable": panel.tradable.T.tolist(),
        "observed": {
            name: {"values": grid(column.values), "known_at": [[moment(t) for t in row] for row in column.known_at.T]}
            for name, column in panel.observed.items()
        },
        "portfolio": {"cash": held.cash, "positions": dict(held.positions), "peak_equity": held.peak},
        "asked_at": moment(panel.closes[-1] + SOON),
    }
    return made | more


def grid(values: np.ndarray) -> list[list[float | None]]:  # [T, A]
    return [[None if value != value else value for value in row] for row in values.T.tolist()]


def moment(time: np.datetime64) -> str | None:
    return None if np.isnat(time) else f"{np.datetime_as_string(time, 's')}Z"


def request_at(bar: int, needed: int, held: Held | None = None, **more: Any) -> dict[str, Any]:
    return request_of(PANEL[bar + 1 - needed : bar + 1], held, **more)


def holdings(rng: np.random.Generator, close: np.ndarray, kind: str) -> Held:  # [A]
    """Random holdings of what is listed, worth about the capital."""
    listed = ~np.isnan(close)
    short = kind == "long_short"
    shares = np.where(listed, rng.uniform(-1.0 if short else 0.0, 1.0, len(close)), 0.0)
    shares *= 0.2 * CAPITAL / np.where(listed, close, 1.0)
    shares[rng.random(len(close)) < 0.3] = 0.0
    if kind == "shares":
        shares = np.floor(shares)
    positions = {symbol: float(n) for symbol, n in zip(PANEL.symbols, shares) if n}
    return Held(
        float(rng.uniform(0.8 if short else 0.0, 1.0) * CAPITAL), positions, float(rng.uniform(0.5, 2.0) * CAPITAL)
    )


def steady(bar: int = -1) -> Callable[[], datetime]:
    """A server's clock that stands still, soon after a bar's close."""
    now = (PANEL.closes[bar] + SOON).astype("datetime64[us]").item().replace(tzinfo=UTC)
    return lambda: now


NOW = steady()


def later(when: Callable[[], datetime], seconds: float) -> str:
    return (when() + timedelta(seconds=seconds)).isoformat()


# -- servers


@dataclass
class Endpoint:
    service: Service
    url: str
    shadowed: list[str]  # lines
    session: requests.Session = field(default_factory=requests.Session)

    def ask(self, body: Any, path: str = "/v1/actions", **headers: str) -> requests.Response:
        """A body of JSON, or of whatever bytes."""
        given = {"data": body} if isinstance(body, bytes) else {"json": body}
        return self.session.post(self.url + path, headers=JSON | headers, timeout=30, **given)

    def get(self, path: str, token: str = TOKEN) -> requests.Response:
        return self.session.get(self.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def needed(self) -> int:
        return self.service.now.champion.needed

    def good(self, bar: int = -1, **more: Any) -> dict[str, Any]:
        """A request that is answered, unless `more` spoils it."""
        return request_at(range(len(PANEL))[bar], self.needed(), **more)


@contextmanager
def serving_one(root: Path, **settings: Any) -> Iterator[Endpoint]:
    """A registry with a version, its champion."""
    bundle_of(root / "bundle")
    registry = Registry(root / "registry", clock())
    registry.register(root / "bundle", "ann")
    with serving({"champion": [root / "bundle"]}, registry, **settings) as running:
        yield running


@contextmanager
def serving(
    folders: Mapping[str, Sequence[Path]],
    registry: Registry | None = None,
    clock: Callable[[], datetime] = NOW,
    root_path: str = "",
    **settings: Any,
) -> Iterator[Endpoint]:
    """Folders of bundles by state; none: nothing is loaded."""
    shadowed: list[str] = []
    service = Service(EndpointConfig(**REPLAY | settings), shadowed.append, clock)
    if folders:
        assert service.load(folders), service.trouble
    app = create_app(service, registry, TOKEN, ADMIN)
    config = uvicorn.Config(
        app, port=0, root_path=root_path, log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    endpoint = Endpoint(service, f"http://127.0.0.1:{port}", shadowed)
    try:
        yield endpoint
    finally:
        endpoint.session.close()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def problem(response: requests.Response, status: int, field: str | None = None) -> str:
    """The one line that a refusal gives as its reason."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    tree = response.json()
    assert set(tree) == {"type", "title", "status", "detail", "field", "reason"}
    assert tree["status"] == status
    assert tree["type"] == "about:blank"
    assert tree["title"]
    assert field in (None, tree["field"]), tree
    assert tree["detail"] == (f"{tree['field']}: {tree['reason']}" if tree["field"] else tree["reason"])
    for text in (tree["detail"], tree["title"]):
        assert text.isprintable(), text
        assert "Traceback" not in text
    assert 0 < len(tree["reason"]) <= 300
    if status in (503, 504):
        assert int(response.headers["Retry-After"]) >= 1
    return str(tree["reason"])
