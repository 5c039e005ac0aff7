"""The service over HTTP: who may ask, how much, and how a refusal looks. Runs by itself or inside Ray Serve."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.manifest import parse_json
from kit.config import build, to_dict
from kit.errors import UserError
from serve.metrics import Metrics
from serve.record import PaperRecord
from serve.registry import Registry
from serve.schema import ActionsAnswer, ActionsRequest, Problem, Refusal, Strict, Version, refused
from serve.service import Service

log = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz")  # to whoever reaches the port: they say yes or no, and which version
DOCS = ("/docs", "/openapi.json")  # likewise, where they are asked for: a browser has no token
ADMIN = "/v1/admin/"
PROBLEM = "application/problem+json"
TITLES = {400: "bad request", 401: "not authorised", 404: "not found", 405: "method not allowed", 408: "too slow",
          413: "too large", 415: "not JSON", 422: "refused", 500: "failed", 503: "busy", 504: "too late"}  # fmt: skip
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ActionsRequest"}}},
    }
}

_REFUSAL = {"description": "refused", "content": {PROBLEM: {"schema": Refusal.model_json_schema()}}}


class Report(Strict):
    """What the desk reports of a version that it trades on paper."""

    version: Version
    record: dict[str, Any]


_REPORT = {"requestBody": {"content": {"application/json": {"schema": Report.model_json_schema()}}}}


def create_app(service: Service, registry: Registry | None, token: str, admin: str) -> FastAPI:
    config = service.config
    shown: dict[str, Any] = {} if config.docs else {"docs_url": None, "openapi_url": None}
    app = FastAPI(
        title="Podracer",
        description="Target weights of a trained ensemble.",
        responses={"default": _REFUSAL},
        redirect_slashes=False,
        redoc_url=None,
        **shown,
    )
    metrics = Metrics(service)
    free = OPEN + (DOCS if config.docs else ())
    app.add_middleware(Guard, token=token, admin=admin, free=free, limit=config.body_limit, metrics=metrics)
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _not_valid)

    @app.post("/v1/actions", response_model=ActionsAnswer, openapi_extra=_BODY)
    async def actions(request: Request) -> Response:
        """Target weights for the bar that closed last."""
        body = await _json(request, config.timeout)
        answer = await service.actions(body)
        later = BackgroundTask(service.shadow, body, answer)
        return Response(answer.model_dump_json(), media_type="application/json", background=later)

    @app.post("/v1/explain", openapi_extra=_BODY)
    async def explain(request: Request) -> dict[str, Any]:
        """Which features and which members moved that decision."""
        return await service.explained(await _json(request, config.timeout))

    @app.get("/v1/ensemble")
    async def ensemble(version: Version | None = None) -> dict[str, Any]:
        """The manifest, its scores and where it comes from; the champion's unless a version is named."""
        now = service.now
        model = now.asked(version)
        return {
            "version": model.version,
            "bars_needed": model.needed,
            "champion": now.champion.version,
            "canary": [*now.others],
            "shadow": [shadow.version for shadow in now.shadows],
            "trouble": service.trouble,
            "expected": to_dict(model.bundle.reference.walk_forward)
            | {"dispersion": model.bundle.reference.dispersion},
            "verdict": await asyncio.to_thread(_verdict, registry, model.version),
            "manifest": model.bundle.manifest.sealed(),
        }

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether this process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Whether it can answer, and with what."""
        return {"status": "ready", "version": service.now.champion.version}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Of this replica, for Prometheus."""
        return Response(metrics.text(), media_type=metrics.media_type)

    @app.post(ADMIN + "record", openapi_extra=_REPORT)
    async def paper_record(request: Request) -> dict[str, str]:
        """A paper record of a version, without which none becomes champion. The same record again changes nothing."""
        if registry is None:
            raise Problem(404, "", "no registry is served here")
        report = _report(await _json(request, config.timeout))
        try:
            record = build(PaperRecord, report.record, "record")
            await asyncio.to_thread(registry.record, report.version, record)
        except UserError as error:
            raise Problem(422, "record", str(error)) from None
        return {"status": "recorded", "version": report.version}

    if config.docs:
        app.openapi_schema = _described(app)
    return app


class Guard:
    """Before anything is read: who asks, and how much they send. After: what it came to."""

    def __init__(
        self, app: ASGIApp, token: str, admin: str, free: tuple[str, ...], limit: int, metrics: Metrics
    ) -> None:
        self.app, self.token, self.admin, self.free = app, token, admin, free
        self.limit, self.metrics = limit, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        status, began = 0, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.metrics.answered(path, status, time.perf_counter() - began)
            await send(message)

        try:
            self._check(path, dict(scope["headers"]))
            await self.app(scope, _bounded(receive, self.limit), noted)
        except Exception as error:
            if not isinstance(error, Problem):
                log.exception("a request failed")
            if status:  # too late for another answer
                raise
            fault = Problem(500, "", "this is a fault of the server; its log says more")
            await problem_response(error if isinstance(error, Problem) else fault)(scope, receive, noted)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        if path not in self.free:
            wanted = self.admin if path.startswith(ADMIN) else self.token
            given = headers.get(b"authorization", b"")
            if not wanted or not hmac.compare_digest(given, b"Bearer " + wanted.encode()):
                raise Problem(401, "authorization", "expected: Bearer, and the token")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Problem(400, "content-length", "is no number")
        if len(length) > 18 or int(length) > self.limit:
            raise Problem(413, "content-length", f"above {self.limit:,} bytes")


def _bounded(receive: Receive, limit: int) -> Receive:
    """A body without a stated length is counted as it comes."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise Problem(413, "", f"the body is above {limit:,} bytes")
        return message

    return counted


def problem_response(problem: Problem) -> Response:
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    refusal = Refusal(
        type="about:blank",
        title=TITLES.get(problem.status, "refused"),
        status=problem.status,
        detail=str(problem),
        field=problem.field,
        reason=problem.reason,
    )
    return Response(refusal.model_dump_json(), problem.status, headers, PROBLEM)


async def _refused(request: Request, error: Any) -> Response:
    return problem_response(error)


async def _not_found(request: Request, error: Any) -> Response:
    allowed = error.headers or {}
    reason = f"expected {allowed['Allow']}" if "Allow" in allowed else str(error.detail).lower()
    response = problem_response(Problem(error.status_code, "", reason))
    response.headers.update(allowed)
    return response


async def _not_valid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return problem_response(Problem(422, ".".join(map(str, first["loc"][1:])), first["msg"]))


async def _json(request: Request, seconds: float) -> bytes:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "content-type", f"is {kind[:50] or 'missing'}; expected application/json")
    try:
        return await asyncio.wait_for(request.body(), seconds)
    except TimeoutError:
        raise Problem(408, "", f"the body was not there within {seconds:g} s") from None
    except ClientDisconnect:
        raise Problem(400, "", "the body ended early") from None


def _report(body: bytes) -> Report:
    try:
        return Report.model_validate(parse_json(body, "report"))
    except UserError as error:
        raise Problem(422, "", str(error)) from None
    except ValidationError as error:
        raise refused(error) from None


def _verdict(registry: Registry | None, version: str) -> dict[str, Any] | None:
    try:
        return registry.verdict_of(version) if registry else None
    except UserError as error:
        raise Problem(500, "verdict", str(error)) from None


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI does not know what is parsed by hand."""
    described = app.openapi()
    schema = ActionsRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    described["components"]["schemas"] |= schema.pop("$defs", {}) | {"ActionsRequest": schema}
    described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"bearer": []}]
    return described
