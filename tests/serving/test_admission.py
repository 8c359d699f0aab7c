"""The line at the door: no kind of request keeps the others out."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from hipray.serving.admission import EXTRAS_SHARE, Admission, Lane
from hipray.serving.problems import ProblemError

RUNNING, WAITING = 8, 16
SOON_S = 5


class Door:
    """Requests at a door, that hold their slots until they are let go."""

    def __init__(self) -> None:
        self.admission = Admission(running=RUNNING, waiting=WAITING)
        self.inside = self.turned_away = 0
        self._over = asyncio.Event()
        self._here: list[asyncio.Task[None]] = []

    async def crowd(self, count: int, lane: Lane, *, extras: bool = False) -> None:
        """Let requests come, and stay."""
        coming = (self._stay(lane, extras=extras) for _ in range(count))
        self._here += [asyncio.create_task(request) for request in coming]
        await asyncio.sleep(0.01)

    async def _stay(self, lane: Lane, *, extras: bool) -> None:
        try:
            async with self.admission.stand_in_line(lane, extras=extras) as turn, turn:
                self.inside += 1
                await self._over.wait()
        except ProblemError as error:
            assert error.problem.status == 503
            self.turned_away += 1

    async def pass_through(self, lane: Lane, *, extras: bool = False) -> None:
        """Raises TimeoutError where a request of this kind does not get in."""
        async with asyncio.timeout(SOON_S):
            async with self.admission.stand_in_line(lane, extras=extras) as turn, turn:
                pass

    async def end(self) -> None:
        self._over.set()
        await asyncio.gather(*self._here)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    told: list[dict[str, int]] = []
    gauges = SimpleNamespace(show=lambda **counts: told.append(counts))
    monkeypatch.setattr("hipray.serving.admission.queue_metrics", lambda: gauges)
    return told


def in_loop(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_films_that_are_named_never_keep_out_those_that_are_sent(
    shown: list[dict[str, int]],
) -> None:
    async def scenario() -> None:
        door = Door()
        await door.crowd(10 * (RUNNING + WAITING), Lane.NAMED)  # all wait for a store that hangs
        assert door.inside == RUNNING
        await door.pass_through(Lane.SENT)
        await door.end()
        await door.pass_through(Lane.NAMED)

    in_loop(scenario())


@pytest.mark.parametrize("lane", Lane)
def test_requests_with_extras_leave_most_places_to_those_for_numbers(
    shown: list[dict[str, int]], lane: Lane
) -> None:
    async def scenario() -> None:
        door = Door()
        await door.crowd(10 * (RUNNING + WAITING), lane, extras=True)
        assert door.inside == RUNNING // EXTRAS_SHARE
        await door.crowd(RUNNING - door.inside, lane)
        assert door.inside == RUNNING
        await door.end()
        await door.pass_through(lane, extras=True)

    in_loop(scenario())


def test_a_full_line_turns_away_and_tells_who_runs_and_who_waits(
    shown: list[dict[str, int]],
) -> None:
    async def scenario() -> None:
        door = Door()
        await door.crowd(RUNNING + WAITING + 3, Lane.SENT)
        assert door.turned_away == 3
        assert shown[-1] == {"running": RUNNING, "waiting": WAITING}
        await door.end()
        assert shown[-1] == {"running": 0, "waiting": 0}

    in_loop(scenario())


def test_who_stands_in_line_without_a_turn_keeps_nobody_from_being_served(
    shown: list[dict[str, int]],
) -> None:
    async def scenario() -> None:
        door = Door()
        async with AsyncExitStack() as slow_bodies:
            for _ in range(RUNNING + WAITING - 1):
                place = door.admission.stand_in_line(Lane.SENT)
                await slow_bodies.enter_async_context(place)
            await door.pass_through(Lane.SENT)

    in_loop(scenario())


def test_a_line_of_one_takes_every_kind_of_request(shown: list[dict[str, int]]) -> None:
    async def scenario() -> None:
        door = Door()
        door.admission = Admission(running=1, waiting=1)
        for lane in Lane:
            await door.pass_through(lane, extras=True)

    in_loop(scenario())
