import errno
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hipray.config.jobs import ScoreRun
from hipray.config.scoring import Selection
from hipray.config.storage import StorageSettings
from hipray.data.listing import is_film
from hipray.errors import (
    AccessDeniedError,
    BucketMissingError,
    DataError,
    RunBusyError,
    StorageError,
    StoreThrottledError,
)
from hipray.scoring.index import READ_AHEAD, Index, ListingTotals
from hipray.scoring.key_list import check_key_list, describe_keys, read_key_list
from hipray.scoring.lister import Lister
from hipray.scoring.open_work import list_open_work
from hipray.scoring.parts import PartSet, write_part
from hipray.scoring.ranges import KeyRange, build_ranges, choose_boundaries
from hipray.scoring.rows import build_table
from hipray.scoring.selection import LeftOut, build_folder_sieve, build_sieve
from hipray.scoring.shards import Entry, Position, Shard, group_entries, parse_shard
from hipray.scoring.work import Work
from hipray.storage import ObjectInfo, Store, local, open_store
from hipray.storage.local import LocalStore
from tests.conftest import S3Server
from tests.storage.folder_order import FolderOrderS3

FILMS = [f"films/{number:02d}.dcm" for number in range(10)]
PARTS = PartSet("parts/scored_by=test")


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


def walk(
    archive: Store, output: Store, *, relist: bool = True, **settings: object
) -> Iterator[Work]:
    config = ScoreRun.model_validate({"images": archive.uri, "shard_files": 4, **settings})
    return list_open_work(config, archive, output, PARTS, relist=relist)


def keys_of(work: Sequence[Work] | Iterator[Work]) -> list[list[str]]:
    return [[entry.key for entry in part.entries] for part in work]


def publish(output: Store, work: Work) -> None:
    rows = [{"key": entry.key, "etag": entry.etag} for entry in work.entries]
    write_part(output, PARTS.key(work.part), build_table(rows))


def test_every_film_is_in_one_shard_and_tables_annotations_and_notes_in_none(
    archive: Store, output: Store
) -> None:
    assert keys_of(walk(archive, output)) == [FILMS[:4], FILMS[4:8], FILMS[8:]]
    totals = Index(output).totals()
    assert (totals.files, totals.shards, totals.replaced) == (10, 3, 0)
    assert Index(output).is_complete()


def test_every_key_of_the_archive_is_a_film_or_left_out_for_a_reason_that_is_counted(
    archive: Store, output: Store
) -> None:
    chosen = {"exclude": ["*/09.dcm"], "include": ["films/*", "*.json"]}
    archive.write("other/1.dcm", b"not included")
    for work in walk(archive, output, select=chosen):
        publish(output, work)
    left_out = Index(output).read_left_out()
    assert left_out == {"excluded": 1, "hidden": 2, "not_included": 1, "table": 2}
    listed = Index(output).totals().files
    assert listed + sum(left_out.values()) == len(list(archive.list()))
    archive.delete("other/1.dcm")
    archive.write("new.csv", b"a table and no film")
    assert not list(walk(archive, output, select=chosen))
    left_out = Index(output).read_left_out()
    assert left_out == {"excluded": 1, "hidden": 2, "table": 3}, "as the last listing found it"


def test_a_folder_that_is_left_out_whole_is_not_looked_into_and_counts_once(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (".snapshot/1/films/00.dcm", "lost+found/a.dcm", "lost+found/b/c.dcm"):
        archive.write(key, b"")
    scan_folder = local._scan_folder

    def deny(folder: Path) -> Any:
        if folder.name in (".snapshot", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan_folder(folder)

    monkeypatch.setattr(local, "_scan_folder", deny)
    with pytest.raises(AccessDeniedError, match=r"select\.exclude=\['lost\+found/\*"):
        list(walk(archive, output))
    other = output.child("other")
    chosen = {"exclude": ["*.tmp", "lost+found/*", "films"]}
    assert [key for keys in keys_of(walk(archive, other, select=chosen)) for key in keys] == FILMS
    left_out = Index(other).read_left_out()
    assert left_out == {"excluded": 1, "hidden": 3, "table": 2}


@pytest.mark.parametrize(
    ("select", "why"),
    [
        ({"exclude": ["old/*"]}, LeftOut.EXCLUDED),
        ({"exclude": ["*/scouts/*", "o*"]}, LeftOut.EXCLUDED),
        ({"exclude": ["old/*.dcm", "old/", "old"]}, None),
        ({"include": ["new/*"]}, None),
    ],
)
def test_a_folder_is_left_out_whole_where_a_pattern_takes_whatever_is_in_it(
    select: dict[str, list[str]], why: LeftOut | None
) -> None:
    assert build_folder_sieve(Selection.model_validate(select))("old/") is why


@pytest.mark.parametrize(("suffixes", "why"), [([], LeftOut.HIDDEN), ([".dcm"], None)])
def test_a_hidden_folder_is_left_out_where_no_suffix_makes_films_of_what_is_in_it(
    suffixes: list[str], why: LeftOut | None
) -> None:
    select = Selection.model_validate({"suffixes": suffixes})
    assert build_folder_sieve(select)("a/.snapshot/") is why


def test_an_index_of_before_keys_were_counted_says_that_nobody_did(output: Store) -> None:
    assert Index(output).read_left_out() is None


def test_shards_with_a_part_are_not_listed_again_in_any_order_of_their_ends(
    archive: Store, output: Store
) -> None:
    _, second, third = walk(archive, output)
    publish(output, third)
    assert keys_of(walk(archive, output, relist=False)) == [FILMS[:4], FILMS[4:8]]
    publish(output, second)
    assert keys_of(walk(archive, output)) == [FILMS[:4]]


def test_a_second_listing_adds_what_is_new_or_changed_and_nothing_else(
    archive: Store, output: Store
) -> None:
    for work in walk(archive, output):
        publish(output, work)
    archive.write("films/00a.dcm", b"new")
    archive.write("films/05.dcm", b"changed")
    archive.delete("films/07.dcm")
    (work,) = walk(archive, output)
    assert [entry.key for entry in work.entries] == ["films/00a.dcm", "films/05.dcm"]
    (shard,) = Index(output).read_range(1, 0)
    assert [entry.replaces is None for entry in shard.entries] == [True, False]
    assert Index(output).totals().replaced == 1
    publish(output, work)
    assert not list(walk(archive, output))
    assert list(Index(output).listings()) == [0, 1]  # a listing that finds nothing leaves nothing


def freeze_listing(index: Index, number: int, *entries: Entry) -> None:
    shard = Shard(Position(number, 0, 0), entries)
    index.freeze(shard)
    index.complete(number, ListingTotals.of(shard))


def test_threads_do_not_grow_with_the_listings_of_an_archive(
    archive: Store, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(output)
    index.choose_ranges(())
    films = [Entry(i.key, i.size, i.etag) for i in archive.list() if is_film(i.key)]
    for number in range(0, 2 * READ_AHEAD, 2):
        freeze_listing(index, number, films[0])
        freeze_listing(index, number + 1, *films[1:-1])
    threads: set[str] = set()
    read = LocalStore.read

    def read_and_note(store: LocalStore, key: str) -> bytes:
        if "/range-" in key:
            threads.add(threading.current_thread().name)
        return read(store, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "read", read_and_note)
        with Lister(ScoreRun(images=archive.uri), archive, index) as running:
            while not running.has_ended():
                time.sleep(0.01)
    assert 1 <= len(threads) <= READ_AHEAD
    (last, *none) = index.read_range(2 * READ_AHEAD, 0)
    assert (last.entries, none) == ((films[-1],), [])


def test_what_a_listing_found_is_read_once(output: Store) -> None:
    index = Index(output)
    freeze_listing(index, 0, Entry("a", 1, "e"))
    known = index.listings()
    assert known == {0: ListingTotals(1, 1, 1, 0)}
    output.delete("index/listing-0000/complete.json")
    assert index.listings() == known
    assert Index(output).listings() == {0: None}


def test_listings_beyond_four_digits_keep_their_order(output: Store) -> None:
    index = Index(output)
    numbers = [0, 9_999, 10_000, 10_001, 100_000]
    for number in reversed(numbers):
        freeze_listing(index, number, Entry(f"{number}", 1, "e"))
    assert list(index.listings()) == numbers
    positions = list(index.positions())
    assert [position.listing for position in positions] == numbers
    assert sorted(position.text for position in positions) == [p.text for p in positions]
    assert [shard.position for shard in index.read(positions)] == positions


def test_a_listing_that_broke_off_goes_on_behind_its_last_shard(
    archive: Store, output: Store
) -> None:
    index = Index(output)
    config = {"listers": 1, "shard_files": 4}
    started = walk(archive, output, **config)
    first = next(started)
    started.close()  # type: ignore[attr-defined]
    frozen = [shard for shard in index.read_range(0, 0)]
    for shard_file in [info.key for info in output.list("index") if "range-" in info.key][1:]:
        output.delete(shard_file)
    if index.is_complete():
        output.delete("index/listing-0000/complete.json")
    archive.write("films/00.dcm", b"replaced")
    archive.write("films/00a.dcm", b"inserted into the frozen part")
    again = list(walk(archive, output))
    assert again[0] == first
    assert frozen[0].name == first.part
    late = ["films/00.dcm", "films/00a.dcm"]
    assert keys_of(again) == [FILMS[:4], FILMS[4:8], FILMS[8:], late]
    assert again[-1].part.startswith("0001")
    left_out = Index(output).read_left_out()
    assert left_out == {"hidden": 2, "table": 2}, "what came before the broken end counts too"


def test_two_listings_at_once_cannot_both_freeze(archive: Store, output: Store) -> None:
    index = Index(output)
    work = list(walk(archive, output))
    (first, *_) = index.read_range(0, 0)
    assert work[0].part == first.name
    with pytest.raises(RunBusyError, match="0000-0000-00000000"):
        index.freeze(first)


def test_an_empty_archive_freezes_nothing(tmp_path: Path, output: Store) -> None:
    empty = open_store(str(tmp_path / "empty"))
    empty.write("readme.csv", b"")
    assert not list(walk(empty, output))
    assert not Index(output).listings()


def test_an_archive_that_is_gone_is_not_one_without_anything_new(
    archive: Store, output: Store, tmp_path: Path
) -> None:
    assert list(walk(archive, output))
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    with pytest.raises(BucketMissingError, match="check that its disk is mounted"):
        list(walk(archive, output))


def test_an_altered_shard_and_a_lost_one_are_noticed(archive: Store, output: Store) -> None:
    list(walk(archive, output))
    shard = next(Index(output).read_range(0, 0))
    text = shard.dump()
    assert parse_shard(text) == shard
    for altered in (text.replace("films/00", "films/77"), "{}", "no JSON"):
        with pytest.raises(StorageError, match="altered"):
            parse_shard(altered)
    output.delete("index/listing-0000/range-0000/00000001.json")
    with pytest.raises(StorageError, match="00000001"):
        list(walk(archive, output))


def test_shards_of_small_and_of_large_films_cost_alike() -> None:
    sizes = [1] * 6 + [100] * 3 + [40] * 4 + [500, 1]
    entries = [Entry(f"{number:02d}", size, "e") for number, size in enumerate(sizes)]
    groups = list(group_entries(entries, max_files=4, max_bytes=200))
    assert [entry for group in groups for entry in group] == entries
    assert [[entry.size for entry in group] for group in groups] == [
        [1, 1, 1, 1], [1, 1, 100], [100, 100], [40, 40, 40, 40], [500], [1],
    ]  # fmt: skip


@pytest.mark.parametrize("names", [["a", "b", "c"], [f"p{n:04d}" for n in range(60)]])
def test_ranges_leave_out_no_key_and_share_none(
    names: list[str], s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hipray.scoring.ranges.FEW_KEYS", 2)
    archive = s3_server.new_store()
    keys = sorted(f"site/{name}/{n}.dcm" for name in names for n in range(2))
    for key in keys:
        archive.write(key, b"")
    boundaries = choose_boundaries(archive, wanted=4)
    ranges = build_ranges(boundaries)
    assert 3 <= len(ranges) <= 4
    listed = [[info.key for info in key_range.list(archive)] for key_range in ranges]
    assert [key for part in listed for key in part] == keys
    assert all(listed)
    archive.write("another/0.dcm", b"")  # an archive grows wherever it likes
    archive.write("zz/0.dcm", b"")
    assert sum(len(list(key_range.list(archive))) for key_range in ranges) == len(keys) + 2


@pytest.mark.parametrize("repeats_marker", [False, True])
def test_a_store_that_skips_the_folder_it_starts_after_lists_every_key_once(
    repeats_marker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hipray.scoring.ranges.FEW_KEYS", 2)
    keys = [f"site{number}/{film}.dcm" for number in range(9) for film in range(3)]
    with closing(FolderOrderS3(keys, repeats_marker=repeats_marker)) as server:
        archive = server.store()
        assert not list(archive.list(start_after="site8")), "it is such a store"
        boundaries = choose_boundaries(archive, wanted=4)
        assert len(boundaries) == 3
        assert set(boundaries) <= set(keys)
        ranges = build_ranges(boundaries)
        assert [info.key for own in ranges for info in own.list(archive)] == keys
        for key in keys:
            rest = [info.key for own in ranges for info in own.list(archive, start_after=key)]
            assert rest == keys[keys.index(key) + 1 :]


@pytest.mark.parametrize("boundary", ["P1/b", "P1-L/b"])
def test_a_store_of_another_order_leaves_out_no_key_unnoticed(boundary: str) -> None:
    keys = [f"{folder}/{film}" for folder in ("P0", "P1-L", "P1", "P2") for film in "abc"]
    with closing(FolderOrderS3(keys)) as server:
        archive = server.store()
        with pytest.raises(StorageError, match=r"storage\.listing=folders"):
            for key_range in build_ranges((boundary,)):
                list(key_range.list(archive))


def test_a_store_of_another_order_is_listed_whole_by_a_walk_through_its_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hipray.scoring.ranges.FEW_KEYS", 2)
    keys = sorted(f"{folder}/{film}" for folder in ("P1", "P1-L", "P1-L/b", "P2") for film in "xyz")
    with closing(FolderOrderS3(keys)) as server:
        archive = server.store(listing="folders")
        ranges = build_ranges(choose_boundaries(archive, wanted=3))
        assert len(ranges) == 3
        assert [info.key for own in ranges for info in own.list(archive)] == keys


def test_a_range_whose_last_object_was_deleted_ends_before_the_next(s3_server: S3Server) -> None:
    archive = s3_server.new_store()
    for key in ("a", "b", "c"):
        archive.write(key, b"")
    archive.delete("b")
    listed = [[info.key for info in own.list(archive)] for own in build_ranges(("b",))]
    assert listed == [["a"], ["c"]]


def test_an_archive_of_several_ranges_is_listed_like_any_other(
    s3_server: S3Server, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hipray.scoring.ranges.FEW_KEYS", 2)
    archive = s3_server.new_store()
    keys = [f"{folder}/{number}.dcm" for folder in "abcdef" for number in range(5)]
    for key in keys:
        archive.write(key, b"x")
    work = list(walk(archive, output, storage=s3_server.settings.model_dump(), listers=3))
    assert sorted(key for part in keys_of(work) for key in part) == keys
    for part in work[::2]:
        publish(output, part)
    open_again = list(walk(archive, output, listers=3))
    assert sorted(p.part for p in open_again) == sorted(p.part for p in work[1::2])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_of_keys_is_scored_instead_of_a_listing(
    kind: str, archive: Store, output: Store, tmp_path: Path
) -> None:
    import pandas as pd

    wanted = [FILMS[5], archive.uri_of(FILMS[2]), FILMS[5], "films/none.dcm"]
    path = tmp_path / f"keys.{kind}"
    frame = pd.DataFrame({"note": "n", "key": wanted})
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    (work,) = walk(archive, output, select=Selection(keys=str(path)).model_dump())
    assert [entry.key for entry in work.entries] == [FILMS[2], FILMS[5], "films/none.dcm"]
    assert [bool(entry.etag) for entry in work.entries] == [True, True, False]


def test_a_key_that_the_store_will_not_describe_is_left_to_the_reading(
    archive: Store, output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = LocalStore.info

    def deny_one(store: LocalStore, key: str) -> ObjectInfo | None:
        if key == FILMS[2]:
            raise AccessDeniedError("access", "403", "ask")
        return describe(store, key)

    monkeypatch.setattr(LocalStore, "info", deny_one)
    path = tmp_path / "keys.csv"
    path.write_text("key\n" + "\n".join(FILMS[:4]))
    (work,) = walk(archive, output, select=Selection(keys=str(path)).model_dump())
    assert [bool(entry.etag) for entry in work.entries] == [True, True, False, True]


def list_keys(archive: Store, tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "keys.csv").write_text(text)
    return list(read_key_list(str(tmp_path / "keys.csv"), StorageSettings(), archive))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a.dcm\nb.dcm\n", ["a.dcm", "b.dcm"]),
        ("\ufeffkey\n000123\n42\n", ["000123", "42"]),
        ('key,note\n"a,b.dcm",x\n./c.dcm,\nc.dcm,\n', ["a,b.dcm", "c.dcm"]),
        ("key\n{root}/b\na\nc\n{root}/a\n", ["a", "b", "c"]),
    ],
)
def test_keys_are_text_in_order_each_once(
    text: str, keys: list[str], archive: Store, tmp_path: Path
) -> None:
    assert list_keys(archive, tmp_path, text.replace("{root}", archive.uri)) == keys


def test_a_key_with_a_newline_is_whole_wherever_it_lies_in_its_file(
    archive: Store, tmp_path: Path
) -> None:
    wanted = [f"folder{number:05d}\nwith a newline/{number:05d}.dcm" for number in range(40_000)]
    text = "key\n" + "".join(f'"{key}"\n' for key in wanted)
    assert list_keys(archive, tmp_path, text) == wanted


def test_a_list_that_does_not_say_which_column_has_the_keys_is_refused(
    archive: Store, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"a column 'key' in .*found the columns file, patient"):
        list_keys(archive, tmp_path, "file,patient\na.dcm,1\n")
    with pytest.raises(DataError, match=r"a column 'key' in .*found the columns film"):
        list_keys(archive, tmp_path, "film\na.dcm\n")


def test_the_head_of_a_list_is_checked_before_it_is_read(archive: Store, tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    path.write_text("key,note\na.dcm,x\nb.dcm\n")
    check_key_list(str(path), StorageSettings())
    with pytest.raises(DataError, match="a CSV or Parquet file of keys"):
        list(read_key_list(str(path), StorageSettings(), archive))
    path.write_text("film,note\na.dcm,x\n")
    with pytest.raises(DataError, match="a column 'key'"):
        check_key_list(str(path), StorageSettings())
    path.write_bytes(b"PAR1 and no table")
    with pytest.raises(DataError, match="a CSV or Parquet file of keys"):
        check_key_list(str(path), StorageSettings())


@pytest.mark.parametrize("keys", [[["a.dcm"]], [{"name": "a.dcm"}]])
def test_keys_that_are_no_text_are_refused_before_they_are_read(
    tmp_path: Path, keys: list[object]
) -> None:
    path = tmp_path / "keys.parquet"
    pq.write_table(pa.table({"key": keys}), path)
    with pytest.raises(DataError, match="a CSV or Parquet file of keys"):
        check_key_list(str(path), StorageSettings())


def test_a_store_that_throttles_freezes_nothing_of_a_list(
    archive: Store, output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def throttle(store: Store, key: str) -> None:
        raise StoreThrottledError("an answer", "SlowDown", "try again later")

    monkeypatch.setattr(LocalStore, "info", throttle)
    with pytest.raises(StoreThrottledError):
        list(describe_keys(archive, FILMS[:3]))


def test_the_only_column_of_a_parquet_file_holds_the_keys(archive: Store, tmp_path: Path) -> None:
    path = tmp_path / "keys.parquet"
    pq.write_table(pa.table({"film": FILMS}), path)
    assert list(read_key_list(str(path), StorageSettings(), archive)) == FILMS


@pytest.mark.timeout(60)
def test_a_range_that_cannot_be_listed_ends_the_walk_though_others_have_shards(
    s3_server: S3Server, output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hipray.scoring.ranges.FEW_KEYS", 2)
    archive = s3_server.new_store()
    for folder in "abcdef":
        for number in range(5):
            archive.write(f"{folder}/{number}.dcm", b"x")
    listed = KeyRange.list

    def list_or_fail(own: KeyRange, store: Store, **options: Any) -> Iterator[ObjectInfo]:
        if own.number:
            raise StorageError("an answer", "none", "try again")
        for info in listed(own, store, **options):
            time.sleep(0.5)
            yield info

    monkeypatch.setattr(KeyRange, "list", list_or_fail)
    settings = {"shard_files": 1, "listers": 3, "storage": s3_server.settings.model_dump()}
    with pytest.raises(StorageError, match="expected an answer"):
        list(walk(archive, output, **settings))


def test_a_list_of_another_archives_keys_is_refused(
    archive: Store, output: Store, tmp_path: Path
) -> None:
    (tmp_path / "keys.csv").write_text("key\ns3://elsewhere/a.dcm\n")
    with pytest.raises(DataError, match="elsewhere"):
        list(walk(archive, output, select={"keys": str(tmp_path / "keys.csv")}))


@pytest.mark.parametrize(
    ("select", "taken"),
    [
        ({}, ["a/IM1", "a/b.DCM", "c.png"]),
        ({"suffixes": [".dcm"]}, ["a/b.DCM"]),
        ({"include": ["a/*"]}, ["a/IM1", "a/b.DCM"]),
        ({"exclude": ["*b.DCM", "c*"]}, ["a/IM1"]),
        ({"suffixes": [".csv"]}, ["t.csv"]),
    ],
)
def test_suffixes_and_patterns_select_keys(select: dict[str, list[str]], taken: list[str]) -> None:
    sift = build_sieve(Selection.model_validate(select))
    assert [key for key in ("a/IM1", "a/b.DCM", "c.png", "t.csv") if sift(key) is None] == taken


@pytest.mark.parametrize(
    ("key", "film"),
    [
        ("a/IM0001", True), ("a/b.DCM", True), ("a.png", True), ("a/b.JSON", False),
        ("dxa.csv", False), ("x/archive.json", False), (".hidden", False), ("a/.b.dcm", False),
    ],
)  # fmt: skip
def test_the_key_alone_tells_what_is_read_as_a_film(key: str, film: bool) -> None:
    assert is_film(key) is film


def test_a_key_that_cannot_be_described_now_has_not_changed(
    archive: Store, output: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.csv"
    path.write_text("key\n" + "\n".join(FILMS[:4]))
    chosen = Selection(keys=str(path)).model_dump()
    (work,) = walk(archive, output, select=chosen)
    publish(output, work)
    describe = LocalStore.info
    monkeypatch.setattr(
        LocalStore, "info",
        lambda self, key: None if key == FILMS[1] else describe(self, key),
    )  # fmt: skip
    assert list(walk(archive, output, select=chosen)) == []


def test_keys_may_be_full_addresses_and_those_of_another_archive_are_refused(
    archive: Store, tmp_path: Path
) -> None:
    path = tmp_path / "keys.csv"
    path.write_text(f"key\nfile://{archive.uri}/films/00.dcm\n{archive.uri}/films/01.dcm\n")
    assert list(read_key_list(str(path), StorageSettings(), archive)) == FILMS[:2]
    path.write_text(f"key\nfile://{archive.uri}/films/a%20b.dcm\n{archive.uri}/films/c%20d.dcm\n")
    listed = list(read_key_list(str(path), StorageSettings(), archive))
    assert listed == ["films/a b.dcm", "films/c%20d.dcm"], "only URLs have escapes"
    for foreign in ("/other/a.dcm", "s3://other/a.dcm", "gs://bucket/a.dcm", "s3:/typo/a.dcm"):
        path.write_text(f"key\n{foreign}\n")
        with pytest.raises(DataError, match="score each archive for itself"):
            list(read_key_list(str(path), StorageSettings(), archive))


def test_a_full_address_names_whatever_key_a_listing_gives(tmp_path: Path) -> None:
    archive = open_store("s3://bucket/prefix")
    keys = ["//x.dcm", "/x.dcm", "a b+c%d.dcm", "folder/", "s3://bucket/other"]
    text = "key\n" + "\n".join(archive.uri_of(key) for key in keys)
    assert list_keys(archive, tmp_path, text) == keys
    with pytest.raises(DataError, match=r"found '/x\.dcm'"):
        list_keys(archive, tmp_path, "key\n/x.dcm\n")
