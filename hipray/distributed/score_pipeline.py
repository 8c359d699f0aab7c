"""The Ray Data pipeline of batch scoring: open work in, one Parquet part per shard out.

    take (one streaming task) -> fetch + decode (CPU actors) -> score + publish (model actors)

The way of a film, with the modules of `hipray.scoring` where no other is named:

    listed     its key is an `Entry` of a shard of the index        selection, lister, index, shards
    open       the shard has no part: it is `Work`; so are retries  open_work, retries
    taken      a row of the dataset                                 distributed.score_feed, here
    fetched    bytes, a refusal for ever, or a dead letter          decoder, films
    decoded    hips or a refusal, in a process that may die of it   data.isolation, data.images
    packed     notes and grey values; its header stays behind       packing
    scored     rows; films of equal pixels once where asked         scorer, duplicates, rows
    published  the shard's part, or a note why there is none        parts, unpublished
    settled    when all have an end: once in all parts, counted     session, retraction, summary

A row of the dataset is a whole shard. Ray Data may cut and merge blocks as it sees fit and can
never split a row, so a shard's films arrive together at the one actor that publishes its part.
Decoders are an actor pool because Ray Data fuses a task that precedes an actor into it, and then
decoding would wait for the model; two actor pools are never fused, and they overlap.

What is under way is bounded: decoded shards in bytes by Ray Data, taken and decoded ones in number
by `FewAhead`. Ray Data keeps about 2.5 KB on the driver for each block until its dataset ends, so a
dataset takes MOST_SHARDS from the feed at most, and the next one goes on.
"""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import (
    BackpressurePolicy,
)
from ray.data.block import BlockMetadata
from ray.util.annotations import RayDeprecationWarning

from hipray.config.jobs import ScoreRun
from hipray.distributed.score_feed import WorkFeed
from hipray.releases.release import Release
from hipray.scoring.decoder import ShardDecoder
from hipray.scoring.scorer import ShardScorer
from hipray.scoring.stage_tables import WORK_SCHEMA, build_stage_row

BLOCK_BYTES = 1
"""Every row is larger, so every shard is a block of its own and flows on at once."""
MOST_SHARDS = 20_000
"""Shards of one dataset: hours of work on many machines beside the start of its actors."""
MOST_WAITING = 256
"""Shards that wait for decoders: the feed is far faster than what follows it."""
MOST_DECODED = 4
"""Shards for each model actor that wait decoded: what a driver that dies has decoded in vain."""
DECODED_KEY = "hipray_most_decoded"
"""Where the dataset's context says how many these are together."""
TASK_RETRIES = 20
"""Times that Ray hands a shard to another process after one died: many more than `BegunWork`
allows a shard that kills its process, and than machines are lost under one shard."""
ACTOR_RESTARTS = 100
"""Starts of an actor after its first, in one dataset: processes that die while they start."""


class FewAhead(BackpressurePolicy):  # type: ignore[misc]
    """Holds a stage back while enough shards wait behind it: Ray Data's own bounds count bytes."""

    def can_add_input(self, op: Any) -> bool:
        """Return False for the decoding while model actors have enough before them."""
        if not any(_is_taking(before) for before in op.input_dependencies):
            return True
        most: int = self._data_context.get_config(DECODED_KEY)
        return self._count_waiting_behind(op) < most

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Return 0 for the taking while more shards wait than decoders will need soon."""
        if not _is_taking(op):
            return None
        return 0 if self._count_waiting_behind(op) >= MOST_WAITING else None

    def _count_waiting_behind(self, op: Any) -> int:
        following = op.output_dependencies
        return sum(self._topology[after].total_enqueued_input_blocks() for after in following)


def _is_taking(op: Any) -> bool:
    """Tell whether an operator is the first after the plan's own input."""
    before = op.input_dependencies
    return bool(before) and not any(source.input_dependencies for source in before)


def build_dataset(config: ScoreRun, release: Release, feed: WorkFeed) -> Dataset:
    """Return the dataset that takes, decodes, scores and publishes; its rows are outcomes."""
    payload, release_text = config.model_dump_json(), release.model_dump_json()
    most_actors = config.max_actors or config.actors
    with (
        DataContext.current(_quiet_context(most_decoded=MOST_DECODED * most_actors)),
        warnings.catch_warnings(),
    ):
        # Ray Data 2.60 names no parameter for restarts of its actors and warns of any other
        warnings.simplefilter("ignore", RayDeprecationWarning)
        work = ray.data.read_datasource(
            WorkDatasource(feed),
            override_num_blocks=1,
            num_cpus=0,
        )
        stage: dict[str, Any] = {
            "fn_constructor_args": (payload, release_text, was_restarted),
            "batch_size": 1,
            "batch_format": "pyarrow",
            "max_restarts": ACTOR_RESTARTS,
            "max_task_retries": TASK_RETRIES,
        }
        films = work.map_batches(
            ShardDecoder,
            compute=ActorPoolStrategy(min_size=1, max_size=config.max_decoders),
            num_cpus=config.cpus_per_decoder,
            **stage,
        )
        return films.map_batches(
            ShardScorer,
            compute=ActorPoolStrategy(min_size=config.actors, max_size=most_actors),
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
            **stage,
        )


def was_restarted() -> bool:
    """Tell whether this actor stands in for a process that died."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


class WorkDatasource(Datasource):  # type: ignore[misc]
    """The next of what has no part yet, as one task takes it from the feed."""

    def __init__(self, feed: WorkFeed) -> None:
        super().__init__()
        self._take = partial(_take_rows, feed, MOST_SHARDS)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: nothing is taken yet."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return the one task that takes."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._take, unknown)]


def _take_rows(feed: WorkFeed, most: int) -> Iterator[pa.Table]:
    for work in feed.take(most):
        yield build_stage_row(WORK_SCHEMA, {"work": work})


def _quiet_context(*, most_decoded: int) -> DataContext:
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.set_config(
        ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, FewAhead]
    )
    context.set_config(DECODED_KEY, most_decoded)
    return context
