"""What comes before a request's body is bounded in bytes and in time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from hipray.serving import heads
from hipray.serving.heads import MOST_HEAD_BYTES, BoundedProtocol

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connect() -> AsyncIterator[Pair]:
    """A connection to a server that reads heads so."""
    app = PlainTextResponse("answered")
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, lifespan="off", log_config=None)
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

    head, _, body = asyncio.run(send_without_end()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["status"] == 431


def test_a_connection_whose_head_does_not_come_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_TIMEOUT_S", 0.2)

    async def wait() -> bytes:
        async with connect() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost:")
            return await asyncio.wait_for(reader.read(), 20)

    assert asyncio.run(wait()) == b""
