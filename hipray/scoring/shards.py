"""The frozen listing: an archive's films in shards, written down while the listing streams.

    index/00000000.json    the first shard: key, size and etag of each film
    index/complete.json    how many films and shards the finished listing has

A shard never changes once it is written, whatever happens to the archive, so what is to be
scored is known to the last file and a listing that broke off goes on behind its last shard.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from hipray.data.listing import is_film
from hipray.digests import digest_of
from hipray.errors import RunBusyError, StorageError
from hipray.storage import Store

INDEX = "index"
COMPLETE_KEY = f"{INDEX}/complete.json"
READ_AHEAD = 16
"""Shard files that are read at once when a listing is taken up again."""


@dataclass(frozen=True)
class Entry:
    """One film as the listing saw it."""

    key: str
    size: int
    """Bytes."""
    etag: str


@dataclass(frozen=True)
class Shard:
    """The unit of resume: some consecutive films of the listing."""

    number: int
    """Position in the listing, from 0."""
    entries: tuple[Entry, ...]

    @property
    def id(self) -> str:
        """The digest of its films' keys, sizes and etags: the same content, the same id."""
        return digest_of(self._listed())[:16]

    def dump(self) -> str:
        """Return the shard as JSON."""
        return json.dumps({"id": self.id, "number": self.number, "films": self._listed()})

    def _listed(self) -> list[list[str | int]]:
        return [[entry.key, entry.size, entry.etag] for entry in self.entries]


@dataclass(frozen=True)
class ListingTotals:
    """The size of a finished listing."""

    files: int
    shards: int


def parse_shard(text: str | bytes) -> Shard:
    """Return the shard that `Shard.dump` wrote; raises StorageError where it was altered."""
    try:
        fields = json.loads(text)
        entries = tuple(Entry(key, size, etag) for key, size, etag in fields["films"])
        shard = Shard(fields["number"], entries)
        intact = shard.id == fields["id"]
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise StorageError(
            "a shard of the listing as it was frozen", "an altered one", "use another output"
        )
    return shard


def read_totals(output: Store) -> ListingTotals | None:
    """Return the size of the listing, or None while it is not finished."""
    if not output.exists(COMPLETE_KEY):
        return None
    return ListingTotals(**json.loads(output.read(COMPLETE_KEY)))


def freeze_shards(archive: Store, output: Store, *, shard_files: int) -> Iterator[Shard]:
    """Yield the shards of `archive`, those frozen before first; freeze each before it is yielded.

    A second run of this generator yields the same shards again, so a task that lists may be
    restarted. Raises StorageError, and RunBusyError where another process freezes at once.
    """
    files, shards, last = 0, 0, None
    for shard in _read_frozen(output):
        files, shards, last = files + len(shard.entries), shards + 1, shard.entries[-1].key
        yield shard
    if read_totals(output) is not None:
        return
    for shard in _list_shards(archive, first=shards, start_after=last, shard_files=shard_files):
        _freeze(output, shard)
        files, shards = files + len(shard.entries), shards + 1
        yield shard
    if files:  # an empty folder may fill later: nothing is frozen
        text = json.dumps({"files": files, "shards": shards})
        output.create(COMPLETE_KEY, text.encode())


def _list_shards(
    archive: Store, *, first: int, start_after: str | None, shard_files: int
) -> Iterator[Shard]:
    infos = archive.list(start_after=start_after)
    films = (Entry(info.key, info.size, info.etag) for info in infos if is_film(info.key))
    number = first
    while entries := tuple(islice(films, shard_files)):
        yield Shard(number, entries)
        number += 1


def _freeze(output: Store, shard: Shard) -> None:
    key = _shard_key(shard.number)
    if not output.create(key, shard.dump().encode()):
        raise RunBusyError(
            f"nobody else to list into {output.uri}",
            f"shard {shard.number} frozen by another process",
            "submit the job again when that one has ended",
        )


def _shard_key(number: int) -> str:
    return f"{INDEX}/{number:08d}.json"


def _read_frozen(output: Store) -> Iterator[Shard]:
    keys = (info.key for info in output.list(INDEX) if info.key != COMPLETE_KEY)
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        expected = 0
        while chunk := list(islice(keys, READ_AHEAD)):
            for shard in map(parse_shard, pool.map(output.read, chunk)):
                if shard.number != expected:
                    raise StorageError(
                        output.uri_of(_shard_key(expected)),
                        f"shard {shard.number} in its place",
                        "restore it or use another output",
                    )
                yield shard
                expected += 1
