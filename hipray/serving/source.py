"""Films that callers name: below allow-listed s3:// prefixes or in allow-listed archives."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from hipray.config.serving import Pacs
from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError, HiprayError
from hipray.serving.pacs import DICOMWEB_SCHEME, PacsSource
from hipray.serving.problems import reject
from hipray.storage import Scheme, Store, check_foreign_key, open_store


@dataclass(frozen=True)
class _Allowed:
    parts: tuple[str, ...]
    """Scheme, bucket and folders of the prefix: the same bucket of another kind is another."""
    store: Store


SPENT = "the films of this batch exceed its size limit together; send this one in another batch"


class ByteBudget:
    """What the films of one batch may still weigh; shared by the threads that fetch them."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self.left = max_bytes

    def take(self, count: int) -> bool:
        """Take bytes; False, and nothing is left, where there are not so many."""
        with self._lock:
            fits = count <= self.left
            self.left = self.left - count if fits else 0
            return fits


READS_PER_REQUEST = 3
"""Attempts at one object within the time of one request."""


def hasten(settings: StorageSettings, timeout_s: float) -> StorageSettings:
    """Return settings by which an object is given up in the time of a request.

    A thread that waits for a store cannot be ended: it must not outlive its caller for long.
    """
    return settings.model_copy(
        update={
            "connect_timeout_s": min(settings.connect_timeout_s, timeout_s / READS_PER_REQUEST),
            "read_timeout_s": min(settings.read_timeout_s, timeout_s / READS_PER_REQUEST),
            "max_attempts": min(settings.max_attempts, READS_PER_REQUEST),
        }
    )


class FilmSource:
    """Reads the objects that callers may name."""

    def __init__(
        self,
        allowed_prefixes: Sequence[str],
        settings: StorageSettings,
        *,
        max_bytes: int,
        archives: Sequence[Pacs] = (),
    ) -> None:
        """Raises ConfigError for a prefix that is no s3:// address."""
        self._pacs = PacsSource(archives, max_bytes=max_bytes)
        self._allowed = [_open_prefix(prefix, settings) for prefix in allowed_prefixes]
        self._max_bytes = max_bytes

    def read(
        self, uri: str, budget: "ByteBudget | None" = None, *, timeout_s: float | None = None
    ) -> bytes:
        """Return the bytes of one film, never more than the limit, nor after its time.

        Raises ProblemError where `uri` is no address of a film, not allowed or beyond what
        `budget` has left, and StorageError.
        """
        if budget is not None and not budget.left:
            raise reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, SPENT)
        data = self._fetch(uri, timeout_s)
        if budget is not None and not budget.take(len(data)):
            raise reject(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, SPENT)
        return data

    def _fetch(self, uri: str, timeout_s: float | None) -> bytes:
        if uri.startswith(DICOMWEB_SCHEME):
            return self._pacs.read(uri, timeout_s=timeout_s)
        store, key = self.find(uri)
        return store.read_object(key, max_bytes=self._max_bytes, timeout_s=timeout_s)[0]

    def find(self, uri: str) -> tuple[Store, str]:
        """Return the allowed store of `uri` and the key in it; raises ProblemError.

        Prefixes match whole path segments: s3://bucket/in does not allow s3://bucket/inside. A key
        may be any that batch scoring reads, with empty segments, too.
        """
        parts = _split_uri(uri)
        for allowed in self._allowed:
            depth = len(allowed.parts)
            if parts[:depth] == allowed.parts and len(parts) > depth:
                key = check_foreign_key("/".join(parts[depth:]), empty_parts=True)
                return allowed.store, key
        raise reject(HTTPStatus.FORBIDDEN, "this service may not read from this uri")


def _split_uri(uri: str) -> tuple[str, ...]:
    bucket_and_key = uri.removeprefix(Scheme.S3)
    parts = tuple(bucket_and_key.split("/"))
    if bucket_and_key == uri or len(parts) < 2 or not parts[0] or parts[1:] == ("",):
        raise reject(HTTPStatus.BAD_REQUEST, "the uri must have the form s3://bucket/key")
    if any(part in (".", "..") for part in parts):
        raise reject(HTTPStatus.BAD_REQUEST, "the uri must not have a part '.' or '..'")
    return (Scheme.S3, *parts)


def _open_prefix(prefix: str, settings: StorageSettings) -> _Allowed:
    trimmed = prefix.removesuffix("/")
    try:
        if not trimmed.startswith(Scheme.S3):
            raise ConfigError("an s3:// address", f"'{prefix}'", "correct it")
        store = open_store(trimmed, settings)
    except HiprayError:
        raise ConfigError(
            "s3://bucket or s3://bucket/folder in allowed_prefixes", f"'{prefix}'", "correct it"
        ) from None
    return _Allowed((Scheme.S3, *trimmed.removeprefix(Scheme.S3).split("/")), store)
