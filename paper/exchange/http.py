"""Alpaca's routes over one exchange, and the clock's own under /local.

What is read under /local needs no keys; everything else does, as at Alpaca.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from kit.config import build, to_dict
from kit.errors import UserError
from market.sources.times import parse_moment
from paper.exchange import shapes
from paper.exchange.book import Activity, Order, name
from paper.exchange.core import Exchange
from paper.exchange.faults import AFTER, UNKNOWN, Fault
from paper.exchange.stream import Hub, same_keys
from paper.exchange.tape import iso, moment, timeframe
from paper.exchange.ticket import Refusal, Ticket, forbidden, not_found, unprocessable

Connection = tuple[tuple[str, int], tuple[str, int]]  # our end, theirs
Transports = WeakValueDictionary[Connection, asyncio.Transport]
STOCKS, CRYPTO = "/v2/stocks", "/v1beta3/crypto/us"
FEW, MANY = 50, 500  # orders in a list: unless told otherwise, and at most
PAGE, LARGEST_PAGE = 1000, 10_000  # bars
ACTIVITIES = 100
MINUTE = 60
PAGE_502 = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
WORDS = {"429": "too many requests.", "500": "internal server error occurred", "504": "gateway timeout"}


class Ask(NamedTuple):
    query: Mapping[str, str]
    body: Any
    names: Mapping[str, str]  # in the path


class Raw(str):
    """JSON as text."""


Handler = Callable[[Ask], Any]


class Api:
    def __init__(self, exchange: Exchange, keys: tuple[str, str], transports: Transports) -> None:
        self.exchange, self.hub = exchange, Hub(exchange.script, keys)
        self._keys, self._transports = keys, transports
        self._limit = exchange.config.requests_per_minute
        self._minute, self._asked = 0, 0

    def app(self) -> Starlette:
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/v2/account", lambda _: shapes.account(self.exchange)),
            ("GET", "/v2/account/activities", self.activities),
            ("GET", "/v2/account/activities/{kind}", self.activities),
            ("GET", "/v2/positions", self.positions),
            ("GET", "/v2/positions/{symbol:path}", self.position),
            ("GET", "/v2/clock", self.clock),
            ("GET", "/v2/calendar", self.calendar),
            ("GET", "/v2/assets", self.assets),
            ("GET", "/v2/assets/{symbol:path}", self.asset),
            ("POST", "/v2/orders", self.submit),
            ("GET", "/v2/orders", self.orders),
            ("DELETE", "/v2/orders", self.cancel_all),
            ("GET", "/v2/orders:by_client_order_id", self.order_by_client_id),
            ("GET", "/v2/orders/{id}", self.order),
            ("DELETE", "/v2/orders/{id}", self.cancel),
            ("GET", "/local/clock", lambda _: self.local_clock()),
            ("POST", "/local/advance", self.advance),
            ("GET", "/local/observed", self.observed),
            ("GET", "/local/faults", lambda _: [to_dict(f) for f in self.exchange.script.faults]),
            ("POST", "/local/faults", self.add_faults),
            ("DELETE", "/local/faults", self.clear_faults),
        ]
        for data in (STOCKS, CRYPTO):
            newest = "{}/{}/latest" if data == STOCKS else "{}/latest/{}"
            handlers.append(("GET", f"{data}/bars", self.bars))
            handlers.append(("GET", newest.format(data, "bars"), self.latest_bars))
            handlers.append(("GET", newest.format(data, "quotes"), self.latest_quotes))
            handlers.append(("GET", newest.format(data, "trades"), self.latest_trades))
        routes: list[BaseRoute] = [Route(path, self._endpoint(run), methods=[method]) for method, path, run in handlers]
        routes.append(WebSocketRoute("/stream", self.hub.serve))
        errors = {404: _no_route, 405: _no_route}
        return Starlette(routes=routes, exception_handlers=errors, lifespan=self._living)

    # Trading

    def submit(self, ask: Ask) -> Any:
        order = self.exchange.submit(Ticket.read(ask.body))
        return shapes.order(order) | {"status": "pending_new", "filled_qty": "0", "filled_avg_price": None}

    def order(self, ask: Ask) -> Any:
        return self._shown(self._find(ask.names["id"]))

    def order_by_client_id(self, ask: Ask) -> Any:
        wanted = ask.query.get("client_order_id", "")
        if wanted not in self.exchange.book.by_client:
            raise not_found(f"order not found for {wanted}")
        return self._shown(self.exchange.book.by_client[wanted])

    def orders(self, ask: Ask) -> Any:
        query, book = ask.query, self.exchange.book
        status = query.get("status", "open")
        if status not in ("open", "closed", "all"):
            raise unprocessable("status must be open, closed or all")
        after, until = (_time(query[k]) if k in query else None for k in ("after", "until"))
        symbols = query["symbols"].split(",") if query.get("symbols") else None
        found = [
            order
            for order in (book.open if status == "open" else book.orders).values()
            if (status != "closed" or order.id not in book.open)
            and (after is None or order.created > after)
            and (until is None or order.created < until)
            and (symbols is None or order.symbol in symbols)
            and query.get("side", order.side) == order.side
        ]
        if query.get("direction", "desc") == "desc":
            found.reverse()
        return [self._shown(order) for order in found[: min(MANY, _count(query, "limit", FEW))]]

    def cancel(self, ask: Ask) -> Any:
        self.exchange.cancel(self._find(ask.names["id"]))

    def cancel_all(self, ask: Ask) -> Any:
        orders = list(self.exchange.book.open.values())
        for order in orders:
            self.exchange.cancel(order)
        return [{"id": order.id, "status": 200} for order in orders]

    def positions(self, ask: Ask) -> Any:
        return [shapes.position(self.exchange, s, held) for s, held in self.exchange.book.positions.items()]

    def position(self, ask: Ask) -> Any:
        symbol = self._symbol(ask.names["symbol"])
        if symbol not in self.exchange.book.positions:
            raise not_found("position does not exist")
        return shapes.position(self.exchange, symbol, self.exchange.book.positions[symbol])

    def activities(self, ask: Ask) -> Any:
        query = ask.query
        kinds = set(filter(None, (ask.names.get("kind") or query.get("activity_types", "")).split(",")))
        after, until = (_time(query[k]) if k in query else None for k in ("after", "until"))
        found = [
            done
            for done in self.exchange.book.activities
            if (not kinds or done.kind in kinds)
            and (after is None or done.at > after)
            and (until is None or done.at < until)
            and query.get("date", str(done.at.date())) == str(done.at.date())
            and _in_category(done, query.get("category"))
        ]
        if query.get("direction", "desc") == "desc":
            found.reverse()
        if token := query.get("page_token"):
            ids = [done.id for done in found]
            if token not in ids:
                raise unprocessable(f"page_token {token} is unknown")
            found = found[ids.index(token) + 1 :]
        return [shapes.activity(done) for done in found[: min(ACTIVITIES, _count(query, "page_size", ACTIVITIES))]]

    def clock(self, ask: Ask) -> Any:
        tape = self.exchange.tape
        said = tape.now + timedelta(seconds=self.exchange.script.skew)
        return {"timestamp": iso(said), **tape.sessions.at(tape.stage_time)}

    def calendar(self, ask: Ask) -> Any:
        return self.exchange.tape.calendar(ask.query.get("start", "")[:10], ask.query.get("end", "9999")[:10])

    def assets(self, ask: Ask) -> Any:
        wanted = ask.query.get("asset_class")
        found = [shapes.asset(self.exchange, s) for s in self.exchange.panel.symbols]
        return [a for a in found if wanted in (None, a["class"]) and ask.query.get("status", "active") == "active"]

    def asset(self, ask: Ask) -> Any:
        return shapes.asset(self.exchange, self._symbol(ask.names["symbol"]))

    # Market data

    def bars(self, ask: Ask) -> Any:
        query, tape = ask.query, self.exchange.tape
        if query.get("timeframe") != timeframe(tape.size):
            raise Refusal(400, 40010001, f"invalid timeframe: {query.get('timeframe')}, here is {timeframe(tape.size)}")
        day = tape.stage_time.astype("datetime64[D]").astype("datetime64[ns]")
        first = _moment(query["start"]) if query.get("start") else day
        last = _moment(query["end"]) if query.get("end") else tape.stage_time
        adjusted = query.get("adjustment", "raw") in ("split", "all")
        down = query.get("sort") == "desc"
        hidden = int(self.exchange.script.holds_back(tape.bar))
        limit = min(LARGEST_PAGE, _count(query, "limit", PAGE))
        start_symbol, _, start_time = query.get("page_token", "").partition("|")
        parts: list[str] = []
        token = None
        for symbol in self._known(query):
            if symbol < start_symbol:
                continue
            rows = tape.rows(symbol, first, last, hidden)[:: -1 if down else 1]
            if symbol == start_symbol:
                at = int(start_time) if start_time.isdigit() else 0
                rows = [t for t in rows if (t <= at if down else t >= at)]
            if rows and not limit:
                token = f"{symbol}|{rows[0]}"
                break
            if rows:
                texts = [tape.row(symbol, t, adjusted) for t in rows[:limit]]
                parts.append(f"{json.dumps(symbol)}: [{', '.join(texts)}]")
            if len(rows) > limit:
                token = f"{symbol}|{rows[limit]}"
                break
            limit -= len(rows)
        return Raw(f'{{"bars": {{{", ".join(parts)}}}, "next_page_token": {json.dumps(token)}}}')

    def latest_bars(self, ask: Ask) -> Any:
        tape = self.exchange.tape
        start = self.exchange.panel.times[0]
        rows = {s: tape.rows(s, start, tape.stage_time, 0)[-1:] for s in self._known(ask.query)}
        return {"bars": {s: json.loads(tape.row(s, t[0], False)) for s, t in rows.items() if t}}

    def latest_quotes(self, ask: Ask) -> Any:
        """Bid and ask are the newest price: what trading costs is in the fills."""
        found = {s: self.exchange.tape.quote(s) for s in self._known(ask.query)}
        sizes = {"as": 1, "bs": 1, "ax": "V", "bx": "V", "c": ["R"], "z": "C"}
        return {"quotes": {s: {"t": iso(q[1]), "ap": q[0], "bp": q[0], **sizes} for s, q in found.items() if q}}

    def latest_trades(self, ask: Ask) -> Any:
        found = {s: self.exchange.tape.quote(s) for s in self._known(ask.query)}
        more = {"s": 1, "x": "V", "i": 1, "c": ["@"], "z": "C"}
        return {"trades": {s: {"t": iso(q[1]), "p": q[0], **more} for s, q in found.items() if q}}

    # The clock

    def local_clock(self) -> Any:
        tape = self.exchange.tape
        panel = tape.panel
        return {
            "now": iso(tape.now),
            "bar": tape.bar,
            "stage": tape.stage,
            "bars": len(panel),
            "ended": tape.ended,
            "symbols": list(panel.symbols),
            "bars_per_year": panel.bars_per_year,
            "times": iso(panel.times[tape.bar]),
            "close": iso(panel.closes[tape.bar]),
        }

    def advance(self, ask: Ask) -> Any:
        if self.exchange.config.pace is not None:
            raise unprocessable("this clock moves by itself: pace is set")
        bar, stage = (ask.body.get(k) for k in ("bar", "stage")) if isinstance(ask.body, dict) else (None, None)
        if not isinstance(bar, int) or stage not in ("closed", "filled"):
            raise unprocessable('expected {"bar": NUMBER, "stage": "closed" or "filled"}')
        self.exchange.advance(bar, stage)
        return self.local_clock()

    def observed(self, ask: Ask) -> Any:
        """Columns of the bars that have closed, start <= time < stop: one list per symbol."""
        panel = self.exchange.panel
        closed = panel.times[: self.exchange.tape.bar + 1]
        low = np.searchsorted(closed, _moment(ask.query["start"])) if "start" in ask.query else 0
        high = np.searchsorted(closed, _moment(ask.query["stop"])) if "stop" in ask.query else len(closed)
        columns = {
            name: {
                "values": [[None if np.isnan(v) else float(v) for v in row] for row in column.values[low:high].T],
                "known_at": [[None if np.isnat(t) else iso(t) for t in row] for row in column.known_at[low:high].T],
            }
            for name, column in panel.observed.items()
        }
        return {"symbols": list(panel.symbols), "times": [iso(t) for t in closed[low:high]], "columns": columns}

    def add_faults(self, ask: Ask) -> Any:
        listed = ask.body if isinstance(ask.body, list) else [ask.body]
        try:
            self.exchange.go_wrong([build(Fault, fault, "faults") for fault in listed])
        except UserError as error:
            raise unprocessable(str(error)) from None
        return [to_dict(fault) for fault in self.exchange.script.faults]

    def clear_faults(self, ask: Ask) -> Any:
        self.exchange.script.clear()

    # How

    def _endpoint(self, run: Handler) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            path = request.url.path
            fault = None if path.startswith("/local/") else self.exchange.script.of_request(request.method, path)
            answer = None
            if fault is None or fault.after or fault.kind == "unknown_enum":
                answer = await self._answer(request, run)
                self.hub.publish(self._events())
                if self._waits_for_event(request):
                    await self.hub.flushed()
            return await self._spoilt(request, fault, answer) if fault else answer or Response(status_code=204)

        return endpoint

    async def _answer(self, request: Request, run: Handler) -> Response:
        headers: dict[str, str] = {}
        try:
            self._let_in(request)
            if self._limit and not request.url.path.startswith("/local/"):
                headers = self._count_request()
            content = await request.body()
            try:
                body = json.loads(content) if content else None
            except ValueError:
                raise Refusal(400, 40010000, "request body format is invalid") from None
            result, status = run(Ask(request.query_params, body, request.path_params)), 200
        except Refusal as refusal:
            result, status = refusal.body, refusal.status
            headers |= getattr(refusal, "headers", {})
        if result is None:
            return Response(status_code=204, headers=headers)
        if isinstance(result, list) and request.method == "DELETE":
            status = 207
        return _json(result, status, headers)

    async def _spoilt(self, request: Request, fault: Fault, answer: Response | None) -> Response:
        kind = fault.kind.removesuffix(AFTER)
        if kind == "unknown_enum":
            assert answer is not None
            return _json(_with_unknown(json.loads(bytes(answer.body))), answer.status_code)
        if kind == "reject_buying_power":
            return _json(forbidden("insufficient buying power", buying_power="0").body, 403)
        if kind in ("hang", "drop"):
            if kind == "hang":
                await asyncio.sleep(fault.seconds)
            if transport := self._transports.get((request.scope["server"], request.scope["client"])):
                transport.abort()
                await asyncio.sleep(0)
            return Response(status_code=500)  # which nobody gets
        if kind == "502_html":
            return HTMLResponse(PAGE_502, 502)
        return _json({"code": int(kind) * 100_000, "message": WORDS[kind]}, int(kind))

    def _let_in(self, request: Request) -> None:
        if request.method == "GET" and request.url.path.startswith("/local/"):
            return
        given = [request.headers.get(k, "") for k in ("APCA-API-KEY-ID", "APCA-API-SECRET-KEY")]
        if not same_keys(given, self._keys):
            raise Refusal(401, 40110000, "request is not authorized")

    def _count_request(self) -> dict[str, str]:
        """The headers that say how many are left; too many in a minute are refused."""
        minute = int(time.time()) // MINUTE
        if minute != self._minute:
            self._minute, self._asked = minute, 0
        self._asked += 1
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - self._asked)),
            "X-RateLimit-Reset": str((minute + 1) * MINUTE),
        }
        if self._asked > self._limit:
            raise TooMany(headers)
        return headers

    def _events(self) -> list[Any]:
        events, self.exchange.book.events = self.exchange.book.events, []
        return events

    def _waits_for_event(self, request: Request) -> bool:
        faults = self.exchange.script.faults
        return request.method == "POST" and any(fault.stream == "before_answer" for fault in faults)

    def _shown(self, order: Order) -> Any:
        shown = shapes.order(order)
        self.exchange.look(order)
        return shown

    def _find(self, id: str) -> Order:
        if id not in self.exchange.book.orders:
            raise not_found(f"order not found for {id}")
        return self.exchange.book.orders[id]

    def _symbol(self, wanted: str) -> str:
        """By symbol or asset id."""
        for symbol in self.exchange.panel.symbols:
            if wanted in (symbol, name("asset", symbol)):
                return symbol
        raise not_found(f"asset not found for {wanted}")

    def _known(self, query: Mapping[str, str]) -> list[str]:
        wanted = [s for s in query.get("symbols", "").split(",") if s]
        if not wanted:
            raise Refusal(400, 40010001, "symbols is required")
        return sorted(set(wanted) & set(self.exchange.panel.symbols))

    @asynccontextmanager
    async def _living(self, _: Starlette) -> AsyncIterator[None]:
        pace = asyncio.create_task(self._move()) if self.exchange.config.pace is not None else None
        yield
        if pace is not None:
            pace.cancel()

    async def _move(self) -> None:
        """The clock where it moves by itself: half a bar's time in each stage."""
        pace = self.exchange.config.pace
        assert pace is not None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.exchange.tape.ended:
            due += pace / 2
            await asyncio.sleep(due - loop.time())
            self.exchange.advance(self.exchange.tape.bar, self.exchange.tape.stage)
            self.hub.publish(self._events())


class TooMany(Refusal):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(429, 42910000, WORDS["429"])
        self.headers = headers


def _json(content: Any, status: int, headers: Mapping[str, str] | None = None) -> Response:
    data = content if isinstance(content, Raw) else json.dumps(content)
    return Response(data, status, headers, "application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _json({"code": status * 100_000 + 10_000, "message": "endpoint not found."}, status)


def _with_unknown(tree: Any) -> Any:
    """The answer with statuses that no client knows."""
    if isinstance(tree, list):
        return [_with_unknown(item) for item in tree]
    return tree | {"status": UNKNOWN} if isinstance(tree, dict) and "status" in tree else tree


def _in_category(done: Activity, category: str | None) -> bool:
    return category is None or (category == "trade_activity") == (done.order is not None)


def _moment(text: str) -> np.datetime64:
    try:
        return parse_moment(text.replace(" ", "+"))  # a plus that was not escaped
    except ValueError:
        raise unprocessable(f"{text} is no time") from None


def _time(text: str) -> datetime:
    return moment(_moment(text)).astimezone(UTC)


def _count(query: Mapping[str, str], key: str, default: int) -> int:
    given = query.get(key) or str(default)
    if not given.isdigit() or int(given) == 0:
        raise unprocessable(f"{key} must be a whole number above 0")
    return int(given)
