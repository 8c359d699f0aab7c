"""Local files that appear complete or not at all, and stay after a power cut."""

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL_PREFIX = ".hipray-partial-"
"""How a file is named until it is complete; listings leave such names out."""

OPEN_ATTEMPTS = 16
"""Tries to open a file in a folder that another process may remove because it is empty."""


def is_partial(name: str) -> bool:
    """Tell whether a file of this name is one that a writer has not completed."""
    return name.startswith(PARTIAL_PREFIX)


def replace_file(target: Path, fill: Callable[[BinaryIO], object]) -> os.stat_result:
    """Write a file by `fill` and put it in the place of `target`; return its status."""
    with _staged_file(target.parent, fill) as (partial, status):
        partial.replace(target)
        _sync_folder(target.parent)
    return status


def create_file(target: Path, fill: Callable[[BinaryIO], object]) -> bool:
    """Write a file by `fill` as `target` unless that exists; return whether this call made it.

    A hard link to the finished file is the exclusive step (link(2)). Raises OSError.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if os.path.lexists(target):
        return False
    with _staged_file(target.parent, fill) as (partial, _):
        try:
            target.hardlink_to(partial)
        except FileExistsError:
            # On NFS an answer may get lost and the repeated call find its own link: open(2).
            return partial.stat().st_nlink > 1
        _sync_folder(target.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync(2) of the folder itself)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _staged_file(
    folder: Path, fill: Callable[[BinaryIO], object]
) -> Iterator[tuple[Path, os.stat_result]]:
    """Give a complete, durable file under a partial name, and remove that name afterwards."""
    partial = folder / f"{PARTIAL_PREFIX}{uuid.uuid4().hex}"
    descriptor = _open_new(partial)
    try:
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        yield partial, status
    finally:
        partial.unlink(missing_ok=True)


def _open_new(path: Path) -> int:
    for _ in range(OPEN_ATTEMPTS - 1):
        try:
            return _make_folder_and_open(path)
        except FileNotFoundError:
            continue
        except NotADirectoryError as error:
            raise FileExistsError(errno.EEXIST, error.strerror, str(path)) from error
    return _make_folder_and_open(path)


def _make_folder_and_open(path: Path) -> int:
    _make_folder(path.parent)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # another writer made it, and it may be gone again
        folder.mkdir()
    _sync_folder(folder.parent)
