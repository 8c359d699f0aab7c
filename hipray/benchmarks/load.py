"""Load on an endpoint, from this machine only and bounded in count or time."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import numpy as np

TIMEOUT_S = 120.0
"""Seconds after which a request counts as lost."""
LOST = 0
"""Status of a request that got no answer."""


@dataclass(frozen=True)
class Reply:
    """What became of one request."""

    status: int
    seconds: float
    ended_s: float
    """Seconds from the start of the load to the answer."""


@dataclass(frozen=True)
class Load:
    """What became of all requests of one load."""

    replies: tuple[Reply, ...]
    seconds: float

    @property
    def answered(self) -> list[Reply]:
        """Requests that were answered with a result."""
        return [reply for reply in self.replies if reply.status == HTTPStatus.OK]

    @property
    def refused(self) -> list[Reply]:
        """Requests that were told to come later."""
        refusal = HTTPStatus.SERVICE_UNAVAILABLE
        return [reply for reply in self.replies if reply.status == refusal]

    @property
    def lost(self) -> int:
        """Requests that were neither answered nor refused."""
        return len(self.replies) - len(self.answered) - len(self.refused)

    @property
    def rate(self) -> float:
        """Answered requests per second."""
        return len(self.answered) / self.seconds

    def quantile_s(self, level: float) -> float:
        """Return a quantile of the seconds that answered requests took."""
        return float(np.quantile([reply.seconds for reply in self.answered], level))


def send_in_turn(url: str, films: Sequence[bytes], *, concurrency: int, requests: int) -> Load:
    """Send `requests` films, `concurrency` at a time: each caller waits for its answer."""
    return asyncio.run(_send_in_turn(url, films, concurrency, requests))


def send_at_rate(url: str, films: Sequence[bytes], *, per_second: float, seconds: float) -> Load:
    """Send films at a rate that does not ask whether earlier ones were answered."""
    return asyncio.run(_send_at_rate(url, films, per_second, seconds))


async def _send_in_turn(url: str, films: Sequence[bytes], concurrency: int, requests: int) -> Load:
    started, numbers = time.perf_counter(), iter(range(requests))
    replies: list[Reply] = []

    async def call_on(client: httpx.AsyncClient) -> None:
        for number in numbers:
            replies.append(await _send(client, url, films[number % len(films)], started))

    async with _client() as client:
        await asyncio.gather(*(call_on(client) for _ in range(concurrency)))
    return Load(tuple(replies), time.perf_counter() - started)


async def _send_at_rate(
    url: str, films: Sequence[bytes], per_second: float, seconds: float
) -> Load:
    started, pending = time.perf_counter(), []
    async with _client() as client:
        for number, film in enumerate(itertools.cycle(films)):
            due = number / per_second
            if due >= seconds:
                break
            await asyncio.sleep(max(0.0, started + due - time.perf_counter()))
            pending.append(asyncio.create_task(_send(client, url, film, started)))
        replies = await asyncio.gather(*pending)
    return Load(tuple(replies), time.perf_counter() - started)


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False)


async def _send(client: httpx.AsyncClient, url: str, film: bytes, started: float) -> Reply:
    began = time.perf_counter()
    try:
        answer = await client.post(url, files={"file": ("film", film)})
        status = answer.status_code
    except httpx.HTTPError:
        status = LOST
    ended = time.perf_counter()
    return Reply(status, ended - began, ended - started)
