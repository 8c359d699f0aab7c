from pathlib import Path

import pytest

from hipray.errors import ArchivedError
from hipray.scoring.faults import FailedFilm
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.rows import build_table
from hipray.scoring.shards import Entry
from hipray.scoring.unpublished import Unpublished
from hipray.storage import Store, open_store

PARTS = PartSet("parts/scored_by=test")
SHARDS = [f"0000-0000-{number:08d}-x" for number in range(5)]


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Five shards that failed, of which two have a part by now, and a retry that failed."""
    store = open_store(str(tmp_path))
    for shard in SHARDS:
        Unpublished(store, PARTS).note(shard, [letter(shard)])
    Unpublished(store, PARTS).note(f"{SHARDS[0]}.r002", [letter("retried")])
    for shard in SHARDS[1:3]:
        write_part(store, PARTS.key(shard), build_table([]))
    write_part(store, PARTS.key(f"{SHARDS[2]}.r002"), build_table([]))
    return store


def letter(key: str) -> FailedFilm:
    error = ArchivedError("an object that can be read", "an archived one", "restore it first")
    return FailedFilm.of(Entry(key, 4, "e"), error, tries=1)


def test_letters_count_for_shards_that_have_no_part(output: Store) -> None:
    found = list(Unpublished(output, PARTS).letters())
    assert found == [(shard, letter(shard)) for shard in (SHARDS[0], *SHARDS[3:])]


def test_notes_that_say_nothing_any_more_are_deleted_while_the_output_is_held(
    output: Store,
) -> None:
    asked: list[bool] = []
    notes = Unpublished(output, PARTS)
    notes.tidy(lambda: asked.append(True))
    assert list(notes.names()) == [SHARDS[0], *SHARDS[3:]]
    assert len(asked) == 3
