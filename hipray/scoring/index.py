"""The index: an archive's films in shards, written down while the archive is listed.

    index/ranges.json                                  how keys are cut into ranges
    index/listing-0000/range-0000/00000000.json        a shard: key, size, etag of each film
    index/listing-0000/complete.json                   what the finished listing found
    index/left-out.json                                keys that the last listing left out, and why

The first listing finds every film, a later one only those that are new or changed. A shard never
changes once it is written, whatever happens to the archive: what is to be scored is known to the
last file, and a listing that broke off goes on behind its last shard.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import add

from hipray.data.fetching import in_order, map_ahead
from hipray.errors import NotFoundError, RunBusyError, StorageError
from hipray.scoring.ranges import KeyRange, build_ranges
from hipray.scoring.shards import Position, Shard, name_listing, parse_listing, parse_shard
from hipray.storage import Store

INDEX = "index"
RANGES_KEY = f"{INDEX}/ranges.json"
LEFT_OUT_KEY = f"{INDEX}/left-out.json"
COMPLETE_NAME = "complete.json"
SHARD_SUFFIX = ".json"
READ_AHEAD = 16
"""Files of the index that are read at once."""


@dataclass(frozen=True)
class ListingTotals:
    """What one listing found, or several did."""

    files: int = 0
    bytes: int = 0
    shards: int = 0
    replaced: int = 0
    """Files that were known with another size or etag: their older entries do not count."""

    @property
    def current(self) -> int:
        """Files as they are now."""
        return self.files - self.replaced

    def __add__(self, other: "ListingTotals") -> "ListingTotals":
        sums = map(add, vars(self).values(), vars(other).values())
        return ListingTotals(*sums)

    @classmethod
    def of(cls, shard: Shard) -> "ListingTotals":
        """Return what one shard adds."""
        replaced = sum(entry.replaces is not None for entry in shard.entries)
        size = sum(entry.size for entry in shard.entries)
        return cls(len(shard.entries), size, 1, replaced)


class Index:
    """The index of one output."""

    def __init__(self, output: Store) -> None:
        self._output = output
        self._ended: dict[int, ListingTotals] = {}
        """Totals of listings that came to their end: they never change."""

    def ranges(self) -> tuple[KeyRange, ...] | None:
        """Return the ranges of keys, or None before the first listing."""
        if not self._output.exists(RANGES_KEY):
            return None
        return build_ranges(json.loads(self._output.read(RANGES_KEY)))

    def choose_ranges(self, boundaries: tuple[str, ...]) -> tuple[KeyRange, ...]:
        """Return the ranges for ever: these, or those that were chosen before."""
        self._output.create(RANGES_KEY, json.dumps(boundaries).encode())
        chosen = self.ranges()
        assert chosen is not None, "it was just written"
        return chosen

    def listings(self) -> dict[int, ListingTotals | None]:
        """Return the listings by number, with the totals of those that are complete."""
        numbers = [_listing_of(folder) for folder in self._output.list_folders(INDEX)]
        others = [number for number in numbers if number not in self._ended]
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            found = dict(zip(others, pool.map(self._read_totals, others), strict=True))
        self._ended |= {number: totals for number, totals in found.items() if totals is not None}
        return {number: self._ended.get(number) for number in numbers}

    def totals(self) -> ListingTotals:
        """Return what all complete listings found."""
        found = (totals for totals in self.listings().values() if totals is not None)
        return sum(found, ListingTotals())

    def is_complete(self) -> bool:
        """Tell whether there is a listing and none broke off."""
        listings = self.listings()
        return bool(listings) and None not in listings.values()

    def positions(self) -> Iterator[Position]:
        """Yield where there are shards, in order, by one listing of their names."""
        for info in self._output.list(INDEX):
            if "/range-" in info.key:
                yield _position_of(info.key)

    def count_shards(self) -> int:
        """Return how many shards there are."""
        return sum(1 for _ in self.positions())

    def positions_from(self, start: Position, *, whole: bool = True) -> Iterator[Position]:
        """Yield where there are shards in a listing and range from one on.

        Raises StorageError where one is lost of what is there as a `whole`. While a folder grows,
        a listing may miss a file and show the next: it ends before such a gap then.
        """
        folder, key = _range_folder(start), _shard_key(start)
        start_after = key.removesuffix(SHARD_SUFFIX)
        listed = self._output.list(folder, start_after=start_after)
        for number, info in enumerate(listed, start=start.number):
            expected = replace(start, number=number)
            found = _position_of(info.key)
            if found != expected and not whole:
                return
            self._check_position(found, expected)
            yield expected

    def read(self, positions: Iterable[Position]) -> Iterator[Shard]:
        """Yield shards, reading ahead; raises StorageError where one was altered or is lost."""
        return map_ahead(self._read_shard, positions, threads=READ_AHEAD)

    def read_by(
        self, pool: ThreadPoolExecutor, positions: Iterable[Position], *, ahead: int
    ) -> Iterator[Shard]:
        """Return shards as `read` does, by threads that others share; the first are asked for now.

        So who takes from many such streams in turn waits once for the first of all.
        """
        jobs = (pool.submit(self._read_shard, position) for position in positions)
        begun = list(islice(jobs, ahead))
        return in_order(chain(begun, jobs), ahead=ahead)

    def _read_shard(self, position: Position) -> Shard:
        shard = parse_shard(self._output.read(_shard_key(position)))
        self._check_position(shard.position, position)
        return shard

    def read_range(self, listing: int, number: int) -> Iterator[Shard]:
        """Yield the frozen shards of one listing and range in order, reading ahead.

        Raises StorageError where one was altered or is lost.
        """
        return self.read(self.positions_from(Position(listing, number, 0)))

    def _check_position(self, found: Position, expected: Position) -> None:
        if found != expected:
            raise StorageError(
                self._output.uri_of(_shard_key(expected)),
                f"shard {found.text} in its place",
                "restore it or use another output",
            )

    def freeze(self, shard: Shard) -> None:
        """Write a shard down for ever; raises RunBusyError where another process did."""
        if not self._output.create(_shard_key(shard.position), shard.dump().encode()):
            raise RunBusyError(
                f"nobody else to list into {self._output.uri}",
                f"shard {shard.position.text} frozen by another process",
                "submit the job again when that one has ended",
            )

    def complete(self, listing: int, totals: ListingTotals) -> None:
        """Write down that a listing came to its end."""
        text = json.dumps(vars(totals))
        self._output.create(f"{_folder(listing)}/{COMPLETE_NAME}", text.encode())

    def write_left_out(self, counts: dict[str, int]) -> None:
        """Write down how many keys or whole folders the last listing left out, by reason."""
        self._output.write(LEFT_OUT_KEY, json.dumps(counts, sort_keys=True).encode())

    def read_left_out(self) -> dict[str, int] | None:
        """Return what `write_left_out` wrote; None where no listing has counted it."""
        if not self._output.exists(LEFT_OUT_KEY):
            return None
        counts: dict[str, int] = json.loads(self._output.read(LEFT_OUT_KEY))
        return counts

    def _read_totals(self, listing: int) -> ListingTotals | None:
        try:
            text = self._output.read(f"{_folder(listing)}/{COMPLETE_NAME}")
        except NotFoundError:
            return None
        return ListingTotals(**json.loads(text))


def _folder(listing: int) -> str:
    return f"{INDEX}/listing-{name_listing(listing)}"


def _listing_of(folder: str) -> int:
    """Return the listing that `_folder` names."""
    return parse_listing(folder.rpartition("-")[2])


def _range_folder(position: Position) -> str:
    return f"{_folder(position.listing)}/range-{position.range:04d}"


def _shard_key(position: Position) -> str:
    return f"{_range_folder(position)}/{position.number:08d}{SHARD_SUFFIX}"


def _position_of(shard_key: str) -> Position:
    """Return the position that `_shard_key` wrote into a key."""
    *_, listing, key_range, name = shard_key.removesuffix(SHARD_SUFFIX).split("/")
    return Position(_listing_of(listing), int(key_range.rpartition("-")[2]), int(name))
