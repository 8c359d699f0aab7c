"""What callers see of Serve's proxy where the ingress does not answer."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import (
    call_function_from_import_path,
    parse_disconnect_disabled_header,
    parse_request_timeout_header,
    validate_http_proxy_callback_return,
)
from ray.serve._private.proxy import HTTPProxy
from ray.serve._private.proxy_request_response import ASGIProxyRequest
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hipray.config.jobs import ServeRun
from hipray.serving.audit_line import AuditLine, Outcome
from hipray.serving.intake import BODY_VARIABLE, HELD_VARIABLE, IntakeLimits
from hipray.serving.logs import TOLD
from hipray.serving.problems import PROBLEM_TYPE
from hipray.serving.proxy import ProxyGuard
from hipray.serving.running import ENVIRONMENT

LIMITS = IntakeLimits(body=1000, held=1500)


async def post(guard: ProxyGuard, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/v1/score", **options)


def ask(app: ASGIApp, **headers: str) -> httpx.Response:
    return asyncio.run(post(ProxyGuard(app, limits=LIMITS), headers=headers))


async def end_without_an_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve's proxy when the replica dies."""


@pytest.mark.parametrize(
    ("app", "code"),
    [
        (end_without_an_answer, "replica_lost"),
        (PlainTextResponse("dropped", 503), "overloaded"),
        (PlainTextResponse("timed out", 408), "too_slow"),
        (PlainTextResponse("Path '/v1/score' not found.", 404), "overloaded"),
    ],
)
def test_what_the_proxy_cannot_answer_is_a_problem_that_says_when_to_come_again(
    app: ASGIApp, code: str
) -> None:
    answer = ask(app)
    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM_TYPE)
    assert answer.json()["code"] == code
    assert "retry-after" in answer.headers
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({"refusal": None}),
        JSONResponse({"status": 503}, 503, media_type=PROBLEM_TYPE),
        PlainTextResponse("gone", 410),
    ],
)
def test_an_answer_passes_as_it_is(response: Any) -> None:
    answer = ask(response)
    assert (answer.status_code, answer.content) == (response.status_code, response.body)


@pytest.mark.parametrize("given", ["Jane Doe 1950", "0" * 32, "x" * 5000])
def test_only_a_random_id_of_the_caller_is_handed_on(given: str) -> None:
    handed: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        handed.append(Headers(scope=scope)["x-request-id"])
        await PlainTextResponse("ok")(scope, receive, send)

    ask(note, **{"x-request-id": given})
    own = "8a3f6e1c-94d3-4e0b-8c3e-3f2a5b6c7d8e"
    ask(note, **{"x-request-id": own})
    assert handed[0] != given
    assert handed[1] == own


class HeadersOfServe:
    """What Serve's proxy makes of a request's headers, by its own code."""

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}
        self.timeout_s: float | None = None
        self.stays_for_the_gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = ASGIProxyRequest(scope=scope, receive=receive, send=send)
        HTTPProxy.setup_request_context_and_handle(None, "app", self, "/", request, "id")  # type: ignore[arg-type]
        headers = dict(request.headers)
        self.timeout_s = parse_request_timeout_header(headers, 60.0)
        self.stays_for_the_gone = parse_disconnect_disabled_header(headers)
        await PlainTextResponse("ok")(scope, receive, send)

    def options(self, **chosen: Any) -> "HeadersOfServe":
        self.chosen |= chosen
        return self


@pytest.mark.parametrize("value", [b"\xff", b"0", b"?1", b"", "Doe^J\u00e4ne".encode("latin-1")])
@pytest.mark.parametrize(
    "name",
    [
        "x-session-id",
        "X_Session_Id",
        "serve_multiplexed_model_id",
        "serve-multiplexed-model-id",
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "x-request-id",
        "authorization",
        "x-anything",
    ],
)
def test_no_header_of_a_caller_commands_or_breaks_serves_proxy(name: str, value: bytes) -> None:
    proxy = HeadersOfServe()
    headers = [(name.encode(), value)] * 2
    answer = asyncio.run(post(ProxyGuard(proxy, limits=LIMITS), headers=headers))
    assert (answer.status_code, answer.text) == (200, "ok")
    assert (proxy.chosen, proxy.timeout_s, proxy.stays_for_the_gone) == ({}, 60.0, False)


def test_ray_finds_what_goes_round_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    monkeypatch.setattr("hipray.serving.proxy.open_logs", lambda: opened.append(True))
    path = ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    (middleware,) = validate_http_proxy_callback_return(call_function_from_import_path(path))
    assert opened
    assert middleware.cls is ProxyGuard
    assert middleware.kwargs == {"limits": IntakeLimits.of(ServeRun())}


def test_the_environment_of_a_proxy_tells_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = IntakeLimits.of(ServeRun(max_held_bytes=400_000_000))
    assert limits.held == 400_000_000 > limits.body > ServeRun().limits.max_file_bytes
    assert set(limits.as_environment()) == {BODY_VARIABLE, HELD_VARIABLE}
    assert IntakeLimits.from_environment(limits.as_environment()) == limits
    small = IntakeLimits.of(ServeRun(max_held_bytes=1))
    assert small.held == small.body


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 100


class Queue:
    """Serve's proxy while all replicas are busy: it queues what comes in, and answers at last."""

    def __init__(self) -> None:
        self.held = 0
        self.full = asyncio.Event()
        self.answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taking = asyncio.create_task(self.take_in(receive))
        answering = asyncio.create_task(self.answer.wait())
        await asyncio.wait((taking, answering), return_when=asyncio.FIRST_COMPLETED)
        if taking.done():  # the caller is gone: Serve notes a 499 and sends nothing
            answering.cancel()
            return
        taking.cancel()
        await PlainTextResponse("ok")(scope, receive, send)

    async def take_in(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            self.held += len(message["body"])
            if not message["more_body"]:
                self.full.set()


def in_loop(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM_TYPE)
    assert answer.json()["code"] == code
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert ("retry-after" in answer.headers) == (status == 503)


def test_a_body_without_a_stated_length_is_taken_in_up_to_its_limit() -> None:
    async def scenario() -> None:
        queue = Queue()
        answer = await post(ProxyGuard(queue, limits=LIMITS), content=chunks(1000))
        assert_problem(answer, 413, "too_large")
        assert queue.held == LIMITS.body

    in_loop(scenario())


def test_a_stated_length_beyond_the_limit_is_refused_before_anything_is_taken_in() -> None:
    async def scenario() -> None:
        queue = Queue()
        answer = await post(ProxyGuard(queue, limits=LIMITS), content=b"x" * 1001)
        assert_problem(answer, 413, "too_large")
        assert queue.held == 0

    in_loop(scenario())


@pytest.mark.parametrize("stated", [True, False])
def test_bodies_that_wait_are_held_up_to_a_budget_and_make_room_with_their_answer(
    stated: bool,
) -> None:
    def body() -> Any:
        return b"x" * 800 if stated else chunks(8)

    async def scenario() -> None:
        queue = Queue()
        guard = ProxyGuard(queue, limits=LIMITS)
        first = asyncio.create_task(post(guard, content=body()))
        await queue.full.wait()
        assert_problem(await post(guard, content=body()), 503, "overloaded")
        assert queue.held <= LIMITS.held
        queue.answer.set()
        assert (await first).status_code == 200
        assert (await post(guard, content=body())).status_code == 200

    in_loop(scenario())


def test_what_comes_in_after_the_answer_is_not_held() -> None:
    held: list[int] = []

    async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("no", 401)(scope, receive, send)
        for _ in range(20):
            held.append(len((await receive()).get("body", b"")))

    async def scenario() -> None:
        answer = await post(ProxyGuard(answer_at_once, limits=LIMITS), content=chunks(20))
        assert answer.status_code == 401
        assert sum(held) == 0

    in_loop(scenario())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[AuditLine]:
    lines: list[AuditLine] = []
    counts = SimpleNamespace(observe_request=lines.append)
    monkeypatch.setattr("hipray.serving.guard.request_metrics", lambda: counts)
    return lines


@pytest.mark.parametrize(
    ("app", "sent", "status", "code", "received"),
    [
        (PlainTextResponse("ok"), {"content": b"x" * 1001}, 413, "too_large", 0),
        (Queue(), {"content": chunks(11)}, 413, "too_large", 1000),
        (PlainTextResponse("dropped", 503), {}, 503, "overloaded", 0),
        (PlainTextResponse("timed out", 408), {}, 503, "too_slow", 0),
    ],
)
def test_what_the_proxy_answers_itself_is_told_and_counted_once(
    counted: list[AuditLine],
    caplog: pytest.LogCaptureFixture,
    app: ASGIApp,
    sent: dict[str, Any],
    status: int,
    code: str,
    received: int,
) -> None:
    caplog.set_level(logging.INFO, logger="hipray.serving.audit_line")
    answer = asyncio.run(post(ProxyGuard(app, limits=LIMITS), **sent))
    (record,) = caplog.records
    told = getattr(record, TOLD)
    assert (told["status"], told["problem"], told["route"]) == (status, code, "score")
    assert (told["request_id"], told["release_digest"]) == (answer.json()["request_id"], "")
    assert (told["bytes_received"], told["bytes_sent"]) == (received, len(answer.content))
    assert told["outcome"] is Outcome.PROBLEM
    assert [line.request_id for line in counted] == [told["request_id"]]


@pytest.mark.parametrize("kept_back", [None, PlainTextResponse("dropped", 503)])
def test_an_error_of_the_proxy_is_a_problem_and_its_text_stays_here(
    counted: list[AuditLine], kept_back: ASGIApp | None
) -> None:
    async def break_down(scope: Scope, receive: Receive, send: Send) -> None:
        if kept_back is not None:
            await kept_back(scope, receive, send)
        raise ZeroDivisionError("inner text")

    answer = ask(break_down)
    status, code = (500, "defect") if kept_back is None else (503, "overloaded")
    assert_problem(answer, status, code)
    assert "inner text" not in answer.text
    assert [(line.status, line.problem) for line in counted] == [(status, code)]


def test_an_answer_that_breaks_off_is_not_answered_twice(counted: list[AuditLine]) -> None:
    async def break_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(break_off)
    assert counted == []


def test_a_caller_who_hangs_up_is_no_lost_replica(counted: list[AuditLine]) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "path": "/v1/score", "headers": []}
    in_loop(ProxyGuard(Queue(), limits=LIMITS)(scope, receive, send))
    assert counted == []  # the line is the replica's, if one has the request


def test_what_the_ingress_answers_is_left_to_its_own_line(counted: list[AuditLine]) -> None:
    ask(JSONResponse({"refusal": None}))
    ask(JSONResponse({"status": 503}, 503, media_type=PROBLEM_TYPE))
    assert counted == []


def test_a_proxy_loads_no_networks() -> None:
    asked = "import sys, hipray.serving.proxy; print({'torch', 'onnxruntime'} & {*sys.modules})"
    found = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=True
    )
    assert found.stdout.strip() == "set()"
