"""What Serve's own proxy says when the ingress cannot, as the problems that callers know.

A proxy whose replica died ends a request without an answer, which the server turns into a bare
500; its own refusals are plain text. RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names
`list_middlewares` to the proxies of a Ray that is started for the endpoint.
"""

from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hipray.serving.guard import HEADERS, ID_HEADER, answer_problem, choose_request_id
from hipray.serving.interface import OPERATIONS
from hipray.serving.problems import TOO_SLOW, Problem, ProblemCode, come_later

LOST = come_later("the replica at work on this request was lost", ProblemCode.REPLICA_LOST)

REFUSALS: dict[int, Problem] = {
    HTTPStatus.SERVICE_UNAVAILABLE: come_later("too many requests are waiting"),
    HTTPStatus.REQUEST_TIMEOUT: TOO_SLOW,
}
"""What the proxy refuses by itself, in plain text."""

STARTING = come_later("the service is starting")
"""What it means where the proxy knows no route to a path that the ingress has."""


def list_middlewares() -> list[Middleware]:
    """Return what goes round the proxy."""
    return [Middleware(ProxyGuard)]


class ProxyGuard:
    """Answers with a problem where the proxy has none, or one in words of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        request_id = choose_request_id(headers.get(ID_HEADER))
        headers[ID_HEADER] = request_id  # Serve writes it to its own log
        watched = _WatchedSend(send, routed=scope["path"] in OPERATIONS)
        await self._app(scope, receive, watched)
        problem = watched.refused or (None if watched.started else LOST)
        if problem is not None:
            response = answer_problem(problem, request_id)
            response.headers.update({**HEADERS, ID_HEADER: request_id})
            await response(scope, receive, send)


class _WatchedSend:
    """Hands on an answer, and keeps one back that the proxy refuses with."""

    def __init__(self, send: Send, *, routed: bool) -> None:
        self._send = send
        self._routed = routed
        self.started = False
        self.refused: Problem | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            kind = Headers(raw=message.get("headers", [])).get("content-type", "")
            if kind.startswith("text/plain"):
                self.refused = self._explain(message["status"])
        if self.refused is None:
            await self._send(message)

    def _explain(self, status: int) -> Problem | None:
        starting = self._routed and status == HTTPStatus.NOT_FOUND
        return STARTING if starting else REFUSALS.get(status)
