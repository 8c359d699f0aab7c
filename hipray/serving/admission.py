"""The bounded queue at the door: who is neither served nor waiting is told to come later."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import Enum, auto

from hipray.serving.metrics import queue_metrics
from hipray.serving.problems import ProblemError, come_later

EXTRAS_SHARE = 4
"""One in so many places is for requests with extras, at least one: they wait for few threads and
for stages that all share."""


class Lane(Enum):
    """Where the films of a request come from: a slow store must not hold up those that are here."""

    SENT = auto()  # a film in the body
    NAMED = auto()  # films by their addresses


class _Places:
    """Places that some requests share: `slots` to be worked on at a time, `most` to be there."""

    def __init__(self, slots: int, most: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.most = most
        self.present = 0


class Admission:
    """Lets `running` requests of each lane in at a time; `waiting` more, of both, stand in line.

    Films that are named leave half of the line to those that are sent. A request's body is read
    while it stands in line, so that one that comes slowly holds a place there and keeps nobody from
    being served; what Serve's proxies have taken in by then is bounded by `Intake`.
    """

    def __init__(self, *, running: int, waiting: int) -> None:
        most = running + waiting
        mosts = {Lane.SENT: most, Lane.NAMED: most - max(1, waiting // 2)}
        self._line = _Places(most, most)
        self._lanes = {lane: _Places(running, held) for lane, held in mosts.items()}
        self._extras = {
            lane: _Places(max(1, running // EXTRAS_SHARE), max(1, held // EXTRAS_SHARE))
            for lane, held in mosts.items()
        }
        self._running = 0

    @asynccontextmanager
    async def stand_in_line(
        self, lane: Lane, *, extras: bool = False
    ) -> AsyncIterator[AbstractAsyncContextManager[None]]:
        """Hold a place in the line, and give the turn, which waits for a slot and holds it.

        Raises ProblemError (503 with Retry-After) when the line is full.
        """
        shared = [self._line, *([self._extras[lane]] if extras else []), self._lanes[lane]]
        if any(places.present >= places.most for places in shared):
            raise ProblemError(come_later("too many requests are waiting"))
        self._count(shared, present=1)
        try:
            yield self._take_turn(shared)
        finally:
            self._count(shared, present=-1)

    @asynccontextmanager
    async def _take_turn(self, shared: Sequence[_Places]) -> AsyncIterator[None]:
        async with AsyncExitStack() as slots:
            for places in shared:
                await slots.enter_async_context(places.slots)
            self._count(running=1)
            slots.callback(self._count, running=-1)
            yield

    def _count(self, shared: Sequence[_Places] = (), *, present: int = 0, running: int = 0) -> None:
        for places in shared:
            places.present += present
        self._running += running
        queue_metrics().show(running=self._running, waiting=self._line.present - self._running)
