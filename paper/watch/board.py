"""The desk's page on loopback: what it does, live, and a button that stops it.

    GET  /              the page            GET  /events     server-sent events: `view` when it changes, `beat`
    GET  /view.json     what it shows       GET  /metrics    for Prometheus
    GET  /healthz       200: the desk speaks; 503: it does not, or not yet
    POST /kill, /reset  {"reason": "..."} with `Authorization: Bearer TOKEN`

Whoever reaches the port may look; only the token acts. A kill fails closed: with the right token it
kills, whatever its body. A reset is a wish that is passed on. `show` never waits and never raises,
and no client, however slow, holds up another, or the desk.
"""

from __future__ import annotations

import hmac
import io
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

from kit.errors import UserError
from paper.watch.alerts import LOOPBACK
from paper.watch.metrics import Metrics
from paper.watch.page import PAGE, POLICY
from paper.watch.view import View

LEAST_TOKEN = 16  # characters
SILENCE = 60.0  # seconds without a view after which the desk is not well
BEAT = 5.0  # seconds between signs of life
PAUSE = 0.25  # seconds between views, at least: a replay makes hundreds a second
PATIENCE = 5.0  # seconds for a request to come, and for an answer to leave
BODY = 4096  # bytes
REASON = 500  # letters
CLIENTS = 64  # connections at once
LISTENERS = 16  # of these, that may listen to events
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
log = logging.getLogger(__name__)


class Board:
    """Serves from threads of its own until `close`. `on_kill` and `on_reset` take a reason, and must not wait long."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        on_kill: Callable[[str], None],
        on_reset: Callable[[str], None],
        metrics: Metrics,
        silence: float = SILENCE,
    ) -> None:
        """Port 0: any that is free. The desk shows a view at least every `silence` seconds."""
        if host not in LOOPBACK:
            raise UserError(f"board.host = {host!r}: expected one of {', '.join(LOOPBACK)}")
        if len(token) < LEAST_TOKEN or not token.isascii():
            raise UserError(f"the board's token: has {len(token)} characters; expected {LEAST_TOKEN} or more, in ASCII")
        self.token, self.on_kill, self.on_reset, self.metrics, self.silence = token, on_kill, on_reset, metrics, silence
        self._changed = threading.Condition()
        self.closed = False
        self._count = 0  # of views that were shown
        self.view: View | None = None
        self._shown = time.monotonic()
        self._written: tuple[int, str] = (0, "null")
        self._writing = threading.Lock()
        self.listeners = threading.BoundedSemaphore(LISTENERS)
        try:
            self._server = _Server(host, port, self)
        except OSError as error:
            raise UserError(f"board.port = {port}: cannot listen on {host}: {error.strerror}; 0 takes any") from None
        self.port: int = self._server.server_address[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="board", daemon=True)
        self._thread.start()

    def show(self, view: View) -> None:
        with self._changed:
            self.view, self._shown = view, time.monotonic()
            self._count += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def age(self) -> float:
        """Seconds since the desk said something; before it did, since the start."""
        return time.monotonic() - self._shown

    def wait(self, seconds: float, seen: int | None = None) -> None:
        """Until the end, or until another view than the one `seen`."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or seen not in (None, self._count), seconds)

    def written(self) -> tuple[int, str]:
        """The count and the JSON of what is shown now: written once, however many ask."""
        with self._writing:
            with self._changed:
                count, view = self._count, self.view
            if view is not None and count != self._written[0]:
                self._written = count, view.to_json()
            return self._written


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = CLIENTS

    def __init__(self, host: str, port: int, board: Board) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.board = board
        self._places = threading.BoundedSemaphore(CLIENTS)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            return self.shutdown_request(request)
        return super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # who hangs up, or reads nothing, is served no more
            log.exception("the board cannot answer")


class _Until(io.RawIOBase):
    """Reads a connection until a time, however slowly it drips."""

    def __init__(self, connection: socket.socket, ends: float) -> None:
        self.connection, self.ends = connection, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long to come")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """Serves one request, and closes."""

    server: _Server
    server_version, sys_version = "podracer", ""

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Until(self.connection, time.monotonic() + PATIENCE))

    def do_GET(self) -> None:
        board, path = self.server.board, urlsplit(self.path).path
        if not self._from_here():
            return self._refuse(403, "this is served to this machine only")
        if path == "/":
            return self._answer(200, PAGE.encode(), "text/html; charset=utf-8")
        if path == "/view.json":
            return self._answer(200, board.written()[1].encode())
        if path == "/metrics":
            return self._answer(200, board.metrics.text(board.view, board.age), board.metrics.media_type)
        if path == "/healthz":
            return self._health(board)
        if path == "/events":
            return self._events(board)
        return self._refuse(404, "not here")

    def do_POST(self) -> None:
        board, path = self.server.board, urlsplit(self.path).path
        origin = self.headers.get("Origin")
        if not self._from_here() or origin not in (None, f"http://{self.headers['Host']}"):
            return self._refuse(403, "this is served to this machine's own page only")
        if path not in ("/kill", "/reset"):
            return self._refuse(404, "not here")
        reason = self._reason()
        shown = self.headers.get("Authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(shown, f"Bearer {board.token}".encode()):
            log.warning("%s on the board without the right token", path)
            return self._refuse(401, "the token is not right")
        if path == "/reset" and not reason:
            return self._refuse(422, 'a reset needs a reason: {"reason": "..."}')
        try:
            (board.on_kill if path == "/kill" else board.on_reset)(reason or "no reason was given")
        except Exception:  # whoever asked must hear that it was not done
            log.exception("%s on the board failed", path)
            return self._refuse(500, "it failed: see the desk's log")
        return self._answer(202, b'{"status": "passed on"}')

    def _from_here(self) -> bool:
        """Whether a name of this machine was asked for: a foreign one that leads here is somebody's trick."""
        try:
            return urlsplit(f"//{self.headers.get('Host', '')}").hostname in LOOPBACK
        except ValueError:
            return False

    def _reason(self) -> str:
        """What the body says; empty where it says nothing that can be read, whatever is wrong with it."""
        try:
            length = int(self.headers.get("Content-Length", 0))
            reason = json.loads(self.rfile.read(max(0, min(BODY, length))))["reason"]
        except (ValueError, TypeError, KeyError, RecursionError, OSError):
            return ""
        clean = "".join(letter if letter.isprintable() else " " for letter in reason) if isinstance(reason, str) else ""
        return " ".join(clean.split())[:REASON]

    def _health(self, board: Board) -> None:
        view, age = board.view, board.age
        well = view is not None and age < board.silence
        status = "ok" if well else "starting" if view is None else "silent"
        content = {"status": status, "state": view.state if view else None, "age": round(age, 1)}
        self._answer(200 if well else 503, json.dumps(content).encode())

    def _events(self, board: Board) -> None:
        if not board.listeners.acquire(blocking=False):
            return self._refuse(503, "too many listen already")
        try:
            self._start(200, "text/event-stream")
            self._listen(board)
        finally:
            board.listeners.release()
        return None

    def _listen(self, board: Board) -> None:
        seen = 0
        while not board.closed:
            count, text = board.written()
            if count != seen:
                seen = count
                self._send(f"event: view\ndata: {text}\n\n".encode())
                board.wait(PAUSE)
            beat = {"age": round(board.age, 1), "silence": board.silence}
            self._send(f"event: beat\ndata: {json.dumps(beat)}\n\n".encode())
            board.wait(BEAT, seen)

    def _start(self, status: int, media_type: str, length: int | None = None) -> None:
        self.connection.settimeout(PATIENCE)
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: int, content: bytes, media_type: str = "application/json") -> None:
        self._start(status, media_type, len(content))
        self._send(content)

    def _refuse(self, status: int, why: str) -> None:
        self._answer(status, json.dumps({"error": why}).encode())

    def _send(self, content: bytes) -> None:
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        log.debug(format, *values)
