"""The board over HTTP: who may look, who may act, and that nothing that is done to it reaches the desk."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from views import HOSTILE, START, a_view, points

from kit.errors import UserError
from paper.watch import board as module
from paper.watch.alerts import AlertConfig, Alerts
from paper.watch.board import Board
from paper.watch.metrics import Metrics
from paper.watch.view import POINTS, Point, View

TOKEN = "board-t0ken-that-is-long"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


class Desk:
    """What the board may do to a desk."""

    def __init__(self) -> None:
        self.wishes: list[tuple[str, str]] = []
        self.alerts = Alerts(AlertConfig(), lambda: START)
        self.metrics = Metrics(self.alerts)
        self.board = Board("127.0.0.1", 0, TOKEN, self.kill, self.reset, self.metrics)

    def kill(self, reason: str) -> None:
        if reason == "fail":
            raise RuntimeError("the desk cannot be reached")
        self.wishes.append(("kill", reason))

    def reset(self, reason: str) -> None:
        self.wishes.append(("reset", reason))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.board.port, timeout=30)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, dict(answer.headers)

    def raw(self, text: str) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.board.port), timeout=30)
        connection.sendall(text.encode())
        return connection


@pytest.fixture(autouse=True)
def nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PODRACER_WEBHOOK_URL", raising=False)


@pytest.fixture
def desk(nobody_is_told: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(module, "BEAT", 0.2)
    monkeypatch.setattr(module, "PAUSE", 0.01)
    made = Desk()
    yield made
    made.board.close()


@pytest.fixture(scope="module")
def lasting() -> Iterator[Desk]:
    """One for all examples of a property."""
    made = Desk()
    yield made
    made.board.close()


# -- looking


def test_the_page_comes_with_a_strict_policy_and_is_not_kept(desk: Desk) -> None:
    status, content, headers = desk.ask("GET", "/")
    assert status == 200 and content.startswith(b"<!doctype html>")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"


def test_the_view_is_what_the_desk_showed_last(desk: Desk) -> None:
    assert desk.ask("GET", "/view.json")[1] == b"null"
    desk.board.show(a_view(bars=3))
    desk.board.show(a_view(bars=5))
    shown = json.loads(desk.ask("GET", "/view.json")[1])
    assert shown["state"] == "ACTIVE" and shown["series"]["at"][-1] == "2024-01-06T21:00:00+00:00"
    assert [line["symbol"] for line in shown["positions"]][:2] == ["AAPL", "MSFT"]
    assert shown["votes"][0].keys() == {"member", "share", "weights"}


def test_what_is_not_a_number_is_null() -> None:
    view = replace(
        a_view(bars=2), cash=Decimal("NaN"), dispersion=Decimal("0.5"), series=[Point(START, 1.0, low=float("inf"))]
    )
    shown = json.loads(view.to_json(), parse_constant=pytest.fail)
    assert shown["cash"] is None and shown["dispersion"] == 0.5
    assert shown["series"]["low"] == [None] and shown["series"]["expected"] == [None]


def test_a_long_series_is_thinned_but_keeps_its_worst_bar() -> None:
    series = points(5000)
    series[1234] = replace(series[1234], equity=1.0)
    shown = json.loads(replace(a_view(bars=2), series=series).to_json())["series"]
    assert min(shown["equity"]) == 1.0 and len(shown["equity"]) <= POINTS + 2
    assert shown["at"][0] == series[0].at.isoformat() and shown["at"][-1] == series[-1].at.isoformat()
    assert len({len(column) for column in shown.values()}) == 1


def test_hostile_text_is_data_in_what_is_sent(desk: Desk) -> None:
    desk.board.show(a_view(text=HOSTILE))
    _, content, headers = desk.ask("GET", "/view.json")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(content)["positions"][0]["symbol"] == "AAPL" + HOSTILE
    assert desk.ask("GET", "/metrics")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.example.org", "10.0.0.1:80", "", "[::1", "0.0.0.0"]
)
@pytest.mark.parametrize("path", ["/", "/view.json", "/events", "/metrics", "/healthz"])
def test_a_name_that_leads_here_by_a_trick_sees_nothing(desk: Desk, host: str, path: str) -> None:
    desk.board.show(a_view())
    status, content, _ = desk.ask("GET", path, Host=host)
    assert status == 403 and b"AAPL" not in content


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:80"])
def test_names_of_this_machine_see_it(desk: Desk, host: str) -> None:
    assert desk.ask("GET", "/", Host=host)[0] == 200


def test_paths_and_methods_that_are_none(desk: Desk) -> None:
    assert desk.ask("GET", "/etc/passwd")[0] == 404
    assert desk.ask("GET", "/kill")[0] == 404
    assert desk.ask("POST", "/", b"", **RIGHT)[0] == 404
    assert desk.ask("DELETE", "/", **RIGHT)[0] == 501
    assert desk.wishes == []


def test_health_says_whether_the_desk_speaks(desk: Desk) -> None:
    assert desk.ask("GET", "/healthz")[0] == 503
    desk.board.show(a_view(state="HALTED"))
    status, content, _ = desk.ask("GET", "/healthz")
    assert status == 200 and json.loads(content)["state"] == "HALTED"
    desk.board.silence = 0.0
    status, content, _ = desk.ask("GET", "/healthz")
    assert status == 503 and json.loads(content)["status"] == "silent"


# -- events


def events(desk: Desk) -> Iterator[tuple[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", desk.board.port, timeout=30)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/event-stream"
    try:
        while line := answer.readline().decode():
            if line.startswith("event: "):
                kind, data = line[7:].strip(), answer.readline().decode()
                yield kind, json.loads(data.removeprefix("data: "))
    finally:
        answer.close()
        connection.close()


def test_events_bring_each_new_view_and_beat_meanwhile(desk: Desk) -> None:
    heard = events(desk)
    kind, beat = next(heard)
    assert kind == "beat" and beat.keys() == {"age", "silence"}
    for bars in (2, 3):
        desk.board.show(a_view(bars=bars))
        kind, view = next((kind, data) for kind, data in heard if kind == "view")
        assert len(view["series"]["at"]) == bars
        assert next(heard)[0] == "beat"
    assert next(heard)[0] == "beat"  # the same view does not come twice


def test_who_is_slow_gets_the_newest_view_and_not_every_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.5)
    view, heard = a_view(bars=2), events(desk)
    assert next(heard)[0] == "beat"
    for i in range(300):
        desk.board.show(replace(view, phase=str(i)))
    phases = []
    while "299" not in phases:
        kind, data = next(heard)
        if kind == "view":
            phases.append(data["phase"])
    assert len(phases) < 10


def test_no_more_listen_than_may_and_a_place_that_is_left_is_free(desk: Desk) -> None:
    listeners = [events(desk) for _ in range(module.LISTENERS)]
    for listener in listeners:
        next(listener)
    assert desk.ask("GET", "/events")[0] == 503
    assert desk.ask("GET", "/view.json")[0] == 200  # and others are served
    listeners[0].close()
    ends = time.monotonic() + 30
    while not places(desk):
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_the_end_ends_the_events() -> None:
    desk = Desk()
    heard = events(desk)
    next(heard)
    desk.board.close()
    assert list(heard) == []


# -- acting


def test_a_kill_and_a_reset_are_passed_on_with_their_reasons(desk: Desk) -> None:
    body = json.dumps({"reason": "  I do not\n like\x00 it "})
    assert desk.ask("POST", "/kill", body, **RIGHT)[0] == 202
    assert desk.ask("POST", "/reset", json.dumps({"reason": "looked into"}), **RIGHT)[0] == 202
    assert desk.wishes == [("kill", "I do not like it"), ("reset", "looked into")]


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"bearer {TOKEN}", "Bearer \xe9"],
)
@pytest.mark.parametrize("path", ["/kill", "/reset"])
def test_without_the_token_nothing_is_done(desk: Desk, path: str, header: str) -> None:
    assert desk.ask("POST", path, b'{"reason": "x"}', Authorization=header)[0] == 401
    assert desk.ask("POST", path, json.dumps({"reason": "x", "token": TOKEN}))[0] == 401
    assert desk.wishes == []


@pytest.mark.parametrize("origin", ["http://evil.example.org", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_another_page_acts_on_nothing(desk: Desk, origin: str) -> None:
    assert desk.ask("POST", "/kill", b"{}", Origin=origin, **RIGHT)[0] == 403
    assert desk.ask("POST", "/kill", b"{}", Host="evil.example.org", **RIGHT)[0] == 403
    assert desk.wishes == []
    assert desk.ask("POST", "/kill", b"{}", Origin=desk.board.url.rstrip("/"), **RIGHT)[0] == 202


@given(body=st.binary(max_size=3 * module.BODY) | st.sampled_from([b"[" * 4000, b'{"reason": 3}', b"[]", b"9" * 4000]))
def test_whatever_its_body_a_kill_kills_and_a_reset_does_not(lasting: Desk, body: bytes) -> None:
    desk = lasting
    desk.wishes.clear()
    for path in ("/kill", "/reset"):
        try:
            desk.ask("POST", path, body, **RIGHT)
        except OSError:  # it hung up on what it did not read
            assert len(body) > module.BODY
    kind, reason = desk.wishes[0]
    assert kind == "kill" and len(reason) <= module.REASON and reason.isprintable() and reason
    assert [kind for kind, _ in desk.wishes[1:]] in ([], ["reset"])
    assert len(desk.wishes) == 1 or json.loads(body)["reason"]


@pytest.mark.parametrize("length", ["-5", "x", "99999999999999", "1000"])
def test_a_kill_whose_body_never_comes_kills(desk: Desk, length: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    lines = ("POST /kill HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}", f"Content-Length: {length}")
    with desk.raw("\r\n".join(lines) + "\r\n\r\n") as connection:
        assert connection.recv(12) == b"HTTP/1.0 202"
    assert desk.wishes == [("kill", "no reason was given")]


def test_a_kill_that_the_desk_cannot_do_is_said_to_have_failed(desk: Desk) -> None:
    status, content, _ = desk.ask("POST", "/kill", b'{"reason": "fail"}', **RIGHT)
    assert status == 500 and b"cannot be reached" not in content


@pytest.mark.parametrize("token", ["", "short", "é" * 20])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(UserError, match=r"the board's token: has .* expected 16 or more"):
        Board("127.0.0.1", 0, token, print, print, Metrics(Alerts(AlertConfig(), lambda: START)))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "example.org"])
def test_it_listens_to_this_machine_only(host: str) -> None:
    with pytest.raises(UserError, match=f"board.host = '{host}': expected one of 127.0.0.1, localhost, ::1"):
        Board(host, 0, TOKEN, print, print, Metrics(Alerts(AlertConfig(), lambda: START)))


def test_a_port_that_is_taken_is_named(desk: Desk) -> None:
    with pytest.raises(UserError, match=f"board.port = {desk.board.port}: cannot listen on 127.0.0.1"):
        Board("127.0.0.1", desk.board.port, TOKEN, print, print, desk.metrics)


# -- who is slow, rude or many


def test_clients_that_drip_or_say_nothing_are_let_go_and_hold_up_nobody(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    silent, ends = [desk.raw("") for _ in range(20)], time.monotonic() + 30
    dripping = desk.raw("GET / HTTP/1.1\r\nX: ")
    desk.board.show(a_view())
    assert desk.ask("GET", "/view.json")[0] == 200
    with pytest.raises(OSError):  # it hangs up, though something comes all the time
        while time.monotonic() < ends:
            dripping.sendall(b"y")
            time.sleep(0.02)
    assert [connection.recv(1) for connection in silent] == [b""] * 20
    for connection in (dripping, *silent):
        connection.close()


def test_who_reads_nothing_is_let_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    connection = desk.raw("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(1) == b"H"
    assert places(desk) == module.LISTENERS - 1
    view, ends = replace(a_view(bars=2), why="x" * 1_000_000), time.monotonic() + 30
    while places(desk) < module.LISTENERS:
        desk.board.show(view)
        assert time.monotonic() < ends
        time.sleep(0.02)
    connection.close()


def places(desk: Desk) -> int:
    """How many may still listen."""
    free = 0
    while desk.board.listeners.acquire(blocking=False):
        free += 1
    for _ in range(free):
        desk.board.listeners.release()
    return free


def test_more_connections_than_places_are_hung_up_on_and_the_desk_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    many = [desk.raw("") for _ in range(module.CLIENTS + 40)]
    assert sum(connection.recv(1) == b"" for connection in many[module.CLIENTS :]) == 40
    desk.board.show(a_view())
    for connection in many:
        connection.close()
    assert desk.board.written()[0] == 1


def test_showing_never_raises_whatever_is_shown_and_the_log_tells(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    view = replace(a_view(), cash=object(), series=None)  # type: ignore[arg-type]
    desk.board.show(view)
    with pytest.raises((http.client.HTTPException, OSError)):
        desk.ask("GET", "/view.json")
    assert "the board cannot answer" in caplog.text
    desk.board.show(a_view())
    assert desk.ask("GET", "/view.json")[0] == 200


def test_the_desk_may_append_to_the_series_that_it_shows(desk: Desk) -> None:
    series = points(50)
    view = replace(a_view(bars=2), series=series)
    over = threading.Event()

    def trade() -> None:
        while not over.is_set():
            series.append(replace(series[-1], at=series[-1].at + timedelta(days=1)))
            if len(series) > 2000:
                del series[50:]

    trader = threading.Thread(target=trade)
    trader.start()
    for _ in range(50):
        columns = json.loads(view.to_json())["series"]
        assert len({len(column) for column in columns.values()}) == 1
    over.set()
    trader.join()


# -- metrics


def read(desk: Desk) -> dict[tuple[str, str], float]:
    """Samples by name and the values of their labels."""
    text = desk.ask("GET", "/metrics")[1].decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, ",".join(sample.labels.values())): sample.value for sample in samples}


def test_metrics_say_what_the_desk_shows_and_counts(desk: Desk) -> None:
    bar = datetime(2024, 5, 6, 20, tzinfo=UTC)
    series = [Point(bar, value) for value in (100.0, 120.0, 90.0)]
    desk.board.show(replace(a_view(state="REDUCING"), bar=bar, updated=bar + timedelta(seconds=7), series=series))
    desk.metrics.handled(0.2)
    desk.metrics.decided(0.03)
    for status in ("filled", "filled", "rejected"):
        desk.metrics.ended(status)
    desk.alerts.alert("halt", "critical", "drawdown")
    desk.alerts.alert("halt", "critical", "drawdown")
    found = read(desk)
    assert found["podracer_desk_equity", ""] == 90.0
    assert found["podracer_desk_drawdown", ""] == pytest.approx(0.25)
    assert [found["podracer_desk_state", state] for state in ("ACTIVE", "REDUCING", "HALTED")] == [0, 1, 0]
    assert found["podracer_desk_bars_total", ""] == 1
    assert (
        found["podracer_desk_bar_seconds_bucket", "0.25"] == 1 and found["podracer_desk_bar_seconds_bucket", "0.1"] == 0
    )
    assert found["podracer_desk_decision_seconds_sum", ""] == pytest.approx(0.03)
    assert found["podracer_desk_orders_total", "filled"] == 2 and found["podracer_desk_orders_total", "rejected"] == 1
    assert found["podracer_desk_alerts", "halt,critical"] == 2
    assert found["podracer_desk_bar_age_seconds", ""] >= 7
    assert found["podracer_desk_limit_used", "drawdown"] == pytest.approx(1.07)


def test_a_position_that_is_gone_is_gone_from_the_metrics(desk: Desk) -> None:
    view = a_view()
    desk.board.show(view)
    assert ("podracer_desk_weight", "AAPL") in read(desk)
    desk.board.show(replace(view, positions=view.positions[1:]))
    found = read(desk)
    assert ("podracer_desk_weight", "AAPL") not in found and ("podracer_desk_weight", "MSFT") in found


def test_metrics_are_there_before_the_first_bar(desk: Desk) -> None:
    assert read(desk)["podracer_desk_bars_total", ""] == 0
    empty = View("Demo", "v", "local", "ACTIVE", "", None, "starts", START)
    desk.board.show(empty)
    assert read(desk)["podracer_desk_state", "ACTIVE"] == 1
