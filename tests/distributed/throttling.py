"""An S3 server that keeps objects, and throttles, delays or refuses requests as told."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.conftest import S3Server

SILENCE_S = 30.0
"""Longer than any read timeout of a test."""


class ThrottlingS3:
    """An S3 server that fails in the ways of real ones, for the keys it is told."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self.throttled: tuple[str, ...] = ()
        """Ends of paths that are answered with 503 SlowDown."""
        self.silent: tuple[str, ...] = ()
        """Ends of paths that are not answered within SILENCE_S."""
        self.full = ""
        """Part of paths that cannot be written for want of room."""
        self.read_only = ""
        """Part of paths that nobody may write."""
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.fail_every = 0
        """One of so many reads of films is throttled, and one not answered in time."""
        self.bytes_read = 0
        """Bytes of films that were given away."""
        self._reads: Counter[str] = Counter()
        self._read_count = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        self.s3 = S3Server(f"http://127.0.0.1:{self._server.server_port}")

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()

    def count_reads(self) -> Counter[str]:
        """Return how often each film was asked for, by path."""
        with self._lock:
            return Counter(self._reads)

    def _count_read(self, environ: dict[str, Any]) -> int:
        """Return the number of this read among those of films, or 1 for another request."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET" or not path.endswith(".dcm"):
            return 1
        with self._lock:
            self._reads[path] += 1
            self._read_count += 1
            return self._read_count

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        place = self._count_read(environ)
        if self.fail_every and place % self.fail_every == 0:
            return _refuse(start_response, "503 Slow Down", "SlowDown")
        if self.fail_every and place % self.fail_every == self.fail_every // 2:
            self._closed.wait(SILENCE_S)
        if path.endswith(self.throttled):
            return _refuse(start_response, "503 Slow Down", "SlowDown")
        if path.endswith(self.silent):
            self._closed.wait(SILENCE_S)
        if environ["REQUEST_METHOD"] == "PUT" and self.full and self.full in path:
            return _refuse(start_response, "507 Insufficient Storage", "InsufficientStorage")
        if environ["REQUEST_METHOD"] == "PUT" and self.read_only and self.read_only in path:
            return _refuse(start_response, "403 Forbidden", "AccessDenied")
        with self._lock:
            answer = list(self._moto(environ, start_response))
            if environ["REQUEST_METHOD"] == "GET" and path.endswith(".dcm"):
                self.bytes_read += sum(map(len, answer))
            return answer


def _refuse(start_response: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]
