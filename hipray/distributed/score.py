"""Batch scoring on Ray Data: a listing in, one Parquet part per shard out.

    list (one streaming task) -> fetch + decode (CPU actors) -> score + publish (model actors)

A row of the dataset is a whole shard. Ray Data may cut and merge blocks as it sees fit and can
never split a row, so a shard's films arrive together at the one actor that publishes its part.
Decoders are an actor pool because Ray Data fuses a task that precedes an actor into it, and then
decoding would wait for the model; two actor pools are never fused, and they overlap.
What is under way is bounded by Ray Data: no more decoded shards wait than the model actors take.
"""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from hipray.config.jobs import ScoreRun
from hipray.data.listing import is_film
from hipray.distributed.cluster import connect
from hipray.errors import ConfigError, DataError, HiprayError, RunBusyError
from hipray.progress import LOG_INTERVAL_S
from hipray.releases.release import (
    Release,
    check_preprocessing,
    check_servable,
    read_release,
)
from hipray.scoring.decoder import ShardDecoder, list_open_shards, open_output
from hipray.scoring.failures import FailureWatch
from hipray.scoring.parts import PartNames
from hipray.scoring.scorer import ShardScorer
from hipray.scoring.shards import read_totals
from hipray.scoring.summary import build_summary, check_counts, count_parts, write_summary
from hipray.storage import Lease, Store, acquire, check_store, holder, open_store

LEASE_KEY = "driver"
LEASE_S = 60.0
"""Seconds without a heartbeat after which another driver may take over."""
RUN_KEY = "run.json"
BLOCK_BYTES = 1
"""Every row is larger, so every shard is a block of its own and flows on at once."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreResult:
    """How a submission of a scoring run ended; counts are files: listed = the other three."""

    listed: int
    scored: int
    refused: int
    failed: int
    """Files of shards that could not be read or written now; the next submission does them."""
    rows: int
    parts: int
    seconds: float
    output: str
    """Address of the parts, the index and summary.json."""


def run_score(config: ScoreRun) -> ScoreResult:
    """Score the archive's films that have no part yet; return the counts of the whole run.

    Raises RunBusyError where another driver works on the output, ConfigError for a release of
    phantoms or an output of another archive, and the store's own StorageError where more than
    `max_failed_fraction` of the files fail. Submitting again goes on where it stopped.
    """
    started = time.monotonic()
    config = _with_addresses(config)
    release = _read_release(config)
    archive, output = open_store(config.images, config.storage), open_output(config)
    _check_output(archive, output)
    with _hold_output(output) as lease:
        _claim_output(archive, output)
        names = PartNames.of(release, config.limits)
        finished = names.list_finished(output)
        watch = FailureWatch(config.max_failed_fraction)
        if not _is_complete(output, finished):
            check_store(output)
            _check_archive(archive, output)
            _score_open_shards(config, release, finished, watch, lease)
        return _conclude(output, release, names, watch, started)


def build_dataset(config: ScoreRun, release: Release, finished: frozenset[str]) -> Dataset:
    """Return the dataset that lists, decodes, scores and publishes; its rows are outcomes."""
    payload, release_text = config.model_dump_json(), release.model_dump_json()
    with DataContext.current(_quiet_context()):
        shards = ray.data.read_datasource(
            ShardDatasource(payload, finished), override_num_blocks=1, num_cpus=0
        )
        films = shards.map_batches(
            ShardDecoder,
            fn_constructor_args=(payload, release_text),
            compute=ActorPoolStrategy(min_size=1, max_size=config.max_decoders),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
        )
        return films.map_batches(
            ShardScorer,
            fn_constructor_args=(payload, release_text),
            compute=ActorPoolStrategy(size=config.actors),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
        )


class ShardDatasource(Datasource):  # type: ignore[misc]
    """The shards without a part, as one task streams and freezes them; a restart repeats them."""

    def __init__(self, payload: str, finished: frozenset[str]) -> None:
        super().__init__()
        self._list = partial(list_open_shards, payload, finished)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: nothing is listed yet."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return the one task that lists: pages of a listing come one after the other."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._list, unknown)]


def _quiet_context() -> DataContext:
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def _with_addresses(config: ScoreRun) -> ScoreRun:
    """Return the run with full addresses: a worker's working directory may be another."""
    addresses = {
        "workspace": open_store(config.workspace, config.storage).uri,
        "images": open_store(config.images, config.storage).uri,
        "output": open_output(config).uri,
    }
    return config.model_copy(update=addresses)


def _read_release(config: ScoreRun) -> Release:
    release = read_release(open_store(config.workspace, config.storage), config.release)
    check_servable(release, allow_phantom=config.allow_phantom_release)
    check_preprocessing(release)
    return release


def _hold_output(output: Store) -> Lease:
    lease = acquire(output, LEASE_KEY, ttl_s=LEASE_S, owner_note="hipray score")
    if lease is None:
        raise RunBusyError(
            f"the output {output.uri} to be free",
            f"a live driver: {holder(output, LEASE_KEY)}",
            "wait for it or choose another output",
        )
    return lease


def _check_output(archive: Store, output: Store) -> None:
    """Raise ConfigError for an output inside the archive: it would be listed as films."""
    if f"{output.uri}/".startswith(f"{archive.uri}/"):
        raise ConfigError(
            f"an output outside of the archive {archive.uri}", output.uri, "choose another output"
        )


def _claim_output(archive: Store, output: Store) -> None:
    """Make the output this archive's; raise ConfigError where it is another's."""
    if output.create(RUN_KEY, json.dumps({"archive": archive.uri}).encode()):
        return
    known = json.loads(output.read(RUN_KEY))["archive"]
    if known != archive.uri:
        raise ConfigError(
            f"an output for {archive.uri}", f"that of {known}", "choose another output"
        )


def _is_complete(output: Store, finished: frozenset[str]) -> bool:
    totals = read_totals(output)
    return totals is not None and len(finished) >= totals.shards


def _score_open_shards(
    config: ScoreRun,
    release: Release,
    finished: frozenset[str],
    watch: FailureWatch,
    lease: Lease,
) -> None:
    connect()
    dataset = build_dataset(config, release, finished)
    shown = time.monotonic()
    try:
        for outcome in _iterate(dataset):
            watch.add(outcome["shard_id"], files=outcome["files"], failure=outcome["failure"])
            _check_lease(lease, config)
            if time.monotonic() - shown >= LOG_INTERVAL_S:
                shown = time.monotonic()
                logger.info("score: %d files, %d failed", watch.seen, watch.failed)
    except ray.exceptions.RayError as error:
        own = _own_error(error)
        if own is None:
            raise  # a defect or a lost cluster: the trace says where
        raise own from error


def _iterate(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


def _check_archive(archive: Store, output: Store) -> None:
    """Raise where a listing is due and there is no film, before anything is started."""
    if read_totals(output) is not None:
        return
    if not any(is_film(info.key) for info in archive.list()):
        raise DataError(f"films in {archive.uri}", "none", "check the path")


def _check_lease(lease: Lease, config: ScoreRun) -> None:
    if lease.taken:
        raise RunBusyError(
            f"the output {open_output(config).uri} to stay this driver's",
            "another that took over when this one was silent",
            "let that one finish",
        )


def _own_error(error: BaseException) -> HiprayError | None:
    """Return the error of hipray behind one of Ray's, or None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HiprayError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def _conclude(
    output: Store, release: Release, names: PartNames, watch: FailureWatch, started: float
) -> ScoreResult:
    totals = read_totals(output)
    if totals is None:
        raise DataError("films in the archive", "none when it was listed", "check the path")
    finished = sorted(names.list_finished(output))
    tally = count_parts(output, names, finished)
    check_counts(tally, listed=totals.files, failed=watch.failed)
    summary = build_summary(release, names, tally, listed=totals.files, failed=watch.failed)
    write_summary(output, summary)
    watch.check(totals.files)
    return ScoreResult(
        listed=totals.files,
        scored=tally.scored,
        refused=tally.refused,
        failed=watch.failed,
        rows=tally.rows,
        parts=tally.parts,
        seconds=round(time.monotonic() - started, 1),
        output=output.uri,
    )
