"""An S3 server that can be out of reach for a while."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from tests.distributed.throttling import ThrottlingS3


class FailingS3(ThrottlingS3):
    """Answers every request with 503 while `down` is set."""

    def __init__(self) -> None:
        self.down = False
        self.refused = 0
        super().__init__()

    def fail_for(self, seconds: float) -> None:
        """Be out of reach from now on for some seconds."""
        self.down = True
        threading.Timer(seconds, lambda: setattr(self, "down", False)).start()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if not self.down:
            return super()._answer(environ, start_response)
        self.refused += 1
        start_response("503 Service Unavailable", [("Content-Type", "text/xml")])
        return [b"<Error><Code>ServiceUnavailable</Code></Error>"]
