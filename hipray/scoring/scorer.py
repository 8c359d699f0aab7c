"""Scoring the decoded films of a shard: the same pipeline as the endpoint, a few films at a time."""

from collections.abc import Sequence

import pyarrow as pa

from hipray.errors import DataError
from hipray.pipeline import Pipeline
from hipray.scoring.films import ReadFilm
from hipray.scoring.rows import build_rows, build_table, list_questions
from hipray.scoring.shards import Shard

BATCH_FILMS = 16
"""Films in one forward pass: it bounds the memory of a shard, and numbers do not depend on it."""


def score_films(pipeline: Pipeline, films: Sequence[ReadFilm]) -> pa.Table:
    """Return the rows of `films` in their order."""
    questions = list_questions(pipeline.stages.release)
    rows = []
    for start in range(0, len(films), BATCH_FILMS):
        batch = films[start : start + BATCH_FILMS]
        answers = pipeline.answer([film.result for film in batch])
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
