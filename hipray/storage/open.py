"""Opening a store by its address, and checking that it keeps its promises."""

import re
import uuid
from pathlib import Path

from hipray.config.storage import DEFAULT_STORAGE, StorageSettings
from hipray.errors import ConfigError, NotFoundError, StorageError
from hipray.storage.addresses import Address, Scheme, parse_address
from hipray.storage.local import LocalStore
from hipray.storage.s3 import S3Store
from hipray.storage.store import Store, check_root_prefix

BUCKET_NAME = re.compile(r"^[A-Za-z0-9._-]{3,255}$")
"""Bucket names, the longer ones of older stores included."""


def open_store(uri: str, settings: StorageSettings = DEFAULT_STORAGE) -> Store:
    """Open the store at a local path, `file:///path` or `s3://bucket/prefix`.

    Nothing is contacted or made yet: `check_store` does that. Raises ConfigError on any other
    address.
    """
    return _open(parse_address(uri), settings)


def open_file(uri: str, settings: StorageSettings = DEFAULT_STORAGE) -> tuple[Store, str]:
    """Open the store that a file lies in; return it and the file's name there.

    Raises NotFoundError where `uri` names a folder, and ConfigError as `open_store`.
    """
    address = parse_address(uri)
    folder, slash, name = address.path.rpartition("/")
    if not name or (address.scheme is Scheme.S3 and not folder):
        raise NotFoundError("the path of a file", f"'{uri}'", "name a file, not a folder")
    return _open(Address(address.scheme, folder or slash or "."), settings), name


def lies_within(inner: Store, outer: Store) -> bool:
    """Return whether what is written to one store is listed in the other; links are followed."""
    return f"{inner.place()}/".startswith(f"{outer.place()}/")


def _open(address: Address, settings: StorageSettings) -> Store:
    match address.scheme:
        case Scheme.FILE:
            return _open_folder(address.path, settings)
        case Scheme.S3:
            return _open_bucket(address, settings)


def _open_folder(path: str, settings: StorageSettings) -> LocalStore:
    if not path or "\0" in path:
        raise ConfigError("the path of a folder", ascii(path), "name one, '.' is this folder")
    return LocalStore(str(Path(path).expanduser().absolute()), settings)


def _open_bucket(address: Address, settings: StorageSettings) -> S3Store:
    bucket, _, prefix = address.path.partition("/")
    if not BUCKET_NAME.match(bucket):
        raise ConfigError("s3://bucket or s3://bucket/prefix", f"'{address}'", "correct the bucket")
    prefix = check_root_prefix(prefix) if prefix else ""
    path = f"{bucket}/{prefix}" if prefix else bucket
    return S3Store(str(Address(Scheme.S3, path)), settings)


def check_store(store: Store) -> None:
    """Check with one small object that the store can be written, read, listed and cleaned.

    Raises the StorageError of the step that fails, and a StorageError when a second exclusive
    create replaces the first: claims and commits would then not be safe.
    """
    key = f"probe-{uuid.uuid4().hex}/object"
    try:
        _check_create(store, key)
        store.write(key, b"replaced")
        _check_read(store, key, b"replaced")
        if [found.key for found in store.list(key.partition("/")[0])] != [key]:
            raise StorageError(f"a listing of {store.uri_of(key)}", "another", "use another store")
    finally:
        store.delete(key)


def _check_create(store: Store, key: str) -> None:
    created = (store.create(key, b"first"), store.create(key, b"second"))
    if created != (True, False):
        raise StorageError(
            f"two exclusive creates in {store.uri} to give one object",
            f"{sum(created)} (this store does not honour If-None-Match: *)",
            "use a store with conditional writes",
        )
    _check_read(store, key, b"first")


def _check_read(store: Store, key: str, expected: bytes) -> None:
    found = store.read(key)
    if found != expected:
        raise StorageError(
            f"{expected!r} in {store.uri_of(key)}", f"{found!r}", "use a store that is consistent"
        )
