"""What callers see of Serve's proxy where the ingress does not answer."""

import asyncio
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import (
    call_function_from_import_path,
    validate_http_proxy_callback_return,
)
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hipray.serving.problems import PROBLEM_TYPE
from hipray.serving.proxy import ProxyGuard
from hipray.serving.running import ENVIRONMENT


def ask(app: ASGIApp, **headers: str) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(ProxyGuard(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/score", headers=headers)

    return asyncio.run(send())


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


def test_ray_finds_what_goes_round_its_proxy() -> None:
    path = ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    (middleware,) = validate_http_proxy_callback_return(call_function_from_import_path(path))
    assert middleware.cls is ProxyGuard
