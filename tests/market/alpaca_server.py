"""A loopback server that answers like Alpaca's market data, pages and faults included."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd

from market.sources.patience import Clock

KEY, SECRET = "PKTESTTESTTESTTEST", "s3cr3ts3cr3ts3cr3ts3cr3t"
NOW = "2024-03-01T12:00"
PATHS = ("/v2/stocks/bars", "/v1beta3/crypto/us/bars")
Bar = dict[str, Any]


class FakeClock(Clock):
    """Stands still but for its sleeps, which it counts."""

    def __init__(self, now: str = NOW) -> None:
        self.at, self.slept = float(pd.Timestamp(now).timestamp()), list[float]()

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.at += seconds


@dataclass
class Reply:
    """One answer in place of the regular one. `cut` bytes of the body are promised and not sent."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: int = 0


@dataclass
class AlpacaServer:
    """What the service knows, and what it was asked."""

    bars: dict[str, list[Bar]]  # in order of time
    timeframe: str = "1Day"
    page: int = 10_000  # most bars of an answer, over all symbols
    splits: dict[str, float] = field(default_factory=dict)  # time: factor of all prices before it, when adjusted
    faults: list[Reply] = field(default_factory=list)  # answered first, in order
    fail_at: dict[int, Reply] = field(default_factory=dict)  # by the number of the request, from 1
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)  # ends what hangs

    def answer(self, path: str, headers: Any, query: dict[str, str]) -> Reply:
        self.asked.append({"path": path, **query})
        if self.faults:
            return self.faults.pop(0)
        if len(self.asked) in self.fail_at:
            return self.fail_at[len(self.asked)]
        if path not in PATHS:
            return Reply(404, '{"message": "endpoint not found."}')
        given = (headers["APCA-API-KEY-ID"], headers["APCA-API-SECRET-KEY"])
        if given != (KEY, SECRET) and (path == PATHS[0] or given != (None, None)):
            return Reply(401, '{"code": 40110000, "message": "request is not authorized"}')
        if query["timeframe"] != self.timeframe:
            return Reply(400, f'{{"message": "invalid timeframe: {query["timeframe"]}"}}')
        return Reply(body=json.dumps(self._page(query)))

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        first, last = parse(query["start"]), parse(query["end"])
        adjusted = query.get("adjustment", "raw") != "raw"
        rows = [
            (symbol, self._adjust(bar) if adjusted else bar)
            for symbol in sorted(query["symbols"].split(","))
            for bar in self.bars.get(symbol, [])
            if first <= parse(bar["t"]) <= last
        ]
        at = int(query.get("page_token", "0"))
        stop = at + min(int(query["limit"]), self.page)
        by_symbol: dict[str, list[Bar]] = {}
        for symbol, bar in rows[at:stop]:
            by_symbol.setdefault(symbol, []).append(bar)
        return {"bars": by_symbol, "next_page_token": str(stop) if stop < len(rows) else None}

    def _adjust(self, bar: Bar) -> Bar:
        factor = math.prod([f for time, f in self.splits.items() if parse(bar["t"]) < parse(time)])
        return bar | {k: round(bar[k] * factor, 4) for k in ("o", "h", "l", "c", "vw") if k in bar}


@contextmanager
def serving(server: AlpacaServer) -> Iterator[AlpacaServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            reply = server.answer(parts.path, self.headers, dict(parse_qsl(parts.query)))
            if reply.hang:
                server.released.wait()
                self.close_connection = True
                return
            body = reply.body.encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + reply.cut))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection |= bool(reply.cut)

        def log_message(self, *_: Any) -> None:
            pass

    class Web(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # who hangs up is served no more
                super().handle_error(request, client_address)

    web = Web(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{web.server_port}"
    thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        web.shutdown()
        web.server_close()


@cache
def parse(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def make_bars(labels: pd.DatetimeIndex, price: float = 100.0) -> list[Bar]:
    """Bars at these times, each told from the others by its price."""
    utc = labels.tz_convert("UTC").strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        {"t": t, "o": c - 0.25, "h": c + 0.5, "l": c - 0.5, "c": c, "v": 1000 + i, "n": 10 + i, "vw": c - 0.125}
        for i, (t, c) in enumerate(zip(utc, price + 0.5 * np.arange(len(utc)), strict=True))
    ]


def daily(first: str, last: str, price: float = 100.0) -> list[Bar]:
    """Business days as Alpaca labels them: midnight in New York, that is 04:00 or 05:00 UTC."""
    return make_bars(pd.bdate_range(first, last, tz="America/New_York"), price)
