"""The store: objects under keys, the same on a local folder and on S3.

A key is a relative POSIX path. A prefix is a folder: `list("a")` holds `a/b` and never `ab`.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from hipray.config.storage import DEFAULT_STORAGE, StorageSettings
from hipray.errors import StorageError
from hipray.storage.atomic import PARTIAL_PREFIX, is_partial

MAX_KEY_BYTES = 1024
"""Longest key in UTF-8 bytes (Amazon S3 user guide, "Naming objects")."""


class ObjectTooLargeError(StorageError):
    """The object is larger than the caller accepts; its body was not downloaded."""


class ObjectChangedError(StorageError):
    """The object is not the one that the caller asks for; its body was not downloaded."""


class InvalidKeyError(StorageError):
    """The key is not a plain relative path."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows of an object without reading it."""

    key: str
    """Path relative to the store."""
    size: int
    """Bytes."""
    etag: str
    """Changes when the content does; not a digest that can be recomputed. A folder knows a change
    by size and time of writing, as rsync does. Empty where a store took a write and named none."""
    modified: datetime
    """Time of the last write, in UTC, by the store's clock."""


def check_key(key: str) -> str:
    """Return `key`; raise InvalidKeyError unless it is a plain relative POSIX path."""
    problem = _key_problem(key)
    if problem is not None:
        raise InvalidKeyError(
            "a key that is a relative path such as 'runs/a/done.json'",
            f"{key!a} ({problem})",
            "correct the key",
        )
    return key


def check_foreign_key(key: str, *, empty_parts: bool) -> str:
    """Return the `key` of an object that others made; raise InvalidKeyError where none can be it.

    `empty_parts` tells whether `a//b` is another object than `a/b`.
    """
    forbidden = {".", ".."} if empty_parts else {"", ".", ".."}
    if not key or forbidden & set(key.split("/")):
        problem: str | None = f"a part of it is one of {sorted(forbidden)}"
    else:
        problem = _coding_problem(key)
    if problem is not None:
        raise InvalidKeyError("a key that a store can hold", f"{key!a} ({problem})", "correct it")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` without its closing slash; raise InvalidKeyError as `check_key` does."""
    return check_key(prefix.removesuffix("/")) if prefix else ""


def check_root_prefix(prefix: str) -> str:
    """Return the prefix of a bucket's folder without its closing slash.

    Others may have made it, so its parts may be what S3 allows, empty ones between them included:
    below such a root nothing can be written. Raises InvalidKeyError.
    """
    folder = prefix.removesuffix("/")
    if not folder or folder.endswith("/"):  # its address would be that of the folder above
        return check_key(folder)
    return check_foreign_key(folder, empty_parts=True)


def _key_problem(key: str) -> str | None:
    parts = key.split("/")
    if not key:
        return "it is empty"
    if key.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "a part of it is empty, '.' or '..'"
    if any(map(is_partial, parts)):
        return f"names that begin with {PARTIAL_PREFIX} are reserved"
    return _text_problem(key)


def _text_problem(key: str) -> str | None:
    categories = set(map(unicodedata.category, key))
    if "\\" in key:
        return "it has a backslash"
    if "Cc" in categories:
        return "it has a control character"
    return _coding_problem(key)


def _coding_problem(key: str) -> str | None:
    if "\0" in key:
        return "it has a null character"
    if any(unicodedata.category(letter) == "Cs" for letter in key):
        return "it is not valid UTF-8"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"it is longer than {MAX_KEY_BYTES} bytes"
    return None


def check_size(uri: str, size: int, max_bytes: int | None) -> None:
    """Raise ObjectTooLargeError when an object of `size` bytes exceeds `max_bytes`."""
    if max_bytes is not None and size > max_bytes:
        raise ObjectTooLargeError(
            f"at most {max_bytes} bytes", f"{size} bytes at {uri}", "raise the limit or leave it"
        )


def object_changed(uri: str) -> ObjectChangedError:
    """Return the error of an object whose etag is another than the one that was asked for."""
    return ObjectChangedError("the object as it was", f"another at {uri}", "list it again")


class Store(ABC):
    """A folder of objects, local or on S3; safe to share between threads.

    A store travels to another process as its address and settings, never with a connection.
    Every operation raises a StorageError: AccessDeniedError, StoreUnavailableError (trying again
    may help), StoreFullError, InvalidKeyError, and NotFoundError where it says so or where the
    bucket does not exist.
    """

    def __init__(self, uri: str, settings: StorageSettings = DEFAULT_STORAGE) -> None:
        self.uri = uri
        self.settings = settings

    def __reduce__(self) -> tuple[type[Self], tuple[str, StorageSettings]]:
        return type(self), (self.uri, self.settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def uri_of(self, key: str) -> str:
        """Return the full address of `key`, for messages and tables."""
        return f"{self.uri.rstrip('/')}/{key}"

    @abstractmethod
    def place(self) -> str:
        """Return where the store really is, for comparison: every name of it has this one."""

    @abstractmethod
    def check_root(self) -> None:
        """Raise BucketMissingError where the store is gone as a whole, asking it at this moment.

        An object may be missing because its bucket is, or because its disk is no longer mounted.
        """

    def child(self, prefix: str) -> Self:
        """Return the store of the folder `prefix` below this one."""
        return type(self)(self.uri_of(check_prefix(prefix)), self.settings)

    def read(self, key: str) -> bytes:
        """Read an object whole; raise NotFoundError when there is none."""
        return self.read_object(key)[0]

    def exists(self, key: str) -> bool:
        """Tell whether there is an object under `key`."""
        return self.info(key) is not None

    @abstractmethod
    def read_object(
        self,
        key: str,
        *,
        etag: str | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        """Read an object and what describes these very bytes, in one request.

        Raises NotFoundError, ObjectTooLargeError before the body is downloaded, and
        StoreTimeoutError where bytes still arrive after `timeout_s`, however steadily. With an
        `etag`, a store that can compare raises ObjectChangedError for an object of another; some
        cannot, and give it.
        """

    @abstractmethod
    def write(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object, replacing any; a reader sees the old or the new bytes, never a part."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write an object only where there is none; return whether this call made it.

        Of any number of callers exactly one gets True, and the object is complete when seen.
        """

    @abstractmethod
    def info(self, key: str) -> ObjectInfo | None:
        """Describe an object without reading it; None when there is none."""

    def info_as_listed(self, key: str) -> ObjectInfo | None:
        """Describe an object as `list` does now; of some stores reading it gives another etag."""
        return self.info(key)

    @abstractmethod
    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        passes_by: Callable[[str], bool] | None = None,
    ) -> Iterator[ObjectInfo]:
        """List the objects below a folder in the order of their keys, as they are fetched.

        `start_after` is a full key: listing goes on with the first key after it. `passes_by` is
        asked about each folder of a local store, by its key with a closing slash, and keeps the
        walk out of it; S3 lists keys whatever folders they seem to be in. Keys that others
        made and `check_key` refuses are listed and can be read; writing them raises
        InvalidKeyError.
        """

    def next_key(self, after: str) -> str | None:
        """Return the first key after `after`, or None: a probe of where keys are."""
        found = next(self.list(start_after=after), None)
        return found.key if found else None

    @abstractmethod
    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """List the keys of the folders directly below `prefix` that hold an object, in order."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object; no error when there is none."""

    @abstractmethod
    def write_file(self, source: Path, key: str) -> None:
        """Write the content of a local file as `write` does, without holding it in memory."""

    @abstractmethod
    def read_file(self, key: str, target: Path) -> None:
        """Copy an object to a local file that appears complete; raise NotFoundError."""

    @abstractmethod
    def local_path(self, key: str) -> Path | None:
        """Return where `key` lies in a local folder, to map it into memory; None on S3."""
