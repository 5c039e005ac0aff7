"""The client believes only sound answers, keeps its deadline and its token, and repeats what may be repeated."""

from __future__ import annotations

import json
import logging
import math
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import (
    ADMIN,
    ASKED_AT,
    PANEL,
    PORTFOLIO,
    TOKEN,
    VERSION,
    Endpoint,
    Fault,
    Handler,
    changed,
    close_when_idle,
    drip_content,
    drip_headers,
    drop,
    half,
    hang,
    problem,
)

from kit.errors import UserError
from serve.client import LARGEST, Answer, BadAnswer, Client, Refused, ServeError, Unavailable
from serve.wire import body

ROOT = Path(__file__).parents[2]
RECORD = {"id": "2019-02-01", "bars": 20}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


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


# ---- the answer


def test_a_request_arrives_with_its_token_and_as_json_and_is_answered(endpoint):
    answer = ask(client_of(endpoint))
    assert isinstance(answer, Answer)
    assert (answer.version, answer.as_of, answer.asked_at) == (VERSION, PANEL.closes[-1], ASKED_AT)
    (asked,) = endpoint.asked
    assert (asked.method, asked.path) == ("POST", "/v1/actions")
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.content == body(PANEL, PORTFOLIO, ASKED_AT)


UNSOUND = {
    "version": {"version": "ba9876543210"},
    "as_of": {"as_of": "2019-01-02T21:00:00Z"},
    "asked_at": {"asked_at": "2019-02-01T21:00:06Z"},
    "weights": {"weights": {"S000": 0.3}},
}


@pytest.mark.parametrize(("key", "changes"), UNSOUND.items(), ids=UNSOUND)
def test_an_unsound_answer_is_not_believed_nor_asked_for_again(endpoint, key, changes):
    endpoint.faults = [changed(**changes)]
    with pytest.raises(BadAnswer, match=f"{key} = "):
        ask(client_of(endpoint), version=VERSION)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("content", [b"<html>", b'{"a":' + b"[" * 100_000], ids=["a page", "nested without end"])
def test_what_is_not_strict_json_is_not_believed(endpoint, content):
    endpoint.faults = [lambda handler: handler.reply(200, content)]
    with pytest.raises(BadAnswer, match="the answer is not JSON as expected"):
        client_of(endpoint).ensemble()
    assert len(endpoint.asked) == 1


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
    assert Client(endpoint.url, token).actions(PANEL, PORTFOLIO, ASKED_AT).weights == dict.fromkeys(PANEL.symbols, 0.1)


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
    assert {name for name in ours if name.startswith("serve")} == {"serve", "serve.client", "serve.wire"}
