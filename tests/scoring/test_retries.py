from pathlib import Path

import pytest

from hipray.errors import AccessDeniedError
from hipray.scoring.faults import FailedFilm
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.retries import Retries, adds_nothing
from hipray.scoring.rows import Row, build_table
from hipray.scoring.shards import Entry
from hipray.scoring.unpublished import Unpublished
from hipray.scoring.work import Work, parse_work
from hipray.storage import Store, open_store

PARTS = PartSet("parts/scored_by=test")
SHARDS = [f"0000-0000-{number:08d}-x" for number in range(3)]
ERROR = AccessDeniedError("access", "403", "check the policy")


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Three shards of a film that is scored, one that was denied and one that was gone."""
    store = open_store(str(tmp_path))
    for shard in SHARDS:
        rows = [row("a", outcome="scored"), row("c", refusal_code="missing_object")]
        write_part(store, PARTS.key(shard), build_table(rows), [letter("b")])
    return store


def row(key: str, **columns: object) -> Row:
    return {"key": key, "size": 4, "listed_etag": "e", "fetch_seconds": 1.0, **columns}


def letter(key: str) -> FailedFilm:
    return FailedFilm.of(Entry(key, 4, "e"), ERROR, tries=1)


def test_what_failed_and_what_was_gone_is_planned_once_a_shard(output: Store) -> None:
    retries = Retries(output, PARTS, 7)
    assert retries.plan() == len(SHARDS)
    assert retries.open() == [f"{shard}.r007" for shard in SHARDS]
    work = [parse_work(text) for text in retries.read(retries.open())]
    assert [entry.key for entry in work[0].entries] == ["b", "c"]


def test_a_retry_that_a_lost_machine_took_along_stays_open_and_others_do_not(
    output: Store,
) -> None:
    retries = Retries(output, PARTS, 7)
    retries.plan()
    write_part(output, PARTS.key(f"{SHARDS[0]}.r007"), build_table([row("b"), row("c")]))
    Unpublished(output, PARTS).note(f"{SHARDS[1]}.r007", [letter("b"), letter("c")])
    assert retries.open() == [f"{SHARDS[2]}.r007"]


def test_what_fails_during_a_submission_is_left_to_the_next(output: Store) -> None:
    retries = Retries(output, PARTS, 7)
    retries.plan()
    late = "0000-0000-00000009-x"
    write_part(output, PARTS.key(late), build_table([]), [letter("z")])
    assert f"{late}.r007" not in retries.open()
    retries.forget()
    assert retries.open() == []
    again = Retries(output, PARTS, 8)
    assert again.plan() == len(SHARDS) + 1


def test_a_driver_that_was_taken_over_leaves_the_plan_of_the_next_one(output: Store) -> None:
    older, newer = Retries(output, PARTS, 7), Retries(output, PARTS, 8)
    older.plan()
    newer.plan()
    older.forget()
    assert older.open() == []
    assert newer.open() == [f"{shard}.r008" for shard in SHARDS]


def test_a_film_that_its_decoder_did_not_outlive_is_read_again(output: Store) -> None:
    shard = "0000-0000-00000009-x"
    crashed = row("p", refusal_code="decoder_crash")
    table = build_table([crashed, row("q", refusal_code="implant")])
    write_part(output, PARTS.key(shard), table)
    retries = Retries(output, PARTS, 7)
    retries.plan()
    (text,) = retries.read([f"{shard}.r007"])
    assert [entry.key for entry in parse_work(text).entries] == ["p"]


def test_a_retry_that_finds_each_film_as_before_adds_nothing(output: Store) -> None:
    work = Work(f"{SHARDS[0]}.r007", (Entry("b", 4, "e"), Entry("c", 4, "e")))
    gone = row("c", refusal_code="missing_object") | {"fetch_seconds": 2.0}
    assert adds_nothing(output, PARTS, work, build_table([gone]), [letter("b")])
    back = row("c", outcome="scored")
    assert not adds_nothing(output, PARTS, work, build_table([back]), [letter("b")])
    gone_now = row("b", refusal_code="missing_object")
    assert not adds_nothing(output, PARTS, work, build_table([gone_now, gone]), [])
