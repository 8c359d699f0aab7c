"""What is left to score: open shards of the index, and new ones while the archive is listed.

Ranges of keys are walked at the same time. A walk merges sorted streams: the archive's keys, what
older listings hold of them, and the parts that are finished. It keeps a few pages of each in
memory, however many keys there are.
"""

import heapq
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from typing import NamedTuple, TypeVar

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.scoring.index import Index, ListingTotals
from hipray.scoring.key_list import describe_keys, read_key_list
from hipray.scoring.parts import PartSet, list_retries
from hipray.scoring.ranges import KeyRange, choose_boundaries
from hipray.scoring.selection import build_filter
from hipray.scoring.shards import Entry, Position, Shard, group_entries
from hipray.storage import Store

ListedT = TypeVar("ListedT")

QUEUED = 64
"""Shards that all walks together may be ahead of who takes them."""
POLL_S = 0.2
"""Seconds after which a waiting walk looks whether it is still wanted."""


@dataclass(frozen=True)
class Work:
    """Films to score into one part: an open shard, or what failed of a published one."""

    part: str
    """Name of the part without its suffix."""
    entries: tuple[Entry, ...]

    def dump(self) -> str:
        """Return the work as JSON."""
        films = [[entry.key, entry.size, entry.etag] for entry in self.entries]
        return json.dumps({"part": self.part, "films": films})


def parse_work(text: str) -> Work:
    """Return the work that `Work.dump` wrote."""
    fields = json.loads(text)
    return Work(fields["part"], tuple(Entry(*film) for film in fields["films"]))


class Known(NamedTuple):
    """A step of walking through an older listing; steps of several listings sort into one."""

    key: str
    is_film: bool
    """False for the shard itself, which comes before its films."""
    listing: int
    shard: Shard
    entry: Entry


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

    Shards are frozen before they are yielded. Raises StorageError, RunBusyError where another
    process lists at once, and TimeoutError where `patience_s` pass before it ends.
    """
    if relist and config.retry is RetryScope.FAILED:
        for part, entries in list_retries(output, parts):
            yield Work(part, entries)
    index = Index(output)
    walk = _Walk(config, archive, index, relist=relist, until=time.monotonic() + patience_s)
    finished = _FinishedParts(output, parts)
    for shard in walk.shards():
        if not finished.has(shard):
            yield Work(shard.name, shard.entries)


class _FinishedParts:
    """Tells of shards whether they have a part, by one listing of parts per range."""

    def __init__(self, output: Store, parts: PartSet) -> None:
        self._output = output
        self._parts = parts
        self._known: dict[tuple[int, int], _SortedNames] = {}

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard has a part; those of one listing and range must come in order."""
        place = (shard.position.listing, shard.position.range)
        if place not in self._known:
            self._known[place] = _SortedNames(self._parts.list_names(self._output, *place))
        return self._known[place].has(shard.name)


class _SortedNames:
    """Sorted names that are asked for in their order."""

    def __init__(self, names: Iterator[str]) -> None:
        self._names = names
        self._next: str | None = next(names, None)

    def has(self, name: str) -> bool:
        while self._next is not None and self._next < name:
            self._next = next(self._names, None)
        return self._next == name


class _Walk:
    """Walks all ranges of keys in threads."""

    def __init__(
        self, config: ScoreRun, archive: Store, index: Index, *, relist: bool, until: float
    ) -> None:
        self._config = config
        self._archive = archive
        self._index = index
        self._queue: Queue[Shard] = Queue(QUEUED)
        self._stopped = threading.Event()
        listings = index.listings()
        broken_off = [number for number, totals in listings.items() if totals is None]
        self._current = broken_off[0] if broken_off else len(listings)
        self._older = [number for number in listings if number != self._current]
        self._relist = relist
        self._until = until
        if not relist:
            self._older = list(listings)

    def shards(self) -> Iterator[Shard]:
        """Yield frozen shards, those of one range and listing in order."""
        ranges = self._ranges()
        with ThreadPoolExecutor(self._config.listers) as pool:
            walk = self._list_range if self._relist else self._repeat_range
            walks = [pool.submit(walk, key_range) for key_range in ranges]
            try:
                yield from self._received(walks)
                found = sum((walk.result() for walk in walks), ListingTotals())
            finally:
                self._stopped.set()
        if self._relist and found.files:  # an empty folder may fill later: nothing is frozen
            self._index.complete(self._current, found)

    def _ranges(self) -> Sequence[KeyRange]:
        known = self._index.ranges()
        if known is not None or not self._relist:
            return known or ()
        if self._config.select.keys is not None:
            return self._index.choose_ranges(())
        boundaries = choose_boundaries(self._archive, wanted=self._config.listers)
        return self._index.choose_ranges(boundaries)

    def _received(self, walks: Sequence[Future[ListingTotals]]) -> Iterator[Shard]:
        while True:
            ended = all(walk.done() for walk in walks)
            # at once: the other walks wait for somebody to take their shards
            for walk in walks:
                if walk.done() and (failure := walk.exception()) is not None:
                    raise failure
            if time.monotonic() > self._until:
                raise TimeoutError("the listing takes longer than the caller waits")
            try:
                yield self._queue.get(timeout=0 if ended else POLL_S)
            except Empty:
                if ended:
                    return

    def _emit(self, shard: Shard) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(shard, timeout=POLL_S)
                return
            except Full:
                continue
        raise _NoLongerWantedError

    def _repeat_range(self, key_range: KeyRange) -> ListingTotals:
        for listing in self._older:
            for shard in self._index.read_range(listing, key_range.number):
                self._emit(shard)
        return ListingTotals()

    def _list_range(self, key_range: KeyRange) -> ListingTotals:
        found, last = ListingTotals(), ""
        for shard in self._index.read_range(self._current, key_range.number):
            self._emit(shard)
            found, last = found + ListingTotals.of(shard), shard.entries[-1].key
        older = [self._read_known(listing, key_range.number) for listing in self._older]
        steps = heapq.merge(*older, key=lambda step: step[:3])
        fresh = find_changes(self._list_entries(key_range, last), steps, on_shard=self._emit)
        groups = group_entries(
            fresh, max_files=self._config.shard_files, max_bytes=self._config.shard_bytes
        )
        for number, entries in enumerate(groups, start=found.shards):
            shard = Shard(Position(self._current, key_range.number, number), entries)
            self._index.freeze(shard)
            self._emit(shard)
            found += ListingTotals.of(shard)
        return found

    def _read_known(self, listing: int, number: int) -> Iterator[Known]:
        for shard in self._index.read_range(listing, number):
            yield Known(shard.entries[0].key, False, listing, shard, shard.entries[0])
            for entry in shard.entries:
                yield Known(entry.key, True, listing, shard, entry)

    def _while_wanted(self, listed: Iterable[ListedT]) -> Iterator[ListedT]:
        """What is listed, film or not; a walk that is no longer wanted ends at the next."""
        for each in listed:
            if self._stopped.is_set():
                raise _NoLongerWantedError
            yield each

    def _list_entries(self, key_range: KeyRange, start_after: str) -> Iterator[Entry]:
        takes = build_filter(self._config.select)
        if self._config.select.keys is not None:
            keys = read_key_list(self._config.select.keys, self._config.storage, self._archive)
            wanted = (key for key in keys if key > start_after and takes(key))
            return describe_keys(self._archive, self._while_wanted(wanted))
        infos = self._while_wanted(key_range.list(self._archive, start_after=start_after))
        return (Entry(info.key, info.size, info.etag) for info in infos if takes(info.key))


class _NoLongerWantedError(Exception):
    """Ends a walk whose shards nobody takes any more."""


def find_changes(
    fresh: Iterable[Entry], steps: Iterator[Known], *, on_shard: Callable[[Shard], None]
) -> Iterator[Entry]:
    """Yield the entries, sorted by key, that older listings do not have or have otherwise.

    One without an etag could not be described now, which says nothing of a change.
    `on_shard` gets each older shard as it is passed, the last ones at the end.
    """
    step = next(steps, None)
    for entry in fresh:
        latest: Known | None = None
        while step is not None and step.key <= entry.key:
            if not step.is_film:
                on_shard(step.shard)
            elif step.key == entry.key:
                latest = step  # later listings come later
            step = next(steps, None)
        if latest is None:
            yield entry
        elif entry.etag and (latest.entry.size, latest.entry.etag) != (entry.size, entry.etag):
            yield replace(entry, replaces=latest.shard.name)
    while step is not None:
        if not step.is_film:
            on_shard(step.shard)
        step = next(steps, None)
