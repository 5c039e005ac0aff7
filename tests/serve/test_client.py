"""The client writes what the panel says, believes only sound answers, keeps its deadline and its token."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from panels import random_panel

from kit.errors import UserError
from market.panel import FIELDS, Observed, Panel
from serve.client import LARGEST, BadAnswer, Client, Portfolio, Refused, ServeError, Unavailable, Vote, body

ROOT = Path(__file__).parents[2]
TOKEN, ADMIN = "desk-t0ken.of~many/signs+==", "admin-t0ken-which-is-another"
VERSION = "0123456789ab"
PANEL = random_panel(3, bars=20, symbols=3)
PORTFOLIO = Portfolio(cash=1000.0, positions={"S001": 3.5}, peak_equity=1200.0)
ASKED_AT = datetime(2019, 2, 1, 21, 0, 5, 250_000, UTC)
RECORD = {"id": "2019-02-01", "bars": 20}
Fault = Callable[["Handler"], None]


# ---- a server on loopback that answers well, but for what it was told to do first


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


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


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


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client_of(endpoint: Endpoint, clock: Clock | None = None, **options: Any) -> Client:
    clock = clock or Clock()
    return Client(endpoint.url, TOKEN, clock=lambda: clock.now, sleep=clock.sleep, **options)


def ask(client: Client, **options: Any) -> Any:
    return client.actions(PANEL, PORTFOLIO, ASKED_AT, **options)


# ---- the request


def numbers(columns: list[list[float | None]]) -> np.ndarray:  # [T, A]
    return np.array([[math.nan if v is None else v for v in column] for column in columns], float).T


def times(texts: list[str | None]) -> np.ndarray:  # [T] datetime64[ns]
    assert all(text is None or text.endswith("Z") for text in texts)
    return np.array([np.datetime64("NaT") if t is None else np.datetime64(t[:-1], "ns") for t in texts], "M8[ns]")


def panel_of(data: bytes) -> Panel:
    """Read a request back by hand."""
    tree = json.loads(data, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    columns = {name: numbers(tree[name]) for name in FIELDS}
    observed = {
        name: Observed(numbers(column["values"]), np.stack([times(row) for row in column["known_at"]], axis=1))
        for name, column in tree["observed"].items()
    }
    return Panel(
        symbols=tuple(tree["symbols"]),
        times=times(tree["times"]),
        closes=times(tree["closes"]),
        **columns,
        tradable=np.array(tree["tradable"]).T if "tradable" in tree else ~np.isnan(columns["close"]),
        bars_per_year=PANEL.bars_per_year,
        observed=observed,
    )


@given(seed=st.integers(0, 999), bars=st.integers(1, 30), symbols=st.integers(1, 4), gaps=st.booleans())
@settings(max_examples=30)
def test_a_panel_reads_back_to_the_bit(seed, bars, symbols, gaps):
    panel = random_panel(seed, bars, symbols, gaps=gaps and bars > 3)
    assert replace(panel_of(body(panel, PORTFOLIO)), bars_per_year=panel.bars_per_year).hash == panel.hash


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(allow_infinity=False, allow_nan=True)))
@settings(max_examples=100)
def test_every_float_reads_back_to_the_bit(values):
    values = np.where(np.isnan(values), np.nan, values)  # one kind of NaN
    known_at = np.where(np.isnan(values), np.datetime64("NaT"), PANEL.closes[:3, None]).astype("M8[ns]")
    panel = replace(PANEL[:3], observed={}, **dict.fromkeys(FIELDS, np.ones((3, 3))), tradable=np.ones((3, 3), bool))
    two = replace(
        panel,
        symbols=("A", "B"),
        **{name: getattr(panel, name)[:, :2] for name in (*FIELDS, "tradable")},
        observed={"signal": Observed(values, known_at)},
    )
    assert panel_of(body(two, PORTFOLIO)).observed["signal"].values.tobytes() == values.tobytes()


@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=5, unique=True))
@settings(max_examples=50)
def test_every_nanosecond_reads_back(nanoseconds):
    labels = np.array(sorted(nanoseconds), "M8[ns]")
    one = np.ones((len(labels), 1))
    panel = Panel(("A",), labels, labels, one, one, one, one, one, one.astype(bool), 252.0)
    assert (panel_of(body(panel, PORTFOLIO)).closes == labels).all()


def test_a_request_looks_as_the_endpoint_expects():
    nan = math.nan
    labels = np.array(["2020-01-02T14:30", "2020-01-03T14:30"], "M8[ns]")
    known = np.array([["NaT"], ["2020-01-03T15:00:00.5"]], "M8[ns]")
    prices = dict.fromkeys(FIELDS, np.array([[nan], [0.1]]))
    panel = Panel(
        ("NaN",),
        labels,
        labels + np.timedelta64(390, "m"),
        **prices,
        tradable=np.array([[False], [True]]),
        bars_per_year=252.0,
        observed={'a "b"': Observed(np.array([[nan], [1e300]]), known)},
    )
    asked_at = datetime(2020, 1, 3, 16, 0, 5, tzinfo=timezone(timedelta(hours=-5)))
    assert json.loads(body(panel, PORTFOLIO, asked_at, VERSION)) == {
        "symbols": ["NaN"],
        "times": ["2020-01-02T14:30:00Z", "2020-01-03T14:30:00Z"],
        "closes": ["2020-01-02T21:00:00Z", "2020-01-03T21:00:00Z"],
        **{name: [[None, 0.1]] for name in FIELDS},
        "observed": {'a "b"': {"values": [[None, 1e300]], "known_at": [[None, "2020-01-03T15:00:00.500000000Z"]]}},
        "portfolio": {"cash": 1000.0, "positions": {"S001": 3.5}, "peak_equity": 1200.0},
        "asked_at": "2020-01-03T21:00:05Z",
        "version": VERSION,
    }


def test_tradable_is_sent_only_where_it_says_something():
    gapless = random_panel(0, 10, 2, gaps=False)
    assert "tradable" not in json.loads(body(gapless, PORTFOLIO))
    paused = gapless.tradable.copy()
    paused[4, 1] = False
    sent = json.loads(body(replace(gapless, tradable=paused), PORTFOLIO))["tradable"]
    assert sent == [[True] * 10, [True] * 4 + [False] + [True] * 5]


def test_what_no_endpoint_could_take_is_refused_before_it_is_sent():
    infinite = np.array(PANEL.close)
    infinite[-1, 0] = math.inf
    with pytest.raises(UserError, match=r"asked_at = 2019-02-01T00:00:00: has no time zone"):
        body(PANEL, PORTFOLIO, datetime(2019, 2, 1))
    with pytest.raises(UserError, match="version = 'champion': expected 12 hexadecimal digits"):
        body(PANEL, PORTFOLIO, version="champion")
    with pytest.raises(UserError, match="close holds infinity"):
        body(replace(PANEL, close=infinite), PORTFOLIO)
    with pytest.raises(UserError, match="holds no bar"):
        body(PANEL[:0], PORTFOLIO)
    with pytest.raises(UserError, match=r"positions\.S001 = nan: expected a finite number"):
        Portfolio(1.0, {"S001": math.nan}, 1.0)


# ---- the answer


def test_an_answer_is_read_whole(endpoint):
    answer = ask(client_of(endpoint), version=VERSION)
    assert answer.version == VERSION
    assert answer.as_of == PANEL.closes[-1]
    assert answer.asked_at == ASKED_AT
    assert list(answer.weights.items()) == [("S000", 0.1), ("S001", 0.1), ("S002", 0.1)]  # in the panel's order
    assert answer.cash == pytest.approx(0.7)
    assert list(answer.ordered.items()) == [("S000", 0.2), ("S001", 0.1), ("S002", 0.1)]
    assert answer.ordered_cash == pytest.approx(0.6)
    assert answer.members == (Vote("a", 1.0, answer.weights, answer.cash),)
    assert (answer.dispersion, answer.milliseconds) == (0.05, 3.1)
    assert answer.warnings == ("the last bar is old",)


def test_a_request_arrives_with_its_token_and_as_json(endpoint):
    ask(client_of(endpoint))
    (asked,) = endpoint.asked
    assert (asked.method, asked.path) == ("POST", "/v1/actions")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.content == body(PANEL, PORTFOLIO, ASKED_AT)


WEIGHTS = {"S000": 0.1, "S001": 0.1, "S002": 0.1}
MEMBER = {"name": "a", "share": 1.0, "weights": WEIGHTS, "cash": 0.7}
UNSOUND = {
    "another version": {"version": "ba9876543210"},
    "a version that is none": {"version": "0123456789AB"},
    "another bar": {"as_of": "2019-01-02T21:00:00Z"},
    "a time that is none": {"as_of": "2019-02-31T21:00:00Z"},
    "a time without a zone": {"asked_at": "2019-02-01T21:00:05.25"},
    "asked at another time": {"asked_at": "2019-02-01T21:00:06Z"},
    "a symbol too few": {"weights": {"S000": 0.1, "S001": 0.2}},
    "a symbol too many": {"weights": {**WEIGHTS, "S009": 0.0}},
    "another symbol": {"ordered": {"S000": 0.1, "S001": 0.1, "S009": 0.1}},
    "a sum beside 1": {"cash": 0.70001},
    "an ordered sum beside 1": {"ordered_cash": 0.5},
    "true as a number": {"dispersion": True},
    "true as a weight": {"weights": {**WEIGHTS, "S000": True}, "cash": -0.2},
    "a text as a number": {"cash": "0.7"},
    "null as a number": {"dispersion": None},
    "a number beyond all floats": {"milliseconds": 10**400},
    "members as a number": {"members": 1},
    "a member as a text": {"members": ["a"]},
    "a vote with a sum beside 1": {"members": [MEMBER, {**MEMBER, "cash": 0.6}]},
    "a vote of other symbols": {"members": [{**MEMBER, "weights": {"S000": 0.3}}]},
    "a vote without a share": {"members": [{key: MEMBER[key] for key in ("name", "weights", "cash")}]},
    "warnings that are no texts": {"warnings": [1]},
}


@pytest.mark.parametrize("changes", UNSOUND.values(), ids=UNSOUND)
def test_an_unsound_answer_is_not_believed(endpoint, changes):
    endpoint.faults = [changed(**changes)]
    with pytest.raises(BadAnswer, match=re.escape(next(iter(changes)))):
        ask(client_of(endpoint), version=VERSION)
    assert len(endpoint.asked) == 1


def test_a_difference_within_rounding_is_believed(endpoint):
    endpoint.faults = [changed(cash=0.7 + 9e-7)]
    assert ask(client_of(endpoint)).cash == 0.7 + 9e-7


@pytest.mark.parametrize("key", sorted(answer({"symbols": ["A"], "closes": [""]})))
def test_an_answer_that_lacks_anything_is_not_believed(endpoint, key):
    endpoint.faults = [lambda handler: handler.reply(200, {k: v for k, v in handler.good().items() if k != key})]
    with pytest.raises(BadAnswer, match=f"{key} = missing"):
        ask(client_of(endpoint))


NOT_JSON = {
    "a page": b"<html>",
    "nothing": b"",
    "a list": b"[1]",
    "NaN": b'{"cash": NaN}',
    "Infinity": b'{"cash": -Infinity}',
    "a key twice": b'{"cash": 0.1, "cash": 0.2}',
    "no UTF-8": b'{"cash": "\xff"}',
    "nested without end": b'{"a":' + b"[" * 100_000,
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_strict_json_is_not_believed(endpoint, content):
    endpoint.faults = [lambda handler: handler.reply(200, content)]
    with pytest.raises(BadAnswer, match="the answer is not JSON as expected"):
        client_of(endpoint).ensemble()


def test_an_answer_without_end_is_not_read_to_its_end(endpoint):
    def flood(handler: Handler) -> None:
        handler.start(200, 1 << 40)
        while True:
            handler.wfile.write(bytes(1 << 20))

    endpoint.faults = [flood]
    with pytest.raises(BadAnswer, match=f"more than {LARGEST >> 20} MB"):
        client_of(endpoint).ensemble()


# ---- the other routes


def test_each_route_is_asked_where_it_is(endpoint):
    client = client_of(endpoint)
    assert client.explain(PANEL, PORTFOLIO, version=VERSION) == {"version": VERSION, "members": 2}
    assert client.ensemble() == client.ensemble(VERSION) == {"version": VERSION, "members": 2}
    assert client.healthy()
    assert client.ready()
    client.record(VERSION, RECORD, ADMIN)
    tokens = {asked.path: asked.headers["Authorization"] for asked in endpoint.asked}
    theirs = ["/v1/explain", "/v1/ensemble", f"/v1/ensemble?version={VERSION}", "/healthz", "/readyz"]
    assert tokens == {**dict.fromkeys(theirs, f"Bearer {TOKEN}"), "/v1/admin/record": f"Bearer {ADMIN}"}
    assert [asked.method for asked in endpoint.asked] == ["POST", "GET", "GET", "GET", "GET", "POST"]
    assert json.loads(endpoint.asked[-1].content) == {"version": VERSION, "record": RECORD}


@pytest.mark.parametrize("call", ["explain", "ensemble"])
def test_every_answer_must_be_of_the_version_that_was_asked(endpoint, call):
    arguments = (PANEL, PORTFOLIO, ASKED_AT) if call == "explain" else ()
    with pytest.raises(BadAnswer, match=f"version = '{VERSION}': expected ba9876543210, which was asked"):
        getattr(client_of(endpoint), call)(*arguments, version="ba9876543210")


def test_an_endpoint_that_is_not_ready_is_asked_once(endpoint):
    endpoint.faults = [problem(503, Retry_After="1"), problem(503)]
    clock = Clock()
    client = client_of(endpoint, clock)
    assert not client.ready()
    assert not client.healthy()
    assert client.ready()
    assert (len(endpoint.asked), clock.slept) == (3, [])


def test_a_record_without_an_id_is_refused_for_it_could_not_be_repeated(endpoint):
    client = client_of(endpoint)
    with pytest.raises(UserError, match="record: id = None"):
        client.record(VERSION, {"bars": 3}, ADMIN)
    with pytest.raises(UserError, match="record a: cannot be written as JSON"):
        client.record(VERSION, {"id": "a", "total_return": math.nan}, ADMIN)
    assert endpoint.asked == []


# ---- trouble


@pytest.mark.parametrize(
    "fault", [drop, half, problem(429), problem(502), problem(503), problem(504)], ids=lambda f: f.__name__
)
def test_what_passes_is_waited_out(endpoint, fault):
    endpoint.faults = [fault, fault]
    clock = Clock()
    assert ask(client_of(endpoint, clock, random=lambda: 0.5)).version == VERSION
    assert clock.slept == [0.05, 0.1]  # half of 0.1, then of 0.2 s
    assert [asked.content for asked in endpoint.asked] == [body(PANEL, PORTFOLIO, ASKED_AT)] * 3


def test_a_record_is_repeated_too(endpoint):
    endpoint.faults = [drop]
    client_of(endpoint).record(VERSION, RECORD, ADMIN)
    first, second = endpoint.asked
    assert first.content == second.content


def test_attempts_that_are_used_up_say_why_the_last_one_failed(endpoint):
    endpoint.faults = [drop, drop, problem(503, reason="no replica is ready")]
    with pytest.raises(Unavailable, match=r"answered 503 \(no replica is ready\); attempt 3 of 3"):
        ask(client_of(endpoint))
    endpoint.faults = [half]
    with pytest.raises(Unavailable, match="IncompleteRead"):
        ask(client_of(endpoint, attempts=1))


def test_nobody_at_home_is_said_plainly():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        client = Client(f"http://127.0.0.1:{closed.getsockname()[1]}", TOKEN, sleep=lambda _: None)
        with pytest.raises(Unavailable, match=r"ConnectionRefusedError.*attempt 3 of 3"):
            ask(client)
        assert not client.healthy()


def test_the_pause_that_the_server_asks_for_is_kept(endpoint):
    endpoint.faults = [problem(503, Retry_After="4"), problem(429, Retry_After="0")]
    clock = Clock()
    ask(client_of(endpoint, clock))
    assert clock.slept == [4.0, 0.0]


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2015 07:28:00 GMT", "-5", "nan", "1e9", "²", ""])
def test_a_pause_that_is_not_in_seconds_counts_as_none(endpoint, header):
    endpoint.faults = [lambda handler: handler.reply(503, {}, Retry_After=header)]
    clock = Clock()
    ask(client_of(endpoint, clock, random=lambda: 1.0))
    assert clock.slept == [0.1]


def test_a_pause_beyond_the_deadline_is_not_begun(endpoint):
    endpoint.faults = [problem(503, Retry_After="6"), problem(503, Retry_After="6")]
    clock = Clock()
    with pytest.raises(Unavailable, match=r"asks to wait 6 s; attempt 2 of 3, 6.0 s of 10 s"):
        ask(client_of(endpoint, clock))
    assert clock.slept == [6.0]


def test_pauses_grow_to_a_limit_and_differ_by_chance(endpoint):
    endpoint.faults = [problem(503)] * 8
    clock, chances = Clock(), iter([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.25])
    ask(client_of(endpoint, clock, attempts=9, deadline=100.0, random=lambda: next(chances)))
    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 0.0, 0.5])


@pytest.mark.parametrize("fault", [hang, drip_content, drip_headers])
def test_a_slow_server_is_left_at_the_deadline(endpoint, fault):
    endpoint.faults = [fault]
    errors: list[BaseException] = []

    def call() -> None:
        try:
            Client(endpoint.url, TOKEN, deadline=0.3).ensemble()
        except ServeError as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "the call outlasts its deadline"
    (error,) = errors
    assert isinstance(error, Unavailable)
    assert "no answer in time; attempt 1 of 3" in str(error)
    assert len(endpoint.asked) == 1
    for left in threading.enumerate():
        if left.name == "serve.client" and fault is not drip_headers:  # those end with the connection only
            left.join(10)
            assert not left.is_alive(), "the exchange goes on though nobody waits for it"


def test_after_a_server_that_hung_the_next_call_is_answered(endpoint):
    client = Client(endpoint.url, TOKEN, deadline=0.2)
    endpoint.faults = [hang]
    with pytest.raises(Unavailable):
        client.ensemble()
    assert client.ensemble()["version"] == VERSION


REFUSALS = {400: "", 401: "", 403: "", 404: "", 409: "", 413: "", 422: "close.0.17"}


@pytest.mark.parametrize(("status", "field"), REFUSALS.items())
def test_a_refusal_is_final_and_says_what_is_wrong(endpoint, status, field):
    endpoint.faults = [problem(status, field, "is wrong,\r\n\x1b[31mand badly")]
    with pytest.raises(Refused) as caught:
        ask(client_of(endpoint))
    assert (caught.value.status, caught.value.field) == (status, field or None)
    assert caught.value.reason == "is wrong, [31mand badly"
    place = f"{field}: " if field else ""
    assert str(caught.value) == f"refused with {status}: {place}is wrong, [31mand badly"
    assert len(endpoint.asked) == 1


def test_a_refusal_without_details_has_the_name_of_its_status(endpoint):
    endpoint.faults = [lambda handler: handler.reply(401, b"<html>go away</html>"), problem(404)]
    with pytest.raises(Refused, match="refused with 401: Unauthorized"):
        ask(client_of(endpoint))
    with pytest.raises(Refused, match="refused with 404: not now"):  # the detail, where no reason is given
        ask(client_of(endpoint))


def test_a_fault_of_the_server_is_not_repeated(endpoint):
    endpoint.faults = [problem(500, reason="a bug")]
    with pytest.raises(Unavailable, match=r"answered 500 \(a bug\)"):
        ask(client_of(endpoint))
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(endpoint, status):
    endpoint.faults = [lambda handler: handler.reply(status, {}, Location=f"{endpoint.url}/v1/elsewhere")]
    with pytest.raises(Refused, match=f"refused with {status}: .*redirects elsewhere"):
        ask(client_of(endpoint))
    assert len(endpoint.asked) == 1


def test_one_connection_serves_all_calls(endpoint):
    client = client_of(endpoint)
    endpoint.faults = [None, problem(503), problem(422), None]
    ask(client)
    with pytest.raises(Refused):
        ask(client)
    ask(client)
    assert client.healthy()
    assert (len(endpoint.asked), endpoint.connections) == (5, 1)


def test_a_connection_that_was_closed_meanwhile_costs_no_attempt(endpoint):
    clock = Clock()
    client = client_of(endpoint, clock, attempts=1)
    for fault in (None, drop, close_when_idle, None):  # `drop` closes as the second request arrives
        endpoint.faults = [fault] if fault else []
        ask(client)
    assert (len(endpoint.asked), clock.slept) == (5, [])
    endpoint.faults = [drop, drop]  # but once only
    with pytest.raises(Unavailable, match="attempt 1 of 1"):
        ask(client)


def test_proxies_and_netrc_of_the_environment_are_not_used(endpoint, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password another\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ask(client_of(endpoint))
    assert endpoint.asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


# ---- the token, and what the client needs


def echo(status: int) -> Fault:
    """Say back all that was sent."""
    return lambda handler: handler.reply(status, {"reason": str(handler.headers), "field": str(handler.headers)})


def test_the_token_is_in_no_message(endpoint, caplog):
    caplog.set_level(logging.DEBUG)
    client = client_of(endpoint)
    said = [repr(client), str(client)]
    garbage = lambda handler: handler.wfile.write(f"{handler.headers['Authorization']}\r\n\r\n".encode())  # noqa: E731
    version = lambda handler: handler.reply(200, {"version": handler.headers["Authorization"]})  # noqa: E731
    for fault in (echo(401), echo(503), echo(500), echo(302), echo(700), echo(200), garbage, version, drop, half):
        for call in (client.ensemble, lambda: client.record(VERSION, RECORD, ADMIN)):
            endpoint.faults = [fault] * 4
            error: BaseException | None
            try:
                said.append(str(call()))
            except ServeError as caught:
                error = caught
                while error:  # what was raised before it may be printed as well
                    said += [str(error), repr(error), str(vars(error))]
                    assert len(str(error).splitlines()) == 1
                    error = error.__cause__ or error.__context__
    assert len(said) > 40
    assert caplog.text.count("asking again") >= 8
    for text in (*said, caplog.text):
        assert not any(secret in text for secret in (TOKEN, ADMIN, TOKEN.rstrip("=")))


@pytest.mark.parametrize("token", ["weights", "0", "S001"])
def test_a_token_that_happens_to_be_a_common_word_spoils_no_answer(endpoint, token):
    assert Client(endpoint.url, token).actions(PANEL, PORTFOLIO, ASKED_AT).weights == WEIGHTS


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "tökén", "a=b"])
def test_a_token_that_no_header_can_carry_is_refused_unseen(token):
    for use in (
        lambda: Client("http://localhost", token),
        lambda: Client("http://h", "t").record(VERSION, RECORD, token),
    ):
        with pytest.raises(UserError, match="token: is empty or holds") as caught:
            use()
        assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://h?a=b",
        "http://h#a",
        "http://h:99999",
        "http://h\n.i",
        "http://[",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(UserError, match=re.escape(f"url = {url!r}: expected")):
        Client(url, TOKEN)


def test_an_address_with_a_password_is_refused_unseen():
    with pytest.raises(UserError) as caught:
        Client("http://desk:passw0rd@host", TOKEN)
    assert "passw0rd" not in str(caught.value)


@pytest.mark.parametrize("options", [{"deadline": 0.0}, {"attempts": 0}, {"connect": math.nan}, {"deadline": math.inf}])
def test_limits_that_are_none_are_refused(options):
    with pytest.raises(UserError, match=f"{next(iter(options))} = .*: expected more than 0"):
        Client("http://localhost", TOKEN, **options)


def test_the_client_needs_only_what_a_bare_machine_has():
    script = "import sys, serve.client\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    ours = {name for name in run.stdout.split() if name.split(".")[0] in {"kit", "market", "serve"}}
    assert "requests" in loaded
    assert not loaded & {"torch", "ray", "pydantic", "wandb", "alpaca", "pandas", "scipy", "pyarrow", "fastapi"}
    assert not loaded & {"envs", "agents", "podracer", "tournament", "paper"}
    assert {name for name in ours if name.startswith("serve")} == {"serve", "serve.client"}
