"""Films that were read again: their old rows leave the parts.

A later listing finds a changed object and scores it anew; a retry reads an object again that was
gone. Its old row and dead letter are then taken out of the older part by rewriting that part, so
that the parts hold each key once, as it was read last. Rewriting is repeatable: the same part
without the same keys. Who rewrites asks before each time whether the output is still its own: a
part has no second writer but for the moment between the two.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from hipray.scoring.index import Index
from hipray.scoring.open_work import list_lost
from hipray.scoring.parts import Part, PartSet, dump_part, is_retry, shard_of, write_part
from hipray.scoring.rows import build_table
from hipray.scoring.shards import Position
from hipray.scoring.unpublished import Unpublished
from hipray.storage import Store

FOLDER = "retracted"
KEYS_AT_ONCE = 100_000
"""Replaced keys that are in memory at a time."""


class Retraction:
    """Takes films that were read again out of the older of one set of parts."""

    def __init__(self, output: Store, parts: PartSet, check_held: Callable[[], None]) -> None:
        self._output = output
        self._parts = parts
        self._index = Index(output)
        self._unpublished = Unpublished(output, parts)
        self._check_held = check_held
        """Raises RunBusyError where another driver has taken the output over."""
        self._marks = f"{FOLDER}/{parts.name}"

    def forget(self) -> None:
        """Take out all replaced films again, next time: some came back.

        So they do where a part was deleted by hand, and its shard scored anew, and where an actor
        published what it had begun when its submission had been stopped.
        """
        for info in self._output.list(self._marks):
            self._output.delete(info.key)

    def retract_replaced(self) -> int:
        """Take replaced films out of older parts; return how many were rewritten.

        A film whose new shard was not tried yet keeps its old row.
        """
        rewritten = 0
        for listing, totals in self._index.listings().items():
            mark = f"{self._marks}/listing-{listing:04d}.json"
            if totals is None or not totals.replaced or self._output.exists(mark):
                continue
            lost = {p for p in list_lost(self._output, self._parts) if p.listing == listing}
            settled = not lost
            for shard, keys in self._list_replaced(listing, lost):
                rounds = list(self._parts.list_rounds(self._output, shard))
                rewritten += self._retract(rounds, keys)
                if not rounds:  # it may be scored later, with all its films
                    settled = False
                    self._take_out_of_note(shard, keys)
            if settled:
                self._output.create(mark, json.dumps({"files": totals.replaced}).encode())
        return rewritten

    def _list_replaced(
        self, listing: int, lost: Collection[Position]
    ) -> Iterator[tuple[str, set[str]]]:
        """Yield older shards and keys of theirs that a listing has anew, in portions.

        Both are sorted by key, so a portion holds all keys of most shards that it names.
        """
        replaced: dict[str, set[str]] = defaultdict(set)
        count = 0
        for key_range in self._index.ranges() or ():
            for shard in self._index.read_range(listing, key_range.number):
                for entry in () if shard.position in lost else shard.entries:
                    if entry.replaces is not None:
                        replaced[entry.replaces].add(entry.key)
                        count += 1
                if count >= KEYS_AT_ONCE:
                    yield from replaced.items()
                    replaced, count = defaultdict(set), 0
        yield from replaced.items()

    def _retract(self, rounds: Sequence[str], keys: Collection[str]) -> int:
        return sum(self._take_out(part, keys) for part in self._parts.read(self._output, rounds))

    def _take_out_of_note(self, shard: str, keys: Collection[str]) -> None:
        letters = self._unpublished.read(shard)
        kept = [letter for letter in letters if letter.entry.key not in keys]
        if len(kept) < len(letters):
            self._check_held()
            if kept:
                self._unpublished.note(shard, kept)
            else:  # nothing is left to do of it
                write_part(self._output, self._parts.key(shard), build_table([]))

    def retract_retried(self) -> int:
        """Take films out of parts whose retries hold them, too; return how many were rewritten."""
        names = groupby(self._parts.list_all(self._output), key=shard_of)
        tried = (list(rounds) for _, rounds in names)
        return sum(self._keep_latest(rounds) for rounds in tried if any(map(is_retry, rounds)))

    def _keep_latest(self, rounds: Sequence[str]) -> int:
        read_later: set[str] = set()
        rewritten = 0
        for part in reversed(list(self._parts.read(self._output, rounds))):
            rewritten += self._take_out(part, read_later)
            read_later |= set(part.table["key"].to_pylist())
            read_later |= {letter.entry.key for letter in part.letters}
        return rewritten

    def _take_out(self, part: Part, keys: Collection[str]) -> bool:
        """Rewrite a part without some keys; return whether it had any of them."""
        gone = pa.array(sorted(keys), pa.string())
        kept = part.table.filter(pc.invert(pc.is_in(part.table["key"], value_set=gone)))
        letters = [letter for letter in part.letters if letter.entry.key not in keys]
        if (kept.num_rows, len(letters)) == (part.table.num_rows, len(part.letters)):
            return False
        self._check_held()
        self._output.write(self._parts.key(part.name), dump_part(kept, letters))
        return True
