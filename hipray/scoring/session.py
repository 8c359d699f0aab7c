"""One submission of a scoring run around its pipeline: whose output it is, and how it ends."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hipray.config.jobs import ScoreRun
from hipray.data.pseudonyms import KEY_FILE, has_pseudonyms, load_pseudonyms
from hipray.errors import ConfigError, DataError
from hipray.releases.release import Release
from hipray.scoring.drift import reference_edges
from hipray.scoring.faults import FailedFilm, FailureWatch
from hipray.scoring.index import Index
from hipray.scoring.open_work import count_open
from hipray.scoring.parts import PartSet, is_retry
from hipray.scoring.retraction import find_replaced, retract_replaced, retract_retried
from hipray.scoring.status import DRIVER_KEY
from hipray.scoring.summary import build_summary, write_letters, write_summary
from hipray.scoring.tally import Tally, check_counts, count_parts, probability_columns
from hipray.storage import Lease, Store, hold, lies_within, open_store

LEASE_S = 60.0
"""Seconds without a heartbeat after which another driver may take over."""
RUN_KEY = "run.json"
KEY_OF_CLAIM = "pseudonym_key"
"""Field of RUN_KEY: the fingerprint of the key that made the pseudonyms of all rows."""


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


def check_output(archive: Store, output: Store) -> None:
    """Raise ConfigError for an output inside the archive: it would be listed as films."""
    if lies_within(output, archive):
        raise ConfigError(
            f"an output outside of the archive {archive.uri}", output.uri, "choose another output"
        )


def claim_output(config: ScoreRun, output: Store) -> None:
    """Make the output that of this selection of this archive and of the workspace's pseudonyms.

    Raises ConfigError for another's: the same patient would be two.
    """
    workspace = open_store(config.workspace, config.storage)
    claim = {"archive": config.images, "select": config.select.model_dump(mode="json")}
    known = json.loads(output.read(RUN_KEY)) if output.exists(RUN_KEY) else {}
    key = known.pop(KEY_OF_CLAIM, None)
    if known and known != claim:
        raise ConfigError(
            f"an output for {_describe_claim(claim)}",
            f"that of {_describe_claim(known)}",
            "choose another output",
        )
    if key and (not has_pseudonyms(workspace) or load_pseudonyms(workspace).fingerprint != key):
        raise ConfigError(
            f"the pseudonym key that the rows of {output.uri} were made with",
            f"another or none in {workspace.uri}",
            f"restore {workspace.uri_of(KEY_FILE)}, or choose another output",
        )
    if not key:
        claim[KEY_OF_CLAIM] = load_pseudonyms(workspace).fingerprint
        output.write(RUN_KEY, json.dumps(claim).encode())


def _describe_claim(claim: Mapping[str, object]) -> str:
    chosen = claim.get("select")
    narrowed = {k: v for k, v in chosen.items() if v} if isinstance(chosen, dict) else {}
    return f"{claim['archive']}" + (f" with select {narrowed}" if narrowed else "")


def count_open_shards(output: Store, parts: PartSet, watch: FailureWatch) -> int:
    """Return how many shards have no part though they did not fail: work that was lost."""
    watch.settle(parts.list_all(output))
    failed = sum(1 for part in watch.unpublished if not is_retry(part))
    return count_open(output, parts) - failed


def conclude(
    config: ScoreRun, output: Store, release: Release, parts: PartSet, watch: FailureWatch,
    *, seconds: float,
) -> ScoreResult:  # fmt: skip
    """Count the parts, write the summary and return the result.

    Raises DataError where nothing was listed or counts do not add up, and the last film's error
    where too many of the archive's films failed.
    """
    totals = Index(output).totals()
    listed = totals.files - totals.replaced
    if not listed:
        raise DataError(f"films in {config.images}", "none", "check the path and `select`")
    retract_replaced(output, parts)
    retract_retried(output, parts)
    tally = Tally(probability_columns(release), reference_edges(release))
    write_letters(output, _list_letters(output, parts, tally, watch))
    check_counts(tally, listed=listed)
    left_out = Index(output).read_left_out()
    summary = build_summary(
        release, parts, tally, images=config.images, listed=listed, left_out=left_out
    )
    write_summary(output, summary)
    watch.check_all(tally.faults, files=listed)
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


def record_letters(output: Store, release: Release, parts: PartSet, watch: FailureWatch) -> None:
    """Write the dead letters of a submission that was stopped before its end."""
    tally = Tally(probability_columns(release), reference_edges(release))
    write_letters(output, _list_letters(output, parts, tally, watch))


def _list_letters(
    output: Store, parts: PartSet, tally: Tally, watch: FailureWatch
) -> Iterator[tuple[str, FailedFilm]]:
    """Yield every dead letter: those of parts, and those of shards that were not published."""
    watch.settle(parts.list_all(output))
    yield from count_parts(parts.read(output, parts.list_all(output)), tally)
    # where a retry failed as a whole, the part that it retries still says so
    unpublished = {p: own for p, own in watch.unpublished.items() if not is_retry(p)}
    replaced = find_replaced(output) if unpublished else {}
    for part, letters in unpublished.items():
        left = [letter for letter in letters if letter.entry.key not in replaced.get(part, ())]
        tally.faults.update(letter.fault for letter in left)
        yield from ((part, letter) for letter in left)
