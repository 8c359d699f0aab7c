from pathlib import Path

import pytest

from hipray.data.listing import is_film
from hipray.errors import RunBusyError, StorageError
from hipray.scoring.shards import freeze_shards, parse_shard, read_totals
from hipray.storage import Store, open_store

FILMS = [f"films/{number:02d}.dcm" for number in range(10)]


@pytest.fixture
def archive(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "archive"))
    for key in FILMS:
        store.write(key, key.encode())
    for key in ("dxa.csv", "archive.json", "films/03.json", "films/.DS_Store"):
        store.write(key, b"no film")
    return store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "scores"))


def freeze(archive: Store, output: Store) -> list[list[str]]:
    shards = freeze_shards(archive, output, shard_files=4)
    return [[entry.key for entry in shard.entries] for shard in shards]


def index_keys(output: Store) -> list[str]:
    return [info.key for info in output.list("index")]


def test_every_film_is_in_one_shard_and_tables_annotations_and_notes_in_none(
    archive: Store, output: Store
) -> None:
    assert freeze(archive, output) == [FILMS[:4], FILMS[4:8], FILMS[8:]]
    totals = read_totals(output)
    assert totals is not None
    assert (totals.files, totals.shards) == (10, 3)


def test_a_shard_is_frozen_before_it_is_handed_out_and_the_rest_is_listed_later(
    archive: Store, output: Store
) -> None:
    shards = freeze_shards(archive, output, shard_files=4)
    next(shards)
    assert index_keys(output) == ["index/00000000.json"]
    assert [entry.key for shard in shards for entry in shard.entries] == FILMS[4:]
    assert len(index_keys(output)) == 4


def test_a_listing_that_broke_off_yields_the_same_shards_and_goes_on(
    archive: Store, output: Store
) -> None:
    first = next(freeze_shards(archive, output, shard_files=4))
    archive.write("films/00.dcm", b"replaced")
    archive.delete("films/01.dcm")
    archive.write("films/00a.dcm", b"inserted into the frozen part")
    again = list(freeze_shards(archive, output, shard_files=7))
    assert again[0] == first
    assert [entry.key for shard in again[1:] for entry in shard.entries] == FILMS[4:]


def test_a_finished_listing_is_not_listed_again(archive: Store, output: Store) -> None:
    before = freeze(archive, output)
    archive.write("films/99.dcm", b"too late")
    assert freeze(archive, output) == before


def test_two_listings_at_once_cannot_both_freeze(archive: Store, output: Store) -> None:
    mine, other = (freeze_shards(archive, output, shard_files=4) for _ in range(2))
    next(mine)
    next(other)  # it repeats the frozen first shard
    next(other)
    with pytest.raises(RunBusyError, match="shard 1"):
        next(mine)


def test_an_empty_archive_freezes_nothing(tmp_path: Path, output: Store) -> None:
    empty = open_store(str(tmp_path / "empty"))
    empty.write("readme.csv", b"")
    assert freeze(empty, output) == []
    assert read_totals(output) is None


def test_an_altered_shard_is_refused(archive: Store, output: Store) -> None:
    shard = next(freeze_shards(archive, output, shard_files=4))
    text = shard.dump()
    assert parse_shard(text) == shard
    for altered in (text.replace("films/00", "films/77"), "{}", "no JSON"):
        with pytest.raises(StorageError, match="altered"):
            parse_shard(altered)


def test_a_lost_shard_file_is_noticed(archive: Store, output: Store) -> None:
    freeze(archive, output)
    output.delete("index/00000001.json")
    with pytest.raises(StorageError, match="00000001"):
        freeze(archive, output)


@pytest.mark.parametrize(
    ("key", "film"),
    [
        ("a/IM0001", True), ("a/b.DCM", True), ("a.png", True), ("a/b.JSON", False),
        ("dxa.csv", False), ("x/archive.json", False), (".hidden", False), ("a/.b.dcm", False),
    ],
)  # fmt: skip
def test_the_key_alone_tells_what_is_read_as_a_film(key: str, film: bool) -> None:
    assert is_film(key) is film
