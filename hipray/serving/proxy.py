"""What goes round Serve's own proxy: it bounds what comes in, and answers where the ingress cannot.

A proxy whose replica died ends a request without an answer, which the server turns into a bare
500; its own refusals are plain text; it takes orders from headers of the caller; and it queues
bodies without a limit.
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names `list_middlewares` to the proxies. What is imported
here loads no networks: a proxy starts within seconds, on a busy machine too.
"""

import os
from http import HTTPStatus

from ray.serve._private import constants  # no public module has the names of these headers
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hipray.serving.audit_line import AuditLine
from hipray.serving.guard import (
    ID_HEADER,
    answer_outside,
    choose_request_id,
    explain_and_log,
    note_outside,
)
from hipray.serving.heads import bound_heads
from hipray.serving.intake import Intake, IntakeLimits
from hipray.serving.logs import open_logs
from hipray.serving.paths import NO_ROUTE, name_route
from hipray.serving.problems import TOO_SLOW, Problem, ProblemCode, come_later

LOST = come_later("the replica at work on this request was lost", ProblemCode.REPLICA_LOST)

REFUSALS: dict[int, Problem] = {
    HTTPStatus.SERVICE_UNAVAILABLE: come_later("too many requests are waiting"),
    HTTPStatus.REQUEST_TIMEOUT: TOO_SLOW,
}
"""What the proxy refuses by itself, in plain text."""

STARTING = come_later("the service is starting, or being stopped")
"""What it means where the proxy knows no route to a path that the ingress has."""

HUNG_UP: Message = {"type": "http.disconnect"}

ORDERS_TO_SERVE = frozenset(
    name.lower().replace("-", "_")
    for name in (
        constants.SERVE_MULTIPLEXED_MODEL_ID,
        constants.SERVE_SESSION_ID,
        constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER,
        constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER,
    )
)
"""Headers by which a caller would choose a replica, or change or end Serve's time limit and its
watch for callers who hang up (Ray 2.60, `ProxyRequest` and `http_util`). Nothing of hipray reads
them, and one that is no UTF-8 ends in an error that leaves its queue in the proxy for ever."""


def list_middlewares() -> list[Middleware]:
    """Return what goes round the proxy of this process, open its logs and bound its heads."""
    open_logs()
    bound_heads()
    return [Middleware(ProxyGuard, limits=IntakeLimits.from_environment(os.environ))]


class ProxyGuard:
    """Answers with a problem where the proxy has none, or one in words of its own."""

    def __init__(self, app: ASGIApp, *, limits: IntakeLimits) -> None:
        self._app = app
        self._intake = Intake(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        _drop_orders(scope)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        request_id = choose_request_id(headers.get(ID_HEADER))
        headers[ID_HEADER] = request_id  # Serve writes it to its own log
        line = AuditLine(request_id, "", name_route(scope["path"]))
        problem = self._intake.refuse_announced(headers)
        if problem is None:
            problem = await self._pass_on(scope, receive, send, line)
        if problem is not None:
            response = answer_outside(problem, request_id)
            try:
                await response(scope, receive, send)
            finally:
                note_outside(line, problem, len(response.body))

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, line: AuditLine
    ) -> Problem | None:
        """Return what is left to be said where nothing was answered."""
        exchange = _Exchange(receive, send, self._intake, routed=line.route != NO_ROUTE)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.answered:
                raise
            return exchange.refused or explain_and_log(error, line.request_id)
        finally:
            self._intake.give_back(exchange.taken)
            line.bytes_received = exchange.taken
        return exchange.refused or (None if exchange.answered or exchange.left else LOST)


def _drop_orders(scope: Scope) -> None:
    """Take away what only Serve itself would read of a caller's headers."""
    scope["headers"] = [
        (name, value)
        for name, value in scope.get("headers", [])
        if name.decode("latin-1").lower().replace("-", "_") not in ORDERS_TO_SERVE
    ]


class _Exchange:
    """One request and its answer: counts the body, and keeps back what the proxy refuses with."""

    def __init__(self, receive: Receive, send: Send, intake: Intake, *, routed: bool) -> None:
        self._receive = receive
        self._send = send
        self._intake = intake
        self._routed = routed
        self.taken = 0
        """Bytes of the body so far."""
        self.left = False
        """Whether the caller hung up before the answer: then Serve ends the request without one.
        The replica at work on it writes a line. One that no replica has yet, while the ingress is
        being restarted, leaves none: which of both it is Serve does not tell here, and counts
        either as 499 in `ray_serve_num_http_requests_total`."""
        self.refused: Problem | None = None
        self._started = False

    @property
    def answered(self) -> bool:
        """Whether an answer is on its way to the caller."""
        return self._started and self.refused is None

    async def receive(self) -> Message:
        """Hand on a part of the body; one that is too much ends the request for the proxy."""
        message = await self._receive()
        size = len(message.get("body", b""))
        if self._started:
            return {**message, "body": b""} if size else message  # nobody reads it any more
        self.refused = self.refused or self._intake.take(size, so_far=self.taken)
        if self.refused is not None:
            return HUNG_UP
        self.taken += size
        self.left = message["type"] == HUNG_UP["type"]
        return message

    async def send(self, message: Message) -> None:
        """Hand on a part of the answer, unless it is refused in other words."""
        if self.refused is None and message["type"] == "http.response.start":
            self._started = True
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            if kind.startswith("text/plain"):
                self.refused = self._explain(message["status"])
        if self.refused is None:
            await self._send(message)

    def _explain(self, status: int) -> Problem | None:
        starting = self._routed and status == HTTPStatus.NOT_FOUND
        return STARTING if starting else REFUSALS.get(status)
