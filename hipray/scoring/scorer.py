"""The last stage of scoring: a decoded shard through the endpoint's pipeline, and published."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from hipray.config.jobs import ScoreRun
from hipray.errors import DataError, HiprayError, StorageError
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, parse_release
from hipray.scoring.decoder import build_row, open_output
from hipray.scoring.failures import dump_failure
from hipray.scoring.films import ReadFilm
from hipray.scoring.packing import unpack_films
from hipray.scoring.parts import PartNames, write_part
from hipray.scoring.rows import build_rows, build_table
from hipray.scoring.shards import Shard, parse_shard
from hipray.storage import open_store

BATCH_FILMS = 16
"""Films in one forward pass: it bounds the memory of a shard, and numbers do not depend on it."""
OUTCOME_SCHEMA = pa.schema(
    [("shard_id", pa.string()), ("files", pa.int64()), ("failure", pa.string())]
)


class ShardScorer:
    """Scores one shard at a time and publishes its part; holds the release's networks."""

    def __init__(self, payload: str, release_text: str) -> None:
        config = ScoreRun.model_validate_json(payload)
        release = parse_release(release_text.encode(), "the release of the run")
        self._names = PartNames.of(release, config.limits)
        self._output = open_output(config)
        self._pipeline = _load_pipeline(config, release)

    def __call__(self, films: pa.Table) -> pa.Table:
        """Return what became of the shard; raises what kept the release from loading."""
        if isinstance(self._pipeline, HiprayError):
            raise self._pipeline
        shard = parse_shard(films["shard"][0].as_py())
        failure = films["failure"][0].as_py()
        if failure is None:
            pixels = memoryview(films["pixels"][0].as_buffer())
            read = unpack_films(films["notes"][0].as_py(), pixels)
            table = score_films(self._pipeline, read)
            check_complete(shard, table)
            failure = self._publish(self._names.key(shard.id), table)
        outcome = {"shard_id": shard.id, "files": len(shard.entries), "failure": failure}
        return build_row(OUTCOME_SCHEMA, outcome)

    def _publish(self, key: str, table: pa.Table) -> str | None:
        """Write the part; one that is there already came from a process that was lost later."""
        try:
            write_part(self._output, key, table)
        except StorageError as error:
            return dump_failure(error)
        return None


def _load_pipeline(config: ScoreRun, release: Release) -> Pipeline | HiprayError:
    """Load the networks, or return why not: raised in a constructor, Ray hides an error's type."""
    torch.set_num_threads(max(1, int(config.cpus_per_actor)))
    device = torch.device("cuda" if config.gpus_per_actor else "cpu")
    workspace = open_store(config.workspace, config.storage)
    try:
        return Pipeline(load_stages(workspace, release, device=device))
    except HiprayError as error:
        return error


def score_films(pipeline: Pipeline, films: Sequence[ReadFilm]) -> pa.Table:
    """Return the rows of `films` in their order."""
    questions = pipeline.stages.release.questions
    rows = []
    for start in range(0, len(films), BATCH_FILMS):
        batch = films[start : start + BATCH_FILMS]
        answers = pipeline.answer(
            [film.result for film in batch], stated=[film.person for film in batch]
        )
        for film, answer in zip(batch, answers, strict=True):
            rows.extend(build_rows(film, answer, questions))
    return build_table(rows)


def check_complete(shard: Shard, table: pa.Table) -> None:
    """Raise DataError unless `table` has rows for every film of `shard` and for no other."""
    wanted = {entry.key for entry in shard.entries}
    found = set(table.column("key").to_pylist())
    if found != wanted:
        raise DataError(
            f"rows for the {len(wanted)} films of shard {shard.number}",
            f"{len(found & wanted)} of them and {len(found - wanted)} others",
            "report this: it is a defect",
        )
