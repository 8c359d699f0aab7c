"""A bound on what comes before a request's body: uvicorn with httptools keeps heads of any length.

They are read before anyone is asked for a token, and belong to nobody's bound on bodies.
"""

import asyncio
import json
from http import HTTPStatus

from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hipray.serving.problems import PROBLEM_TYPE, Problem

MOST_HEAD_BYTES = 65_536
"""Bytes of a request line and headers, beyond which no more of them is read."""
HEAD_TIMEOUT_S = 30.0
"""Seconds that a new connection has for its first head."""

TOO_LONG = Problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"request line and headers have more than {MOST_HEAD_BYTES} bytes; send fewer or shorter ones",
)


def bound_heads() -> None:
    """Let servers that this process starts from now on read heads of a bounded length."""
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{BoundedProtocol.__name__}"


class BoundedProtocol(HttpToolsProtocol):
    """Ends a connection whose head is too long, or does not come."""

    _in_head = True
    _head_bytes = 0
    _first_head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first head its time."""
        super().connection_made(transport)
        self._first_head = self.loop.call_later(HEAD_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ask for no head any more."""
        self._forget_first_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what has come; it is counted until the head is complete."""
        super().data_received(data)
        self._head_bytes += len(data)
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin to count the head of a request."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no more: what follows is a body, or the next head."""
        self._in_head = False
        self._forget_first_head()
        super().on_headers_complete()

    def _forget_first_head(self) -> None:
        if self._first_head is not None:
            self._first_head.cancel()
            self._first_head = None

    def _refuse_head(self) -> None:
        body = json.dumps(TOO_LONG.as_dict("")).encode()
        head = (
            f"HTTP/1.1 {TOO_LONG.status.value} {TOO_LONG.status.phrase}\r\n"
            f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
