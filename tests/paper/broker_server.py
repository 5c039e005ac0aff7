"""A loopback server that trades as Alpaca does: REST and order events, with scripted faults."""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from alpaca_server import KEY, SECRET
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

NOW = datetime(2024, 3, 1, 18, tzinfo=UTC)  # a Friday; 13:00 in New York
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
Json = dict[str, Any]


@dataclass
class Fault:
    """What comes in place of the answer; `after`: what was asked for is done all the same."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    hang: bool = False
    drop: bool = False


@dataclass
class BrokerServer:
    """The account, the market, and what the server was asked."""

    now: datetime = NOW
    cash: Decimal = Decimal(100_000)
    prices: dict[str, str] = field(default_factory=lambda: {"AAPL": "180.50", "MSFT": "410.25"})
    quotes: dict[str, Json] = field(default_factory=dict)
    assets: dict[str, Json] = field(default_factory=dict)  # beside those with prices
    positions: dict[str, Decimal] = field(default_factory=dict)
    orders: dict[str, Json] = field(default_factory=dict)  # by client order id, oldest first
    activities: list[Json] = field(default_factory=list)
    bars: dict[str, list[Json]] = field(default_factory=dict)
    bars_page: int = 10_000
    calendar: list[Json] = field(default_factory=list)
    account: Json = field(default_factory=dict)  # fields that differ from the usual
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # by "METHOD /path", answered first
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)  # method, path, query, body
    local: Json = field(default_factory=dict)  # the local exchange's clock
    streams: list[queue.Queue[str | None]] = field(default_factory=list)  # to each listener; None hangs up
    logins: int = 0
    url: str = ""
    stream_url: str = ""
    released: threading.Event = field(default_factory=threading.Event)  # ends what hangs

    def times_asked(self, route: str) -> int:
        return sum(f"{method} {path}" == route for method, path, _, _ in self.asked)

    def answer(self, method: str, path: str, headers: Any, query: dict[str, str], body: str) -> Fault:
        self.asked.append((method, path, query, body))
        fault = next(iter(self.faults.get(f"{method} {path}", [])), None)
        if fault:
            self.faults[f"{method} {path}"].pop(0)
        if fault is None or fault.after:
            status, found = self._route(method, path, headers, query, body)
            reply = Fault(status, "" if found is None else json.dumps(found))
        return fault or reply

    def _route(self, method: str, path: str, headers: Any, query: dict[str, str], body: str) -> tuple[int, Any]:
        if (headers["APCA-API-KEY-ID"], headers["APCA-API-SECRET-KEY"]) != (KEY, SECRET):
            return 401, {"code": 40110000, "message": "request is not authorized"}
        if path.startswith("/v2/orders/"):
            return self._cancel(path.removeprefix("/v2/orders/"))
        routes = {
            "GET /v2/account": lambda: self._account(),
            "GET /v2/account/activities": lambda: self._activities(query),
            "GET /v2/positions": lambda: [self._position(symbol) for symbol in self.positions],
            "GET /v2/clock": lambda: {"timestamp": self.now.isoformat(), "is_open": True},
            "GET /v2/calendar": lambda: [d for d in self.calendar if query["start"] <= d["date"] <= query["end"]],
            "GET /v2/assets": lambda: self._assets(query),
            "GET /v2/orders": lambda: self._open_orders(query),
            "GET /v2/orders:by_client_order_id": lambda: self.orders.get(query["client_order_id"]),
            "GET /v2/stocks/bars": lambda: self._bars(query),
            "GET /v1beta3/crypto/us/bars": lambda: self._bars(query),
            "GET /v2/stocks/trades/latest": lambda: self._trades(query),
            "GET /v2/stocks/quotes/latest": lambda: {"quotes": self._of(self.quotes, query) or None},
            "GET /v1beta3/crypto/us/latest/trades": lambda: self._trades(query),
            "GET /v1beta3/crypto/us/latest/quotes": lambda: {"quotes": self._of(self.quotes, query) or None},
            "GET /local/clock": lambda: self.local,
            "GET /local/observed": lambda: {"times": [query["start"]], "columns": {}},
        }
        if (method, path) == ("POST", "/v2/orders"):
            return self._book(json.loads(body))
        if (method, path) == ("POST", "/local/advance"):
            return 200, self._advance(json.loads(body))
        found = routes[f"{method} {path}"]() if f"{method} {path}" in routes else None
        return (200, found) if found is not None else (404, {"code": 40410000, "message": "not found"})

    # --- orders

    def _book(self, wanted: Json) -> tuple[int, Json]:
        id, symbol, quantity = wanted["client_order_id"], wanted["symbol"], Decimal(str(wanted["qty"]))
        if id in self.orders:
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        if symbol not in self.prices:
            return 422, {"code": 42210000, "message": f'asset "{symbol}" not found'}
        if quantity != quantity.quantize(Decimal("1e-9")):
            return 422, {"code": 42210000, "message": "qty is limited to 9 decimals"}
        if wanted["side"] == "buy" and quantity * Decimal(self.prices[symbol]) > self.cash:
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        at = (self.now + timedelta(milliseconds=len(self.orders))).isoformat()
        order = {
            "id": str(uuid.uuid4()), "client_order_id": id, "symbol": symbol, "asset_class": "us_equity",
            "qty": str(wanted["qty"]), "filled_qty": "0", "filled_avg_price": None, "side": wanted["side"],
            "type": wanted["type"], "time_in_force": wanted["time_in_force"], "status": "new",
            "created_at": at, "submitted_at": at,
        }  # fmt: skip
        self.orders[id] = order
        self.tell("new", order)
        return 200, order | {"status": "pending_new"}

    def fill(self, id: str, quantity: Decimal | None = None) -> None:
        """All that is left of it, or a part."""
        order = self.orders[id]
        before, price = Decimal(order["filled_qty"]), Decimal(self.prices[order["symbol"]])
        share = Decimal(order["qty"]) - before if quantity is None else quantity
        signed = share if order["side"] == "buy" else -share
        done = before + share == Decimal(order["qty"])
        order |= {
            "filled_qty": str(before + share),
            "filled_avg_price": str(price),
            "status": "filled" if done else "partially_filled",
        }
        self.positions[order["symbol"]] = self.positions.get(order["symbol"], Decimal(0)) + signed
        if not self.positions[order["symbol"]]:
            del self.positions[order["symbol"]]
        self.cash -= signed * price
        self.tell("fill" if done else "partial_fill", order)

    def fill_all(self) -> None:
        for id, order in self.orders.items():
            if order["status"] in ("new", "partially_filled"):
                self.fill(id)

    def _cancel(self, broker_id: str) -> tuple[int, Json | None]:
        order = next((order for order in self.orders.values() if order["id"] == broker_id), None)
        if order is None:
            return 404, {"code": 40410000, "message": "order not found"}
        if order["status"] in ("filled", "canceled"):
            return 422, {"code": 42210000, "message": f'order is already in "{order["status"]}" state'}
        order["status"] = "canceled"
        self.tell("canceled", order)
        return 204, None

    def _open_orders(self, query: dict[str, str]) -> list[Json]:
        after = datetime.fromisoformat(query["after"]) if "after" in query else datetime.min.replace(tzinfo=UTC)
        found = [o for o in self.orders.values() if o["status"] not in ("filled", "canceled", "expired", "rejected")]
        later = [order for order in found if datetime.fromisoformat(order["submitted_at"]) > after]
        in_order = sorted(later, key=lambda order: order["submitted_at"], reverse=query.get("direction") != "asc")
        return in_order[: int(query.get("limit", 50))]

    # --- account and market

    def _account(self) -> Json:
        held = sum((quantity * Decimal(self.prices[s]) for s, quantity in self.positions.items()), Decimal(0))
        return {
            "status": "ACTIVE", "cash": str(self.cash), "equity": str(self.cash + held), "buying_power": str(self.cash),
            "trading_blocked": False, "account_blocked": False, "trade_suspended_by_user": False,
        } | self.account  # fmt: skip

    def _position(self, symbol: str) -> Json:
        quantity = self.positions[symbol]
        side = "long" if quantity > 0 else "short"
        return {"symbol": symbol, "asset_class": "us_equity", "qty": str(quantity), "side": side} | {
            "avg_entry_price": self.prices[symbol]
        }

    def _activities(self, query: dict[str, str]) -> list[Json]:
        kind = query.get("category")
        found = [a for a in self.activities if kind is None or (a["activity_type"] == "FILL") == (kind != NON_TRADE)]
        if "page_token" in query:
            found = [activity for activity in found if activity["id"] > query["page_token"]]
        return found[: int(query["page_size"])]

    def _assets(self, query: dict[str, str]) -> list[Json]:
        every = [*map(asset, self.prices), *self.assets.values()]
        return [a for a in every if query.get("asset_class", a["class"]) == a["class"]]

    def _trades(self, query: dict[str, str]) -> Json:
        found = self._of(self.prices, query)
        return {"trades": {s: {"t": self.now.isoformat(), "p": float(price)} for s, price in found.items()} or None}

    def _of(self, known: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        return {symbol: known[symbol] for symbol in query["symbols"].split(",") if symbol in known}

    def _bars(self, query: dict[str, str]) -> Json:
        first, last = (datetime.fromisoformat(query[key]) for key in ("start", "end"))
        rows = [
            (symbol, bar)
            for symbol in sorted(query["symbols"].split(","))
            for bar in self.bars.get(symbol, [])
            if first <= datetime.fromisoformat(bar["t"]) <= last
        ]
        at = int(query.get("page_token", "0"))
        stop = at + min(int(query["limit"]), self.bars_page)
        by_symbol: dict[str, list[Json]] = {}
        for symbol, bar in rows[at:stop]:
            by_symbol.setdefault(symbol, []).append(bar)
        return {"bars": by_symbol or None, "next_page_token": str(stop) if stop < len(rows) else None}

    def _advance(self, told: Json) -> Json:
        if (told["bar"], told["stage"]) == (self.local["bar"], self.local["stage"]):
            closed = told["stage"] == "closed"
            self.local |= {"stage": "filled"} if closed else {"stage": "closed", "bar": told["bar"] + 1}
        return self.local

    # --- order events

    def tell(self, event: str, order: Json) -> None:
        data = {"event": event, "execution_id": str(uuid.uuid4()), "order": dict(order)}
        self.send(json.dumps({"stream": "trade_updates", "data": data}))

    def send(self, message: str | None) -> None:
        for stream in self.streams:
            stream.put(message)

    def hang_up(self) -> None:
        self.send(None)
        self.streams.clear()

    def follow(self, socket: Any) -> None:
        self.logins += 1
        keys = json.loads(socket.recv())["data"]
        status = "authorized" if (keys["key_id"], keys["secret_key"]) == (KEY, SECRET) else "unauthorized"
        socket.send(json.dumps({"stream": "authorization", "data": {"status": status, "action": "authenticate"}}))
        if status != "authorized":
            return
        messages: queue.Queue[str | None] = queue.Queue()
        wanted = json.loads(socket.recv())["data"]["streams"]
        self.streams.append(messages)
        socket.send(json.dumps({"stream": "listening", "data": {"streams": wanted}}))
        while (message := messages.get()) is not None:
            socket.send(message.encode())  # Alpaca's frames are binary


NON_TRADE = "non_trade_activity"


def asset(symbol: str) -> Json:
    return {"symbol": symbol, "status": "active", "tradable": True, "class": "us_equity"}


@contextmanager
def serving(server: BrokerServer) -> Iterator[BrokerServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            reply = server.answer(self.command, parts.path, self.headers, dict(parse_qsl(parts.query)), body)
            if reply.hang or reply.drop:
                if reply.hang:
                    server.released.wait()
                self.close_connection = True
                return
            text = reply.body.encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, *_: Any) -> None:
            pass

    class Web(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # who hangs up is served no more
                super().handle_error(request, client_address)

    def follow(socket: Any) -> None:
        try:
            server.follow(socket)
        except ConnectionClosed:
            return  # the listener went away

    web = Web(("127.0.0.1", 0), Handler)
    quiet = logging.getLogger(__name__)
    quiet.setLevel(logging.INFO)  # what leaks must be the client's
    events = serve(follow, "127.0.0.1", 0, logger=quiet)
    server.url = f"http://127.0.0.1:{web.server_port}"
    server.stream_url = f"ws://127.0.0.1:{events.socket.getsockname()[1]}/stream"
    threads = [threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)]
    threads.append(threading.Thread(target=events.serve_forever, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.hang_up()
        web.shutdown()
        web.server_close()
        events.shutdown()


def daily(first: str, days: int, price: float = 100.0) -> list[Json]:
    """Days in a row, as Alpaca labels them: midnight in New York, here 05:00 UTC."""
    start = datetime.fromisoformat(f"{first}T05:00:00Z")
    return [
        {"t": f"{start + timedelta(days=i):%Y-%m-%dT%H:%M:%SZ}", "o": price + i, "h": price + i + 2, "l": price + i - 2}
        | {"c": price + i + 1, "v": 1000 + i, "n": 10, "vw": price + i}
        for i in range(days)
    ]
