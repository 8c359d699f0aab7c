"""The HTTP interface.

    POST /v1/score        JSON {"uri": "s3://bucket/key"} or multipart field `file` -> answer
    POST /v1/score:batch  JSON {"films": [{"uri": ...}, ...]} -> one answer or problem each
    GET  /v1/models       what is served
    GET  /metrics         Ray's Prometheus page of this node
    GET  /healthz         the process lives
    GET  /readyz          all stages have answered once
    GET  /                a page for a person; it holds nothing and asks the paths above

A film that is understood and refused is an answer (200 with `refusal`); a request that is not
understood, allowed or possible now is a problem document.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

from hipray import RESEARCH_NOTICE, __version__
from hipray.serving.access import TokenCheck
from hipray.serving.admission import Admission
from hipray.serving.audit_line import AuditLine
from hipray.serving.body import (
    FORM_OVERHEAD_BYTES,
    read_batch,
    read_extras,
    read_request,
    refuse_announced,
    refuse_query,
)
from hipray.serving.clock import Step, StepClock
from hipray.serving.docs_page import build_reference
from hipray.serving.guard import CSP_HEADER, AnswerGuard, answer_problem, answer_refusal
from hipray.serving.interface import OPERATIONS, describe_api
from hipray.serving.metrics import read_node_metrics, request_metrics
from hipray.serving.page import Page, build_page
from hipray.serving.patience import while_connected
from hipray.serving.problems import Problem, explain_refusal
from hipray.serving.service import ScoringService

UNROUTED = {
    HTTPStatus.NOT_FOUND: "there is no such path; score films at POST /v1/score",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method",
}
"""What the router itself refuses."""


class Endpoint:
    """The routes of one service."""

    def __init__(
        self, service: ScoringService, admission: Admission, page: Page, *, max_file_bytes: int
    ) -> None:
        self._service = service
        self._admission = admission
        self._page = page
        self._max_file_bytes = max_file_bytes
        self._timeout_s = service.limits.timeout_s

    async def score(self, request: Request) -> JSONResponse:
        """Score one film."""
        clock, extras = StepClock(), read_extras(request.query_params)
        line: AuditLine = request.state.audit
        refuse_announced(request, self._max_file_bytes, overhead=FORM_OVERHEAD_BYTES)
        async with asyncio.timeout(self._timeout_s), self._admission.admit():
            with clock.measure(Step.FETCH):
                film = await read_request(request, max_file_bytes=self._max_file_bytes)
            scoring = self._service.score(
                film, request_id=line.request_id, clock=clock, extras=extras
            )
            answer = await while_connected(request, scoring)
        self._note(line, answer)
        refused = explain_refusal(answer)
        return JSONResponse(answer) if refused is None else answer_refusal(refused, answer)

    async def score_batch(self, request: Request) -> JSONResponse:
        """Score the films that a list names; the failure of one is its own result."""
        clock = StepClock()
        line: AuditLine = request.state.audit
        refuse_query(request.query_params)
        async with self._admission.admit():
            async with asyncio.timeout(self._timeout_s - clock.elapsed_s()):
                batch = await read_batch(request)
            scoring = self._service.score_batch(
                batch.films, request_id=line.request_id, clock=clock
            )
            answer = await while_connected(request, scoring)
        for result in answer["results"]:
            if "answer" in result:
                self._note(line, result["answer"])
            else:
                line.note_problem(result["problem"])
        return JSONResponse(answer)

    def _note(self, line: AuditLine, answer: dict[str, Any]) -> None:
        line.note_answer(answer)
        request_metrics().observe_answer(answer)

    async def models(self) -> JSONResponse:
        """Say what is served."""
        return JSONResponse(self._service.describe())

    async def metrics(self) -> PlainTextResponse:
        """Show what Ray and hipray count on this node."""
        return PlainTextResponse(await asyncio.to_thread(read_node_metrics))

    async def healthz(self) -> JSONResponse:
        """Say that the process lives."""
        return JSONResponse({"status": "live", "research_notice": RESEARCH_NOTICE})

    async def readyz(self) -> JSONResponse:
        """Say with which release all stages have answered."""
        await self._service.warm_up()
        release = self._service.release
        told = {"release": release.name, "release_digest": release.digest}
        return JSONResponse({"status": "ready", **told, "research_notice": RESEARCH_NOTICE})

    async def page(self) -> HTMLResponse:
        """Return the page for a person."""
        return HTMLResponse(self._page.html, headers={CSP_HEADER: self._page.policy})

    async def reference(self, request: Request) -> HTMLResponse:
        """Return what `/openapi.json` says, to be read."""
        page = build_reference(request.app.openapi())
        return HTMLResponse(page.html, headers={CSP_HEADER: page.policy})


def build_api(
    service: ScoringService,
    admission: Admission,
    *,
    max_file_bytes: int,
    check_token: TokenCheck,
) -> FastAPI:
    """Return the ASGI application around a service."""

    async def require_token(request: Request) -> None:
        check_token(request.headers.get("authorization"))

    @asynccontextmanager
    async def warm_and_close(_: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()  # a replica gets requests once it has answered one itself
        yield
        service.close()

    api = FastAPI(
        title="hipray",
        version=__version__,
        description=RESEARCH_NOTICE,
        docs_url=None,  # FastAPI's page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would send the film again, and by this port's scheme
        lifespan=warm_and_close,
    )
    page = build_page()
    endpoint = Endpoint(service, admission, page, max_file_bytes=max_file_bytes)
    for path, described in OPERATIONS.items():
        api.add_api_route(
            path,
            getattr(endpoint, described.name),
            methods=[described.method],
            operation_id=described.name,
            openapi_extra=described.document(guarded=check_token.is_set),
            response_class=PlainTextResponse if described.answer is None else JSONResponse,
            dependencies=[Depends(require_token)] if described.guarded else [],
        )
    api.add_api_route("/", endpoint.page, methods=["GET"], include_in_schema=False)
    api.add_api_route("/docs", endpoint.reference, methods=["GET"], include_in_schema=False)
    for route in [*api.routes]:
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods.add("HEAD")  # as GET without a body (RFC 9110 9.1); not in the document
    api.add_exception_handler(HTTPException, _answer_unrouted)
    api.add_middleware(AnswerGuard, release_digest=service.release.digest)
    describe_api(api, guarded=check_token.is_set)
    return api


async def _answer_unrouted(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    problem = Problem(status, UNROUTED.get(status, status.phrase), error.headers or {})
    request.state.audit.problem = problem.code.value
    return answer_problem(problem, request.state.request_id)
