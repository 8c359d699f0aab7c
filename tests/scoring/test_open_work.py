import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import RetryScope
from hipray.errors import AccessDeniedError, ArchivedError, StorageError, StoreUnavailableError
from hipray.scoring import lister, open_work
from hipray.scoring.faults import FailedFilm
from hipray.scoring.index import Index
from hipray.scoring.lister import Lister
from hipray.scoring.open_work import count_open, list_lost, list_open_work, position_of
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.ranges import KeyRange
from hipray.scoring.rows import build_table
from hipray.scoring.shards import Entry, Position
from hipray.scoring.unpublished import Unpublished
from hipray.scoring.work import Work, parse_work
from hipray.storage import ObjectInfo, Store, open_store

PARTS = PartSet("parts/scored_by=test")
FILMS = 30


@pytest.fixture
def archive(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "archive"))
    for number in range(FILMS):
        store.write(f"{number:02d}.dcm", b"film")
    return store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "scores"))


def follow(archive: Store, output: Store, *, relist: bool = True) -> Iterator[Work]:
    config = ScoreRun(images=archive.uri, shard_files=1)
    return list_open_work(config, archive, output, PARTS, relist=relist)


def publish(output: Store, part: str) -> None:
    write_part(output, PARTS.key(part), build_table([{"key": "a"}]))


def test_work_travels_as_json(archive: Store, output: Store) -> None:
    work = next(follow(archive, output))
    assert parse_work(work.dump()) == work


def test_names_of_shards_and_of_parts_are_compared_page_by_page(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work, "PAGE", 4)
    work = list(follow(archive, output))
    assert len(work) == FILMS
    for done in work[::3]:
        publish(output, done.part)
        publish(output, f"{done.part}.r001")
    left = [own.part for own in work if own not in work[::3]]
    assert [own.part for own in follow(archive, output)] == left
    assert count_open(output, PARTS) == len(left)


def test_shards_that_failed_come_after_all_that_nobody_has_tried_and_once_a_submission(
    archive: Store, output: Store
) -> None:
    parts = [work.part for work in follow(archive, output)]
    notes = Unpublished(output, PARTS)
    for part in (*parts[:2], parts[5]):
        notes.note(part, [build_letter(AccessDeniedError)])
    publish(output, parts[5])  # it has been had since
    left = [*parts[2:5], *parts[6:]]
    assert [own.part for own in follow(archive, output)] == [*left, *parts[:2]]
    assert [own.part for own in follow(archive, output, relist=False)] == left
    assert [p.text for p in list_lost(output, PARTS)] == [position_of(part) for part in left]
    assert count_open(output, PARTS) == len(left) + 2


def build_letter(kind: type[StorageError]) -> FailedFilm:
    return FailedFilm.of(Entry("a", 4, "e"), kind("an object", "none", "see why"), tries=1)


def test_shards_of_archived_films_alone_are_asked_for_again_only_by_a_retry(
    archive: Store, output: Store
) -> None:
    parts = [work.part for work in follow(archive, output)]
    notes, archived = Unpublished(output, PARTS), build_letter(ArchivedError)
    notes.note(parts[0], [archived])
    notes.note(parts[1], [archived, build_letter(AccessDeniedError)])
    assert [own.part for own in follow(archive, output)] == [*parts[2:], parts[1]]
    retry = ScoreRun(images=archive.uri, shard_files=1, retry=RetryScope.FAILED)
    again = list_open_work(retry, archive, output, PARTS, relist=True)
    assert [own.part for own in again] == [*parts[2:], *parts[:2]]


@pytest.mark.timeout(60)
def test_a_listing_that_an_outage_ends_goes_on_where_it_was(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_work, "OUTAGE_WAIT_S", 0.0)
    outages, listed = [3, 17], KeyRange.list

    def break_off(own: KeyRange, store: Store, **options: Any) -> Iterator[ObjectInfo]:
        for info in listed(own, store, **options):
            if outages and int(info.key[:2]) == outages[0]:
                outages.pop(0)
                raise StoreUnavailableError("a listing", "silence", "wait")
            yield info

    monkeypatch.setattr(KeyRange, "list", break_off)
    work = list(follow(archive, output))
    assert [own.entries[0].key for own in work] == [f"{n:02d}.dcm" for n in range(FILMS)]
    assert not outages
    outages.append(3)
    hasty = ScoreRun(images=archive.uri, store_wait_s=0)
    monkeypatch.setattr(open_work, "OUTAGE_WAIT_S", 1.0)
    with pytest.raises(StoreUnavailableError):
        list(list_open_work(hasty, archive, output, PARTS, relist=True))


def test_shards_that_have_a_part_are_not_even_read(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = list(follow(archive, output))
    for done in work[1:]:
        publish(output, done.part)
    read: list[Position] = []
    monkeypatch.setattr(Index, "read", lambda self, positions: read.extend(positions) or iter(()))
    list(follow(archive, output, relist=False))
    assert [position.text for position in read] == [position_of(work[0].part)]


@pytest.mark.timeout(60)
def test_the_listing_goes_on_while_its_first_shard_is_being_scored(
    archive: Store, output: Store
) -> None:
    work = follow(archive, output)
    next(work)
    while not Index(output).is_complete():  # though nobody takes the second
        time.sleep(0.01)
    assert Index(output).totals().files == FILMS
    assert len(list(work)) == FILMS - 1


@pytest.mark.timeout(60)
def test_the_first_shard_is_there_long_before_the_last_key_is_listed(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    listed = KeyRange.list

    def list_and_wait(own: KeyRange, store: Store, **options: Any) -> Iterator[ObjectInfo]:
        for number, info in enumerate(listed(own, store, **options)):
            if number == 2:
                go_on.wait()
            yield info

    monkeypatch.setattr(KeyRange, "list", list_and_wait)
    work = follow(archive, output)
    first = next(work)
    assert not Index(output).is_complete()
    go_on.set()
    assert [first, *work] == list(follow(archive, output, relist=False))


@pytest.mark.timeout(60)
def test_a_listing_lets_the_first_films_pass_and_ends_at_once_when_it_is_left(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "FIRST_FILES", 3)
    monkeypatch.setattr(lister, "HEAD_START_S", 3600.0)
    work = follow(archive, output)
    assert [next(work).entries[0].key for _ in range(3)] == ["00.dcm", "01.dcm", "02.dcm"]
    work.close()  # type: ignore[attr-defined]
    assert not Index(output).is_complete()
    monkeypatch.setattr(lister, "HEAD_START_S", 0.0)
    assert len(list(follow(archive, output))) == FILMS


def test_a_file_that_a_growing_folder_hides_for_now_ends_the_look_and_is_lost_only_at_the_end(
    archive: Store, output: Store
) -> None:
    list(follow(archive, output))
    output.delete("index/listing-0000/range-0000/00000002.json")
    start = Position(0, 0, 0)
    seen = [p.number for p in Index(output).positions_from(start, whole=False)]
    assert seen == [0, 1]
    with pytest.raises(StorageError, match="00000002"):
        list(Index(output).positions_from(start))


@pytest.mark.timeout(60)
def test_a_listing_that_nobody_follows_any_more_ends(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_for_ever(own: KeyRange, store: Store, **options: Any) -> Iterator[ObjectInfo]:
        info = next(store.list())
        while True:
            yield info

    monkeypatch.setattr(KeyRange, "list", list_for_ever)
    config = ScoreRun(images=archive.uri)
    with Lister(config, archive, Index(output)) as running:
        assert not running.has_ended()
    assert not Index(output).is_complete()
