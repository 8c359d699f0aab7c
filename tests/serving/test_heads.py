"""What comes before a request's body is bounded in bytes and in time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from hipray.serving import heads
from hipray.serving.heads import MOST_HEAD_BYTES, BoundedProtocol

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, or without having read it."""
    if scope["path"] == "/refused":
        await PlainTextResponse("no", 403)(scope, receive, send)
        return
    body = await Request(scope, receive).body()
    await PlainTextResponse(b"answered " + body)(scope, receive, send)


@asynccontextmanager
async def connect() -> AsyncIterator[Pair]:
    """A connection to a server that reads heads so."""
    config = uvicorn.Config(echo, port=0, http=BoundedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    (listener,) = server.servers
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await running


async def send(size: int, *, requests: int = 1) -> bytes:
    """The answers to requests with a header of so many bytes, and the connection's end."""
    async with connect() as (reader, writer):
        for number in range(requests):
            last = b"connection: close\r\n" if number == requests - 1 else b""
            writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n" + last)
            writer.write(b"x-long: " + b"a" * size + b"\r\n\r\n")
            await asyncio.sleep(0.05)
        return await asyncio.wait_for(reader.read(), 20)


def test_a_head_of_some_kilobytes_is_answered_on_each_request_of_a_connection() -> None:
    assert asyncio.run(send(MOST_HEAD_BYTES // 3, requests=4)).count(b"answered") == 4


def test_a_head_beyond_the_bound_is_a_problem_and_ends_the_connection() -> None:
    async def send_without_end() -> bytes:
        async with connect() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: here\r\n")
            for number in range(9):
                writer.write(b"x-%d: " % number + b"a" * (MOST_HEAD_BYTES // 8) + b"\r\n")
                await asyncio.sleep(0.002)
            return await asyncio.wait_for(reader.read(), 20)

    assert_problem(asyncio.run(send_without_end()), 431)


async def exchange(*pieces: bytes) -> bytes:
    """What the server answers to these bytes, each sent a moment after the other."""
    async with connect() as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)
        return await asyncio.wait_for(reader.read(), 20)


def assert_problem(answer: bytes, status: int) -> None:
    """The only answer is a problem that is guarded like every other one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/problem+json" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    assert f"x-request-id: {problem['request_id']}".encode() in head.lower()
    assert problem["status"] == status


UPGRADE = (
    b"POST / HTTP/1.1\r\nhost: here\r\nconnection: Upgrade, HTTP2-Settings\r\n"
    b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 5\r\n\r\n"
)
CLOSING = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "pieces", [(UPGRADE + b"films", CLOSING), (UPGRADE, b"fil", b"ms", CLOSING)]
)
def test_a_film_that_comes_with_an_offer_of_http_2_is_read_all_the_same(pieces) -> None:
    answer = asyncio.run(exchange(*pieces))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"answered films" in answer


def test_an_offer_of_websockets_is_passed_over_too() -> None:
    offer = UPGRADE.replace(b"h2c", b"websocket").replace(b", HTTP2-Settings", b"")
    answer = asyncio.run(exchange(offer + b"films", CLOSING))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"answered films" in answer


@pytest.mark.parametrize(
    "request_head",
    [b"no request\r\n\r\n", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\n"],
)
def test_what_is_no_request_is_a_problem_and_ends_the_connection(request_head: bytes) -> None:
    assert_problem(asyncio.run(exchange(request_head)), 400)


def test_trailers_beyond_the_bound_end_the_connection() -> None:
    begun = b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "
    assert_problem(asyncio.run(exchange(begun, *[b"a" * (MOST_HEAD_BYTES // 8)] * 9)), 431)


@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"])
def test_a_connection_whose_head_does_not_come_is_closed(
    monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(heads, "HEAD_TIMEOUT_S", 0.2)

    async def wait() -> bytes:
        async with connect() as (reader, writer):
            writer.write(before + b"GET / HTTP/1.1\r\nhost:")
            return await asyncio.wait_for(reader.read(), 20)

    assert asyncio.run(wait()).count(b"HTTP/1.1 200") == (before != b"")


REFUSED = b"POST /refused HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n"


def test_a_connection_whose_refused_body_does_not_come_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "REST_TIMEOUT_S", 0.3)
    assert asyncio.run(exchange(REFUSED, b"a")).count(b"HTTP/1.1 403") == 1


def test_a_request_that_follows_at_once_has_its_own_time_for_its_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "REST_TIMEOUT_S", 0.1)
    first = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\n"

    async def send_slowly() -> bytes:
        async with connect() as (reader, writer):
            writer.write(CLOSING.replace(b"connection: close\r\n", b"") + first)
            await asyncio.sleep(0.4)
            writer.write(b"films" + CLOSING)
            return await asyncio.wait_for(reader.read(), 20)

    assert asyncio.run(send_slowly()).count(b"HTTP/1.1 200") == 3


def test_a_refused_body_that_comes_in_time_leaves_its_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "REST_TIMEOUT_S", 0.3)

    async def send_slowly() -> bytes:
        async with connect() as (reader, writer):
            for piece in (REFUSED, b"all ", b"of it"):
                writer.write(piece)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            writer.write(CLOSING)
            return await asyncio.wait_for(reader.read(), 20)

    answer = asyncio.run(send_slowly())
    assert (answer.count(b"HTTP/1.1 403"), answer.count(b"HTTP/1.1 200")) == (1, 1)
