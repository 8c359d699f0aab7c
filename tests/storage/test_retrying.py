"""A store out of reach for a while costs time and no operation."""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hipray.config.storage import StorageSettings
from hipray.errors import NotFoundError, StoreUnavailableError
from hipray.storage import ObjectInfo, open_store, retrying
from hipray.storage.local import LocalStore
from hipray.storage.retrying import RetryingStore
from tests.storage.outage import FailingS3


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(retrying, "LONGEST_WAIT_S", 0.2)
    server = FailingS3()
    yield server
    server.close()


def open_retrying(server, patience_s):
    settings = StorageSettings(endpoint_url=server.s3.endpoint_url, max_attempts=1)
    return RetryingStore(
        open_store(f"s3://{server.s3.new_bucket()}", settings), patience_s=patience_s
    )


def test_every_operation_waits_until_the_store_is_back(server, tmp_path) -> None:
    store = open_retrying(server, 30).child("a")
    (tmp_path / "file").write_bytes(b"file")
    for operation in (
        lambda: store.write("x", b"1"),
        lambda: store.create("y", b"2"),
        lambda: store.read("x") == b"1",
        lambda: store.exists("y"),
        lambda: [info.key for info in store.list()] == ["x", "y"],
        lambda: store.info_as_listed("x") == store.info("x"),
        lambda: store.check_root() is None,
        lambda: list(store.list_folders()) == [],
        lambda: store.write_file(tmp_path / "file", "z") is None,
        lambda: store.read_file("z", tmp_path / "copy") is None,
        lambda: store.delete("z") is None,
    ):
        server.fail_for(0.15)
        assert operation()
    assert (tmp_path / "copy").read_bytes() == b"file"
    assert server.refused >= 11


def test_patience_ends(server) -> None:
    store = open_retrying(server, 0.5)
    server.down = True
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        store.read("x")
    assert time.monotonic() - started < 5


def test_other_errors_are_not_waited_out(server) -> None:
    with pytest.raises(NotFoundError):
        open_retrying(server, 60).read("missing")


def test_it_travels_as_the_plain_store(tmp_path) -> None:
    store = open_store(str(tmp_path))
    copy = pickle.loads(pickle.dumps(RetryingStore(store, patience_s=1)))
    assert (type(copy), copy.uri) == (type(store), store.uri)


def test_a_long_listing_comes_in_pages_and_outlives_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    keys = [f"a/{number}" for number in range(7)]
    for key in keys:
        store.write(key, b"")
    listed, starts = LocalStore.list, list[str | None]()

    def fail_once(
        own: LocalStore, prefix: str = "", *, start_after: str | None = None, **options: Any
    ) -> Iterator[ObjectInfo]:
        starts.append(start_after)
        if len(starts) == 2:
            raise StoreUnavailableError("a store", "silence", "wait")
        return listed(own, prefix, start_after=start_after, **options)

    monkeypatch.setattr(retrying, "PAGE", 3)
    monkeypatch.setattr(retrying, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(LocalStore, "list", fail_once)
    assert [info.key for info in RetryingStore(store, patience_s=5).list("a")] == keys
    assert starts == [None, "a/2", "a/2", "a/5", "a/6"]
