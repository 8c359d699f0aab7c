"""A bound on what surrounds a request's body, head and trailers, and on the time for late bytes.

They are read before anyone is asked for a token, and belong to nobody's bound on bodies. uvicorn's
faster protocol bounds neither, and takes the offer of HTTP/2 that some clients send along with
their films (RFC 9110, 7.8) for the end of the request; h11 bounds both and lets the offer pass.
"""

import asyncio
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.h11_impl import H11Protocol

from hipray.serving.audit_line import AuditLine
from hipray.serving.guard import answer_outside, choose_request_id, note_outside
from hipray.serving.problems import Problem

MOST_HEAD_BYTES = 65_536
"""Bytes of a request line and headers, and of trailers: beyond them no more is read."""
HEAD_TIMEOUT_S = 30.0
"""Seconds from the first byte of a head, or from the connection, to the end of the head."""
REST_TIMEOUT_S = 30.0
"""Seconds for the rest of a body that was answered before it had come."""

TOO_LONG = Problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"request line and headers have more than {MOST_HEAD_BYTES} bytes; send fewer or shorter ones",
)
MALFORMED = Problem(
    HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request (RFC 9112); see what the client sends"
)


def bound_heads() -> None:
    """Let servers that this process starts from now on read heads of a bounded length."""
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(H11Protocol):
    """Ends a connection whose head is too long or malformed, with a problem, or does not come."""

    def __init__(self, config: uvicorn_config.Config, *args: Any, **named: Any) -> None:
        config.h11_max_incomplete_event_size = MOST_HEAD_BYTES
        super().__init__(config, *args, **named)
        self._head_due: asyncio.TimerHandle | None = None
        self._rest_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ask for nothing any more."""
        self._forget_head()
        self._forget_rest()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take in what has come; a head that has begun has its time to be complete."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._forget_head()
        elif self.conn.trailing_data[0] and self._head_due is None:
            self._await_head()
        if self.conn.their_state is not h11.SEND_BODY:
            self._forget_rest()

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody reads its time, as its sender may not see a close."""
        is_unread = self.conn.their_state is h11.SEND_BODY  # asked first: another may begin below
        super().on_response_complete()
        if is_unread and not self.transport.is_closing():
            self._rest_due = self.loop.call_later(REST_TIMEOUT_S, self.transport.close)

    def _should_upgrade(self) -> bool:
        return False  # there is no other protocol here: an offer is passed over (RFC 9110, 7.8)

    def send_400_response(self, msg: str) -> None:
        """Say why nothing more is read, where nothing was answered yet, and hang up."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = sys.exception()
            hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
            self._answer(TOO_LONG if hint == TOO_LONG.status else MALFORMED)
        self.transport.close()

    def _answer(self, problem: Problem) -> None:
        line = AuditLine(choose_request_id(None), "")
        response = answer_outside(problem, line.request_id)
        response.headers["connection"] = "close"
        head = h11.Response(
            status_code=response.status_code,
            headers=response.raw_headers,
            reason=problem.status.phrase,
        )
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        note_outside(line, problem, len(response.body))

    def _await_head(self) -> None:
        self._head_due = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _forget_rest(self) -> None:
        if self._rest_due is not None:
            self._rest_due.cancel()
            self._rest_due = None

    def _forget_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
