"""Alpaca's stream of order events, followed in a thread of its own for as long as the desk lives.

What happens while it is not connected is never sent again, and a stream may be silent though it is
connected: it saves the desk from waiting, but does not free it from asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from kit.log import redact

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until it connects again
START_WITHIN = 15.0  # seconds, for the connection and the keys
CLOSE_WITHIN = 5.0


class OrderStream:
    """Calls back with our id of every order of which an event tells, whatever the event."""

    def __init__(self, url: str, key: str, secret: str, changed: Callable[[str], None]) -> None:
        self._url, self._keys, self._changed = url, (key, secret), changed
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._follow())
        self._thread = threading.Thread(target=self._run, name="order stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself, after wrong keys
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(CLOSE_WITHIN)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _follow(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            trouble = await self._one_connection()
            if trouble is None:
                log.error("%s: the keys are refused; order events are not heard any more", self._url)
                return
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            log.warning("%s: %s; connecting again in %g s", self._url, trouble, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _one_connection(self) -> str | None:
        """What ended it; None: the keys are wrong, so that another would end as well."""
        stream = _stream(self._url, *self._keys)
        stream.subscribe_trade_updates(self._heard)
        try:
            await asyncio.wait_for(stream._start_ws(), START_WITHIN)
            await stream._consume()
        except Exception as error:
            if type(error) is ValueError and "authenticate" in str(error):  # alpaca-py has no type of its own for it
                return None
            return redact(f"{type(error).__name__} {error}").strip()
        finally:
            with contextlib.suppress(Exception):  # it was broken before
                await stream.close()
        return "it ended"

    async def _heard(self, event: dict[str, Any]) -> None:
        try:
            id = event["data"]["order"]["client_order_id"]
        except (KeyError, TypeError):
            log.warning("%s: an event that names no order was left out", self._url)
            return
        try:
            self._changed(id)
        except Exception:  # the listener's own mistake must not end the stream
            log.exception("order %s: the event could not be handed on", id)


def _stream(url: str, key: str, secret: str) -> Any:
    from alpaca.trading.stream import TradingStream

    quiet = logging.getLogger(f"{__name__}.socket")
    quiet.setLevel(logging.INFO)  # below that every frame is logged, and one holds the secret
    options = {"ping_interval": 10, "ping_timeout": 20, "close_timeout": 2, "max_queue": 1024, "logger": quiet}
    return TradingStream(key, secret, raw_data=True, url_override=url, websocket_params=options)
