"""What the callers of the fault tests notice: each kind of loss, and no more than that."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.serving.steady_load import SteadyLoad, assert_nobody_was_lost

ANSWER = {"refusal": None}
LATER = {"status": 503, "code": "overloaded"}


def respond(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def write(caller: BaseHTTPRequestHandler) -> None:
        caller.send_response(status)
        for name, value in headers.items():
            caller.send_header(name.replace("_", "-"), value)
        caller.send_header("Content-Length", str(len(body)))
        caller.end_headers()
        caller.wfile.write(body)

    return write


def respond_json(
    status: int, body: dict[str, Any], **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    return respond(status, json.dumps(body).encode(), **headers)


def hang_up(caller: BaseHTTPRequestHandler) -> None:
    caller.close_connection = True


@pytest.fixture
def served() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            server.respond(self)  # type: ignore[attr-defined]

        def log_message(self, *_: Any) -> None:
            """Not into the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask_once(served: HTTPServer, responding: Callable[..., None]) -> SteadyLoad:
    asked = threading.Event()

    def respond_and_note(caller: BaseHTTPRequestHandler) -> None:
        asked.set()
        responding(caller)

    served.respond = respond_and_note  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{served.server_port}"
    with SteadyLoad(url, [{"json": {}}], callers=1) as load:
        assert asked.wait(30)
    return load


@pytest.mark.parametrize(
    "responding",
    [
        respond(500, b"Internal Server Error"),
        respond(200, b""),
        respond_json(500, {"status": 500, "code": "defect"}),
        respond_json(502, {"status": 502, "code": "store_fails"}),
        respond_json(503, LATER),
        respond_json(503, {**LATER, "code": "defect"}, Retry_After="2"),
        hang_up,
    ],
    ids=["bare 500", "empty", "defect", "502", "503 without a time", "503 of a defect", "hung up"],
)
def test_a_caller_who_was_lost_is_noticed(
    served: HTTPServer, responding: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError):
        assert_nobody_was_lost(ask_once(served, responding))


@pytest.mark.parametrize(
    "responding", [respond_json(200, ANSWER), respond_json(503, LATER, Retry_After="2")]
)
def test_an_answer_and_a_time_to_come_again_are_no_loss(
    served: HTTPServer, responding: Callable[..., None]
) -> None:
    assert_nobody_was_lost(ask_once(served, responding))


def test_callers_who_never_asked_prove_nothing() -> None:
    with pytest.raises(AssertionError):
        assert_nobody_was_lost(SteadyLoad("http://127.0.0.1:9", []))
