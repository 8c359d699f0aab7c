"""Threads that fetch films: a place is free when its thread is."""

import asyncio
import threading

import pytest

from hipray.serving.fetchers import FetcherPool


async def leave_while_it_reads(pool: FetcherPool, let_go: threading.Event, read: bytes) -> None:
    """Ask for a film whose store hangs, and go away."""
    begun = threading.Event()

    def hang() -> bytes:
        begun.set()
        let_go.wait(30)
        return read

    async def ask() -> None:
        async with pool.fetch(hang):
            pass

    asking = asyncio.create_task(ask())
    await asyncio.to_thread(begun.wait, 30)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


def test_a_caller_who_goes_is_let_go_and_the_place_is_free_when_the_store_has_answered() -> None:
    async def scenario() -> None:
        pool, let_go = FetcherPool(1, name="fetch"), threading.Event()
        await leave_while_it_reads(pool, let_go, b"nobody's")
        assert pool.is_busy
        let_go.set()
        async with asyncio.timeout(30), pool.fetch(lambda: b"film") as film:
            assert film == b"film"
            assert pool.is_busy  # its bytes are in memory
        await asyncio.sleep(0)
        assert not pool.is_busy
        pool.close()

    asyncio.run(scenario())


def test_a_store_that_fails_leaves_the_place() -> None:
    def fail() -> bytes:
        raise FileNotFoundError

    async def scenario() -> None:
        pool = FetcherPool(1, name="fetch")
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                async with asyncio.timeout(30), pool.fetch(fail):
                    pass
        pool.close()

    asyncio.run(scenario())
