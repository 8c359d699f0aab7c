"""The bounded queue at the door: who is neither served nor waiting is told to come later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hipray.serving.metrics import queue_metrics
from hipray.serving.problems import ProblemError, come_later


class Admission:
    """Lets `running` requests in at a time and `waiting` more stand in line.

    Requests wait before hipray reads their body; what Serve's proxies have taken in by then is
    bounded by `Intake`.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        self._slots = asyncio.Semaphore(running)
        self._running = running
        self._most = running + waiting
        self._present = 0

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Hold a slot; raises ProblemError (503 with Retry-After) when the line is full."""
        if self._present >= self._most:
            raise ProblemError(come_later("too many requests are waiting"))
        self._count(1)
        try:
            async with self._slots:
                yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._present += change
        running = min(self._present, self._running)
        queue_metrics().show(running=running, waiting=self._present - running)
