"""A small pool of isolated decoders, so that decoding never blocks the event loop."""

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.images import ReadResult
from hipray.data.isolation import IsolatedReader
from hipray.data.person import Person
from hipray.pipeline import FramedHips, frame_hips
from hipray.vocab import Side

NO_FILM = b"no film"
"""Bytes that no decoder takes: reading them starts a decoder process and nothing else."""

Result = TypeVar("Result")


class ReaderPool:
    """Decodes films in child processes, as many at a time as there are readers."""

    def __init__(self, limits: ImageLimits, preprocessing: Preprocessing, *, readers: int) -> None:
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="hipray-decode")
        self._all = [IsolatedReader(limits, preprocessing) for _ in range(readers)]
        self._idle: queue.SimpleQueue[IsolatedReader] = queue.SimpleQueue()
        for reader in self._all:
            self._idle.put(reader)

    async def start(self) -> None:
        """Start every decoder process; raises DataError where none can be started."""
        starts = (partial(reader.read_hips, NO_FILM, name="") for reader in self._all)
        await asyncio.gather(*map(self._in_thread, starts))

    async def read(
        self, data: bytes, *, name: str, side: Side | None, person: Person, working_px: int
    ) -> tuple[ReadResult, FramedHips | None]:
        """Return what a film holds, and its hips as networks take them; None without hips.

        `side` and `person` are what the caller states of them.
        """

        def read_and_frame() -> tuple[ReadResult, FramedHips | None]:
            reader = self._idle.get()
            try:
                result = reader.read_hips(data, name=name, side=side)
            finally:
                self._idle.put(reader)
            if not result.hips:
                return result, None
            return result, frame_hips(result, working_px, stated=person)

        return await self._in_thread(read_and_frame)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End the decoder processes."""
        for reader in self._all:
            reader.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
