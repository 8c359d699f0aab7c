"""The HTTP interface.

    POST /v1/score   JSON {"uri": "s3://bucket/key"} or multipart field `file` -> answer
    GET  /v1/models  what is served
    GET  /healthz    the process lives
    GET  /readyz     all stages have answered once

A film that is understood and refused is an answer (200 with `refusal`); a request that is not
understood, allowed or possible now is a problem document.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hipray import RESEARCH_NOTICE, __version__
from hipray.serving.access import check_token
from hipray.serving.admission import Admission
from hipray.serving.body import (
    FILE_FIELD,
    FORM_TYPE,
    JSON_TYPE,
    ScoreRequest,
    Stated,
    read_request,
)
from hipray.serving.clock import Step, StepClock
from hipray.serving.problems import DEFECT, PROBLEM_TYPE, Problem, explain
from hipray.serving.service import ScoringService

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""On every answer: it is data for one caller, never a page and never cached."""

ID_HEADER = "x-request-id"

REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Only a random UUID is taken over: another word of the caller may name a patient."""


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model with its definitions in place: OpenAPI has them elsewhere."""
    schema = model.model_json_schema()
    known = {f"#/$defs/{name}": body for name, body in schema.pop("$defs", {}).items()}

    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            target = known.get(node.get("$ref", ""), {})
            return {k: fill(v) for k, v in (target | node).items() if k != "$ref"}
        return [fill(item) for item in node] if isinstance(node, list) else node

    filled: dict[str, Any] = fill(schema)
    return filled


REQUEST_BODY = {
    "required": True,
    "content": {
        JSON_TYPE: {"schema": _schema_of(ScoreRequest)},
        FORM_TYPE: {
            "schema": {
                "type": "object",
                "properties": {
                    FILE_FIELD: {"type": "string", "format": "binary"},
                    **_schema_of(Stated)["properties"],
                },
                "required": [FILE_FIELD],
            }
        },
    },
}

UNROUTED = {
    HTTPStatus.NOT_FOUND: "there is no such path; score films at POST /v1/score",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method",
}
"""What the router itself refuses."""

logger = logging.getLogger(__name__)


class Endpoint:
    """The routes of one service."""

    def __init__(
        self, service: ScoringService, admission: Admission, *, max_file_bytes: int
    ) -> None:
        self._service = service
        self._admission = admission
        self._max_file_bytes = max_file_bytes

    async def score(self, request: Request) -> JSONResponse:
        """Score one film."""
        clock = StepClock()
        request_id: str = request.state.request_id
        async with asyncio.timeout(self._service.timeout_s), self._admission.admit():
            with clock.measure(Step.FETCH):
                film = await read_request(request, max_file_bytes=self._max_file_bytes)
            answer = await self._service.score(film, request_id=request_id, clock=clock)
        return JSONResponse(answer)

    async def models(self) -> JSONResponse:
        """Say what is served."""
        return JSONResponse(self._service.describe())

    async def healthz(self) -> JSONResponse:
        """Say that the process lives."""
        return JSONResponse({"status": "live", "research_notice": RESEARCH_NOTICE})

    async def readyz(self) -> JSONResponse:
        """Say whether all stages have answered; the first call makes them."""
        await self._service.warm_up()
        return JSONResponse({"status": "ready", "research_notice": RESEARCH_NOTICE})


def build_api(
    service: ScoringService,
    admission: Admission,
    *,
    max_file_bytes: int,
    token_sha256: Sequence[str] = (),
) -> FastAPI:
    """Return the ASGI application around a service."""

    async def require_token(request: Request) -> None:
        check_token(request.headers.get("authorization"), token_sha256)

    @asynccontextmanager
    async def close_at_end(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    endpoint = Endpoint(service, admission, max_file_bytes=max_file_bytes)
    api = FastAPI(
        title="hipray",
        version=__version__,
        description=RESEARCH_NOTICE,
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
        lifespan=close_at_end,
    )
    guarded: dict[str, Any] = {"dependencies": [Depends(require_token)]}
    body = {"requestBody": REQUEST_BODY}
    api.add_api_route("/v1/score", endpoint.score, methods=["POST"], openapi_extra=body, **guarded)
    api.add_api_route("/v1/models", endpoint.models, methods=["GET"], **guarded)
    api.add_api_route("/healthz", endpoint.healthz, methods=["GET"])
    api.add_api_route("/readyz", endpoint.readyz, methods=["GET"])
    api.add_exception_handler(HTTPException, _answer_unrouted)
    api.add_middleware(AnswerGuard)
    return api


class AnswerGuard:
    """Gives each request an id, each answer its headers, and each failure a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID_HEADER)
        request_id = given if given and REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        # Serve's proxy names each request and states that name in the answer itself
        added = HEADERS if given else {**HEADERS, ID_HEADER: request_id}
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name.encode(), value.encode()) for name, value in added.items()]
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        except Exception as error:
            if status:
                raise
            response = answer_problem(explain_and_log(error, request_id), request_id)
            await response(scope, receive, send_guarded)
        # no path, query, address or file name: keys of films may name patients
        logger.info("request %s: %d", request_id, status)


def explain_and_log(error: Exception, request_id: str) -> Problem:
    """Return what a failure means to the caller; a defect goes to the log with its traceback."""
    problem = explain(error)
    if problem is DEFECT:
        logger.error("request %s failed", request_id, exc_info=error)
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning("request %s: %s", request_id, type(error).__name__)
    return problem


def answer_problem(problem: Problem, request_id: str) -> JSONResponse:
    """Return a problem as a response (RFC 9457)."""
    return JSONResponse(
        problem.as_dict(request_id),
        status_code=problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_TYPE,
    )


async def _answer_unrouted(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    problem = Problem(status, UNROUTED.get(status, status.phrase), error.headers or {})
    return answer_problem(problem, request.state.request_id)
