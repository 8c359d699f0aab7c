"""An S3 server that keeps objects, and throttles, delays or refuses requests as told."""

import threading
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
        self._moto = DomainDispatcherApplication(create_backend_app)
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

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.endswith(self.throttled):
            return _refuse(start_response, "503 Slow Down", "SlowDown")
        if path.endswith(self.silent):
            self._closed.wait(SILENCE_S)
        if self.full and environ["REQUEST_METHOD"] == "PUT" and self.full in path:
            return _refuse(start_response, "507 Insufficient Storage", "InsufficientStorage")
        with self._lock:
            return list(self._moto(environ, start_response))


def _refuse(start_response: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]
