"""Films that were read again: their old rows leave the parts.

A later listing finds a changed object and scores it anew; a retry reads an object again that was
gone. Its old row and dead letter are then taken out of the older part by rewriting that part, so
that the parts hold each key once, as it was read last. Rewriting is repeatable: the same part
without the same keys.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from hipray.scoring.index import Index
from hipray.scoring.parts import Part, PartSet, dump_part, is_retry, shard_of
from hipray.storage import Store

FOLDER = "retracted"


def retract_replaced(output: Store, parts: PartSet) -> int:
    """Take replaced films out of older parts; return how many parts were rewritten."""
    index = Index(output)
    rewritten = 0
    for listing, totals in index.listings().items():
        mark = f"{FOLDER}/{parts.folder.rpartition('/')[2]}/listing-{listing:04d}.json"
        if totals is None or not totals.replaced or output.exists(mark):
            continue
        replaced = _list_replaced(index, listing)
        rewritten += sum(_retract(output, parts, *item) for item in replaced.items())
        if all(any(parts.list_rounds(output, shard)) for shard in replaced):
            output.create(mark, json.dumps({"shards": len(replaced)}).encode())
    return rewritten


def find_replaced(output: Store) -> dict[str, set[str]]:
    """Return the replaced keys of each older shard, over all listings."""
    index = Index(output)
    found: dict[str, set[str]] = defaultdict(set)
    for listing, totals in index.listings().items():
        if totals is not None and totals.replaced:
            for shard, keys in _list_replaced(index, listing).items():
                found[shard] |= keys
    return found


def _list_replaced(index: Index, listing: int) -> dict[str, set[str]]:
    """Return the replaced keys of each older shard."""
    replaced: dict[str, set[str]] = defaultdict(set)
    for key_range in index.ranges() or ():
        for shard in index.read_range(listing, key_range.number):
            for entry in shard.entries:
                if entry.replaces is not None:
                    replaced[entry.replaces].add(entry.key)
    return replaced


def _retract(output: Store, parts: PartSet, shard: str, keys: Collection[str]) -> int:
    read = parts.read(output, parts.list_rounds(output, shard))
    return sum(_take_out(output, parts, part, keys) for part in read)


def retract_retried(output: Store, parts: PartSet) -> int:
    """Take films out of parts whose retries hold them, too; return how many were rewritten."""
    names = groupby(parts.list_all(output), key=shard_of)
    retried = (shard for shard, rounds in names if any(map(is_retry, rounds)))
    return sum(_keep_latest(output, parts, shard) for shard in retried)


def _keep_latest(output: Store, parts: PartSet, shard: str) -> int:
    rounds = list(parts.read(output, parts.list_rounds(output, shard)))
    read_later: set[str] = set()
    rewritten = 0
    for part in reversed(rounds):
        rewritten += _take_out(output, parts, part, read_later)
        read_later |= set(part.table["key"].to_pylist())
        read_later |= {letter.entry.key for letter in part.letters}
    return rewritten


def _take_out(output: Store, parts: PartSet, part: Part, keys: Collection[str]) -> bool:
    """Rewrite a part without some keys; return whether it had any of them."""
    gone = pa.array(sorted(keys), pa.string())
    kept = part.table.filter(pc.invert(pc.is_in(part.table["key"], value_set=gone)))
    letters = [letter for letter in part.letters if letter.entry.key not in keys]
    if (kept.num_rows, len(letters)) == (part.table.num_rows, len(part.letters)):
        return False
    output.write(parts.key(part.name), dump_part(kept, letters))
    return True
