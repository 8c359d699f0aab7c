from pathlib import Path

import pytest

from hipray.config.jobs import ScoreRun
from hipray.scoring.index import Index, ListingTotals
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.rows import build_table
from hipray.scoring.session import (
    UNLISTED_FILES,
    count_listed,
    still_gives,
)
from hipray.scoring.shards import Entry, Position, Shard
from hipray.storage import Store, open_store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "scores"))


def build_run(tmp_path: Path, workspace: str) -> ScoreRun:
    return ScoreRun(workspace=str(tmp_path / workspace), images=str(tmp_path / "archive"))


def test_an_archive_counts_for_many_films_until_it_is_listed(output: Store) -> None:
    assert count_listed(output).current == UNLISTED_FILES
    Index(output).complete(0, ListingTotals(files=9, shards=1))
    assert count_listed(output).current == 9
    Index(output).complete(1, ListingTotals(files=3, shards=1, replaced=2))
    assert (count_listed(output).current, count_listed(output).replaced) == (10, 2)
    Index(output).freeze(Shard(Position(2, 0, 0), (Entry("a", 1, "e"),)))
    assert count_listed(output).current == UNLISTED_FILES, "the third is under way"


def test_a_store_still_gives_where_it_gives_a_film_that_was_read_before(
    tmp_path: Path, output: Store
) -> None:
    run = build_run(tmp_path, "work").model_copy(update={"store_wait_s": 0})
    archive, parts = open_store(run.images), PartSet("parts/scored_by=x")
    archive.write("read.dcm", b"film")
    assert not still_gives(run, output, parts), "it gave nothing yet"
    rows = [{"key": "gone.dcm"}, {"key": "read.dcm", "etag": "e"}]
    write_part(output, parts.key("0"), build_table([]))
    write_part(output, parts.key("1"), build_table(rows))
    assert still_gives(run, output, parts)
    archive.write("read.dcm", b"another film")
    assert still_gives(run, output, parts)
    archive.write("another.dcm", b"film")
    archive.delete("read.dcm")
    assert still_gives(run, output, parts), "that it is gone is an answer"
    archive.delete("another.dcm")
    assert not still_gives(run, output, parts), "the archive as a whole is gone"
