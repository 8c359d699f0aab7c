"""What is left to score: shards of the index without a part, while the index may still grow.

Names of shards and of parts are compared page by page as both are listed; only shards that are open
are read. However long the archive is, one page of each is in memory.
"""

import heapq
import logging
import math
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.errors import StoreUnavailableError
from hipray.releases.release import Release
from hipray.scoring.faults import FailedFilm, Fault
from hipray.scoring.index import Index
from hipray.scoring.lister import Lister
from hipray.scoring.outputs import open_output
from hipray.scoring.parts import PartSet, is_retry
from hipray.scoring.shards import Position, Shard
from hipray.scoring.unpublished import Unpublished
from hipray.scoring.work import Work
from hipray.storage import Store, open_store
from hipray.storage.retrying import RetryingStore

PAGE = 10_000
"""Names that are compared at a time."""
POLL_S = 0.5
"""Seconds between two looks at an index that grows."""
OUTAGE_WAIT_S = 15.0
"""Seconds before a listing that a store out of reach has ended goes on."""

logger = logging.getLogger(__name__)


def list_work(payload: str, release_text: str, *, relist: bool) -> Iterator[str]:
    """Yield what has no part yet, as `Work.dump` writes it, while the archive is listed."""
    config = ScoreRun.model_validate_json(payload)
    parts = PartSet.of(Release.model_validate_json(release_text), config)
    archive = open_store(config.images, config.storage)
    for work in list_open_work(config, archive, open_output(config), parts, relist=relist):
        yield work.dump()


def list_open_work(
    config: ScoreRun,
    archive: Store,
    output: Store,
    parts: PartSet,
    *,
    relist: bool,
    patience_s: float = math.inf,
) -> Generator[Work, None, None]:
    """Yield shards that have no part yet; with `relist` list the archive first.

    The listing goes on while nothing is taken. A shard that failed as a whole comes behind all that
    nobody has tried, and only with `relist`: a submission tries it once. Of archived films alone it
    comes where config retries what failed. Raises StorageError, RunBusyError where another process
    lists at once, and TimeoutError where nothing is open for `patience_s` of a listing.
    """
    patient = RetryingStore(output, patience_s=config.store_wait_s)
    notes = Unpublished(patient, parts)
    failed = {position_of(name): name for name in notes.names() if not is_retry(name)}
    with ExitStack() as stack:
        has_ended: Callable[[], bool] = lambda: True  # noqa: E731 - nobody lists
        if relist:
            start = partial(Lister, config, archive, Index(output))
            has_ended = _Listing(stack, start, patience_s=config.store_wait_s).has_ended
        shards = _OpenShards(
            Index(patient), patient, parts, failed, has_ended, until=time.monotonic() + patience_s
        )
        for shard in shards.follow():
            yield Work(shard.name, shard.entries)
        if relist:
            tried = notes.read_all(failed[position.text] for position in shards.put_off)
            again = (
                position
                for position, (_, letters) in zip(shards.put_off, tried, strict=True)
                if config.retry is RetryScope.FAILED or not _are_archived(letters)
            )
            for shard in Index(patient).read(again):
                yield Work(shard.name, shard.entries)


def _are_archived(letters: Sequence[FailedFilm]) -> bool:
    return all(letter.fault is Fault.ARCHIVED for letter in letters)


def count_open(output: Store, parts: PartSet) -> int:
    """Return how many shards have no part, by one listing of either's names."""
    return sum(1 for _ in _list_missing(output, parts.list_all(output)))


def list_lost(output: Store, parts: PartSet) -> Iterator[Position]:
    """Yield where shards are that have neither a part nor a note that they failed."""
    noted = Unpublished(output, parts).names()
    return _list_missing(output, heapq.merge(parts.list_all(output), noted, key=position_of))


def _list_missing(output: Store, names: Iterable[str]) -> Iterator[Position]:
    """Yield where shards are that none of these sorted names is of; one of a retry is not."""
    own = (name for name in names if not is_retry(name))
    latest = next(own, None)
    for position in Index(output).positions():
        while latest is not None and position_of(latest) < position.text:
            latest = next(own, None)
        if latest is None or position_of(latest) != position.text:
            yield position


def position_of(part: str) -> str:
    """Return the position, as in names, of the shard whose films a part holds."""
    return "-".join(part.split("-", 3)[:3])


class _Listing:
    """A listing that an outage of the store ends for a while: it goes on where it was."""

    def __init__(self, stack: ExitStack, start: Callable[[], Lister], *, patience_s: float) -> None:
        self._stack = stack
        self._start = start
        self._patience_s = patience_s
        self._outage_s = math.inf
        self._begin()

    def _begin(self) -> None:
        self._begun_s = time.monotonic()
        self._lister = self._stack.enter_context(self._start())

    def has_ended(self) -> bool:
        """Tell as `Lister.has_ended`; raises StoreUnavailableError of a long outage only."""
        try:
            return self._lister.has_ended()
        except StoreUnavailableError as error:
            now = time.monotonic()
            if now - self._begun_s > self._patience_s or self._outage_s == math.inf:
                self._outage_s = now  # it had gone well until then
            if now + OUTAGE_WAIT_S - self._outage_s > self._patience_s:
                raise
            logger.warning("the listing waits for the store: %s", error)
        time.sleep(OUTAGE_WAIT_S)
        self._begin()
        return False


class _OpenShards:
    """Follows an index and compares it with the parts."""

    def __init__(
        self,
        index: Index,
        output: Store,
        parts: PartSet,
        failed: Container[str],
        has_ended: Callable[[], bool],
        *,
        until: float,
    ) -> None:
        self._index = index
        self._output = output
        self._parts = parts
        self._failed = failed
        self._has_ended = has_ended
        self._until = until
        self.put_off: list[Position] = []
        """Open shards that were met and failed as a whole before."""
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
                names = self._parts.list_between(self._output, page[0].text, page[-1].text)
                done = {position_of(name) for name in names if not is_retry(name)}
                left = [position for position in page if position.text not in done]
                self.put_off += [position for position in left if position.text in self._failed]
                yield from self._index.read(p for p in left if p.text not in self._failed)
