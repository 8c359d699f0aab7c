"""An S3 server of a bench, in a process of its own: an archive of phantom films and fillers.

    python -m hipray.benchmarks.archive_server JOB.json

It keeps everything in memory and counts the films it gives away. It prints its port, then serves
until its standard input is closed.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom import film_path, plan_archive, write_study

BUCKET = "bench"
COUNT_PATH = "/count"
"""Not a bucket's path: it answers how many films were read since the start."""
FILLER = b"no film"
"""Content of the keys that only make an archive long."""


def main(job_path: str) -> None:
    """Serve the archives of a job, each `{"prefix", "films", "fillers"}`, of one phantom."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    job = json.loads(open(job_path).read())  # noqa: PTH123, SIM115 - a small file, once
    app = _Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    fill(job["archives"], PhantomConfig(**job["phantom"]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)  # noqa: T201 - the answer to who started it
    sys.stdin.read()
    server.shutdown()


class _Counting:
    """Counts GETs of films, and answers one request at a time: moto is not made for several."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._films = 0

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == COUNT_PATH:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(self._films).encode()]
        with self._lock:
            self._films += environ["REQUEST_METHOD"] == "GET" and path.endswith(".dcm")
            return list(self._app(environ, start_response))


def fill(archives: list[dict[str, Any]], phantom: PhantomConfig) -> None:
    """Put archives into the memory of this process: films evenly among fillers."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    drawn = _draw(phantom)
    for archive in archives:
        for number, is_film in enumerate(spread_films(archive["films"], archive["fillers"])):
            key = f"{archive['prefix']}/{number // 1000:04d}/{number:07d}.dcm"
            backend.put_object(BUCKET, key, drawn[number % len(drawn)] if is_film else FILLER)


def _draw(phantom: PhantomConfig) -> list[bytes]:
    studies = plan_archive(phantom)
    return [write_study(phantom, study)[film_path(phantom, study)] for study in studies]


def spread_films(films: int, fillers: int) -> Iterator[bool]:
    """Tell of each key whether it is a film: the first is, the others follow at equal steps."""
    total = films + fillers
    for number in range(total):
        yield number * films // total != (number - 1) * films // total


if __name__ == "__main__":
    main(sys.argv[1])
