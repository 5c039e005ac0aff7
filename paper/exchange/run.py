"""Serving a local exchange: as a process of its own, or in a thread beside a test."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from kit.errors import UserError
from market.panel import Panel
from paper.exchange.config import ExchangeConfig
from paper.exchange.core import Exchange
from paper.exchange.http import Api, Transports

log = logging.getLogger(__name__)

KEY, SECRET = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"  # in the environment
FOR_ANYONE = ("local", "local")  # where it names none: there is nothing to steal here


@dataclass(frozen=True)
class Running:
    url: str
    exchange: Exchange  # belongs to the server's thread

    @property
    def stream_url(self) -> str:
        return f"ws{self.url.removeprefix('http')}/stream"


def keys() -> tuple[str, str]:
    """What a client must give: those of the environment, or else those for anyone."""
    key, secret = os.environ.get(KEY, ""), os.environ.get(SECRET, "")
    return (key, secret) if key and secret else FOR_ANYONE


def serve_exchange(config: ExchangeConfig) -> None:
    """Until it is interrupted."""
    exchange = Exchange(config)
    with _listening(config) as listening:
        panel, tape = exchange.panel, exchange.tape
        log.info(
            "exchange at %s: %d symbols, bar %d of %d, %s",
            _address(listening), len(panel.symbols), tape.bar, len(panel),
            "in lock-step" if config.pace is None else f"{config.pace:g} s a bar",
        )  # fmt: skip
        _server(exchange).run(sockets=[listening])


@contextmanager
def running(config: ExchangeConfig, panel: Panel | None = None) -> Iterator[Running]:
    """In a thread, until the block ends; over `panel` rather than the configuration's data, if given."""
    exchange = Exchange(config, panel)
    with _listening(config) as listening:
        server = _server(exchange)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the exchange did not start")
            thread.join(0.002)
        try:
            yield Running(_address(listening), exchange)
        finally:
            server.should_exit = True
            thread.join()


def _server(exchange: Exchange) -> uvicorn.Server:
    transports = Transports()

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """Lets a fault close a connection without a word."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            transports[self.server, self.client] = transport

    return uvicorn.Server(
        uvicorn.Config(
            Api(exchange, keys(), transports).app(),
            http=Protocol,
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def _listening(config: ExchangeConfig) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Named as TCP, or else asyncio does not turn off Nagle's delay on what it accepts.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((config.host, config.port))
        except OSError as error:
            place = f"host = {config.host}, port = {config.port}"
            raise UserError(f"{place}: {error.strerror}; expected a free port of this machine, or 0") from None
        yield listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"
