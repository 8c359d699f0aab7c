"""A small pool of threads that fetch films, so that a store that hangs takes a bounded part of it.

A thread that waits for a store cannot be ended. One whose caller has gone keeps its place until the
store has answered or the caller's time is over, so that no film waits for a thread behind it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager


class FetcherPool:
    """Fetches films, as many at a time as there are places."""

    def __init__(self, places: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(places, thread_name_prefix=name)
        self._places = asyncio.Semaphore(places)

    @property
    def is_busy(self) -> bool:
        """Whether the next film would wait for a place."""
        return self._places.locked()

    @asynccontextmanager
    async def fetch(self, read: Callable[[], bytes]) -> AsyncIterator[bytes]:
        """Give what `read` returns, and keep its place while it is used; raises what it raises."""
        await self._places.acquire()
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read)
        try:
            yield await asyncio.shield(reading)
        finally:
            reading.add_done_callback(self._end)

    def _end(self, reading: "asyncio.Future[bytes]") -> None:
        self._places.release()
        if not reading.cancelled():
            reading.exception()  # of a caller who has gone: nobody else asks for it

    def close(self) -> None:
        """End the threads that wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
