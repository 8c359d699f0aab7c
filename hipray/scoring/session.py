"""One submission of a scoring run around its pipeline: whose output it is, and how it ends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from hipray.config.jobs import ScoreRun
from hipray.errors import ConfigError, DataError, RunBusyError, StorageError
from hipray.releases.release import Release
from hipray.scoring.claim import RUN_KEY
from hipray.scoring.drift import reference_edges
from hipray.scoring.faults import FailedFilm, FailureWatch, classify_fault
from hipray.scoring.films import fetch_film
from hipray.scoring.index import RANGES_KEY, Index, ListingTotals
from hipray.scoring.parts import PartSet
from hipray.scoring.retraction import Retraction
from hipray.scoring.shards import Entry
from hipray.scoring.status import DRIVER_KEY
from hipray.scoring.summary import build_summary, write_letters, write_summary
from hipray.scoring.tally import Tally, check_counts, count_parts, probability_columns
from hipray.scoring.unpublished import Unpublished
from hipray.storage import Lease, Store, hold, lies_within
from hipray.storage.retrying import open_retrying_store

LEASE_S = 60.0
"""Seconds without a heartbeat after which another driver may take over."""
UNLISTED_FILES = 100_000
"""Films that an archive counts for at least until its listing has ended: those that fail may lie
together at its beginning."""


@dataclass(frozen=True)
class ScoreResult:
    """How a submission of a scoring run ended; counts are files: listed = the other three."""

    listed: int
    scored: int
    refused: int
    failed: int
    """Files that the store would not give; `retry = "failed"` takes them up again."""
    rows: int
    parts: int
    left_out: int | None
    """Keys of the archive that are no films or were not selected; None where nobody counted."""
    seconds: float
    output: str
    """Address of the parts, the index and the summary."""


def hold_output(output: Store) -> Lease:
    """Return the lease on an output; raises RunBusyError naming a live driver."""
    thing = f"the output {output.uri}"
    return hold(output, DRIVER_KEY, ttl_s=LEASE_S, owner_note="hipray score", thing=thing)


def check_current(lease: Lease, output: Store) -> None:
    """Ask the store whether the output is still this driver's; raises RunBusyError if it is not.

    It asks as patiently as the output's own store does.
    """
    if not Lease(output, DRIVER_KEY, lease.info).is_current():
        raise RunBusyError(
            f"the output {output.uri} to stay this driver's",
            "another that took over when this one was silent",
            "let that one finish",
        )


def check_output(archive: Store, output: Store) -> None:
    """Raise ConfigError for an output inside the archive: it would be listed as films."""
    if lies_within(output, archive):
        raise ConfigError(
            f"an output outside of the archive {archive.uri}", output.uri, "choose another output"
        )


def count_listed(output: Store) -> ListingTotals:
    """Return what listings found, UNLISTED_FILES at least while one is under way."""
    listings = Index(output).listings()
    found = sum((t for t in listings.values() if t is not None), ListingTotals())
    complete = bool(listings) and None not in listings.values()
    least = 0 if complete else UNLISTED_FILES + found.replaced
    return replace(found, files=max(found.files, least))


def still_gives(config: ScoreRun, output: Store, parts: PartSet) -> bool:
    """Tell whether the archive gives a film that it gave before, once its outage is over.

    One that is gone or archived since is no sign against it. False where it gave none yet.
    """
    wait_s = config.store_wait_s
    archive = open_retrying_store(config.images, config.storage, patience_s=wait_s)
    read = parts.read(output, parts.list_all(output), columns=["key", "etag"])
    given = (part.table["key"].filter(pc.is_valid(part.table["etag"])) for part in read)
    key = next((keys[0].as_py() for keys in given if len(keys)), None)
    if key is None:
        return False
    try:
        fetch_film(archive, Entry(key, 0, ""), max_file_bytes=config.limits.max_file_bytes)
    except StorageError as error:
        return not classify_fault(error).is_alarming
    return True


def conclude(
    config: ScoreRun, output: Store, release: Release, parts: PartSet, watch: FailureWatch,
    *, seconds: float, check_held: Callable[[], None],
) -> ScoreResult:  # fmt: skip
    """Count the parts, write the summary and return the result.

    Raises DataError where nothing was listed or counts do not add up, RunBusyError where another
    driver has taken over, and this submission's last error where too many of the archive's films
    failed.
    """
    listed = Index(output).totals().current
    if not listed:
        check_held()
        for key in (RUN_KEY, RANGES_KEY):  # a mistyped archive or selection claims no output
            output.delete(key)
        raise DataError(f"films in {config.images}", "none", "check the path and `select`")
    tally = settle(config, output, release, parts, check_held)
    check_counts(tally, listed=listed)
    watch.check_all(tally.faults, unlike_listed=tally.unlike_listed, files=listed)
    left_out = Index(output).read_left_out()
    return ScoreResult(
        listed=listed,
        scored=tally.scored,
        refused=tally.refused,
        failed=tally.failed,
        rows=tally.rows,
        parts=tally.parts,
        left_out=None if left_out is None else sum(left_out.values()),
        seconds=round(seconds, 1),
        output=output.uri,
    )


def settle(
    config: ScoreRun, output: Store, release: Release, parts: PartSet,
    check_held: Callable[[], None],
) -> Tally:  # fmt: skip
    """Leave each key in the parts once, write all dead letters, and return what the parts hold.

    A submission that was stopped is settled, too: what it has read again counts. The summary is
    written where nothing is left to do.
    """
    retraction = Retraction(output, parts, check_held)
    tally, listed = _settle(output, release, parts, retraction, check_held)
    if tally.files > listed and Index(output).is_complete():  # else more is listed than is told
        retraction.forget()
        tally, listed = _settle(output, release, parts, retraction, check_held)
    if tally.files == listed:
        summary = build_summary(
            release, parts, tally, images=config.images, listed=listed,
            left_out=Index(output).read_left_out(),
        )  # fmt: skip
        check_held()
        write_summary(output, summary)
    return tally


def _settle(
    output: Store, release: Release, parts: PartSet, retraction: Retraction,
    check_held: Callable[[], None],
) -> tuple[Tally, int]:  # fmt: skip
    """Return what the parts hold, each key once, and how many films are listed."""
    retraction.retract_replaced()
    retraction.retract_retried()
    Unpublished(output, parts).tidy(check_held)
    tally = Tally(probability_columns(release), reference_edges(release))
    check_held()
    write_letters(output, _list_letters(output, parts, tally))
    return tally, Index(output).totals().current


def _list_letters(output: Store, parts: PartSet, tally: Tally) -> Iterator[tuple[str, FailedFilm]]:
    """Yield every dead letter: those of parts, and those of shards that were not published."""
    read = parts.read(output, parts.list_all(output), columns=tally.read_columns)
    yield from count_parts(read, tally)
    for shard, letter in Unpublished(output, parts).letters():
        tally.faults[letter.fault] += 1
        yield shard, letter
