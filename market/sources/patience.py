"""Alpaca's REST clients made patient: time limits, a rate budget, and retries that never show a key."""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from kit.errors import UserError
from kit.log import redact

log = logging.getLogger(__name__)

KEYS = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
PER_MINUTE = 200
BURST = 20
ATTEMPTS = 6
LONGEST_PAUSE = 300.0  # seconds


class Clock:
    """Time, in one place, so that nobody who tests has to wait."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class RateBudget:
    """A token bucket: no minute sees more than `per_minute` calls."""

    def __init__(self, clock: Clock, per_minute: int = PER_MINUTE, burst: int = BURST) -> None:
        self._clock, self._burst = clock, burst
        self._per_second = (per_minute - burst) / 60
        self._tokens, self._at = float(burst), clock.monotonic()

    def wait(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second) - 1
        self._at = now
        if self._tokens < 0:
            self._clock.sleep(-self._tokens / self._per_second)


@dataclass(frozen=True)
class Trouble:
    """Why a call gave no answer. It holds no exception: those carry the request, and so the keys."""

    what: str
    passes: bool  # trying again may help
    pause: float = 0.0  # seconds that the server asked for
    status: int | None = None  # of the answer, where there was one
    reason: str | None = None  # the service's own words, where it gave any


def make_patient(client: Any, service: str, hint: str, timeout_s: float, clock: Clock) -> None:
    """Give a client of alpaca-py time limits, the rate budget and our retries in place of its own.

    `hint` follows a complaint about keys: what else to check.
    """
    set_limits(client, timeout_s)
    budget, get = RateBudget(clock), client.get

    def patient_get(path: str, data: dict[str, Any], **options: Any) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            budget.wait()
            answer = ask(lambda: get(path, data, **options), hint, clock)
            if not isinstance(answer, Trouble):
                return _bars_in(answer, data.get("page_token"), service)
            if not answer.passes:
                raise UserError(f"{service}: {answer.what}")
            if attempt < ATTEMPTS:
                pause = min(max(answer.pause, 2.0 ** (attempt - 1)), LONGEST_PAUSE)
                log.warning("%s: %s; trying again in %.0f s", service, answer.what, pause)
                clock.sleep(pause)
        raise UserError(f"{service}: {answer.what}, {ATTEMPTS} times; run it again later, finished downloads are kept")

    client.get = patient_get


def set_limits(client: Any, timeout_s: float) -> None:
    """Time limits for a client of alpaca-py, which has none; no retries of its own, and no proxy that sees the keys."""
    client._retry = 0
    client._session.trust_env = False
    for scheme in ("http://", "https://"):
        client._session.mount(scheme, _adapter(timeout_s))


def read_keys() -> tuple[str, str]:
    """Alpaca's keys, from the environment."""
    lacking = [name for name in KEYS if not os.environ.get(name, "").strip()]
    if lacking:
        raise UserError(f"{' and '.join(lacking)}: not set in the environment; Alpaca gives you both with an account")
    key, secret = (_key(name) for name in KEYS)
    return key, secret


def keys_if_any() -> tuple[str, str] | None:
    """The keys where both are set; a broken one is refused even where none is needed."""
    key, secret = (_key(name) for name in KEYS)
    return (key, secret) if key and secret else None


def _key(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(f"{name}: holds characters that no key has; copy it again")
    return value


def _adapter(timeout_s: float) -> Any:
    from requests.adapters import HTTPAdapter

    class TimedAdapter(HTTPAdapter):
        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            return super().send(request, **options | {"timeout": timeout_s})

    return TimedAdapter()


def ask(call: Callable[[], Any], hint: str, clock: Clock) -> Any | Trouble:
    """One attempt at a call of alpaca-py."""
    import requests
    from alpaca.common.exceptions import APIError

    try:
        return call()
    except APIError as error:
        return _refused(error, hint, clock)
    except requests.exceptions.JSONDecodeError:
        return Trouble("the answer is not JSON", passes=True)
    except requests.RequestException as error:  # its text may quote a header
        passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        return Trouble(f"no answer ({type(error).__name__})", passes=isinstance(error, passing))


def _refused(error: Any, hint: str, clock: Clock) -> Trouble:
    status, headers = error.status_code, error.response.headers
    reason = _message(str(error))
    what = f"answered {status} ({reason or http.client.responses.get(status, 'without a reason')})"
    if status in (401, 403):
        what = f"{what}; check that APCA_API_KEY_ID and APCA_API_SECRET_KEY belong together{hint}"
    return Trouble(what, status == 429 or status >= 500, _asked_pause(headers, clock), status, reason)


def _message(body: str) -> str | None:
    """What the server says is wrong; None where the body is not its JSON, such as a page of a proxy."""
    try:
        return " ".join(redact(str(json.loads(body)["message"])).split())[:200]
    except (ValueError, KeyError, TypeError):
        return None


def _asked_pause(headers: Any, clock: Clock) -> float:
    """Seconds to wait: `Retry-After` in seconds or as a date, or `X-RateLimit-Reset` in seconds since 1970."""
    after, reset = headers.get("Retry-After", ""), headers.get("X-RateLimit-Reset", "")
    try:
        if after:
            return float(after) if after.isdigit() else parsedate_to_datetime(after).timestamp() - clock.now()
        return float(reset) - clock.now() if reset.isdigit() else 0.0
    except ValueError:
        return 0.0


def _bars_in(answer: Any, page_token: str | None, service: str) -> dict[str, Any]:
    """The answer as the client expects it, which stumbles over `{"bars": null}`."""
    if not isinstance(answer, dict) or not isinstance(answer.get("bars", ""), dict | None):
        raise UserError(f"{service}: the answer holds no bars; check that url is that of Alpaca's data")
    next_token = answer.get("next_page_token")
    if next_token is not None and next_token == page_token:
        raise UserError(f"{service}: the answer names itself as its next page; nothing can follow")
    bars = {symbol: rows for symbol, rows in (answer["bars"] or {}).items() if rows}
    return {"bars": bars, "next_page_token": next_token}
