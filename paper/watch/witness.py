"""Tells the webhook the journal's newest anchor: who keeps it elsewhere can prove that nothing was cut off."""

from __future__ import annotations

import logging
import threading

from paper.chain import Anchor
from paper.watch.channels import send_webhook

APART = 1.0  # seconds between two posts, at least
log = logging.getLogger(__name__)


class Witness:
    """`put` returns at once. Of anchors that wait only the newest is sent: it vouches for all before it."""

    def __init__(self, url: str, name: str, timeout: float, apart: float = APART) -> None:
        self.url, self.name, self.timeout, self.apart = url, name, timeout, apart
        self.unsent = 0
        self._newest: Anchor | None = None
        self._changed, self._closing = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def put(self, anchor: Anchor) -> None:
        with self._changed:
            self._newest = anchor
            self._changed.notify()

    def close(self, wait: float = 5.0) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(wait)

    def _run(self) -> None:
        while (anchor := self._next()) is not None:
            try:
                send_webhook(self.url, f"anchor of {self.name}: {anchor.line.strip()}", self.timeout)
            except Exception as error:  # the journal has its own; the next one says all that this one did
                self.unsent += 1
                log.warning("an anchor was not sent to the webhook: %s: %s", type(error).__name__, error)
            self._closing.wait(self.apart)

    def _next(self) -> Anchor | None:
        """The newest that was not sent; None: there is none, and the end has come."""
        with self._changed:
            while self._newest is None and not self._closing.is_set():
                self._changed.wait()
            anchor, self._newest = self._newest, None
        return anchor
