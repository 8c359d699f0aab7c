"""Decoders that die: of the film, or of the machine."""

import os
import signal
import threading
from typing import Any

import pytest

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data import isolation
from hipray.data.images import ReadResult
from hipray.data.isolation import CRASH_TRIES
from hipray.data.person import NOBODY
from hipray.serving.problems import explain_refusal
from hipray.serving.readers import ReaderPool
from hipray.vocab import RefusalCode
from tests.data.film_files import draw_hip, encode_image
from tests.serving.conftest import Run

FILM = encode_image(draw_hip())


def child_of(pool: ReaderPool) -> int:
    (reader,) = pool._all
    assert reader._child is not None
    return reader._child.pid


async def read(pool: ReaderPool, film: bytes) -> ReadResult:
    result, _ = await pool.read(film, name="", side=None, person=NOBODY, working_px=64)
    return result


def test_a_film_whose_decoder_is_killed_is_read_by_another(run: Run) -> None:
    async def scenario() -> None:
        pool = ReaderPool(ImageLimits(), Preprocessing(), readers=1)
        await pool.start()
        first = child_of(pool)
        os.kill(first, signal.SIGSTOP)  # it takes the film and cannot answer
        threading.Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
        result = await read(pool, FILM)
        assert result.refusal is None
        assert len(result.hips) == 1
        assert child_of(pool) != first
        pool.close()

    run(scenario())


def test_a_file_that_ends_two_decoders_is_no_film_and_the_next_is_read(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start_child = isolation._start_child

    def start_and_stop_the_second(*setup: Any) -> Any:
        child = start_child(*setup)
        started.append(child.pid)
        if len(started) == CRASH_TRIES:
            os.kill(child.pid, signal.SIGSTOP)
        return child

    monkeypatch.setattr(isolation, "_start_child", start_and_stop_the_second)

    async def scenario() -> None:
        pool = ReaderPool(ImageLimits(decode_seconds=1.0), Preprocessing(), readers=1)
        await pool.start()
        os.kill(child_of(pool), signal.SIGSTOP)  # as a film does that is never done
        result = await read(pool, FILM)
        assert result.refusal is not None
        assert result.refusal.code is RefusalCode.DECODER_CRASH
        assert len(started) == CRASH_TRIES
        problem = explain_refusal(result.refusal)
        assert problem is not None
        assert problem.status == 422
        assert (await read(pool, FILM)).refusal is None
        pool.close()

    run(scenario())
