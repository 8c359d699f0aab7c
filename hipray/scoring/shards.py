"""Shards: films of an archive that are scored together, and how films are grouped into them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hipray.digests import digest_of
from hipray.errors import StorageError

ID_DIGITS = 16
SHORT_NUMBERS = 10_000
"""Listings whose numbers have four digits in names; an archive that is listed every hour has more
in a year or two."""


@dataclass(frozen=True)
class Entry:
    """One film as a listing saw it."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Empty for a key of a list that names no object."""
    replaces: str | None = None
    """Name of the older shard that holds this key with another size or etag."""


def name_listing(number: int) -> str:
    """Return a listing's number in names, which sort like the numbers: a letter follows digits."""
    return f"{number:04d}" if number < SHORT_NUMBERS else f"x{number:08d}"


def parse_listing(name: str) -> int:
    """Return the number that `name_listing` wrote."""
    return int(name.removeprefix("x"))


@dataclass(frozen=True, order=True)
class Position:
    """Where a shard stands in the index; positions sort like the names they give."""

    listing: int
    """Which listing of the archive found its films, from 0."""
    range: int
    """Which range of keys they lie in, from 0."""
    number: int
    """Place among the shards of that listing and range, from 0."""

    @property
    def text(self) -> str:
        """The position in names."""
        return f"{name_listing(self.listing)}-{self.range:04d}-{self.number:08d}"


@dataclass(frozen=True)
class Shard:
    """The unit of resume: some consecutive films of one range of keys."""

    position: Position
    entries: tuple[Entry, ...]

    @property
    def id(self) -> str:
        """The digest of its films' keys, sizes and etags: the same content, the same id."""
        listed = [[entry.key, entry.size, entry.etag] for entry in self.entries]
        return digest_of(listed)[:ID_DIGITS]

    @property
    def name(self) -> str:
        """Its position and id: what its part is named after."""
        return f"{self.position.text}-{self.id}"

    def dump(self) -> str:
        """Return the shard as JSON."""
        films = [[entry.key, entry.size, entry.etag, entry.replaces] for entry in self.entries]
        return json.dumps({"id": self.id, **vars(self.position), "films": films})


def parse_shard(text: str | bytes) -> Shard:
    """Return the shard that `Shard.dump` wrote; raises StorageError where it was altered."""
    try:
        fields = json.loads(text)
        position = Position(fields["listing"], fields["range"], fields["number"])
        shard = Shard(position, tuple(Entry(*film) for film in fields["films"]))
        intact = shard.id == fields["id"]
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise StorageError(
            "a shard of the index as it was frozen", "an altered one", "use another output"
        )
    return shard


def group_entries(
    entries: Iterable[Entry], *, max_files: int, max_bytes: int
) -> Iterator[tuple[Entry, ...]]:
    """Group entries by count and bytes, so that groups of small and large films cost alike.

    A group is closed before it exceeds either; a film of more bytes is a group of its own.
    """
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if group and (len(group) == max_files or size + entry.size > max_bytes):
            yield tuple(group)
            group, size = [], 0
        group.append(entry)
        size += entry.size
    if group:
        yield tuple(group)
