"""The websocket of an account: who is authorised and listens hears of every event of its orders."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from paper.exchange import shapes
from paper.exchange.book import Event
from paper.exchange.faults import UNKNOWN, Script

TRADES = "trade_updates"
GOING_AWAY = 1001
PATIENCE = 1.0  # seconds that an answer waits for its event to leave
Line = asyncio.Queue[bytes | None]  # to one listener; None: close


class Hub:
    def __init__(self, script: Script, keys: tuple[str, str]) -> None:
        self._script, self._keys = script, keys
        self._lines: set[Line] = set()

    def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            fault = self._script.of_event(event.kind)
            kind = fault.stream if fault else None
            if kind == "silent":
                continue
            told = shapes.update(event)
            if kind == "unknown_enum":
                told["data"]["order"]["status"] = UNKNOWN
            for line in self._lines:
                for _ in range(2 if kind == "duplicate" else 1):
                    line.put_nowait(None if kind == "drop" else _packed(told))

    async def flushed(self) -> None:
        """Until every listener was sent what there is, or does not take it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(line.join() for line in self._lines)), PATIENCE)

    async def serve(self, socket: WebSocket) -> None:
        await socket.accept()
        line: Line = asyncio.Queue()
        writer = asyncio.create_task(_write(socket, line))
        authorised = False
        try:
            while True:
                message = _read(await socket.receive())
                inner = message.get("data")
                data: Mapping[str, Any] = inner if isinstance(inner, Mapping) else message
                action = message.get("action")
                if action in ("authenticate", "auth"):
                    authorised = self._known(data)
                    status = "authorized" if authorised else "unauthorized"
                    answer: dict[str, Any] = {"action": "authenticate", "status": status}
                    line.put_nowait(_packed({"stream": "authorization", "data": answer}))
                elif action == "listen" and authorised:
                    streams = [TRADES] if TRADES in data.get("streams", ()) else []
                    line.put_nowait(_packed({"stream": "listening", "data": {"streams": streams}}))
                    (self._lines.add if streams else self._lines.discard)(line)
                else:
                    error = "unknown action" if authorised else "not authorized"
                    line.put_nowait(_packed({"stream": "error", "data": {"error": error}}))
        except WebSocketDisconnect:
            pass
        finally:
            self._lines.discard(line)
            writer.cancel()

    def _known(self, data: Mapping[str, Any]) -> bool:
        given = (data.get("key_id", data.get("key")), data.get("secret_key", data.get("secret")))
        return same_keys(given, self._keys)


def same_keys(given: Sequence[object], keys: Sequence[str]) -> bool:
    return all(hmac.compare_digest(str(a).encode(), b.encode()) for a, b in zip(given, keys))


async def _write(socket: WebSocket, line: Line) -> None:
    """Send what comes, until the connection is closed from here or there."""
    with suppress(WebSocketDisconnect, RuntimeError):  # the latter: already closed
        while True:
            message = await line.get()
            try:
                if message is None:
                    await socket.close(GOING_AWAY)
                    return
                await socket.send_bytes(message)
            finally:
                line.task_done()


def _read(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code") or GOING_AWAY)
    try:
        tree = json.loads(message.get("text") or message.get("bytes") or "")
    except ValueError:
        return {}
    return tree if isinstance(tree, Mapping) else {}


def _packed(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()
