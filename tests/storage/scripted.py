"""An S3 server on loopback that answers as told: what real stores say and moto does not."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hipray.config.storage import StorageSettings
from hipray.storage import Store, open_store


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: an error code, or a body (perhaps cut short of its announced length)."""

    status: int
    code: str = ""
    body: bytes = b""
    missing_bytes: int = 0
    trickle_s: float = 0.0
    """Seconds between two of the missing bytes, which then come one by one."""
    headers: dict[str, str] = field(default_factory=dict)
    """Beside the usual ones, or instead of them; one without a value is left out."""

    @property
    def payload(self) -> bytes:
        if not self.code:
            return self.body
        xml = "<Error><Code>{}</Code><Message>as told</Message></Error>"
        return xml.format(self.code).encode()


class ScriptedS3:
    """Gives the listed answers one after the other, then the last one for ever."""

    def __init__(self) -> None:
        self.answers = [Answer(200)]
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.hung_up = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def store(self, **settings: Any) -> Store:
        url = f"http://127.0.0.1:{self._server.server_port}"
        return open_store("s3://bucket/root", StorageSettings(endpoint_url=url, **settings))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # it answers `Expect: 100-continue` at once

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scripted.requests.append((self.command, self.path, dict(self.headers)))
                more = len(scripted.answers) > 1
                answer = scripted.answers.pop(0) if more else scripted.answers[0]
                self.send_response(answer.status)
                length = len(answer.payload) + answer.missing_bytes
                usual = {
                    "ETag": '"scripted"',
                    "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
                    "Content-Length": str(length),
                }
                for name, value in {**usual, **answer.headers}.items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.payload)
                    self.trickle(answer)
                self.close_connection = True

            def trickle(self, answer: Answer) -> None:
                with suppress(OSError):  # the caller has hung up
                    for _ in range(answer.missing_bytes if answer.trickle_s else 0):
                        self.wfile.write(b"x")
                        time.sleep(answer.trickle_s)
                    return
                scripted.hung_up.set()

            do_GET = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler
