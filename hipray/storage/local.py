"""A local or mounted folder as a store."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from hipray.config.storage import DEFAULT_STORAGE, StorageSettings
from hipray.errors import (
    AccessDeniedError,
    BucketMissingError,
    NotFoundError,
    StorageError,
    StoreFullError,
    StoreUnavailableError,
)
from hipray.storage.atomic import create_file, is_partial, replace_file
from hipray.storage.store import (
    ObjectInfo,
    Store,
    check_foreign_key,
    check_key,
    check_prefix,
    check_size,
    object_changed,
)

COPY_BYTES = 1 << 20
"""Bytes copied at a time from file to file."""

FolderId = tuple[int, int]
"""Device and inode of a folder."""


_PRIVATE_OF_BYTE = {0xDC80 + number: 0xF780 + number for number in range(128)}
"""Surrogates by which Python names the bytes 0x80 to 0xff, and what stands for them in keys."""
_BYTE_OF_PRIVATE = {private: byte for byte, private in _PRIVATE_OF_BYTE.items()}


class LocalStore(Store):
    """Objects as files below a folder; the folder is made by the first write.

    It follows symbolic links. Unlike S3 it cannot hold both `a` and `a/b`.
    """

    def __init__(self, uri: str, settings: StorageSettings = DEFAULT_STORAGE) -> None:
        super().__init__(uri, settings)
        self._root = Path(uri)

    def place(self) -> str:
        """Return the folder behind all links; see `Store.place`."""
        return os.path.realpath(self._root).rstrip("/")

    def check_root(self) -> None:
        """Raise where the folder is not there or empty; see `Store.check_root`.

        What a mount leaves behind when it goes is the empty folder that it was mounted on.
        """
        missing = suppress(FileNotFoundError, NotADirectoryError)
        with explained(self._root), missing, os.scandir(self._root) as entries:
            if any(entries):
                return
        raise BucketMissingError(
            f"a folder of files at {self._root}",
            "none, or an empty one",
            "check that its disk is mounted",
        )

    def local_path(self, key: str) -> Path:
        """Return where `key` lies; there need not be a file."""
        return self._root / _name_of(check_key(key))

    def _foreign_path(self, key: str) -> Path:
        return self._root / _name_of(check_foreign_key(key, empty_parts=False))

    def read_object(
        self,
        key: str,
        *,
        etag: str | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        """Read a file, which takes no `timeout_s`; see `Store.read_object`."""
        path = self._foreign_path(key)
        with explained(path), _open_regular(path) as file:
            found = _describe(key, os.fstat(file.fileno()))
            if etag not in (None, found.etag):
                raise object_changed(str(path))
            check_size(str(path), found.size, max_bytes)
            return file.read(), found

    def write(self, key: str, data: bytes) -> ObjectInfo:
        """Write a file beside the target and move it there; see `Store.write`."""
        path = self.local_path(key)
        with explained(path):
            return _describe(key, replace_file(path, lambda file: file.write(data)))

    def create(self, key: str, data: bytes) -> bool:
        """Write a file beside the target and link it there; see `Store.create`."""
        path = self.local_path(key)
        with explained(path):
            return create_file(path, lambda file: file.write(data))

    def info(self, key: str) -> ObjectInfo | None:
        """Describe a file; None for a folder, too."""
        status = _find(self._foreign_path(key))
        return _describe(key, status) if status and stat.S_ISREG(status.st_mode) else None

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        passes_by: Callable[[str], bool] | None = None,
    ) -> Iterator[ObjectInfo]:
        """List the files below a folder; see `Store.list`.

        Raises AccessDeniedError for a folder that this user may not read: what is in it would be
        lost without a word.
        """
        passes = passes_by or (lambda _: False)
        return self._walk(check_prefix(prefix), start_after or "", passes, frozenset())

    def _walk(
        self,
        folder: str,
        start_after: str,
        passes_by: Callable[[str], bool],
        above: frozenset[FolderId],
    ) -> Iterator[ObjectInfo]:
        own_id, names = self._scan(folder)
        if own_id in above:
            return  # a symbolic link that leads back up
        for name in names:
            key = f"{folder}/{name}" if folder else name
            if key.endswith("/"):
                begun = start_after.startswith(key)
                if (begun or key > start_after) and not passes_by(key):
                    yield from self._walk(key[:-1], start_after, passes_by, above | {own_id})
            elif key > start_after and (found := self._describe_listed(key)) is not None:
                yield found

    def _scan(self, folder: str) -> tuple[FolderId, Sequence[str]]:
        path = self._root / _name_of(folder)
        try:
            with explained(path):
                return _scan_folder(path)
        except AccessDeniedError as error:
            if not folder:
                raise
            raise AccessDeniedError(
                error.expected,
                error.found,
                "change its permissions, or leave it out where films are selected: "
                f"select.exclude=['{folder}/*']",
            ) from error

    def _describe_listed(self, key: str) -> ObjectInfo | None:
        path = self._root / _name_of(key)
        with explained(path), suppress(FileNotFoundError):  # deleted since
            # a link that leads nowhere is listed: who reads it is told
            status = _find(path) or path.lstat()
            listed = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
            return _describe(key, status) if listed else None
        return None

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """List the folders in a folder; see `Store.list_folders`."""
        folder = check_prefix(prefix)
        return (
            f"{folder}/{name[:-1]}" if folder else name[:-1]
            for name in self._scan(folder)[1]
            if name.endswith("/") and _holds_file(self._root / _name_of(folder) / _name_of(name))
        )

    def delete(self, key: str) -> None:
        """Delete a file and the folders that this leaves empty, as on S3."""
        path = self.local_path(key)
        with explained(path):
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
            self._remove_empty_folders(path.parent)

    def _remove_empty_folders(self, folder: Path) -> None:
        with suppress(OSError):  # not empty, or gone already
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    def write_file(self, source: Path, key: str) -> None:
        """Copy a file into the store; see `Store.write_file`."""
        _copy_file(source, self.local_path(key))

    def read_file(self, key: str, target: Path) -> None:
        """Copy a file out of the store; see `Store.read_file`."""
        _copy_file(self.local_path(key), target)


def _find(path: Path) -> os.stat_result | None:
    """Return what lies at a path, None where nothing does or a link there leads nowhere."""
    with suppress(NotFoundError), explained(path):
        return path.stat()
    return None


def _key_of(name: str) -> str:
    """Return a name as a key: bytes that are no UTF-8 become letters of the private use area.

    Old archives hold names in other codings; as surrogates they could not be written down.
    """
    return name.translate(_PRIVATE_OF_BYTE)


def _name_of(key: str) -> str:
    return key.translate(_BYTE_OF_PRIVATE)


def _copy_file(source: Path, target: Path) -> None:
    with explained(source), _open_regular(source) as file, explained(target):
        replace_file(target, lambda copy: shutil.copyfileobj(file, copy, COPY_BYTES))


def _open_regular(path: Path) -> BinaryIO:
    """Open a file; a folder or a pipe is no object, and opening a pipe must not wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))


def _describe(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        # no inode: with FUSE and CIFS another mount gives the same file another one
        etag=f"{status.st_size:x}-{status.st_mtime_ns:x}",
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def _scan_folder(path: Path) -> tuple[FolderId, Sequence[str]]:
    """Return a folder's identity and names, folders with a closing slash, in the order of keys.

    Sorting with the slash is what makes a walk in depth give S3's order: `a.b` < `a/b` < `a0`.
    Names of one folder are in memory: some 100 bytes each, so a million of them 100 MB.
    """
    try:
        status = path.stat()
        with os.scandir(path) as entries:
            names = [_key_of(e.name) + "/" * _is_folder(e) for e in entries
                     if not is_partial(e.name)]  # fmt: skip
    except (FileNotFoundError, NotADirectoryError):
        return (0, 0), ()
    names.sort()
    return (status.st_dev, status.st_ino), names


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _holds_file(folder: Path) -> bool:
    return any(
        not is_partial(name) for _, _, names in os.walk(folder, followlinks=False) for name in names
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into the StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise _local_failure(error, path) from error


def _local_failure(error: OSError, path: Path) -> StorageError:
    found = f"{path}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP:
            return NotFoundError("a file", f"none at {path}", "check the path")
        case errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
            return StorageError(
                "a name free for a file, below folders", found, "remove what is in the way"
            )
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessDeniedError("a path this user may use", found, "change its permissions")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return StoreFullError("room on the disk", found, "free some space and run again")
        case errno.EIO | errno.ESTALE | errno.ETIMEDOUT | errno.EBUSY | errno.EMFILE:
            return StoreUnavailableError("a disk that answers", found, "try again")
        case errno.ENOTSUP | errno.EMLINK | errno.EXDEV:
            return StorageError(
                "a file system with hard links", found, "use another folder for this store"
            )
    return StorageError("a path the file system takes", found, "use another name")
