"""Alerts: said once, counted when they come again, and sent by threads that trading never waits for."""

from __future__ import annotations

import contextlib
import html
import importlib
import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args
from urllib.parse import urlsplit

from kit.config import setting
from kit.errors import UserError
from kit.log import redact
from paper.watch.channels import EmailConfig, send_email, send_webhook

Level = Literal["info", "warning", "critical"]
LEVELS: tuple[Level, ...] = get_args(Level)
WEBHOOK_URL, SMTP_PASSWORD = "PODRACER_WEBHOOK_URL", "PODRACER_SMTP_PASSWORD"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
WAITING = 100  # alerts that may wait for a channel
SHOWN = 100  # alerts that are remembered
LETTERS = 2000  # of a text, at most
ATTEMPTS = (0.0, 2.0, 10.0)  # seconds to wait before each
HOUR = 3600.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlertConfig:
    """Who is told what. Secrets come from the environment: PODRACER_WEBHOOK_URL and PODRACER_SMTP_PASSWORD."""

    level: Level = setting("warning", help="the least that is sent; the page shows all")
    window: float = setting(900.0, low=0, help="seconds in which the same alert is counted instead of sent again")
    rate: int = setting(12, low=1, help="alerts of a kind that are sent in an hour, at most")
    timeout: float = setting(5.0, above=0, help="seconds that a channel waits for an answer")
    email: EmailConfig | None = setting(None, help="whom to write to")
    plugin: str = setting("", help="module:function that is called with every alert")


@dataclass(frozen=True)
class Alert:
    """Something that a person should know."""

    at: datetime  # when it was said first
    kind: str
    level: Level
    text: str
    count: int = 1  # how often, within the window


class Alerts:
    """`alert` returns at once and never raises. What could not be sent is counted in `unsent`, and logged."""

    def __init__(
        self, config: AlertConfig, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`now`, which asks nobody, is what alerts are stamped with; windows and rates go by the seconds of `clock`."""
        self.config, self.now, self.clock = config, now, clock
        self.counts: Counter[tuple[str, Level]] = Counter()  # of all alerts, by kind and level
        self._lock = threading.Lock()
        self._alerts: deque[tuple[float, Alert]] = deque(maxlen=SHOWN)  # with when their window began
        self._sent: dict[str, deque[float]] = {}  # by kind: when, in the last hour
        self._held: Counter[str] = Counter()  # by kind: not sent since the last that was
        self.channels = [_Channel(name, send) for name, send in _senders(config).items()]

    def alert(self, kind: str, level: Level, text: str) -> None:
        text = redact(" ".join(text.split()))[:LETTERS]
        log.log(logging.INFO if level == "info" else logging.WARNING, "%s, %s: %s", level, kind, text)
        with self._lock:
            self.counts[kind, level] += 1
            repeated = self._repeated(kind, text)
            alert = Alert(self.now(), kind, level, text)
            if not repeated:
                self._alerts.append((self.clock(), alert))
            if LEVELS.index(level) < LEVELS.index(self.config.level):
                return
            if repeated or not self._may_send(kind):
                self._held[kind] += 1
                return
            held = self._held.pop(kind, 0)
        if held:
            alert = replace(alert, text=f"{text} (and {held} more of this kind since the last that was sent)")
        for channel in self.channels:
            channel.put(alert)

    def recent(self) -> tuple[Alert, ...]:
        """Those that are remembered, the newest first."""
        with self._lock:
            return tuple(alert for _, alert in reversed(self._alerts))

    @property
    def unsent(self) -> dict[str, int]:
        """How many were not sent, by channel."""
        return {channel.name: channel.unsent for channel in self.channels}

    def close(self, wait: float = 5.0) -> None:
        """Give the channels some seconds to send what waits."""
        ends = time.monotonic() + wait
        for channel in self.channels:
            channel.close(max(0.0, ends - time.monotonic()))

    def _repeated(self, kind: str, text: str) -> bool:
        """Count it where it was said already."""
        for i, (since, alert) in enumerate(self._alerts):
            if (alert.kind, alert.text) == (kind, text) and self.clock() - since < self.config.window:
                self._alerts[i] = since, replace(alert, count=alert.count + 1)
                return True
        return False

    def _may_send(self, kind: str) -> bool:
        """Each kind has its own allowance, so that no storm of one silences another."""
        sent, now = self._sent.setdefault(kind, deque()), self.clock()
        while sent and now - sent[0] >= HOUR:
            sent.popleft()
        if len(sent) >= self.config.rate:
            return False
        sent.append(now)
        return True


class _Channel:
    """A queue and the thread that empties it."""

    def __init__(self, name: str, send: Callable[[Alert], None]) -> None:
        self.name, self.send, self.unsent = name, send, 0
        self._queue: queue.Queue[Alert | None] = queue.Queue(WAITING)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"alerts by {name}", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self._failed(alert, "too many wait")

    def close(self, wait: float) -> None:
        self._closing.set()
        ends = time.monotonic() + wait
        with contextlib.suppress(queue.Full):  # what is left is told of below
            self._queue.put(None, timeout=wait)
        self._thread.join(max(0.0, ends - time.monotonic()))
        if self._thread.is_alive():
            log.error("alerts by %s: %d or more are not sent at the end", self.name, max(1, self._queue.qsize()))

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            self._deliver(alert)

    def _deliver(self, alert: Alert) -> None:
        why = ""
        for wait in ATTEMPTS:
            if wait and self._closing.wait(wait):
                break  # at the end there is no time for another attempt
            try:
                return self.send(alert)
            except Exception as error:  # a plug-in may raise anything, and the next alert must still go out
                why = f"{type(error).__name__}: {error}"
        return self._failed(alert, why)

    def _failed(self, alert: Alert, why: str) -> None:
        self.unsent += 1
        log.error("alert by %s is not sent: %s: %s", self.name, alert.kind, redact(why))


def headline(alert: Alert) -> str:
    return f"{alert.level.upper()} {alert.kind}: {alert.text}"


def webhook_url() -> str:
    """The address that the environment names; empty: there is none."""
    url = os.environ.get(WEBHOOK_URL, "")
    try:
        parts = urlsplit(url)
        right = not url or (parts.hostname and parts.scheme in ("https", "http"))
        plain = parts.scheme == "http" and parts.hostname not in LOOPBACK
    except ValueError:
        right = plain = False
    if not right or plain:  # it is not shown, as whoever knows it may write there
        raise UserError(f"{WEBHOOK_URL}: expected an address that begins with https://")
    return url


def _senders(config: AlertConfig) -> dict[str, Callable[[Alert], None]]:
    """What sends an alert, by the channel's name."""
    senders: dict[str, Callable[[Alert], None]] = {}
    if url := webhook_url():
        # Slack reads <!channel> and the like as commands.
        senders["webhook"] = lambda alert: send_webhook(
            url, html.escape(f"{headline(alert)} ({alert.at:%Y-%m-%d %H:%M:%S %Z})", quote=False), config.timeout
        )
    if email := config.email:
        password = os.environ.get(SMTP_PASSWORD, "")
        if email.user and not password:
            raise UserError(f"{SMTP_PASSWORD}: is not set; expected the password of {email.user}")
        senders["email"] = lambda alert: send_email(
            email, password, headline(alert), f"{alert.text}\n\n{alert.at:%Y-%m-%d %H:%M:%S %Z}", config.timeout
        )
    if config.plugin:
        senders["plugin"] = _plugin(config.plugin)
    return senders


def _plugin(name: str) -> Callable[[Alert], None]:
    module, colon, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None) if colon and module else None
    except ImportError as error:
        raise UserError(f"alerts.plugin = {name!r}: cannot be imported: {error}") from None
    if not callable(found):
        raise UserError(f"alerts.plugin = {name!r}: expected module:function, a function that takes an alert")
    return found
