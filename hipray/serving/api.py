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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from hipray import RESEARCH_NOTICE, __version__
from hipray.data.pseudonyms import Pseudonyms
from hipray.serving.access import HostCheck, TokenCheck
from hipray.serving.admission import Admission, Lane
from hipray.serving.audit_line import AuditLine
from hipray.serving.body import (
    choose_lane,
    parse_film,
    read_batch,
    read_extras,
    read_request,
    refuse_announced,
    refuse_query,
)
from hipray.serving.bounds import FORM_OVERHEAD_BYTES
from hipray.serving.clock import Step, StepClock
from hipray.serving.docs_page import build_reference
from hipray.serving.films import ScoreRequest
from hipray.serving.guard import (
    CSP_HEADER,
    AnswerGuard,
    answer_problem,
    answer_refusal,
    explain_and_log,
)
from hipray.serving.interface import OPERATIONS, describe_api
from hipray.serving.messages import NUMBERS_ONLY
from hipray.serving.metrics import read_node_metrics, request_metrics
from hipray.serving.page import Page, build_page
from hipray.serving.paths import Path
from hipray.serving.patience import while_connected
from hipray.serving.problems import SLOW_BODY, Problem, ProblemError, explain_refusal
from hipray.serving.service import FilmAnswer, ScoringService

Answering = Callable[..., Awaitable[Response]]

PROBLEM_OF_FILM = ("status", "title", "detail", "code")
"""Members of the problem of one film of a batch; its request has the others."""

UNROUTED = {
    HTTPStatus.NOT_FOUND: "there is no such path; score films at POST /v1/score",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take this method",
}
"""What the router itself refuses."""


class Endpoint:
    """The routes of one service."""

    def __init__(
        self,
        service: ScoringService,
        admission: Admission,
        page: Page,
        *,
        max_file_bytes: int,
        pseudonyms: Pseudonyms | None,
    ) -> None:
        """`pseudonyms` name films in audit lines, which otherwise name none."""
        self._service = service
        self._admission = admission
        self._page = page
        self._max_file_bytes = max_file_bytes
        self._pseudonyms = pseudonyms
        self._timeout_s = service.limits.timeout_s

    @property
    def operations(self) -> dict[Path, Answering]:
        """What answers each operation of the interface."""
        return {
            Path.SCORE: self.score,
            Path.SCORE_BATCH: self.score_batch,
            Path.MODELS: self.models,
            Path.METRICS: self.metrics,
            Path.HEALTHZ: self.healthz,
            Path.READYZ: self.readyz,
        }

    async def score(self, request: Request) -> JSONResponse:
        """Score one film."""
        clock, extras = StepClock(), read_extras(request.query_params)
        line: AuditLine = request.state.audit
        refuse_announced(request, self._max_file_bytes, overhead=FORM_OVERHEAD_BYTES)
        due = self._deadline()
        door = self._admission.stand_in_line(choose_lane(request), extras=extras != NUMBERS_ONLY)
        async with door as turn:
            async with _body_until(due):
                with clock.measure(Step.FETCH):
                    film = await read_request(request, max_file_bytes=self._max_file_bytes)
            if isinstance(film, ScoreRequest):
                self._name_film(line, film)
            async with asyncio.timeout_at(due), turn:
                scoring = self._service.score(
                    film, request_id=line.request_id, clock=clock, extras=extras
                )
                answer = await while_connected(request, scoring)
        self._note(line, answer)
        refused = explain_refusal(answer.study.refusal)
        told = {**answer.as_dict(), "request_id": line.request_id}
        return JSONResponse(told) if refused is None else answer_refusal(refused, told)

    async def score_batch(self, request: Request) -> JSONResponse:
        """Score the films that a list names; the failure of one is its own result."""
        clock = StepClock()
        line: AuditLine = request.state.audit
        refuse_query(request.query_params)
        due = self._deadline()
        async with AsyncExitStack() as door:
            turn = await door.enter_async_context(self._admission.stand_in_line(Lane.NAMED))
            async with _body_until(due):
                batch = await read_batch(request)
            async with asyncio.timeout_at(due):
                await door.enter_async_context(turn)
            films = [_parse_or_fail(fields) for fields in batch.films]
            asked = [film for film in films if isinstance(film, ScoreRequest)]
            for film in asked:
                self._name_film(line, film)
            scoring = self._service.score_batch(asked, request_id=line.request_id, clock=clock)
            found = iter(await while_connected(request, scoring))
        results = [
            self._show(line, next(found) if isinstance(film, ScoreRequest) else film)
            for film in films
        ]
        return JSONResponse(
            {
                "request_id": line.request_id,
                "release_digest": self._service.release.digest,
                "results": results,
                "timings_ms": clock.timings_ms(),
            }
        )

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s

    def _name_film(self, line: AuditLine, film: ScoreRequest) -> None:
        if self._pseudonyms is not None:
            line.named.append(self._pseudonyms.file(film.uri))

    def _show(self, line: AuditLine, found: FilmAnswer | Exception) -> dict[str, Any]:
        """One result of a batch."""
        if isinstance(found, Exception):
            problem = explain_and_log(found, line.request_id)
            line.note_problem(problem)
            told = problem.as_dict(line.request_id)
            return {"problem": {name: told[name] for name in PROBLEM_OF_FILM}}
        self._note(line, found)
        return {"answer": found.as_dict()}

    def _note(self, line: AuditLine, answer: FilmAnswer) -> None:
        line.note_answer(answer.study)
        request_metrics().observe_answer(answer.study, answer.timings_ms)

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


@asynccontextmanager
async def _body_until(due: float) -> AsyncIterator[None]:
    """Raise ProblemError (408) where the caller's body is not here in time."""
    try:
        async with asyncio.timeout_at(due):
            yield
    except TimeoutError:
        raise ProblemError(SLOW_BODY) from None


def _parse_or_fail(fields: dict[str, Any]) -> ScoreRequest | ProblemError:
    try:
        return parse_film(fields)
    except ProblemError as error:
        return error


def build_api(
    service: ScoringService,
    admission: Admission,
    *,
    max_file_bytes: int,
    check_token: TokenCheck,
    check_host: HostCheck,
    pseudonyms: Pseudonyms | None = None,
) -> FastAPI:
    """Return the ASGI application around a service; hosts are checked where no tokens are set."""
    api = FastAPI(
        title="hipray",
        version=__version__,
        description=RESEARCH_NOTICE,
        docs_url=None,  # FastAPI's page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # a redirect would send the film again, and by this port's scheme
        lifespan=partial(_warm_and_close, service),
    )
    endpoint = Endpoint(
        service, admission, build_page(), max_file_bytes=max_file_bytes, pseudonyms=pseudonyms
    )
    _add_routes(api, endpoint, check_token, check_host)
    api.add_exception_handler(HTTPException, _answer_unrouted)
    api.add_middleware(AnswerGuard, release_digest=service.release.digest)
    describe_api(api, guarded=check_token.is_set)
    return api


@asynccontextmanager
async def _warm_and_close(service: ScoringService, _: FastAPI) -> AsyncIterator[None]:
    await service.warm_up()  # a replica gets requests once it has answered one itself
    yield
    service.close()


def _add_routes(
    api: FastAPI, endpoint: Endpoint, check_token: TokenCheck, check_host: HostCheck
) -> None:
    async def require_token(request: Request) -> None:
        line: AuditLine = request.state.audit
        line.caller = check_token(request.headers.get("authorization"))

    async def require_own_name(request: Request) -> None:
        check_host(request.headers.get("host"))

    guard = Depends(require_token if check_token.is_set else require_own_name)
    for path, answer in endpoint.operations.items():
        described = OPERATIONS[path]
        api.add_api_route(
            path,
            answer,
            methods=[described.method],
            operation_id=described.name,
            openapi_extra=described.document(guarded=check_token.is_set),
            response_class=PlainTextResponse if described.answer is None else JSONResponse,
            dependencies=[guard] if described.guarded else [],
        )
    api.add_api_route("/", endpoint.page, methods=["GET"], include_in_schema=False)
    api.add_api_route("/docs", endpoint.reference, methods=["GET"], include_in_schema=False)
    for route in [*api.routes]:
        if isinstance(route, APIRoute) and route.methods == {"GET"}:
            route.methods.add("HEAD")  # as GET without a body (RFC 9110 9.1); not in the document


async def _answer_unrouted(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    problem = Problem(status, UNROUTED.get(status, status.phrase), error.headers or {})
    request.state.audit.problem = problem.code.value
    return answer_problem(problem, request.state.request_id)
