"""Alerts: said once, counted, bounded, and never in the way; secrets come from the environment and stay there."""

from __future__ import annotations

import json
import logging
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kit.config import build
from kit.errors import UserError
from paper.watch import alerts as module
from paper.watch.alerts import Alert, AlertConfig, Alerts
from paper.watch.channels import EmailConfig, NotSent, send_webhook

NOW = datetime(2024, 5, 6, 20, 0, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.WEBHOOK_URL, raising=False)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Hook(ThreadingHTTPServer):
    """A webhook that keeps what it is told. `faults` are statuses to answer first; 0: nothing, until the end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.texts: list[str] = []
        self.faults: list[int] = []
        self.asked = 0
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/services/T0/B0/hush-hush"


class _Hook(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        status = self.server.faults.pop(0) if self.server.faults else 200
        if not status:
            self.server.over.wait(60)
            return
        if status == 200:
            assert list(content) == ["text"]
            self.server.texts.append(content["text"])
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.texts.append("asked by GET")
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook(nobody_is_told: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A webhook that is set in the environment; attempts follow each other at once."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "ATTEMPTS", (0.0, 0.01, 0.01))
    with running(Hook()) as server:
        monkeypatch.setenv(module.WEBHOOK_URL, server.url)
        yield server
        server.over.set()


@contextmanager
def running(server: Any) -> Iterator[Any]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def made(clock: Clock | None = None, **settings: Any) -> Alerts:
    return Alerts(build(AlertConfig, settings), lambda: NOW, clock or Clock())


def until(true: Any) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


# -- what is remembered


def test_the_same_alert_counts_up_within_the_window_and_is_new_after_it() -> None:
    clock = Clock()
    alerts = made(clock, window=60)
    for _ in range(3):
        alerts.alert("stale", "warning", "AAPL: no bar")
    alerts.alert("stale", "warning", "MSFT: no bar")
    clock.seconds = 59.9
    alerts.alert("stale", "warning", "AAPL: no bar")
    clock.seconds = 60.0
    alerts.alert("stale", "warning", "AAPL: no bar")
    assert [(alert.text[:4], alert.count) for alert in alerts.recent()] == [("AAPL", 1), ("MSFT", 1), ("AAPL", 4)]
    assert alerts.counts == {("stale", "warning"): 6}
    assert alerts.recent()[0] == Alert(NOW, "stale", "warning", "AAPL: no bar")


def test_no_more_are_remembered_than_are_shown() -> None:
    alerts = made()
    for i in range(module.SHOWN + 50):
        alerts.alert("reject", "warning", f"order {i}")
    texts = [alert.text for alert in alerts.recent()]
    assert texts == [f"order {i}" for i in reversed(range(50, module.SHOWN + 50))]


def test_an_alert_holds_no_secret_and_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "s3cret-value-of-a-key")
    alerts = made()
    alerts.alert("broker", "warning", "it said\n s3cret-value-of-a-key " + "x" * 5000)
    text = alerts.recent()[0].text
    assert text.startswith("it said [hidden] xxx") and len(text) == module.LETTERS


# -- what is sent


def test_a_webhook_is_told_once_of_what_comes_again_and_then_how_often(hook: Hook) -> None:
    clock = Clock()
    alerts = made(clock, window=60)
    for _ in range(4):
        alerts.alert("stale", "warning", "no bar")
    clock.seconds = 61
    alerts.alert("stale", "warning", "no bar")
    alerts.close()
    assert hook.texts == [
        "WARNING stale: no bar (2024-05-06 20:00:05 UTC)",
        "WARNING stale: no bar (and 3 more of this kind since the last that was sent) (2024-05-06 20:00:05 UTC)",
    ]


def test_a_storm_of_one_kind_is_bounded_and_silences_no_other(hook: Hook) -> None:
    clock = Clock()
    alerts = made(clock, rate=3)
    for i in range(20):
        alerts.alert("reject", "warning", f"order {i}")
    alerts.alert("halt", "critical", "drawdown")
    clock.seconds = module.HOUR
    alerts.alert("reject", "warning", "order 20")
    alerts.close()
    kinds = [text.split(" (")[0] for text in hook.texts]
    assert kinds == [f"WARNING reject: order {i}" for i in range(3)] + [
        "CRITICAL halt: drawdown",
        "WARNING reject: order 20",
    ]
    assert "and 17 more of this kind" in hook.texts[-1]


def test_only_levels_that_were_asked_for_are_sent_and_all_are_shown(hook: Hook) -> None:
    alerts = made(level="critical")
    alerts.alert("restart", "info", "started")
    alerts.alert("stale", "warning", "no bar")
    alerts.alert("halt", "critical", "drawdown")
    alerts.close()
    assert [text.split()[1] for text in hook.texts] == ["halt:"]
    assert len(alerts.recent()) == 3


def test_slack_gets_no_commands(hook: Hook) -> None:
    alerts = made()
    alerts.alert("reject", "warning", "<!channel> & <script>")
    alerts.close()
    assert hook.texts[0].startswith("WARNING reject: &lt;!channel&gt; &amp; &lt;script&gt; (")


def test_a_webhook_that_fails_is_asked_again(hook: Hook) -> None:
    hook.faults = [500, 429]
    alerts = made()
    alerts.alert("halt", "critical", "drawdown")
    until(lambda: hook.texts)
    alerts.close()
    assert hook.asked == 3 and len(hook.texts) == 1
    assert alerts.unsent == {"webhook": 0}


@pytest.mark.parametrize("status", [302, 404])
def test_what_is_not_sent_is_counted_and_logged_without_the_address(
    hook: Hook, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hook.faults = [status] * 3
    alerts = made()
    alerts.alert("halt", "critical", "drawdown")
    until(lambda: alerts.unsent["webhook"])
    alerts.alert("halt", "critical", "the next one goes out")
    alerts.close()
    assert alerts.unsent == {"webhook": 1}
    assert [text.split(" (")[0] for text in hook.texts] == ["CRITICAL halt: the next one goes out"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == [f"alert by webhook is not sent: halt: NotSent: answered {status}"]
    assert "hush-hush" not in caplog.text


def test_a_dead_webhook_says_so_without_its_address() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        port = server.server_address[1]
    with pytest.raises(NotSent, match=r"^ConnectionRefusedError$"):
        send_webhook(f"http://127.0.0.1:{port}/hush-hush", "text", 1.0)


def test_a_webhook_that_hangs_holds_nobody_up(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 5)
    hook.faults = [0] * 100
    alerts = made(rate=1000, timeout=60)
    alerts.alert("reject", "warning", "first")
    until(lambda: hook.asked == 1)  # it hangs: the sender waits there from here on
    for i in range(50):
        alerts.alert("reject", "warning", f"order {i}")
    assert hook.asked == 1 and len(alerts.recent()) == 51
    assert alerts.unsent == {"webhook": 45}
    alerts.close(0.1)


def test_an_end_waits_for_a_hanging_webhook_no_longer_than_it_is_told(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.faults = [0]
    alerts = made(timeout=60)
    alerts.alert("halt", "critical", "drawdown")
    alerts.close(0.05)
    assert "alerts by webhook: 1 or more are not sent at the end" in caplog.text


# -- e-mail


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as a client without a login needs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mailbox)
        self.mails: list[tuple[list[str], str]] = []


class _Mailbox(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self.say("220 here")
        readers: list[str] = []
        while line := self.rfile.readline().decode().strip():
            command = line.split(":")[0].upper()
            if command == "RCPT TO":
                readers.append(line.split("<")[1].rstrip(">"))
            if command == "DATA":
                self.say("354 go on")
                lines = []
                while (text := self.rfile.readline().decode()) != ".\r\n":
                    lines.append(text)
                self.server.mails.append((readers, "".join(lines)))
            self.say("221 bye" if command == "QUIT" else "250 ok")
            if command == "QUIT":
                break

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


def test_a_mail_says_what_and_when() -> None:
    with running(Mailbox()) as mailbox:
        email = {"host": "127.0.0.1", "port": mailbox.server_address[1], "sender": "desk@example.org",
                 "to": ["ann@example.org", "bob@example.org"], "security": "none"}  # fmt: skip
        alerts = made(email=email)
        alerts.alert("halt", "critical", "drawdown of 16 %\r\nBcc: eve@example.org")
        alerts.close()
        assert alerts.unsent == {"email": 0}
    [(readers, text)] = mailbox.mails
    mail = message_from_string(text, policy=policy.default)
    assert readers == ["ann@example.org", "bob@example.org"] and mail["Bcc"] is None
    assert mail["Subject"] == "CRITICAL halt: drawdown of 16 % Bcc: eve@example.org"
    assert "2024-05-06 20:00:05 UTC" in mail.get_content()


def test_a_mailbox_without_encryption_is_not_written_to_where_encryption_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", (0.0,))
    monkeypatch.setenv(module.SMTP_PASSWORD, "hush-hush-password")
    with running(Mailbox()) as mailbox:
        email = EmailConfig("127.0.0.1", "desk@example.org", ["ann@example.org"], "desk", mailbox.server_address[1])
        alerts = Alerts(AlertConfig(email=email), lambda: NOW)
        alerts.alert("halt", "critical", "drawdown")
        alerts.close()
    assert mailbox.mails == [] and alerts.unsent == {"email": 1}
    assert "STARTTLS" in caplog.text and "hush-hush" not in caplog.text


# -- plug-ins


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `my_alerts` of the user's project."""
    lines = ("got = []", "def keep(alert): got.append(alert)", "def fail(alert): 1 / 0", "number = 3")
    (tmp_path / "my_alerts.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "ATTEMPTS", (0.0,))
    yield
    sys.modules.pop("my_alerts", None)


def test_a_plug_in_gets_every_alert(plugin: None) -> None:
    alerts = made(plugin="my_alerts:keep")
    alerts.alert("halt", "critical", "drawdown")
    alerts.close()
    assert sys.modules["my_alerts"].got == [Alert(NOW, "halt", "critical", "drawdown")]


def test_a_plug_in_that_fails_keeps_no_other_channel_from_it(plugin: None, hook: Hook) -> None:
    alerts = made(plugin="my_alerts:fail")
    for text in ("one", "two"):
        alerts.alert("halt", "critical", text)
    alerts.close()
    assert alerts.unsent == {"webhook": 0, "plugin": 2} and len(hook.texts) == 2


@pytest.mark.parametrize("name", ["my_alerts", "my_alerts:", ":keep", "my_alerts:number", "my_alerts:no", "nowhere:f"])
def test_a_plug_in_that_is_none_is_refused(plugin: None, name: str) -> None:
    with pytest.raises(UserError, match=f"^alerts.plugin = '{name}': ") as error:
        made(plugin=name)
    assert "\n" not in str(error.value)


# -- settings


@pytest.mark.parametrize("url", ["hooks.example.org/x", "ftp://example.org", "http://example.org/x", "https://[::1"])
def test_a_webhook_that_is_none_is_refused_without_showing_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.WEBHOOK_URL, url)
    with pytest.raises(UserError, match=r"^PODRACER_WEBHOOK_URL: expected an address") as error:
        made()
    assert url not in str(error.value)


def test_a_login_without_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.SMTP_PASSWORD, raising=False)
    email = {"host": "mail.example.org", "sender": "a@example.org", "to": ["b@example.org"], "user": "desk"}
    with pytest.raises(UserError, match=r"^PODRACER_SMTP_PASSWORD: is not set; expected the password of desk$"):
        made(email=email)
    with pytest.raises(UserError, match="security: a password needs starttls or tls"):
        made(email=email | {"security": "none"})
    with pytest.raises(UserError, match="to: expected an address"):
        made(email=email | {"to": []})
