"""Who may ask, how much, and how a refusal looks; whatever comes over the wire, the endpoint lives on."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from endpoint import ADMIN, JSON, TOKEN, Endpoint, bundle_of, problem, serving, serving_one
from prometheus_client.parser import text_string_to_metric_families
from versions import clock

from serve.record import PaperRecord
from serve.registry import VERDICT, Registry

BEGIN, END = "2024-01-01T00:00:00Z", "2024-01-08T00:00:00Z"
RECORD = {"id": "week-1", "started": BEGIN, "ended": END, "bars": 5, "total_return": 0.01, "benchmark_return": 0.005,
          "max_drawdown": -0.02, "orders": 7, "halts": 0}  # fmt: skip
GUARDED = [
    ("POST", "/v1/actions"), ("POST", "/v1/explain"), ("GET", "/v1/ensemble"), ("GET", "/metrics"),
    ("POST", "/v1/admin/record"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere"), ("GET", "/"),
    ("GET", "/healthz/"), ("GET", "//healthz"), ("GET", "/healthz/../metrics"), ("GET", "/%2e/metrics"),
    ("PUT", "/v1/actions"), ("OPTIONS", "/v1/actions"), ("HEAD", "/metrics"),
]  # fmt: skip
STRANGERS = [
    {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
    {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Basic dXNlcjpwYXNz"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer  {TOKEN}"},
    {"Authorization": f"Bearer {TOKEN.upper()}"}, {"Authorization": "Bearer t\xf6ken"}, {"X-Token": TOKEN},
    {"Cookie": f"token={TOKEN}"},
]  # fmt: skip


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with serving_one(tmp_path_factory.mktemp("served"), timeout=0.5) as running:
        yield running


def asked(endpoint: Endpoint, method: str, path: str, headers: dict[str, Any], body: Any = None) -> requests.Response:
    """The path as it stands, which requests itself would mend."""
    request = requests.Request(method, endpoint.url, headers=headers, data=body).prepare()
    request.url = endpoint.url + path
    return endpoint.session.send(request, timeout=30)


def raw(endpoint: Endpoint, *parts: bytes, hang_up: bool = False) -> bytes:
    """What comes back for these bytes, until the server closes or says nothing more."""
    with closing(socket.create_connection((urlsplit(endpoint.url).hostname, urlsplit(endpoint.url).port), 5)) as wire:
        for part in parts:
            wire.sendall(part)
        if hang_up:
            return b""
        wire.settimeout(2)
        return wire.recv(1 << 16)


def head(length: int | str, path: str = "/v1/actions", token: str = TOKEN) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def lives(endpoint: Endpoint) -> None:
    assert endpoint.ask(endpoint.good()).status_code == 200


# Who may ask


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_nothing_is_told_to_strangers(endpoint: Endpoint, method: str, path: str) -> None:
    response = asked(endpoint, method, path, {"Content-Type": "application/json"})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    if method != "HEAD":
        problem(response, 401, "authorization")


@pytest.mark.parametrize("headers", STRANGERS, ids=str)
def test_only_the_whole_token_will_do(endpoint: Endpoint, headers: dict[str, str]) -> None:
    sent: dict[str, Any] = {name: value.encode("latin-1") for name, value in headers.items()}
    problem(asked(endpoint, "GET", "/v1/ensemble", sent), 401, "authorization")


@pytest.mark.parametrize("path", ["/v1/admin/record", "/v1/admin/nowhere", "/v1/admin%2Frecord", "/v1%2Fadmin/record"])
def test_what_is_for_administrators_is_for_no_caller(endpoint: Endpoint, path: str) -> None:
    problem(asked(endpoint, "POST", path, JSON, b"{}"), 401, "authorization")


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/actions"), ("GET", "/v1/ensemble"), ("GET", "/metrics")])
def test_administrators_are_no_callers(endpoint: Endpoint, method: str, path: str) -> None:
    problem(asked(endpoint, method, path, JSON | {"Authorization": f"Bearer {ADMIN}"}, b"{}"), 401, "authorization")


def test_without_an_administrators_token_nobody_is_one(tmp_path: Path) -> None:
    from serve import http as served

    app = served.Guard(None, TOKEN, "", served.OPEN, 1, None)  # type: ignore[arg-type]
    for given in (b"Bearer ", b"Bearer", b"", b"Bearer " + TOKEN.encode()):
        with pytest.raises(served.Problem) as caught:
            app._check("/v1/admin/record", {b"authorization": given})
        assert caught.value.status == 401


def test_below_a_prefix_administrators_are_asked_for_their_token_too() -> None:
    """As a proxy mounts it: paths begin with where the application lies."""
    with serving({}, root_path="/house") as endpoint:
        assert endpoint.get("/healthz", "").status_code == 200
        problem(asked(endpoint, "POST", "/v1/admin/record", JSON, b"{}"), 401, "authorization")
        problem(report(endpoint, b"{}"), 404)


def test_whether_it_lives_and_is_ready_is_open(endpoint: Endpoint) -> None:
    assert requests.get(f"{endpoint.url}/healthz").json() == {"status": "ok"}
    version = endpoint.service.now.champion.version
    assert requests.get(f"{endpoint.url}/readyz").json() == {"status": "ready", "version": version}


# Routes


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/v1", "/v1/actions/", "/v1/actions/x", "/docs", "/redoc", "/openapi.json"]
)
def test_an_unknown_route_is_not_found(endpoint: Endpoint, path: str) -> None:
    for method in ("GET", "POST"):
        response = asked(endpoint, method, path, JSON, b"{}")
        assert problem(response, 404) == "not found"
        assert response.history == []


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/v1/actions", "POST"), ("PUT", "/v1/explain", "POST"), ("OPTIONS", "/v1/actions", "POST"),
    ("TRACE", "/v1/actions", "POST"), ("POST", "/healthz", "GET"), ("DELETE", "/v1/ensemble", "GET"),
    ("POST", "/metrics", "GET"),
])  # fmt: skip
def test_another_method_is_told_which_is_right(endpoint: Endpoint, method: str, path: str, allowed: str) -> None:
    response = asked(endpoint, method, path, JSON, None)
    assert problem(response, 405) == f"expected {allowed}"
    assert response.headers["Allow"] == allowed


def test_head_is_harmless(endpoint: Endpoint) -> None:
    for path in ("/healthz", "/v1/actions", "/nowhere"):
        response = asked(endpoint, "HEAD", path, JSON)
        assert response.status_code in (404, 405)
        assert response.content == b""


def test_the_description_is_there_where_it_is_wanted(endpoint: Endpoint) -> None:
    with serving({}, docs=True) as described:
        assert described.get("/docs").status_code == 200
        assert described.get("/docs", "").status_code == 200  # a browser has no token
        tree = described.get("/openapi.json").json()
    schemas = tree["components"]["schemas"]
    assert {"ActionsRequest", "ActionsAnswer", "Portfolio", "ObservedColumn"} <= set(schemas)
    assert tree["paths"]["/v1/actions"]["post"]["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ActionsRequest"
    }


def test_an_ensemble_says_what_it_is(endpoint: Endpoint) -> None:
    model = endpoint.service.now.champion
    tree = endpoint.get("/v1/ensemble").json()
    assert tree == endpoint.get(f"/v1/ensemble?version={model.version}").json()
    assert (tree["version"], tree["champion"], tree["bars_needed"]) == (model.version, model.version, model.needed)
    assert tree["manifest"]["hash"] == model.bundle.hash
    assert tree["verdict"] is None
    problem(endpoint.get("/v1/ensemble?version=0123456789ab"), 422, "version")
    for bad in ("", "x", "%0A", "0123456789AB", "x" * 5000):
        problem(endpoint.get(f"/v1/ensemble?version={bad}"), 422, "version")


def test_a_verdict_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle")
    registry = Registry(tmp_path / "registry", clock())
    entry = registry.register(tmp_path / "bundle", "ann")
    registry.bundle_of(entry.version).with_name(VERDICT).write_text("{")
    with serving({"champion": [tmp_path / "bundle"]}, registry) as endpoint:
        assert "not valid JSON" in problem(endpoint.get("/v1/ensemble"), 500, "verdict")


# Paper records


def report(endpoint: Endpoint, body: Any) -> requests.Response:
    return endpoint.ask(body, "/v1/admin/record", Authorization=f"Bearer {ADMIN}")


def test_a_paper_record_is_kept_once(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle")
    registry = Registry(tmp_path / "registry", clock())
    version = registry.register(tmp_path / "bundle", "ann").version
    with serving({"champion": [tmp_path / "bundle"]}, registry) as endpoint:
        body = {"version": version, "record": RECORD}
        for _ in range(2):
            assert report(endpoint, body).json() == {"status": "recorded", "version": version}
        assert "another paper record" in problem(
            report(endpoint, {**body, "record": RECORD | {"bars": 6}}), 422, "record"
        )
    assert registry.records_of(version) == (PaperRecord(**RECORD),)


BAD_REPORTS = [
    (b"", ""), (b"{", ""), (b"[]", ""), (b'{"version": NaN}', ""), (b"[" * 5000, ""), ({}, "version"),
    ({"version": "0123", "record": RECORD}, "version"), ({"version": 5, "record": RECORD}, "version"),
    ({"version": "0123456789ab"}, "record"), ({"version": "0123456789ab", "record": []}, "record"),
    ({"version": "0123456789ab", "record": RECORD, "more": 1}, "more"),
    ({"version": "0123456789ab", "record": RECORD}, "record"), ({"version": "0123456789ab", "record": {}}, "record"),
    ({"version": "0123456789ab", "record": RECORD | {"id": "\ud800"}}, "record"),
    ({"version": "0123456789ab", "record": RECORD | {"ended": "\n\n"}}, "record"),
    ({"version": "0123456789ab", "record": RECORD | {"orders": -1}}, "record"),
    ({"version": "0123456789ab", "record": RECORD | {"x\ny" * 1000: 1}}, "record"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "field"), BAD_REPORTS, ids=lambda value: str(value)[:60])
def test_a_bad_paper_record_is_refused(endpoint: Endpoint, body: Any, field: str) -> None:
    problem(report(endpoint, body), 422, field)


def test_where_there_is_no_registry_nothing_is_recorded() -> None:
    with serving({}) as endpoint:
        assert "no registry" in problem(report(endpoint, {"version": "0123456789ab", "record": RECORD}), 404)


# How much


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "\xff"])
def test_only_json_is_read(endpoint: Endpoint, kind: str) -> None:
    told = problem(endpoint.ask(b"{}", **{"Content-Type": kind}), 415, "content-type")
    assert "expected application/json" in told
    assert problem(endpoint.ask(b"{}", **{"Content-Type": "Application/JSON; charset=utf-8"}), 422)


@pytest.mark.parametrize("size", [60 << 20, (16 << 20) + 1])
@pytest.mark.parametrize("stated", [True, False], ids=["stated", "chunked"])
@pytest.mark.parametrize("path", ["/v1/actions", "/v1/explain"])
def test_a_large_body_is_not_taken_in(endpoint: Endpoint, size: int, stated: bool, path: str) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 1 << 20):
            yield b" " * min(1 << 20, size - start)

    body: Any = b" " * size if stated else chunks()
    response = requests.post(endpoint.url + path, data=body, headers=JSON, timeout=30)
    assert "above 16,777,216 bytes" in problem(response, 413, "content-length" if stated else "")
    lives(endpoint)


def test_the_limit_is_the_last_that_is_read(endpoint: Endpoint) -> None:
    with serving({}, body_limit=2048) as small:
        for size, status in ((2048, 422), (2049, 413)):
            for body in (b" " * size, iter([b" " * size])):
                response = requests.post(f"{small.url}/v1/actions", data=body, headers=JSON, timeout=30)
                problem(response, status)


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 30, "ten", ""])
def test_a_length_that_is_none_is_refused(endpoint: Endpoint, length: str) -> None:
    answer = raw(endpoint, head(length), b"{}")
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 422")), answer
    lives(endpoint)


def test_a_body_that_is_longer_than_was_said_is_no_part_of_the_request(endpoint: Endpoint) -> None:
    answer = raw(endpoint, head(2), b"{}" + b"x" * 1000)
    assert answer.startswith((b"HTTP/1.1 422", b"HTTP/1.1 400")), answer
    lives(endpoint)


def test_a_body_that_never_comes_is_not_waited_for(endpoint: Endpoint) -> None:
    answer = raw(endpoint, head(100), b"{")
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert b"not there within 0.5 s" in answer
    lives(endpoint)


def test_a_caller_who_hangs_up_leaves_no_trace(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    for parts in ([head(100), b"{"], [head(100)], [b"POST /v1/act"], [b""], [b"\x16\x03\x01\x02\x00"]):
        raw(endpoint, *parts, hang_up=True)
        lives(endpoint)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_connections_are_kept_after_refusals(endpoint: Endpoint) -> None:
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=10)
    with closing(connection):
        connection.connect()
        before = connection.sock
        for _ in range(3):
            connection.request("POST", "/v1/actions", b"{}", JSON)
            assert connection.getresponse().read()
            connection.request("GET", "/nowhere", headers=JSON)
            assert connection.getresponse().read()
        assert connection.sock is before


# Faults, counts and secrets


def test_a_fault_of_the_server_is_told_without_its_traceback(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(*_: Any) -> None:
        raise RuntimeError("a fault, with its traceback")

    monkeypatch.setattr("serve.service.panel_of", fault)
    for path in ("/v1/actions", "/v1/explain"):
        response = endpoint.ask(endpoint.good(), path)
        assert problem(response, 500) == "this is a fault of the server; its log says more"
        assert "fault, with" not in response.text
    assert "a fault, with its traceback" in caplog.text
    monkeypatch.undo()
    lives(endpoint)


def counted(endpoint: Endpoint) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(endpoint.get("/metrics").text)
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "replica")): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_was_answered(tmp_path: Path) -> None:
    bundle_of(tmp_path / "bundle")
    with serving({"champion": [tmp_path / "bundle"]}) as endpoint:
        version = endpoint.service.now.champion.version
        for _ in range(3):
            endpoint.ask(endpoint.good())
        endpoint.ask({})
        endpoint.ask(endpoint.good(), "/v1/explain")
        for path in ("/nowhere", "/nowhere/else", "/x" * 100):
            endpoint.get(path)
        endpoint.get("/v1/ensemble", "wrong")
        endpoint.get("/healthz")
        found = counted(endpoint)
        assert found["podracer_requests_total", "/v1/actions", "200"] == 3
        assert found["podracer_requests_total", "/v1/actions", "422"] == 1
        assert found["podracer_requests_total", "/v1/explain", "200"] == 1
        assert found["podracer_requests_total", "other", "404"] == 3
        assert found["podracer_requests_total", "/v1/ensemble", "401"] == 1
        assert found["podracer_requests_total", "/healthz", "200"] == 1
        assert found["podracer_request_seconds_count", "/v1/actions"] == 4
        assert 0 < found["podracer_request_seconds_sum", "/v1/actions"] < 60
        assert found["podracer_decisions", version] == 3
        assert found["podracer_waiting",] == 0
        assert found["podracer_trouble",] == 0
        assert not endpoint.service.load({})
        assert counted(endpoint)["podracer_trouble",] == 1
        assert counted(endpoint)["podracer_requests_total", "/metrics", "200"] == 2


def test_how_long_an_answer_took_is_not_how_long_its_shadow_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_of(tmp_path / "bundle")
    begun, over = threading.Event(), threading.Event()

    def slow(*_: Any) -> dict[str, Any]:
        begun.set()
        return {"waited": over.wait(20)}

    monkeypatch.setattr("serve.service._shadowed", slow)
    with serving({"champion": [tmp_path / "bundle"], "shadow": [tmp_path / "bundle"]}) as endpoint:
        assert endpoint.ask(endpoint.good()).status_code == 200
        assert begun.wait(20)
        assert counted(endpoint)["podracer_request_seconds_count", "/v1/actions"] == 1
        over.set()


def test_tokens_are_told_to_nobody(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [
        asked(endpoint, method, path, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, body)
        for method, path in GUARDED
        for token in (TOKEN, ADMIN, TOKEN[:-1])
        for body in (b"{}", b"[" + TOKEN.encode())
    ]
    answers += [endpoint.ask(endpoint.good(-1)), endpoint.get("/metrics"), endpoint.get("/v1/ensemble")]
    assert len({answer.status_code for answer in answers}) >= 5
    for told in (*(answer.text + str(answer.headers) for answer in answers), caplog.text, repr(endpoint.service)):
        assert TOKEN[:-1] not in told
        assert ADMIN not in told
