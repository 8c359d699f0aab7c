"""The feed of batch scoring: one actor that knows what is open, and hands it out.

It lists the archive meanwhile. Ray Data keeps a note of every block until its dataset ends, so a
long run is many datasets of bounded length, and what they all take from lives outside of them.
"""

from collections.abc import Iterator
from itertools import chain

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hipray.config.jobs import ScoreRun
from hipray.distributed.ray_errors import raise_own
from hipray.releases.release import Release
from hipray.scoring.open_work import list_work
from hipray.scoring.retries import list_retry_work
from hipray.scoring.work import parse_work

MOST_RESTARTS = 10
"""Starts of the feed beside the first: it lies on the driver's machine, which ends with it."""


class WorkFeed:
    """A handle of the actor; it travels to the tasks that take from it."""

    def __init__(
        self, config: ScoreRun, release: Release, *, relist: bool, submission: int
    ) -> None:
        here = ray.get_runtime_context().get_node_id()
        self._actor = (
            ray.remote(_Feed)
            .options(
                num_cpus=0, max_restarts=MOST_RESTARTS, max_task_retries=MOST_RESTARTS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote(
                config.model_dump_json(), release.model_dump_json(), relist=relist,
                submission=submission,
            )
        )  # fmt: skip

    def take(self, most: int) -> Iterator[str]:
        """Yield work as `Work.dump` writes it, each once, until none is left or `most` were taken.

        An actor that was restarted hands out again what is under way. Raises what kept the archive
        from being listed.
        """
        taken: set[str] = set()
        with raise_own():
            while len(taken) < most:
                work: str | None = ray.get(self._actor.take.remote())
                if work is None:
                    return
                part = parse_work(work).part
                if part not in taken:
                    taken.add(part)
                    yield work

    def has_more(self) -> bool:
        """Tell whether any work is left, waiting for the listing to say so; raises as `take`."""
        with raise_own():
            return bool(ray.get(self._actor.has_more.remote()))

    def close(self) -> None:
        """End the actor, and the listing with it."""
        ray.kill(self._actor)


class _Feed:
    """The actor's side. One that was restarted begins anew: what has a part is not open."""

    def __init__(self, payload: str, release_text: str, *, relist: bool, submission: int) -> None:
        self._work = chain(
            list_work(payload, release_text, relist=relist),
            list_retry_work(payload, release_text, submission),
        )
        self._next: str | None = None

    def take(self) -> str | None:
        work, self._next = self._peek(), None
        return work

    def has_more(self) -> bool:
        return self._peek() is not None

    def _peek(self) -> str | None:
        if self._next is None:
            self._next = next(self._work, None)
        return self._next
