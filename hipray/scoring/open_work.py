"""What is left to score: shards of the index without a part, while the index may still grow.

Names of shards and of parts are compared page by page as both are listed; only shards that are open
are read. However long the archive is, one page of each is in memory.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.scoring.index import Index
from hipray.scoring.lister import Lister
from hipray.scoring.parts import PartSet, list_retries
from hipray.scoring.shards import Position, Shard
from hipray.scoring.work import Work
from hipray.storage import Store

PAGE = 10_000
"""Names that are compared at a time."""
POLL_S = 0.5
"""Seconds between two looks at an index that grows."""


def list_open_work(
    config: ScoreRun,
    archive: Store,
    output: Store,
    parts: PartSet,
    *,
    relist: bool,
    patience_s: float = math.inf,
) -> Generator[Work, None, None]:
    """Yield what has no part yet; with `relist` list the archive, and retry what config asks for.

    The listing goes on while nothing is taken. Raises StorageError, RunBusyError where another
    process lists at once, and TimeoutError where nothing is open for `patience_s` of a listing.
    """
    if relist and config.retry is RetryScope.FAILED:
        for part, entries in list_retries(output, parts):
            yield Work(part, entries)
    index = Index(output)
    with ExitStack() as stack:
        has_ended: Callable[[], bool] = lambda: True  # noqa: E731 - nobody lists
        if relist:
            has_ended = stack.enter_context(Lister(config, archive, index)).has_ended
        shards = _OpenShards(index, output, parts, has_ended, until=time.monotonic() + patience_s)
        for shard in shards.follow():
            yield Work(shard.name, shard.entries)


def count_open(output: Store, parts: PartSet) -> int:
    """Return how many shards have no part, by one listing of either's names."""
    done = (position_of(name) for name in parts.list_all(output))
    latest = next(done, None)
    count = 0
    for position in Index(output).positions():
        while latest is not None and latest < position.text:
            latest = next(done, None)
        count += latest != position.text
    return count


def position_of(part: str) -> str:
    """Return the position, as in names, of the shard whose films a part holds."""
    return "-".join(part.split("-", 3)[:3])


class _OpenShards:
    """Follows an index and compares it with the parts."""

    def __init__(
        self,
        index: Index,
        output: Store,
        parts: PartSet,
        has_ended: Callable[[], bool],
        *,
        until: float,
    ) -> None:
        self._index = index
        self._output = output
        self._parts = parts
        self._has_ended = has_ended
        self._until = until
        self._next: dict[tuple[int, int], Position] = {}
        """The first position of each listing and range that was not looked at."""

    def follow(self) -> Iterator[Shard]:
        """Yield open shards until the listing has ended and all were looked at."""
        passed: set[int] = set()
        while True:
            ended = self._has_ended()  # asked first: what it froze until then is seen below
            found = False
            for listing, totals in self._index.listings().items():
                whole = ended or totals is not None
                for shard in () if listing in passed else self._look_at(listing, whole=whole):
                    found = True
                    yield shard
                if whole:
                    passed.add(listing)
            if ended:
                return
            if not found:
                self._wait()

    def _wait(self) -> None:
        self._check_patience()
        time.sleep(POLL_S)

    def _check_patience(self) -> None:
        if time.monotonic() > self._until:
            raise TimeoutError("the listing takes longer than the caller waits")

    def _look_at(self, listing: int, *, whole: bool) -> Iterator[Shard]:
        for key_range in self._index.ranges() or ():
            place = (listing, key_range.number)
            start = self._next.get(place, Position(*place, 0))
            while page := list(islice(self._index.positions_from(start, whole=whole), PAGE)):
                start = replace(start, number=page[-1].number + 1)
                self._next[place] = start
                self._check_patience()
                done = set(map(position_of, self._parts.list_between(
                    self._output, page[0].text, page[-1].text)))  # fmt: skip
                yield from self._index.read(p for p in page if p.text not in done)
