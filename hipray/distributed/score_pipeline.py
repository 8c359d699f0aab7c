"""The Ray Data pipeline of batch scoring: open work in, one Parquet part per shard out.

    list (one streaming task) -> fetch + decode (CPU actors) -> score + publish (model actors)

A row of the dataset is a whole shard. Ray Data may cut and merge blocks as it sees fit and can
never split a row, so a shard's films arrive together at the one actor that publishes its part.
Decoders are an actor pool because Ray Data fuses a task that precedes an actor into it, and then
decoding would wait for the model; two actor pools are never fused, and they overlap.

What is under way is bounded: decoded shards in bytes by Ray Data, listed ones by `ListedAhead`.
"""

from functools import partial
from typing import Any

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

from hipray.config.jobs import ScoreRun
from hipray.releases.release import Release
from hipray.scoring.decoder import ShardDecoder, list_work_rows
from hipray.scoring.scorer import ShardScorer

BLOCK_BYTES = 1
"""Every row is larger, so every shard is a block of its own and flows on at once."""
MOST_LISTED = 256
"""Shards that wait between the listing and the decoders: the driver keeps a note of each block,
and a listing is far faster than what follows it."""


class ListedAhead(BackpressurePolicy):  # type: ignore[misc]
    """Holds the listing back while enough shards wait: Ray Data's own bounds count bytes only."""

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Return 0 for the listing while more shards wait than decoders will need soon."""
        if not _is_listing(op):
            return None
        waiting = sum(
            self._topology[after].total_enqueued_input_blocks() for after in op.output_dependencies
        )
        return 0 if waiting >= MOST_LISTED else None


def _is_listing(op: Any) -> bool:
    """Tell whether an operator is the first after the plan's own input."""
    before = op.input_dependencies
    return bool(before) and not any(source.input_dependencies for source in before)


def build_dataset(config: ScoreRun, release: Release, *, relist: bool) -> Dataset:
    """Return the dataset that lists, decodes, scores and publishes; its rows are outcomes."""
    payload, release_text = config.model_dump_json(), release.model_dump_json()
    with DataContext.current(_quiet_context()):
        work = ray.data.read_datasource(
            WorkDatasource(payload, release_text, relist=relist),
            override_num_blocks=1,
            num_cpus=0,
        )
        films = work.map_batches(
            ShardDecoder,
            fn_constructor_args=(payload, release_text),
            compute=ActorPoolStrategy(min_size=1, max_size=config.max_decoders),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=config.cpus_per_decoder,
        )
        return films.map_batches(
            ShardScorer,
            fn_constructor_args=(payload, release_text),
            compute=ActorPoolStrategy(
                min_size=config.actors, max_size=config.max_actors or config.actors
            ),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=config.cpus_per_actor,
            num_gpus=config.gpus_per_actor,
        )


class WorkDatasource(Datasource):  # type: ignore[misc]
    """What has no part yet, as one task lists and freezes it."""

    def __init__(self, payload: str, release_text: str, *, relist: bool) -> None:
        super().__init__()
        self._list = partial(list_work_rows, payload, release_text, relist=relist)

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: nothing is listed yet."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """Return the one task that lists; it walks ranges of keys in threads of its own."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self._list, unknown)]


def _quiet_context() -> DataContext:
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.set_config(
        ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, ListedAhead]
    )
    return context
