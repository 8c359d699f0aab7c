"""A store that waits out an outage instead of losing a lane's hours of work.

The S3 client tries each request again for some seconds; a store that restarts, or a network that
is away for minutes, is longer away than that.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from hipray.config.storage import StorageSettings
from hipray.errors import StoreUnavailableError
from hipray.storage.open import open_store
from hipray.storage.store import ObjectInfo, Store

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
"""Waits double from the first to the longest, each with a jitter of half."""

PAGE = 10_000
"""Keys of a listing that are asked for again as one."""

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


class RetryingStore(Store):
    """Another store whose every operation is tried again while the store is out of reach.

    `create` keeps its promise in one direction: True means that this call made the object. An
    answer lost in an outage may make it False for an object of our own, which costs a claimed fit
    one lease, or a committed fit nothing.
    """

    def __init__(self, store: Store, *, patience_s: float) -> None:
        super().__init__(store.uri, store.settings)
        self._inner = store
        self._patience_s = patience_s

    def __reduce__(self) -> Any:
        return self._inner.__reduce__()  # it travels as the plain store

    def place(self) -> str:
        """Return the place of the store behind this one; see `Store.place`."""
        return self._inner.place()

    def check_root(self) -> None:
        """Raise where the store is gone; see `Store.check_root`."""
        self._persist(self._inner.check_root)

    def child(self, prefix: str) -> Self:
        """Return the store of the folder `prefix` below this one, as patient as this one."""
        return type(self)(self._inner.child(prefix), patience_s=self._patience_s)

    def read_object(
        self,
        key: str,
        *,
        etag: str | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        """Read an object; see `Store.read_object`."""
        return self._persist(
            lambda: self._inner.read_object(
                key, etag=etag, max_bytes=max_bytes, timeout_s=timeout_s
            )
        )

    def write(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object; see `Store.write`."""
        return self._persist(lambda: self._inner.write(key, data))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object where there is none; see `Store.create`."""
        return self._persist(lambda: self._inner.create(key, data))

    def info(self, key: str) -> ObjectInfo | None:
        """Describe an object; see `Store.info`."""
        return self._persist(lambda: self._inner.info(key))

    def info_as_listed(self, key: str) -> ObjectInfo | None:
        """Describe an object as a listing does; see `Store.info_as_listed`."""
        return self._persist(lambda: self._inner.info_as_listed(key))

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        passes_by: Callable[[str], bool] | None = None,
    ) -> Iterator[ObjectInfo]:
        """List a folder, a page at a time in memory; see `Store.list`."""

        def list_page() -> tuple[ObjectInfo, ...]:
            found = self._inner.list(prefix, start_after=start_after, passes_by=passes_by)
            return tuple(islice(found, PAGE))

        while page := self._persist(list_page):
            yield from page
            start_after = page[-1].key

    def next_key(self, after: str) -> str | None:
        """Return the first key after `after`; see `Store.next_key`."""
        return self._persist(lambda: self._inner.next_key(after))

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """List the folders below a folder; see `Store.list_folders`."""
        return iter(self._persist(lambda: tuple(self._inner.list_folders(prefix))))

    def delete(self, key: str) -> None:
        """Delete an object; see `Store.delete`."""
        self._persist(lambda: self._inner.delete(key))

    def write_file(self, source: Path, key: str) -> None:
        """Write a file; see `Store.write_file`."""
        self._persist(lambda: self._inner.write_file(source, key))

    def read_file(self, key: str, target: Path) -> None:
        """Copy an object to a file; see `Store.read_file`."""
        self._persist(lambda: self._inner.read_file(key, target))

    def local_path(self, key: str) -> Path | None:
        """Return where an object lies on disk; see `Store.local_path`."""
        return self._inner.local_path(key)

    def _persist(self, call: Callable[[], ResultT]) -> ResultT:
        """Call until the store answers; raise StoreUnavailableError when patience is used up."""
        until = time.monotonic() + self._patience_s
        wait = FIRST_WAIT_S
        while True:
            try:
                return call()
            except StoreUnavailableError as error:
                if time.monotonic() + wait > until:
                    raise
                logger.warning("waiting for the store, %.0f s left: %s",
                               until - time.monotonic(), error)  # fmt: skip
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT_S)


def open_retrying_store(uri: str, settings: StorageSettings, *, patience_s: float) -> RetryingStore:
    """Open a store as driver and workers of long runs use it: they wait out its outages."""
    return RetryingStore(open_store(uri, settings), patience_s=patience_s)
