"""A small pool of isolated decoders, so that decoding never blocks the event loop.

A caller who has gone, or whose time is over, takes the decoder process along: a film that decodes
for long must not hold a reader that nobody waits for.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.images import ReadResult
from hipray.data.isolation import IsolatedReader, read_despite_crash
from hipray.data.person import Person
from hipray.pipeline import FramedHips, frame_hips
from hipray.vocab import Side

UNREADABLE_BYTES = b"no film"
"""Bytes that no decoder takes: reading them starts a decoder process and nothing else."""

Result = TypeVar("Result")


class AbandonedError(Exception):
    """Nobody waits for this film any more."""


class StoppableReader(IsolatedReader):
    """An isolated reader whose child another thread may end."""

    def stop(self) -> None:
        """End the child now; the film it reads becomes a `decoder_crash` of nobody."""
        child = self._child
        if child is not None:
            child.kill()
            child.wait()  # the next film must not meet a dying child


class _Reading:
    """One film on its way through the pool, which its caller may abandon at any moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader: StoppableReader | None = None
        self._abandoned = False

    def begin(self, reader: StoppableReader) -> None:
        """Take a reader; raises AbandonedError where nobody waits."""
        with self._lock:
            if self._abandoned:
                raise AbandonedError
            self._reader = reader

    def end(self) -> None:
        """Let the reader go: from here on it may read another film."""
        with self._lock:
            self._reader = None

    def abandon(self) -> None:
        """End the child that reads this film, if one does."""
        with self._lock:
            self._abandoned = True
            if self._reader is not None:
                self._reader.stop()


class ReaderPool:
    """Decodes films in child processes, as many at a time as there are readers."""

    def __init__(self, limits: ImageLimits, preprocessing: Preprocessing, *, readers: int) -> None:
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="hipray-decode")
        self._all = [StoppableReader(limits, preprocessing) for _ in range(readers)]
        self._idle: queue.SimpleQueue[StoppableReader] = queue.SimpleQueue()
        for reader in self._all:
            self._idle.put(reader)

    async def start(self) -> None:
        """Start every decoder process; raises DataError where none can be started."""
        starts = (partial(reader.read_hips, UNREADABLE_BYTES, name="") for reader in self._all)
        await asyncio.gather(*map(self._in_thread, starts))

    async def read(
        self, data: bytes, *, name: str, side: Side | None, person: Person, working_px: int
    ) -> tuple[ReadResult, FramedHips | None]:
        """Return what a film holds, and its hips as networks take them; None without hips.

        A film whose child dies is read again by a fresh one, if somebody still waits for it.
        `side` and `person` are what the caller states of them. Cancelling ends the decoder's
        child; the next film starts another.
        """
        reading = _Reading()

        def read_and_frame() -> tuple[ReadResult, FramedHips | None]:
            reader = self._idle.get()

            def read_once() -> ReadResult:
                reading.begin(reader)
                return reader.read_once(data, name=name, side=side)

            try:
                result = read_despite_crash(read_once)
            finally:
                reading.end()
                self._idle.put(reader)
            if not result.hips:
                return result, None
            return result, frame_hips(result, working_px, stated=person)

        try:
            return await self._in_thread(read_and_frame)
        except asyncio.CancelledError:
            # in a thread: reaping a large process may take longer than a loop may stand still
            asyncio.get_running_loop().run_in_executor(None, reading.abandon)
            raise

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End the decoder processes."""
        for reader in self._all:
            reader.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
