import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError, NotFoundError, StorageError
from hipray.storage import (
    InvalidKeyError,
    ObjectTooLargeError,
    Store,
    check_store,
    lies_within,
    open_file,
    open_store,
)
from tests.conftest import S3Server

ORDERED_KEYS = ["a-b", "a.txt", "a/b/c", "a/b0", "a/c", "a0", "b/a", "ba", "z", "ä/x", "大"]


def keys_of(store: Store, prefix: str = "", start_after: str | None = None) -> list[str]:
    return [found.key for found in store.list(prefix, start_after=start_after)]


def fill(store: Store, keys: list[str]) -> None:
    for key in reversed(keys):
        store.write(key, key.encode())


def test_what_was_written_is_read_back_and_described(store: Store) -> None:
    written = store.write("runs/a/scores.bin", b"\x00\xff" * 700)
    data, found = store.read_object("runs/a/scores.bin")
    assert data == b"\x00\xff" * 700
    assert (found.key, found.size, found.etag) == ("runs/a/scores.bin", 1400, written.etag)
    assert store.info("runs/a/scores.bin") == found
    assert list(store.list()) == [found]
    assert abs(datetime.now(UTC) - found.modified) < timedelta(seconds=30)
    assert abs(written.modified - found.modified) < timedelta(seconds=30)


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.write("marker", b"")
    assert store.read("marker") == b""
    assert store.exists("marker")


def test_writing_again_replaces_the_object_and_changes_its_etag(store: Store) -> None:
    before = store.write("a", b"one")
    after = store.write("a", b"another")
    assert store.read("a") == b"another"
    assert before.etag != after.etag


def test_a_missing_object_is_not_found_and_named(store: Store) -> None:
    assert store.info("no/such") is None
    assert not store.exists("no/such")
    with pytest.raises(NotFoundError, match="no/such"):
        store.read("no/such")
    with pytest.raises(NotFoundError):
        store.read_file("no/such", Path("/nonexistent/target"))


def test_a_folder_is_not_an_object(store: Store) -> None:
    store.write("runs/a", b"x")
    assert store.info("runs") is None
    with pytest.raises(NotFoundError):
        store.read("runs")
    with pytest.raises(NotFoundError):
        store.read("runs/a/below")
    assert keys_of(store, "runs/a") == []


def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(store: Store) -> None:
    store.write("a/b/c", b"x")
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("never/was")
    assert not store.exists("a/b/c")
    assert keys_of(store) == []
    assert list(store.list_folders()) == []


def test_an_object_over_the_limit_is_refused(store: Store) -> None:
    store.write("big", b"x" * 1000)
    assert store.read_object("big", max_bytes=1000)[1].size == 1000
    with pytest.raises(ObjectTooLargeError, match="1000 bytes"):
        store.read_object("big", max_bytes=999)


def test_create_makes_an_object_once_and_keeps_the_first(store: Store) -> None:
    assert store.create("runs/a/done.json", b"first")
    assert not store.create("runs/a/done.json", b"second")
    assert store.read("runs/a/done.json") == b"first"
    store.delete("runs/a/done.json")
    assert store.create("runs/a/done.json", b"third")


def test_of_eight_creators_exactly_one_wins_and_its_content_stays(store: Store) -> None:
    barrier = threading.Barrier(8)

    def create(number: int, key: str) -> bool:
        barrier.wait()
        return store.create(key, str(number).encode() * 5000)

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(5):
            key = f"claims/{attempt}"
            won = list(pool.map(lambda number, key=key: create(number, key), range(8)))
            assert won.count(True) == 1
            assert store.read(key) == str(won.index(True)).encode() * 5000
    assert len(keys_of(store)) == 5


def test_a_reader_never_sees_a_part_of_a_write(store: Store) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"abc"]
    store.write("shared", contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for content in contents:
                store.write("shared", content)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = [store.read_object("shared") for _ in range(60)]
        listed = [keys_of(store) for _ in range(20)]
    finally:
        stop.set()
        writer.join()
    assert all(data in contents and found.size == len(data) for data, found in seen)
    assert all(keys == ["shared"] for keys in listed)


def test_both_kinds_list_in_the_order_of_keys(store: Store) -> None:
    fill(store, ORDERED_KEYS)
    assert keys_of(store) == ORDERED_KEYS


def test_listing_continues_after_any_key(store: Store) -> None:
    fill(store, ORDERED_KEYS)
    for position, key in enumerate(ORDERED_KEYS):
        assert keys_of(store, start_after=key) == ORDERED_KEYS[position + 1 :]
    assert keys_of(store, start_after="a/b/b") == ORDERED_KEYS[2:]
    assert keys_of(store, "a", start_after="a/b/c") == ["a/b0", "a/c"]


def test_a_prefix_is_a_folder_and_not_the_start_of_a_name(store: Store) -> None:
    fill(store, ["run/1", "run/2/x", "run10/1"])
    assert keys_of(store, "run") == keys_of(store, "run/") == ["run/1", "run/2/x"]
    assert keys_of(store, "ru") == []


def test_the_folders_directly_below_are_listed(store: Store) -> None:
    fill(store, ["top", "a-b/x", "a/x", "a/y/z", "a.b/c/d"])
    assert list(store.list_folders()) == ["a-b", "a.b", "a"]
    assert list(store.list_folders("a")) == ["a/y"]
    assert list(store.list_folders("none")) == []


def test_an_empty_place_lists_nothing(store: Store) -> None:
    assert keys_of(store) == []
    assert keys_of(store, "none") == []


BAD_KEYS = [
    "",
    "/etc/passwd",
    "../secret",
    "a/../../secret",
    "a/./b",
    "a//b",
    "a/",
    "a\\b",
    "a\nb",
    "a\x00b",
    "\udcff",
    "a/.hipray-partial-1",
    "x" * 1025,
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=ascii)
def test_a_key_that_is_no_plain_relative_path_is_refused_everywhere(store: Store, key: str) -> None:
    operations = [
        store.delete,
        store.local_path,
        lambda key: store.write(key, b""),
        lambda key: store.create(key, b""),
        lambda key: store.write_file(Path(__file__), key),
    ]
    for operation in operations:
        with pytest.raises(InvalidKeyError):
            operation(key)


@pytest.mark.parametrize(
    "key", ["", "../secret", "a/../../secret", "a/./b", "a\x00b", "\udcff", "x" * 1025], ids=ascii
)
def test_a_key_that_no_object_can_have_is_refused_by_those_that_read(
    store: Store, key: str
) -> None:
    for operation in (store.read, store.info):
        with pytest.raises(InvalidKeyError):
            operation(key)


def test_a_folder_is_never_left_by_reading(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"x")
    for key in (str(outside), "../secret", "a//b"):
        with pytest.raises(InvalidKeyError):
            open_store(str(tmp_path / "archive")).read(key)


@pytest.mark.parametrize("key", ["a\\b.dcm", "a/\x85.dcm", "Müller.dcm"], ids=ascii)
def test_whatever_name_others_gave_a_file_can_be_read(tmp_path: Path, key: str) -> None:
    path = tmp_path / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"film")
    assert [i.key for i in open_store(str(tmp_path)).list()] == [key]
    assert open_store(str(tmp_path)).read(key) == b"film"


@pytest.mark.parametrize("key", ["a//b.dcm", "/a.dcm", "a\\b.dcm", "a/\x85.dcm"], ids=ascii)
def test_whatever_key_others_gave_an_object_can_be_read(s3_server: S3Server, key: str) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, [f"archive/{key}"], b"film")
    store = open_store(f"s3://{bucket}/archive", s3_server.settings)
    assert [info.key for info in store.list()] == [key]
    assert store.read(key) == b"film"
    found = store.info(key)
    assert found is not None
    assert found.size == 4


@pytest.mark.parametrize("root", ["a//b", "/a", "a\\b"])
def test_a_root_that_others_named_is_read_and_nothing_is_written_below_it(
    s3_server: S3Server, root: str
) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, [f"{root}/film.dcm", "a/b/other.dcm"], b"film")
    store = open_store(f"s3://{bucket}/{root}/", s3_server.settings)
    (info,) = store.list()
    assert info.key == "film.dcm"
    assert (store.read("film.dcm"), store.info("film.dcm")) == (b"film", info)
    with pytest.raises(InvalidKeyError):
        store.write("film.dcm", b"another")
    with pytest.raises(StorageError):
        open_store(f"s3://{bucket}/{root}//", s3_server.settings)


ODD_KEYS = [
    "a b+c%20d%2Be.dcm", " a ", "100%", "a?b=c#d&e;f", "a'b\"<c>*:~", "a/b/", "a//",
    "Röntgen/大腿骨😀.dcm", "e\u0301", "\u00e9", "a\tb",
]  # fmt: skip


def test_every_odd_key_of_a_bucket_is_listed_described_and_read_as_itself(
    s3_server: S3Server,
) -> None:
    bucket = s3_server.new_bucket()
    for key in ODD_KEYS:
        s3_server.put(bucket, [f"archive/{key}"], key.encode())
    s3_server.put(bucket, ["archive/empty.dcm", "archive/folder/"], b"")
    store = open_store(f"s3://{bucket}/archive", s3_server.settings)
    listed = list(store.list())
    assert [info.key for info in listed] == sorted([*ODD_KEYS, "empty.dcm"])
    for info in listed:
        content = b"" if info.key == "empty.dcm" else info.key.encode()
        assert store.read_object(info.key) == (content, info)
        assert store.info(info.key) == store.info_as_listed(info.key) == info


def test_a_name_in_another_coding_is_a_key_that_can_be_written_down(tmp_path: Path) -> None:
    for name in (b"M\xfcller.dcm", b"M\xf6ller/a.dcm"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name)
    store = open_store(str(tmp_path))
    keys = [info.key for info in store.list()]
    assert len({key.encode() for key in keys}) == 2
    assert {store.read(key) for key in keys} == {b"M\xfcller.dcm", b"M\xf6ller/a.dcm"}
    assert [info.key for info in store.list(start_after=keys[0])] == keys[1:]


@pytest.mark.parametrize("prefix", ["/", "..", "a/../..", "a//"])
def test_a_prefix_that_leaves_the_store_is_refused(store: Store, prefix: str) -> None:
    for operation in (store.list, store.list_folders, store.child):
        with pytest.raises(InvalidKeyError):
            operation(prefix)


def test_a_child_is_the_store_of_a_folder(store: Store) -> None:
    child = store.child("runs/a")
    child.write("done", b"x")
    assert store.read("runs/a/done") == b"x"
    assert keys_of(child) == ["done"]
    assert child.uri_of("done") == store.uri_of("runs/a/done") == f"{store.uri}/runs/a/done"


def test_a_store_goes_to_another_process_as_its_address(store: Store) -> None:
    store.write("a", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert (type(copy), copy.uri, copy.settings) == (type(store), store.uri, store.settings)
    assert copy.read("a") == b"x"
    assert open_store(store.uri, store.settings).read("a") == b"x"


def test_a_store_works_in_a_forked_child(store: Store) -> None:
    store.write("parent", b"x")
    child = os.fork()
    if child == 0:
        try:
            store.write("child", store.read("parent"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.read("child") == b"x"


def test_a_good_store_passes_the_check_and_is_left_as_it_was(store: Store) -> None:
    store.write("a", b"x")
    check_store(store)
    assert keys_of(store) == ["a"]


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3a://b/x", "s3:/bucket", "file://host/x", ""])
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_store(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://b ucket/x"])
def test_an_address_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="bucket"):
        open_store(uri)


def test_a_prefix_in_an_address_must_be_plain() -> None:
    with pytest.raises(StorageError):
        open_store("s3://bucket/a/../b")


def test_relative_paths_and_file_addresses_are_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("my runs").write("a", b"x")
    assert open_store(f"file://{tmp_path}/my%20runs").read("a") == b"x"
    assert open_store("my runs").uri == str(tmp_path / "my runs")


def test_settings_refuse_an_endpoint_that_is_no_address() -> None:
    for url in ("localhost:9000", "http://user:secret@host"):
        with pytest.raises(ValueError, match="endpoint_url"):
            StorageSettings(endpoint_url=url)


@pytest.mark.parametrize(
    "uri", ["/labels.csv", "labels.csv", "folder/labels.csv", "s3://bucket/l.csv"]
)
def test_a_file_is_found_in_the_folder_that_its_address_names(uri: str) -> None:
    store, name = open_file(uri)
    assert name == PurePosixPath(uri).name
    expected = uri if "://" in uri else str(Path(uri).absolute())
    assert store.uri_of(name).removeprefix("file://") == expected


def test_an_address_of_a_local_file_may_be_escaped() -> None:
    store, name = open_file("file:///tmp/a%20b.png")
    assert (store.uri.removeprefix("file://"), name) == ("/tmp", "a b.png")
    assert open_file("file:///x.png")[1] == "x.png"


@pytest.mark.parametrize("uri", ["folder/", "s3://bucket", "file:///"])
def test_a_folder_is_no_file(uri: str) -> None:
    with pytest.raises(NotFoundError, match=f"found '{uri}'; name a file, not a folder"):
        open_file(uri)


def test_a_folder_lies_within_another_whatever_their_addresses_look_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "films")
    monkeypatch.chdir(tmp_path)
    scores = open_store(str(tmp_path / "films" / "scores"))
    for outer in ("films", "./films/../films", "link", "/"):
        assert lies_within(scores, open_store(outer))
    assert not lies_within(open_store("films2"), open_store("films"))
    assert lies_within(open_store("s3://bucket/a/b"), open_store("s3://bucket/a"))
    assert not lies_within(open_store("s3://bucket/ab"), open_store("s3://bucket/a"))
