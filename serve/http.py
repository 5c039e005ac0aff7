"""The service over HTTP: who may ask, how much, and how a refusal looks. Runs by itself or inside Ray Serve."""

from __future__ import annotations

import hmac
import json
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agents.manifest import parse_json
from kit.config import build
from kit.errors import UserError
from serve.metrics import Metrics
from serve.record import PaperRecord
from serve.registry import Registry
from serve.schema import VERSION, ActionsAnswer, ActionsRequest, Problem, Strict
from serve.service import COME_AGAIN, Service

log = logging.getLogger(__name__)

OPEN = ("/healthz", "/readyz")  # to whoever reaches the port: they say nothing but yes or no
ADMIN = "/v1/admin/"
TITLES = {400: "bad request", 401: "not authorised", 404: "not found", 405: "method not allowed", 413: "too large",
          415: "not JSON", 422: "refused", 500: "failed", 503: "busy", 504: "too late"}  # fmt: skip
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ActionsRequest"}}},
    }
}


class Report(Strict):
    """What the desk reports of a version that it trades on paper."""

    version: str
    record: dict[str, Any]


_REPORT = {"requestBody": {"content": {"application/json": {"schema": Report.model_json_schema()}}}}


def create_app(service: Service, registry: Registry | None, token: str, admin: str) -> FastAPI:
    config = service.config
    shown: dict[str, Any] = {} if config.docs else {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(title="Podracer", description="Target weights of a trained ensemble.", **shown)
    metrics = Metrics(service)
    app.add_middleware(Guard, token=token, admin=admin, limit=config.body_limit, metrics=metrics)
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(HTTPException, _not_found)
    app.add_exception_handler(RequestValidationError, _not_valid)

    @app.post("/v1/actions", response_model=ActionsAnswer, openapi_extra=_BODY)
    async def actions(request: Request) -> Response:
        """Target weights for the bar that closed last."""
        body = await _json(request)
        answer = await service.actions(body)
        later = BackgroundTask(service.shadow, body, answer)
        return Response(answer.model_dump_json(), media_type="application/json", background=later)

    @app.post("/v1/explain", openapi_extra=_BODY)
    async def explain(request: Request) -> dict[str, Any]:
        """Which features and which members moved that decision."""
        return await service.explained(await _json(request))

    @app.get("/v1/ensemble")
    async def ensemble(version: str | None = None) -> dict[str, Any]:
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
            "verdict": registry.verdict_of(model.version) if registry else None,
            "manifest": model.bundle.manifest.sealed(),
        }

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether this process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Whether it can answer, and with what; `trouble` is why it does not serve what it was told to."""
        return {"status": "ready", "version": service.now.champion.version, "trouble": service.trouble}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Of this replica, for Prometheus."""
        return Response(metrics.text(), media_type=metrics.media_type)

    @app.post(ADMIN + "record", openapi_extra=_REPORT)
    async def record(request: Request) -> dict[str, str]:
        """A paper record of a version, without which none becomes champion. The same record again changes nothing."""
        if registry is None:
            raise Problem(404, "", "no registry is served here")
        report = _report(await _json(request))
        try:
            registry.record(report.version, build(PaperRecord, report.record, "record"))
        except UserError as error:
            raise Problem(422, "record", str(error)) from None
        return {"status": "recorded", "version": report.version}

    if config.docs:
        app.openapi_schema = _described(app)
    return app


class Guard:
    """Before anything is read: who asks, and how much they send. After: what it came to."""

    def __init__(self, app: ASGIApp, token: str, admin: str, limit: int, metrics: Metrics) -> None:
        self.app, self.token, self.admin, self.limit, self.metrics = app, token, admin, limit, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begun = 500, False

        async def noted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        with self.metrics.timed(scope["path"], lambda: status):
            try:
                self._check(scope)
                await self.app(scope, _bounded(receive, self.limit), noted)
            except Problem as problem:
                if begun:
                    raise
                await problem_response(problem)(scope, receive, noted)
            except Exception:
                log.exception("a request failed")
                if begun:
                    raise
                fault = Problem(500, "", "this is a fault of the server; its log says more")
                await problem_response(fault)(scope, receive, noted)

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        if path not in OPEN:
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
    content = {
        "type": "about:blank",
        "title": TITLES.get(problem.status, "refused"),
        "status": problem.status,
        "detail": str(problem),
        "field": problem.field,
        "reason": problem.reason,
    }
    return Response(json.dumps(content), problem.status, headers, "application/problem+json")


async def _refused(request: Request, error: Any) -> Response:
    return problem_response(error)


async def _not_found(request: Request, error: Any) -> Response:
    reason = "expected POST" if error.status_code == 405 else str(error.detail).lower()
    return problem_response(Problem(error.status_code, "", reason, COME_AGAIN if error.status_code == 503 else None))


async def _not_valid(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    return problem_response(Problem(422, ".".join(map(str, first["loc"])), first["msg"]))


async def _json(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "content-type", f"is {kind[:50] or 'missing'}; expected application/json")
    return await request.body()


def _report(body: bytes) -> Report:
    try:
        tree = parse_json(body, "report")
        return Report(version=tree["version"], record=tree["record"])
    except UserError as error:
        raise Problem(422, "", str(error)) from None
    except (KeyError, ValueError):
        raise Problem(422, "", f"expected a version ({VERSION}) and a record") from None


def _described(app: FastAPI) -> dict[str, Any]:
    """FastAPI does not know what is parsed by hand."""
    described = app.openapi()
    schema = ActionsRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    described["components"]["schemas"] |= schema.pop("$defs", {}) | {"ActionsRequest": schema}
    described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    described["security"] = [{"bearer": []}]
    return described
