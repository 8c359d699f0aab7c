"""The names in one folder of a bucket, in the order that their keys have in a listing without end.

A folder `a` is found among the names, before `a-b`; its keys `a/...` come after those of `a-b`.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any


def merge_folders(
    pages: Iterable[dict[str, Any]],
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield each key with its entry, and each folder with its slash and None, in order.

    `pages` are a listing's by delimiter, sorted by names or by keys. In memory is a page and the
    folders that wait for longer names.
    """
    waiting: list[str] = []
    entries: dict[str, dict[str, Any] | None] = {}
    for page in pages:
        for name, key, entry in _sort_names(page):
            while waiting and waiting[0] <= name:
                yield waiting[0], entries.pop(heapq.heappop(waiting))
            if key not in entries:  # pages may overlap while others write
                heapq.heappush(waiting, key)
            entries[key] = entry
    while waiting:
        yield waiting[0], entries.pop(heapq.heappop(waiting))


def _sort_names(page: dict[str, Any]) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Return the names of a page, without the slash of folders, with their keys and entries."""
    keys = [(entry["Key"], entry["Key"], entry) for entry in page.get("Contents", ())]
    folders = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
    named = [*keys, *((folder.removesuffix("/"), folder, None) for folder in folders)]
    return sorted(named, key=lambda item: item[:2])
