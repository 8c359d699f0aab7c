"""Films that wait at the same time go through a model together."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ray import serve

Film = TypeVar("Film")
Numbers = TypeVar("Numbers")


class BatchedModel(Generic[Film, Numbers]):
    """A model behind `serve.batch`, computing in a thread.

    Films wait outside while a batch is computed. `serve.batch` alone closes the next batch
    `wait_s` after its first film, whether the model is free or not: a busy model would be fed film
    by film.
    """

    def __init__(
        self, run: Callable[[list[Film]], list[Numbers]], *, size: int, wait_s: float
    ) -> None:
        self._run = run
        self._idle = asyncio.Event()
        self._idle.set()
        self._batched: Any = serve.batch(max_batch_size=size, batch_wait_timeout_s=wait_s)(
            self._compute
        )

    async def __call__(self, film: Film) -> Numbers:
        """Return the numbers of one film; raises what the model raises."""
        await self._idle.wait()
        numbers: Numbers = await self._batched(film)
        return numbers

    async def _compute(self, films: list[Film]) -> list[Numbers]:
        self._idle.clear()
        try:
            return await asyncio.to_thread(self._run, films)
        finally:
            self._idle.set()
