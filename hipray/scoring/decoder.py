"""The first two stages of scoring: shards as they are listed, and their films decoded.

Stages take and give Arrow tables of one row, a whole shard. Nothing here needs torch: a decoder's
process stays small.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from hipray.config.jobs import ScoreRun
from hipray.data.isolation import IsolatedReader
from hipray.data.pseudonyms import load_pseudonyms
from hipray.errors import StorageError
from hipray.releases.release import Release
from hipray.scoring.failures import dump_failure
from hipray.scoring.films import FilmReader
from hipray.scoring.packing import pack_films
from hipray.scoring.shards import freeze_shards, parse_shard
from hipray.storage import Store, open_store

SHARD_SCHEMA = pa.schema([("shard", pa.string())])
FILMS_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("notes", pa.large_string()),
        ("pixels", pa.large_binary()),
        ("failure", pa.string()),
    ]
)


def open_output(config: ScoreRun) -> Store:
    """Return the store of the run's index and parts."""
    if config.output is not None:
        return open_store(config.output, config.storage)
    return open_store(config.workspace, config.storage).child("scores")


def list_open_shards(payload: str, finished: frozenset[str]) -> Iterator[pa.Table]:
    """Yield the shards without a part while the archive is listed and frozen."""
    config = ScoreRun.model_validate_json(payload)
    archive = open_store(config.images, config.storage)
    for shard in freeze_shards(archive, open_output(config), shard_files=config.shard_files):
        if shard.id not in finished:
            yield build_row(SHARD_SCHEMA, {"shard": shard.dump()})


class ShardDecoder:
    """Fetches and decodes one shard at a time, with an isolated reader of its own."""

    def __init__(self, payload: str, release_text: str) -> None:
        config = ScoreRun.model_validate_json(payload)
        release = Release.model_validate_json(release_text)
        self._films = FilmReader(
            open_store(config.images, config.storage),
            IsolatedReader(config.limits, release.preprocessing),
            load_pseudonyms(open_store(config.workspace, config.storage)),
        )

    def __call__(self, shards: pa.Table) -> pa.Table:
        """Return the shard's films; a store that gives up makes it a failure."""
        (row,) = shards.to_pylist()
        try:
            notes, pixels = pack_films(self._films.read(parse_shard(row["shard"])))
        except StorageError as error:
            return build_row(FILMS_SCHEMA, row | {"failure": dump_failure(error)})
        return build_row(FILMS_SCHEMA, row | {"notes": notes, "pixels": pixels})


def build_row(schema: pa.Schema, row: dict[str, Any]) -> pa.Table:
    """Return a table of one row; absent columns are null."""
    return pa.Table.from_pylist([row], schema=schema)
