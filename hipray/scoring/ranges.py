"""Ranges of keys that are listed at the same time.

Any sorted boundaries cut all keys into ranges that leave out none and share none, whatever the
archive's folders look like and whatever is added later. So boundaries may be guessed from a few
probes, and once chosen they stay: each range can be compared with what it held before.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from hipray.errors import StorageError
from hipray.storage import ObjectInfo, Store

FEW_KEYS = 5000
"""An archive of fewer keys is one range: several would only leave small shards at their ends."""
MOST_PROBES = 256
"""Listings of one key that may be spent on looking where keys are."""
PROBING_S = 5.0
"""Seconds that they may take together: a store that lists slowly has ranges of uneven sizes."""
SURROGATES = (0xD800, 0xE000)
"""Code points from the first to before the second are no characters."""


@dataclass(frozen=True)
class KeyRange:
    """The keys after `after` up to and with `until`."""

    number: int
    after: str
    """Empty: from the first key."""
    until: str | None
    """None: to the last key."""

    def list(
        self,
        archive: Store,
        *,
        start_after: str = "",
        passes_by: Callable[[str], bool] | None = None,
    ) -> Iterator[ObjectInfo]:
        """List the objects of the range in order, perhaps from behind one of its keys.

        It keeps out of folders that it `passes_by`; see `Store.list`.
        Raises StorageError where the store's order is another, so that keys could be left out.
        """
        last = max(self.after, start_after)
        for info in archive.list(start_after=last or None, passes_by=passes_by):
            if self.until is not None and info.key > self.until:
                break
            last = info.key
            yield info
        self._check_end(archive, last)

    def _check_end(self, archive: Store, last: str) -> None:
        """A range ends with the key that bounds it: a store of another order misses it."""
        if self.until is not None and last < self.until and archive.exists(self.until):
            raise StorageError(
                f"keys in order from {archive.uri}", f"{self.until!r} out of it",
                "set storage.listing=folders",
            )  # fmt: skip


def build_ranges(boundaries: Sequence[str]) -> tuple[KeyRange, ...]:
    """Return the ranges between sorted boundaries, one more than these."""
    edges = ["", *boundaries, None]
    return tuple(
        KeyRange(number, after or "", until)
        for number, (after, until) in enumerate(pairwise(edges))
    )


def choose_boundaries(archive: Store, *, wanted: int) -> tuple[str, ...]:
    """Return fewer than `wanted` keys of objects that cut the archive where its names branch.

    A local folder is one range: listing it costs no waiting. Cost on S3: a few pages of keys, a
    page for each boundary, and at most MOST_PROBES listings of one key.
    """
    if archive.local_path("any") is not None or wanted == 1 or _is_small(archive):
        return ()
    heads = _Prober(archive).branch(wanted)
    chosen = [heads[place * len(heads) // wanted] for place in range(1, wanted)]
    found = {_first_object(archive, head) for head in chosen if head > heads[0]}
    return tuple(sorted(key for key in found if key is not None))


def _first_object(archive: Store, after: str) -> str | None:
    """Return the first object's key behind the head of one, or None.

    A head may be the name of a folder, and some stores go on behind the whole of it.
    """
    listed = archive.list(start_after=after)
    return next((info.key for info in listed if not info.key.endswith("/")), None)


def _is_small(archive: Store) -> bool:
    return sum(1 for _ in islice(archive.list(), FEW_KEYS)) < FEW_KEYS


class _Prober:
    """Finds the first characters of keys by jumping over all keys that share them."""

    def __init__(self, archive: Store) -> None:
        self._archive = archive
        self._left = MOST_PROBES
        self._until = time.monotonic() + PROBING_S

    def _may_probe(self) -> bool:
        return self._left > 0 and time.monotonic() < self._until

    def branch(self, wanted: int) -> list[str]:
        """Return sorted heads of keys, at least `wanted` where the probes last."""
        heads = [""]
        while len(heads) < wanted and self._may_probe():
            grown = [longer for head in heads for longer in self._grow(head)]
            if grown == heads:
                break
            heads = grown
        return heads

    def _grow(self, head: str) -> list[str]:
        return [head + char for char in self._next_characters(head)] or [head]

    def _next_characters(self, head: str) -> Iterator[str]:
        after = head
        while self._may_probe():
            self._left -= 1
            key = self._archive.next_key(after)
            if key is None or not key.startswith(head) or len(key) == len(head):
                return
            char = key[len(head)]
            yield char
            after = head + _successor(char)


def _successor(char: str) -> str:
    code = min(ord(char) + 1, 0x10FFFF)
    return chr(SURROGATES[1] if SURROGATES[0] <= code < SURROGATES[1] else code)
