"""A server on loopback that answers well, but for what it was told to do first."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from panels import random_panel

from serve.wire import Portfolio

TOKEN, ADMIN = "desk-t0ken.of~many/signs+==", "admin-t0ken-which-is-another"
VERSION = "0123456789ab"
PANEL = random_panel(3, bars=20, symbols=3)
PORTFOLIO = Portfolio(cash=1000.0, positions={"S001": 3.5}, peak_equity=1200.0)
ASKED_AT = datetime(2019, 2, 1, 21, 0, 5, 250_000, UTC)
Fault = Callable[["Handler"], None]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    address: tuple[str, int]


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_GET(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(Asked(self.command, self.path, dict(self.headers), self.content, self.client_address))
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault:
            fault(self)
        else:
            self.reply(200, self.good())

    do_POST = do_GET

    def good(self) -> Any:
        if self.path == "/v1/actions":
            return answer(json.loads(self.content))
        return {"version": VERSION, "members": 2}

    def reply(self, status: int, content: Any = None, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.start(status, len(data), **headers)
        self.wfile.write(data)

    def start(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Fault | None] = []
        self.asked: list[Asked] = []
        self.over = threading.Event()  # ends what hangs and drips
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def connections(self) -> int:
        return len({asked.address for asked in self.asked})

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # who hangs up is served no more
            super().handle_error(request, client_address)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """A sound answer: a tenth of each symbol, the rest in cash."""
    symbols = request["symbols"]
    weights, cash = dict.fromkeys(reversed(symbols), 0.1), 1 - 0.1 * len(symbols)
    return {
        "version": request.get("version", VERSION),
        "as_of": request["closes"][-1],
        "asked_at": request.get("asked_at", "2019-02-01T21:00:05.250000Z"),
        "weights": weights,
        "cash": cash,
        "ordered": {**weights, symbols[0]: 0.2},
        "ordered_cash": cash - 0.1,
        "members": [{"name": "a", "share": 1, "weights": weights, "cash": cash}],
        "dispersion": 0.05,
        "warnings": ["the last bar is old"],
        "milliseconds": 3.1,
    }


def problem(status: int, field: str = "", reason: str = "", **headers: str) -> Fault:
    details = {"type": "about:blank", "title": "No", "status": status, "detail": "not now", "reason": reason}
    content = details | ({"field": field} if field else {})
    return lambda handler: handler.reply(status, content, Content_Type="application/problem+json", **headers)


def changed(**changes: Any) -> Fault:
    """The good answer, but for these."""
    return lambda handler: handler.reply(200, handler.good() | changes)


def drop(handler: Handler) -> None:
    """Close without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def half(handler: Handler) -> None:
    data = json.dumps(handler.good()).encode()
    handler.start(200, len(data))
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    drop(handler)


def close_when_idle(handler: Handler) -> None:
    """Answer well, and close the connection without having said so."""
    handler.reply(200, handler.good())
    handler.close_connection = True


def hang(handler: Handler) -> None:
    handler.server.over.wait()
    handler.close_connection = True


def drip_content(handler: Handler) -> None:
    handler.start(200, 1000)
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b" ")


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")
