"""Work ends with its caller: the decoder's child, the stages and the place in the line."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from hipray.answers import HipNumbers
from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.person import NOBODY
from hipray.pipeline import FramedHips
from hipray.serving.logs import JsonFormatter
from hipray.serving.messages import ScoredFilm
from hipray.serving.readers import ReaderPool, StoppableReader
from tests.data.film_files import encode_image
from tests.serving.conftest import LocalApi, Run
from tests.storage.scripted import Answer, ScriptedS3

MakeApi = Callable[..., LocalApi]
SLOW_PX = 9000
"""Side of a noisy film that takes its decoder seconds."""


@pytest.fixture(scope="module")
def slow_film() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (SLOW_PX, SLOW_PX // 4), np.uint8)
    return encode_image(np.tile(noise, (1, 4)))


class HangingGraph:
    """Stages that never end by themselves."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), 0

    async def __call__(self, hips: FramedHips, **_: Any) -> ScoredFilm:
        self.begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            self.ended += 1
        return ScoredFilm([HipNumbers({}, {}, None, None, None)] * len(hips.frames))


def child_of(pool: ReaderPool) -> Any:
    (reader,) = pool._all
    return reader._child


def test_cancelling_a_reading_ends_the_decoders_child_and_the_next_film_is_read(
    run: Run, slow_film: bytes, films: list[bytes]
) -> None:
    async def read_and_leave() -> None:
        pool = ReaderPool(ImageLimits(max_pixels=200_000_000), Preprocessing(), readers=1)
        stated = {"name": "", "side": None, "person": NOBODY, "working_px": 64}
        await pool.start()
        child = child_of(pool)
        reading = asyncio.create_task(pool.read(slow_film, **stated))
        await asyncio.sleep(0.3)
        assert not reading.done()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        started = time.monotonic()
        result, hips = await pool.read(films[0], **stated)
        assert result.refusal is None
        assert hips is not None
        assert child.poll() is not None
        assert child_of(pool) is not child
        assert time.monotonic() - started < 20
        pool.close()

    run(read_and_leave())


def test_a_reading_that_waits_for_a_reader_leaves_the_line_without_harm(
    run: Run, films: list[bytes]
) -> None:
    async def read_two() -> None:
        pool = ReaderPool(ImageLimits(), Preprocessing(), readers=1)
        stated = {"name": "", "side": None, "person": NOBODY, "working_px": 64}
        await pool.start()
        child = child_of(pool)
        first = asyncio.create_task(pool.read(films[0], **stated))
        second = asyncio.create_task(pool.read(films[1], **stated))
        await asyncio.sleep(0)
        second.cancel()
        result, _ = await first
        assert result.refusal is None
        assert child_of(pool) is child
        pool.close()

    run(read_two())


def test_stopping_a_reader_without_a_child_does_nothing() -> None:
    StoppableReader(ImageLimits(), Preprocessing()).stop()


def test_a_request_past_its_time_ends_the_decoder(make_api: MakeApi, slow_film: bytes) -> None:
    api = make_api(limits=ImageLimits(max_pixels=200_000_000), request_timeout_s=0.5)
    assert api.get("/readyz").status_code == 200
    child = child_of(api.service._readers)
    assert api.upload(slow_film).status_code == 503
    child.wait(10)  # it would otherwise live as long as the service


def form_of(film: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    request = httpx.Request("POST", "http://localhost/v1/score", files={"file": ("f", film)})
    return list(request.headers.raw), request.read()


async def hang_up(app: Any, film: bytes, begun: asyncio.Event) -> list[dict[str, Any]]:
    """Send a film, wait until its stages have begun, and close the connection."""
    headers, body = form_of(film)
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/score", "raw_path": b"/v1/score", "query_string": b"",
        "headers": [(k.lower(), v) for k, v in headers], "root_path": "",
        "client": ("127.0.0.1", 1), "server": ("test", 80),
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 30)
    return sent


def test_a_caller_who_hangs_up_frees_the_place_and_ends_the_stages(
    make_api: MakeApi, films: list[bytes], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="hipray.serving.audit_line")
    graph = HangingGraph()
    api = make_api(graph=graph, running=1, queue=1)

    async def leave_twice() -> None:
        for turn in (1, 2):  # the only place is free again, or the second would wait for ever
            graph.begun.clear()
            await hang_up(api.app, films[0], graph.begun)
            assert graph.ended == turn

    run(leave_twice())
    lines = [json.loads(JsonFormatter().format(r)) for r in caplog.records]
    lines = [line for line in lines if line["event"] == "request"]
    assert [line["outcome"] for line in lines] == ["problem", "problem"]


def test_other_callers_are_answered_while_one_hangs_up(
    make_api: MakeApi, films: list[bytes], run: Run
) -> None:
    graph = HangingGraph()
    api = make_api(graph=graph, running=2)

    async def both() -> httpx.Response:
        leaving = asyncio.create_task(hang_up(api.app, films[0], graph.begun))
        answer = await api.send("POST", "/v1/score", files={"file": ("f", b"no film")})
        await leaving
        return answer

    assert run(both()).json()["refusal"]["code"] == "unreadable"
    assert graph.ended == 1


def test_a_store_that_hangs_keeps_no_film_out_that_is_sent(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = threading.Event()

    def hang(*asked: Any, **limits: Any) -> bytes:
        answering.wait(30)
        raise TimeoutError

    api = make_api(batch=1, running=2, queue=2)
    monkeypatch.setattr(api.service._source, "read", hang)

    async def crowd() -> list[httpx.Response]:
        named = {"json": {"uri": "s3://bucket/in/a"}}
        waiting = [asyncio.create_task(api.send("POST", "/v1/score", **named)) for _ in "123"]
        await asyncio.sleep(0.1)
        sent = await api.send("POST", "/v1/score", files={"no film": ("f", b"")})
        assert "'file'" in sent.json()["detail"]  # its body was read
        assert not any(request.done() for request in waiting)
        answering.set()
        return await asyncio.gather(*waiting)

    assert {answer.status_code for answer in api.run(crowd())} == {503}


def test_a_download_that_trickles_ends_with_its_request(make_api: MakeApi) -> None:
    s3 = ScriptedS3()
    s3.answers = [Answer(200, missing_bytes=1000, trickle_s=0.05)]
    api = make_api(
        allowed_prefixes=("s3://bucket/root",), storage=s3.store().settings, request_timeout_s=1
    )
    answer = api.post(json={"uri": "s3://bucket/root/a"})
    assert answer.status_code == 503
    assert s3.hung_up.wait(10)  # else its thread would read for hours
    s3.close()
