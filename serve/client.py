"""The thin client of the endpoint that hosts an ensemble: what the trading desk asks through.

It loads no PyTorch, no Ray and no pydantic. A call ends within its deadline, whatever the server
does, and no message ever holds the token.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from kit.errors import UserError
from kit.log import HIDDEN
from market.panel import Panel
from serve.wire import (
    Answer,
    BadAnswer,
    Part,
    Portfolio,
    ServeError,
    body,
    checked_version,
    one_line,
    parse,
    read_answer,
)

__all__ = ["Answer", "BadAnswer", "Client", "Portfolio", "Refused", "ServeError", "Unavailable"]

log = logging.getLogger(__name__)

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what may follow "Bearer" in a header
PASSING = {429, 502, 503, 504}  # statuses that may be gone on the next attempt
LARGEST = 16 << 20  # bytes of an answer
CHUNK = 1 << 16
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds, where the server names none


class Refused(ServeError):
    """The endpoint will not answer this request, however often it is asked."""

    def __init__(self, status: int, field: str | None, reason: str) -> None:
        super().__init__(status, field, reason)
        self.status, self.field, self.reason = status, field, reason

    def __str__(self) -> str:
        return one_line(f"refused with {self.status}: {f'{self.field}: ' if self.field else ''}{self.reason}")


class Unavailable(ServeError):
    """The deadline is over, or the attempts are used up."""


class Client:
    """Asks one endpoint, one call at a time; its connection stays open between calls.

    A call is repeated, within `attempts` and `deadline`, where that can do no harm and may help: when
    no connection came about or it broke, and upon 429, 502, 503 and 504.
    """

    def __init__(
        self,
        url: str,
        token: str,
        deadline: float = 10.0,  # seconds, for a call with all its attempts
        attempts: int = 3,
        connect: float = 2.0,  # seconds, of which making a connection may take so many
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        for name, value in {"deadline": deadline, "attempts": attempts, "connect": connect}.items():
            if not 0 < value < math.inf:
                raise UserError(f"{name} = {value}: expected more than 0")
        self._url, self._token = _checked_url(url), _checked_token(token)
        self._deadline, self._attempts, self._connect = deadline, attempts, connect
        self._clock, self._sleep, self._random = clock, sleep, random
        self._session = _Session()
        self._kept = False  # whether a connection was left open

    def __repr__(self) -> str:
        return f"Client({self._url!r})"

    def actions(
        self, panel: Panel, portfolio: Portfolio, asked_at: datetime | None = None, version: str | None = None
    ) -> Answer:
        """What to hold, decided at the panel's last close."""
        tree = self._json("POST", "/v1/actions", body(panel, portfolio, asked_at, version))
        return read_answer(Part(tree, self._token), panel, asked_at, version)

    def explain(
        self, panel: Panel, portfolio: Portfolio, asked_at: datetime | None = None, version: str | None = None
    ) -> dict[str, Any]:
        """Why the ensemble decides so."""
        tree = self._json("POST", "/v1/explain", body(panel, portfolio, asked_at, version))
        Part(tree, self._token).version(version)
        return tree

    def ensemble(self, version: str | None = None) -> dict[str, Any]:
        """What an ensemble is: of the champion, or of the version named."""
        query = "" if version is None else f"?version={checked_version(version)}"
        tree = self._json("GET", f"/v1/ensemble{query}")
        Part(tree, self._token).version(version)
        return tree

    def healthy(self) -> bool:
        """Whether the endpoint is alive now: a single attempt."""
        return self._says_yes("/healthz")

    def ready(self) -> bool:
        """Whether the endpoint can decide now: a single attempt, for 503 is an answer here."""
        return self._says_yes("/readyz")

    def record(self, version: str, record: Mapping[str, Any], token: str) -> None:
        """Add a record to a version's, with the admin's token.

        It is repeated like any other call: the endpoint keeps a record once by its `id`, so that one
        whose confirmation was lost on the way is not kept twice.
        """
        if not isinstance(record.get("id"), str) or not record["id"]:
            raise UserError(f"record: id = {record.get('id')!r}: expected a text that no other record has")
        try:
            data = json.dumps({"version": checked_version(version), "record": dict(record)}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"record {record['id']}: cannot be written as JSON: {error}") from None
        self._ask("POST", "/v1/admin/record", data.encode(), _checked_token(token))

    def _says_yes(self, path: str) -> bool:
        try:
            self._ask("GET", path, attempts=1)
        except ServeError:
            return False
        return True

    def _json(self, method: str, path: str, data: bytes | None = None) -> dict[str, Any]:
        try:
            return parse(self._ask(method, path, data))
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"{self._url}{path}: the answer is not JSON as expected: {error}") from None

    def _ask(
        self, method: str, path: str, data: bytes | None = None, token: str = "", attempts: int | None = None
    ) -> bytes:
        """The content of a good answer."""
        start, attempts = self._clock(), attempts or self._attempts
        call = _Call(method, f"{self._url}{path}", data, token or self._token, start + self._deadline)
        for attempt in range(1, attempts + 1):
            outcome = self._attempt(call)
            if isinstance(outcome, _Reply) and outcome.status not in PASSING:
                return _accepted(outcome, call.url)
            trouble = outcome if isinstance(outcome, _Trouble) else _passing(outcome)
            pause = trouble.pause
            if pause is None:
                pause = self._random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
            if attempt == attempts or pause >= call.until - self._clock():
                break
            log.warning("%s", one_line(f"{call.url}: {trouble.what}; asking again in {pause:.2f} s"))
            self._sleep(pause)
        asks = f", and asks to wait {trouble.pause:g} s" if trouble.pause else ""
        spent = f"attempt {attempt} of {attempts}, {self._clock() - start:.1f} s of {self._deadline:g} s"
        raise Unavailable(f"{call.url}: {trouble.what}{asks}; {spent}")

    def _attempt(self, call: _Call) -> _Reply | _Trouble:
        outcome = self._exchange(call)
        if isinstance(outcome, _Trouble) and outcome.dropped and self._kept:  # closed by the server when idle
            outcome = self._exchange(call)
        self._kept = isinstance(outcome, _Reply)
        return outcome

    def _exchange(self, call: _Call) -> _Reply | _Trouble:
        """One exchange, in a thread that can be left behind: name look-ups and dripping headers obey no timeout."""
        left = max(call.until - self._clock(), 0.001)
        outcomes: queue.SimpleQueue[_Reply | _Trouble | BaseException] = queue.SimpleQueue()

        def work() -> None:
            try:
                outcomes.put(self._transfer(call, left))
            except BaseException as error:
                outcomes.put(error)

        threading.Thread(target=work, name="serve.client", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=left)
        except queue.Empty:
            return _Trouble("no answer in time")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _transfer(self, call: _Call, left: float) -> _Reply | _Trouble | BadAnswer:
        """Exceptions become text here: those of requests carry the headers, and so the token."""
        headers = {"Authorization": f"Bearer {call.token}", "Accept-Encoding": "identity"}
        if call.data is not None:
            headers["Content-Type"] = "application/json"
        timeouts = (min(self._connect, left), left)
        content = bytearray()
        try:
            with self._session.request(
                call.method, call.url, data=call.data, headers=headers, timeout=timeouts, stream=True
            ) as response:
                while chunk := response.raw.read1(CHUNK, decode_content=False):
                    content += chunk
                    if len(content) > LARGEST:
                        return BadAnswer(f"{call.url}: the answer has more than {LARGEST >> 20} MB")
                    if self._clock() > call.until:  # nobody waits for it any more
                        return _Trouble("no answer in time")
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            connecting = isinstance(error, requests.ConnectTimeout)
            return _Trouble(f"no connection within {timeouts[0]:.3g} s" if connecting else "no answer in time")
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            root = _root(error)
            what = f"{type(root).__name__}: {root}".replace(call.token, HIDDEN)
            return _Trouble(what, dropped=isinstance(error, requests.ConnectionError))
        after = response.headers.get("Retry-After", "")
        pause = float(after) if re.fullmatch(r"[0-9]{1,9}", after) else None
        if response.status_code // 100 != 2:  # messages are made of it
            content = content.replace(call.token.encode(), HIDDEN.encode())
        return _Reply(response.status_code, bytes(content), pause)


class _Session(requests.Session):
    """Goes where it is told, as it is told: by no proxy, .netrc or certificates of the environment, and no redirect."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


@dataclass(frozen=True)
class _Call:
    method: str
    url: str
    data: bytes | None
    token: str
    until: float  # when it must have ended


@dataclass(frozen=True)
class _Reply:
    status: int
    content: bytes
    pause: float | None  # seconds that the server asked for


@dataclass(frozen=True)
class _Trouble:
    """Why an attempt gave no answer."""

    what: str
    dropped: bool = False  # before the first byte of an answer
    pause: float | None = None


def _accepted(reply: _Reply, url: str) -> bytes:
    status = reply.status
    if 200 <= status < 300:
        return reply.content
    if 300 <= status < 400:
        raise Refused(status, None, f"{url} redirects elsewhere; expected the address of the service itself")
    field, reason = _reason(reply)
    if 400 <= status < 500:
        raise Refused(status, field, reason)
    raise Unavailable(f"{url}: answered {status} ({reason})")


def _passing(reply: _Reply) -> _Trouble:
    return _Trouble(f"answered {reply.status} ({_reason(reply)[1]})", pause=reply.pause)


def _reason(reply: _Reply) -> tuple[str | None, str]:
    """Which field is wrong, and why, from a problem's details; the status's own name where there are none."""
    try:
        problem = parse(reply.content)
    except (ValueError, RecursionError):  # such as the page of a proxy
        problem = {}
    reasons = [problem.get(key) for key in ("reason", "detail", "title")]
    reasons.append(http.client.responses.get(reply.status, "without a reason"))
    field = problem.get("field")
    return field if isinstance(field, str) else None, next(one_line(r) for r in reasons if isinstance(r, str) and r)


def _checked_token(token: str) -> str:
    if not TOKEN.fullmatch(token):
        raise UserError("token: is empty or holds signs that no token has; expected letters, digits and -._~+/=")
    return token


def _checked_url(url: str) -> str:
    """Without the stroke at its end; a complaint shows no password."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good &= "@" not in parts.netloc and not parts.query and not parts.fragment and url.isprintable()
    except ValueError:
        good = False
    if not good:
        shown = HIDDEN if "@" in url else repr(url)
        raise UserError(f"url = {shown}: expected the service's address and no more, such as http://127.0.0.1:8000")
    return url.rstrip("/")


def _root(error: BaseException) -> BaseException:
    """What lies beneath the wrappings of the libraries."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error
