from contextlib import closing

import pytest

from hipray.errors import StorageError
from tests.conftest import S3Server
from tests.storage.folder_order import FolderOrderS3

KEYS = sorted([
    "P1/a", "P1/b/c", "P1-L/a", "P1-L/b", "P1-L-2/a", "P1.dcm", "P1 x/a", "P10/a", "P1-L.dcm",
    "a/b/c/d", "a/b-c/d", "a/b.c", "é/x", "z",
])  # fmt: skip


def keys_of(store, prefix: str = "", start_after: str | None = None) -> list[str]:
    return [info.key for info in store.list(prefix, start_after=start_after)]


@pytest.mark.parametrize("prefix", ["", "films"])
def test_a_store_that_lists_folder_by_folder_is_listed_in_order_from_any_key(prefix: str) -> None:
    root = f"{prefix}/" if prefix else ""
    with closing(FolderOrderS3([root + key for key in KEYS])) as server:
        store = server.store(prefix, listing="folders")
        assert keys_of(store) == KEYS
        assert [store.next_key(after) for after in ("", "P1", "é/x")] == ["P1 x/a", "P1 x/a", None]
        for number, key in enumerate(KEYS):
            assert keys_of(store, start_after=key) == KEYS[number + 1 :]
        assert keys_of(store, "P1-L") == ["P1-L/a", "P1-L/b"]
        assert keys_of(store, "a", start_after="a/b-c/d") == ["a/b.c", "a/b/c/d"]


def test_without_the_setting_its_order_is_refused() -> None:
    with closing(FolderOrderS3(KEYS)) as server, pytest.raises(StorageError) as raised:
        keys_of(server.store())
    assert raised.value.remedy == "set storage.listing=folders"


def test_a_store_that_lists_by_keys_gives_the_same_by_folders(s3_server: S3Server) -> None:
    flat = s3_server.new_store()
    marked = ["archive/", "archive/empty/", "archive/a/"]
    s3_server.put(flat.uri.removeprefix("s3://").partition("/")[0], marked, b"")
    for key in KEYS:
        flat.write(key, b"x")
    settings = flat.settings.model_copy(update={"listing": "folders"})
    by_folders = type(flat)(flat.uri, settings)
    assert keys_of(by_folders) == keys_of(flat) == KEYS
    for key in KEYS:
        assert keys_of(by_folders, start_after=key) == keys_of(flat, start_after=key)
