from pathlib import Path

import pytest

from hipray.errors import RunBusyError, StoreThrottledError
from hipray.scoring import retraction
from hipray.scoring.faults import FailedFilm
from hipray.scoring.index import Index, ListingTotals
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.retraction import Retraction
from hipray.scoring.rows import build_table
from hipray.scoring.shards import Entry, Position, Shard
from hipray.scoring.unpublished import Unpublished
from hipray.storage import Store, open_store

PARTS = PartSet("parts/scored_by=test")
SHARDS, FILMS = 4, 5


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """An archive of which each film was changed after it was scored; the changes are listed."""
    store = open_store(str(tmp_path))
    index = Index(store)
    index.choose_ranges(())
    for listing in (0, 1):
        for number in range(SHARDS):
            shard = build_shard(listing, number)
            index.freeze(shard)
            if listing == 0:
                publish(store, shard)
        index.complete(listing, ListingTotals(SHARDS * FILMS, 1, SHARDS, listing * SHARDS * FILMS))
    return store


def build_shard(listing: int, number: int) -> Shard:
    old = build_shard(0, number).name if listing else None
    keys = [f"{number}-{film}" for film in range(FILMS)]
    entries = tuple(Entry(key, 4, f"e{listing}", replaces=old) for key in keys)
    return Shard(Position(listing, 0, number), entries)


def publish(output: Store, shard: Shard) -> None:
    rows = [{"key": entry.key, "listed_etag": entry.etag} for entry in shard.entries]
    write_part(output, PARTS.key(shard.name), build_table(rows))


def count_rows(output: Store) -> dict[str, int]:
    return {part.name: len(part.table) for part in PARTS.read(output, PARTS.list_all(output))}


def test_a_changed_archive_is_retracted_in_portions_of_few_keys(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraction, "KEYS_AT_ONCE", 2 * FILMS)
    for number in range(SHARDS):
        publish(output, build_shard(1, number))
    own = Retraction(output, PARTS, lambda: None)
    assert [own.retract_replaced() for _ in range(2)] == [SHARDS, 0]
    assert list(count_rows(output).values()) == [0] * SHARDS + [FILMS] * SHARDS


def test_a_film_keeps_its_row_until_its_new_shard_was_tried(output: Store) -> None:
    publish(output, build_shard(1, 2))
    own = Retraction(output, PARTS, lambda: None)
    assert own.retract_replaced() == 1
    publish(output, build_shard(1, 0))
    assert own.retract_replaced() == 1
    rows = count_rows(output)
    assert [rows[build_shard(0, number).name] for number in range(SHARDS)] == [0, FILMS, 0, FILMS]


def test_letters_of_a_shard_that_failed_as_a_whole_are_retracted_too(output: Store) -> None:
    old, new = build_shard(0, 1), build_shard(1, 1)
    notes = Unpublished(output, PARTS)
    error = StoreThrottledError("an answer", "none", "try again later")
    output.delete(PARTS.key(old.name))
    for shard in (old, new):
        notes.note(shard.name, [FailedFilm.of(e, error, tries=1) for e in shard.entries])
    Retraction(output, PARTS, lambda: None).retract_replaced()
    assert [shard for shard, _ in notes.letters()] == [new.name] * FILMS
    assert count_rows(output)[old.name] == 0, "nothing is left to do of it"


def test_films_that_came_back_are_taken_out_again_once_that_is_known(output: Store) -> None:
    for number in range(SHARDS):
        publish(output, build_shard(1, number))
    own = Retraction(output, PARTS, lambda: None)
    own.retract_replaced()
    output.delete(PARTS.key(build_shard(0, 1).name))
    publish(output, build_shard(0, 1))
    assert own.retract_replaced() == 0
    own.forget()
    assert own.retract_replaced() == 1
    assert list(count_rows(output).values()) == [0] * SHARDS + [FILMS] * SHARDS


def test_nothing_is_rewritten_where_another_driver_took_over(output: Store) -> None:
    def fail() -> None:
        raise RunBusyError("the output", "another's", "let it finish")

    publish(output, build_shard(1, 0))
    before = {info.key: info.etag for info in output.list()}
    with pytest.raises(RunBusyError):
        Retraction(output, PARTS, fail).retract_replaced()
    assert {info.key: info.etag for info in output.list()} == before
