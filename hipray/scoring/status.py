"""Where a scoring run stands, in words: from its output alone."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from hipray.errors import DataError
from hipray.progress import describe_duration
from hipray.scoring.index import Index, ListingTotals
from hipray.scoring.parts import PartSet, shard_of
from hipray.storage import Store, holder

DRIVER_KEY = "driver"
"""Lease of the process that drives a run."""
NOTE_KEY = "progress.json"


@dataclass(frozen=True)
class ProgressNote:
    """What the driver says of its submission from time to time."""

    images: str
    release: str
    parts: str
    """Folder of the parts it writes."""
    started_s: float
    """Unix time at which the pipeline began."""
    updated_s: float
    files: int = 0
    """Files of this submission that are done or failed."""
    failed: dict[str, int] = field(default_factory=dict)
    """Films that the store would not give, by class."""
    price_per_hour: float | None = None
    ended: bool = False

    def write(self, output: Store) -> None:
        """Replace the note of the output."""
        output.write(NOTE_KEY, json.dumps(asdict(self)).encode())

    @property
    def rate(self) -> float:
        """Files per second of this submission so far."""
        return self.files / max(1.0, self.updated_s - self.started_s)


def read_note(output: Store) -> ProgressNote:
    """Return the driver's latest note; raises DataError where no run was ever started there."""
    if not output.exists(NOTE_KEY):
        raise DataError(
            f"a scoring run in {output.uri}", "none", "check --output, or run `hipray score`"
        )
    return ProgressNote(**json.loads(output.read(NOTE_KEY)))


def describe_status(output: Store) -> str:
    """Return the listing, parts, rate, time and cost left, and failures of a scoring run."""
    note = read_note(output)
    index = Index(output)
    listings = index.listings()
    shards = index.count_shards()
    parts = sum(1 for _ in _list_shards(output, PartSet(note.parts)))
    totals = sum((t for t in listings.values() if t is not None), ListingTotals())
    complete = index.is_complete()
    driver = holder(output, DRIVER_KEY)
    lines = [
        f"score run {output.uri}: {note.images} by {note.release}",
        _describe_listing(totals, shards, complete=complete),
        *_describe_left_out(index.read_left_out()),
        f"shards: {parts} of {shards}{'' if complete else ' so far'} done"
        + (f" ({100 * parts / shards:.0f} %)" if shards else ""),
        f"driver: {driver or 'none is running'}",
    ]
    if driver is not None and not note.ended:
        files_left = (shards - parts) * (totals.files / totals.shards if totals.shards else 0)
        lines += _describe_pace(note, files_left if complete else None)
    return "\n".join([*lines, *_describe_failures(note)])


def _list_shards(output: Store, parts: PartSet) -> Iterator[str]:
    return (name for name in parts.list_all(output) if shard_of(name) == name)


def _describe_listing(totals: ListingTotals, shards: int, *, complete: bool) -> str:
    if not complete:
        return f"listing: under way, {shards} shards so far"
    current = totals.current
    return f"listing: complete, {current} files, {totals.bytes / 1e9:.1f} GB"


def _describe_left_out(counts: Mapping[str, int] | None) -> Iterator[str]:
    if counts:
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(counts.items()))
        yield f"left out: {sum(counts.values())} keys ({reasons})"


def _describe_pace(note: ProgressNote, files_left: float | None) -> Iterator[str]:
    since = describe_duration(time.time() - note.started_s)
    yield f"rate: {note.rate:.1f} files/s ({note.files} files in {since})"
    if files_left is None:
        yield "time left: not known while the archive is being listed"
        return
    if files_left == 0:
        yield "time left: not known, every shard is done; what failed is tried again, or summed up"
        return
    if not note.files:
        return
    seconds = files_left / note.rate
    cost = ""
    if note.price_per_hour is not None:
        spent = (time.time() - note.started_s) / 3600 * note.price_per_hour
        cost = f"; cost left: {seconds / 3600 * note.price_per_hour:.2f}, so far {spent:.2f}"
    yield f"time left: about {describe_duration(seconds)}{cost}"


def _describe_failures(note: ProgressNote) -> Iterator[str]:
    for fault, count in sorted(note.failed.items()):
        yield f"  failed: {count} {fault}; --retry failed takes them up again"
