"""Listing an archive: what no older listing holds is frozen in shards of the index.

Ranges of keys are walked at the same time. A walk merges sorted streams: the archive's keys, and
what older listings hold of them. It keeps a few pages of each in memory, or the names of a local
folder, however many keys there are, and waits for nobody: how much there is to score is known long
before it is scored.
"""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from hipray.config.jobs import ScoreRun
from hipray.scoring.index import READ_AHEAD, Index, ListingTotals
from hipray.scoring.key_list import describe_keys, read_key_list
from hipray.scoring.ranges import KeyRange, choose_boundaries
from hipray.scoring.selection import LeftOut, build_folder_sieve, build_sieve
from hipray.scoring.shards import Entry, Position, Shard, group_entries
from hipray.storage import Store

ListedT = TypeVar("ListedT")

FIRST_FILES = 16_384
"""Files that are frozen at once, of all ranges together."""
HEAD_START_S = 60.0
"""Seconds from the start of a listing until more are frozen: the first films need the store and the
cores meanwhile."""
MOST_READ = 2048
"""Shards of older listings that a walk holds at once: of each of a few many, of each of many a
few."""


class Known(NamedTuple):
    """A film of an older listing; those of several listings sort into one stream."""

    key: str
    listing: int
    shard: str
    """Name of the shard that holds it."""
    entry: Entry


@dataclass(frozen=True)
class Found:
    """What a walk found."""

    totals: ListingTotals = field(default_factory=ListingTotals)
    left_out: Counter[LeftOut] = field(default_factory=Counter)

    def __add__(self, other: "Found") -> "Found":
        return Found(self.totals + other.totals, self.left_out + other.left_out)


class Lister:
    """Lists an archive into its index in the background, until it is done or left."""

    def __init__(self, config: ScoreRun, archive: Store, index: Index) -> None:
        self._config = config
        self._archive = archive
        self._index = index
        self._stopped = threading.Event()
        self._free_at = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lister")
        self._run: Future[None] | None = None

    def __enter__(self) -> Self:
        self._free_at = time.monotonic() + HEAD_START_S
        self._run = self._pool.submit(self._list)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown()

    def has_ended(self) -> bool:
        """Tell whether all is frozen.

        Raises StorageError where the archive could not be listed, and RunBusyError where another
        process lists at once.
        """
        assert self._run is not None, "it is entered first"
        if not self._run.done():
            return False
        self._run.result()
        return True

    def _list(self) -> None:
        if None in self._index.listings().values():
            # it goes on behind its last key: what came before that since is a listing of its own
            self._list_once()
        self._list_once()

    def _list_once(self) -> None:
        listings = self._index.listings()
        broken_off = [number for number, totals in listings.items() if totals is None]
        current = broken_off[0] if broken_off else len(listings)
        older = [number for number in listings if number != current]
        ranges = self._ranges()
        at_once = FIRST_FILES // len(ranges)
        with ThreadPoolExecutor(self._config.listers) as pool:
            walks = [pool.submit(self._list_range, r, current, older, at_once) for r in ranges]
            self._wait(walks)
        found = sum((walk.result() for walk in walks), Found())
        if listings or found.totals.files:
            self._archive.check_root()  # one that goes away looks as if its keys ended there
        if found.totals.files:  # an empty folder may fill later: nothing is frozen
            self._index.complete(current, found.totals)
        if not broken_off:  # else the keys before its last shard were not seen again
            self._index.write_left_out({why.value: n for why, n in found.left_out.items()})

    def _wait(self, walks: Sequence[Future[Found]]) -> None:
        """Wait for all walks; the first that fails ends the others, and its error is raised."""
        done, _ = wait(walks, return_when=FIRST_EXCEPTION)
        failures = [walk.exception() for walk in done]
        for failure in failures:
            if failure is not None:
                self._stopped.set()
                raise failure

    def _ranges(self) -> Sequence[KeyRange]:
        known = self._index.ranges()
        if known is not None:
            return known
        if self._config.select.keys is not None:
            return self._index.choose_ranges(())
        boundaries = choose_boundaries(self._archive, wanted=self._config.listers)
        return self._index.choose_ranges(boundaries)

    def _list_range(
        self, key_range: KeyRange, current: int, older: Sequence[int], at_once: int
    ) -> Found:
        totals, last = ListingTotals(), ""
        for shard in self._index.read_range(current, key_range.number):
            totals, last = totals + ListingTotals.of(shard), shard.entries[-1].key
        left_out: Counter[LeftOut] = Counter()
        first, head_start = totals.shards, totals.files + at_once
        listed = self._list_entries(key_range, last, left_out)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            known = self._merge_known(pool, key_range, older)
            groups = group_entries(
                find_changes(listed, known),
                max_files=self._config.shard_files, max_bytes=self._config.shard_bytes,
            )  # fmt: skip
            for number, entries in enumerate(groups, start=first):
                shard = Shard(Position(current, key_range.number, number), entries)
                if totals.files >= head_start:
                    self._stopped.wait(max(0.0, self._free_at - time.monotonic()))
                self._index.freeze(shard)
                totals += ListingTotals.of(shard)
        return Found(totals, left_out)

    def _merge_known(
        self, pool: ThreadPoolExecutor, key_range: KeyRange, older: Sequence[int]
    ) -> Iterator[Known]:
        """Yield what older listings hold of a range, in order; they all begin at the same time."""
        ahead = max(2, min(READ_AHEAD, MOST_READ // max(1, len(older))))
        starts = [Position(listing, key_range.number, 0) for listing in older]
        positions = pool.map(_begin, map(self._index.positions_from, starts))
        streams = [self._index.read_by(pool, own, ahead=ahead) for own in positions]
        return heapq.merge(*map(_list_known, streams))

    def _list_entries(
        self, key_range: KeyRange, start_after: str, left_out: Counter[LeftOut]
    ) -> Iterator[Entry]:
        sift = build_sieve(self._config.select)
        sift_folder = build_folder_sieve(self._config.select)

        def is_left_out(why: LeftOut | None) -> bool:
            if why is not None:
                left_out[why] += 1
            return why is not None

        if self._config.select.keys is not None:
            keys = read_key_list(self._config.select.keys, self._config.storage, self._archive)
            wanted = (key for key in keys if key > start_after and not is_left_out(sift(key)))
            return describe_keys(self._archive, self._while_wanted(wanted))
        listed = key_range.list(
            self._archive,
            start_after=start_after,
            passes_by=lambda folder: is_left_out(sift_folder(folder)),
        )
        infos = (i for i in self._while_wanted(listed) if not is_left_out(sift(i.key)))
        return (Entry(info.key, info.size, info.etag) for info in infos)

    def _while_wanted(self, listed: Iterable[ListedT]) -> Iterator[ListedT]:
        """What is listed, film or not; a walk that is no longer wanted ends at the next."""
        for each in listed:
            if self._stopped.is_set():
                raise _NoLongerWantedError
            yield each


def _begin(positions: Iterator[Position]) -> Iterator[Position]:
    """Ask for the first page of positions now, and return all of them."""
    first = list(islice(positions, 1))
    return chain(first, positions)


def _list_known(shards: Iterable[Shard]) -> Iterator[Known]:
    for shard in shards:
        name = shard.name
        for entry in shard.entries:
            yield Known(entry.key, shard.position.listing, name, entry)


class _NoLongerWantedError(Exception):
    """Ends a walk whose shards nobody takes any more."""


def find_changes(fresh: Iterable[Entry], known: Iterator[Known]) -> Iterator[Entry]:
    """Yield the entries, sorted by key, that older listings do not have or have otherwise.

    One without an etag could not be described now, which says nothing of a change.
    """
    step = next(known, None)
    for entry in fresh:
        latest: Known | None = None
        while step is not None and step.key <= entry.key:
            if step.key == entry.key:
                latest = step  # later listings come later
            step = next(known, None)
        if latest is None:
            yield entry
        elif entry.etag and (latest.entry.size, latest.entry.etag) != (entry.size, entry.etag):
            yield replace(entry, replaces=latest.shard)
