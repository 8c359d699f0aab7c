"""What surrounds a request: its id, its audit line, its headers, and a problem for a failure."""

import logging
import re
import uuid
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hipray.serving.audit_line import AuditLine
from hipray.serving.logs import CURRENT_REQUEST, TOLD
from hipray.serving.metrics import request_metrics
from hipray.serving.problems import DEFECT, PROBLEM_TYPE, Problem, explain

CSP_HEADER = "content-security-policy"

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    CSP_HEADER: "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""On every answer that does not set them itself: it is data for one caller and never cached."""

ID_HEADER = "x-request-id"

REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Only a random UUID is taken over: another word of the caller may name a patient."""

logger = logging.getLogger(__name__)


def choose_request_id(given: str | None) -> str:
    """Return the id of a request: the caller's where it may be taken over."""
    return given if given and REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


class AnswerGuard:
    """Gives each request an id, each answer its headers, and each failure a problem document."""

    def __init__(self, app: ASGIApp, *, release_digest: str) -> None:
        self._app = app
        self._release_digest = release_digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID_HEADER)
        request_id = choose_request_id(given)
        line = AuditLine(request_id, self._release_digest)
        scope.setdefault("state", {}).update(request_id=request_id, audit=line)
        CURRENT_REQUEST.set(request_id)  # this task is the request's own
        # Serve's proxy names each request and states that name in the answer itself
        added = HEADERS if given else {**HEADERS, ID_HEADER: request_id}
        try:
            await self._answer(scope, _count_received(receive, line), _guard(send, line, added))
        finally:
            line.route = getattr(scope.get("endpoint"), "__name__", line.route)
            note_request(line)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: AuditLine = scope["state"]["audit"]
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if line.status:
                raise
            problem = explain_and_log(error, line.request_id)
            line.problem = problem.code.value
            response = answer_problem(problem, line.request_id)
            await response(scope, receive, send)


def note_request(line: AuditLine) -> None:
    """Write and count an answered request."""
    line.write()
    request_metrics().observe_request(line)


def _count_received(receive: Receive, line: AuditLine) -> Receive:
    async def receive_counted() -> Message:
        message = await receive()
        line.bytes_received += len(message.get("body", b""))
        return message

    return receive_counted


def _guard(send: Send, line: AuditLine, added: dict[str, str]) -> Send:
    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            line.status = message["status"]
            own = [*message.get("headers", [])]
            names = {name.decode("latin-1").lower() for name, _ in own}
            missing = [(n.encode(), v.encode()) for n, v in added.items() if n not in names]
            message["headers"] = [*own, *missing]
        line.bytes_sent += len(message.get("body", b""))
        await send(message)

    return send_guarded


def explain_and_log(error: Exception, request_id: str) -> Problem:
    """Return what a failure means to the caller; a defect goes to the log with its traceback."""
    problem = explain(error)
    if problem is DEFECT:
        logger.error("request failed", exc_info=error, extra={TOLD: {"request_id": request_id}})
    elif problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        told = {"request_id": request_id, "code": problem.code, "kind": type(error).__name__}
        logger.warning("request not answered", extra={TOLD: told})
    return problem


def answer_problem(problem: Problem, request_id: str) -> JSONResponse:
    """Return a problem as a response (RFC 9457)."""
    return JSONResponse(
        problem.as_dict(request_id),
        status_code=problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_TYPE,
    )


def answer_outside(problem: Problem, request_id: str) -> JSONResponse:
    """Return a problem with the headers of every answer, where no ingress adds them."""
    response = answer_problem(problem, request_id)
    response.headers.update({**HEADERS, ID_HEADER: request_id})
    return response


def note_outside(line: AuditLine, problem: Problem, bytes_sent: int) -> None:
    """Write and count a request that no ingress has answered."""
    line.status, line.problem = problem.status.value, problem.code.value
    line.bytes_sent = bytes_sent
    note_request(line)


def answer_refusal(problem: Problem, answer: dict[str, Any]) -> JSONResponse:
    """Return a problem that carries the whole answer, refusal and digests, as further members."""
    told = {**problem.as_dict(answer["request_id"]), **answer}
    return JSONResponse(told, status_code=problem.status, media_type=PROBLEM_TYPE)
