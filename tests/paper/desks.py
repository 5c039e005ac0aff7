"""Desks for tests: a real endpoint and a real exchange over HTTP on loopback, and the desk between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bundles import PANEL
from endpoint import CAPITAL, TOKEN, Endpoint, bundle_of, serving
from exchanges import settings

from agents.bundle import Bundle
from agents.bundle import load as load_bundle
from kit.config import load
from market.panel import Panel
from market.sources.alpaca import SIZES
from paper.alpaca import LocalBroker
from paper.config import PaperConfig
from paper.deciding import Ensemble
from paper.desk import Desk
from paper.exchange.run import Running, running
from paper.guard import Guard
from paper.journal import Journal
from paper.observed import source_of
from paper.pace import Lockstep
from serve.client import Client
from serve.registry import Registry

KEY = b"a key of thirty-two bytes or more"
START = 40  # the first bar that is decided at: the look-back fits before it


@dataclass
class World:
    """What a desk lives in; desks come and go."""

    endpoint: Endpoint
    exchange: Running
    bundle: Bundle
    folder: Path
    alerts: list[tuple[str, str, str]] = field(default_factory=list)

    def config(self, *words: str) -> PaperConfig:
        given = [f"broker.url={self.exchange.url}", f"ensemble.url={self.endpoint.url}", *FAST, *words]
        return load(PaperConfig, None, given)

    @contextmanager
    def desk(
        self, *words: str, token: str = TOKEN, broker: Callable[[Any], Any] = lambda it: it, **hooks: Any
    ) -> Iterator[Desk]:
        """As `paper.run` puts it together."""
        config = self.config(*words)
        client = Client(config.ensemble.url, token, config.ensemble.deadline, config.ensemble.attempts)
        plain = LocalBroker(config.broker)  # type: ignore[arg-type]
        with Journal(self.folder / "desk.db", KEY, lambda: datetime.now(UTC)) as journal:
            desk = Desk(
                config,
                Ensemble.of(client.ensemble()),
                broker(plain),
                client,
                Lockstep(plain.local_clock, plain.advance),
                journal,
                Guard(journal, self.folder, self.alert),
                source_of(config.data, plain.observed),
                SIZES[config.broker.bar],
                self.alert,
                asked_at=lambda close: close.at,
                **hooks,
            )
            try:
                yield desk
            finally:
                plain.close()

    def alert(self, kind: str, level: str, text: str) -> None:
        self.alerts.append((kind, level, text))


FAST = ("data.observed.kind=broker", "data.gaps=1", "data.fresh=9", "data.patience=0", "orders.least=0", "watch=0.05",
        "orders.settle=0.4", "ensemble.attempts=1", "limits.var=null", "limits.turnover=null", "limits.per_name=null",
        "limits.collar=null")  # fmt: skip


@contextmanager
def world(
    folder: Path,
    kind: str = "softmax",
    panel: Panel = PANEL,
    start: int = START,
    registry: Registry | None = None,
    **exchange: Any,
) -> Iterator[World]:
    bundle = load_bundle(folder / "bundle") if (folder / "bundle").exists() else bundle_of(folder / "bundle", kind)
    given = {"trading": bundle.lens.trading, "bar": start, "cash": CAPITAL} | exchange
    with (
        serving({"champion": [folder / "bundle"]}, registry, max_age=1e9) as endpoint,
        running(settings(**given), panel) as exchanging,
    ):
        yield World(endpoint, exchanging, bundle, folder)
