"""An S3 bucket, or a folder in one, as a store: the one file that knows boto3."""

import math
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore import UNSIGNED
from botocore.config import Config as ClientConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as NoConnectionError,
)

from hipray.config.storage import DEFAULT_STORAGE, Listing, StorageSettings
from hipray.errors import (
    AccessDeniedError,
    DamagedAnswerError,
    NotFoundError,
    StorageError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from hipray.storage.addresses import Scheme
from hipray.storage.atomic import replace_file
from hipray.storage.local import explained
from hipray.storage.s3_errors import explain_failure
from hipray.storage.s3_folders import merge_folders
from hipray.storage.store import (
    ObjectInfo,
    Store,
    check_foreign_key,
    check_key,
    check_prefix,
    check_root_prefix,
    check_size,
)

COPY_BYTES = 1 << 20
"""Bytes taken at a time from an answer that goes to a file."""

SINGLE_PUT_BYTES = 64 << 20
"""Files above this size are sent in parts, several at a time."""

RETRY_WAIT_S = 0.1
"""First wait before a broken download or a conflicting create is tried again; it doubles."""

WRITER_TAG = "hipray-writer"
"""Object metadata by which a creator knows its own object after an answer got lost."""

NETWORK_ERRORS = (HTTPClientError, NoConnectionError)

TIMEOUT_ERRORS = (ConnectTimeoutError, ReadTimeoutError)
"""Network errors that mean a wait of the length that the settings allow."""

BODY_ERRORS = (*NETWORK_ERRORS, IncompleteReadError, ResponseStreamingError, FlexibleChecksumError)
"""What can break while an answer's body is read, where botocore does not try again."""

CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
)

Result = TypeVar("Result")


class S3Store(Store):
    """Objects in a bucket below a prefix; every object is written by one request.

    `uri` is `s3://bucket` or `s3://bucket/prefix`.
    """

    def __init__(self, uri: str, settings: StorageSettings = DEFAULT_STORAGE) -> None:
        super().__init__(uri, settings)
        self.bucket, _, prefix = uri.removeprefix(Scheme.S3).partition("/")
        self._root = f"{check_root_prefix(prefix)}/" if prefix else ""
        self._bucket_seen = False

    @property
    def _client(self) -> Any:
        return _process_client(self.settings, os.getpid())

    def _address(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": check_key(self._root + key)}

    def _foreign_address(self, key: str) -> dict[str, str]:
        return {
            "Bucket": self.bucket,
            "Key": self._root + check_foreign_key(key, empty_parts=True),
        }

    def place(self) -> str:
        """Return the address; see `Store.place`."""
        return self.uri.rstrip("/")

    def local_path(self, key: str) -> None:
        """Return None: an object on S3 has no local path."""
        check_key(key)

    def read_object(
        self,
        key: str,
        *,
        etag: str | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> tuple[bytes, ObjectInfo]:
        """Read an object by one GET; see `Store.read_object`."""

        def receive(answer: dict[str, Any]) -> tuple[bytes, ObjectInfo]:
            found = self._describe(key, answer, size_field="ContentLength")
            check_size(self.uri_of(key), found.size, max_bytes)
            return answer["Body"].read(), found

        condition = {} if etag is None else {"IfMatch": f'"{etag}"'}
        return self._download(key, receive, condition, timeout_s=timeout_s)

    def read_file(self, key: str, target: Path) -> None:
        """Stream an object to a local file; see `Store.read_file`."""

        def receive(answer: dict[str, Any]) -> None:
            def fill(file: BinaryIO) -> None:
                while chunk := answer["Body"].read(COPY_BYTES):
                    file.write(chunk)

            replace_file(target, fill)

        with explained(target):
            self._download(key, receive, {})

    def _download(
        self,
        key: str,
        receive: Callable[[dict[str, Any]], Result],
        condition: dict[str, str],
        *,
        timeout_s: float | None = None,
    ) -> Result:
        """GET an object and hand the answer to `receive`, again when its body breaks off."""
        last: Exception | None = None
        until = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for attempt in range(self.settings.max_attempts):
            with self._explained(key):
                answer = self._client.get_object(**self._foreign_address(key), **condition)
            try:
                with closing(answer["Body"]), _cut_off(answer["Body"], until):
                    return receive(answer)
            except BODY_ERRORS as error:
                if time.monotonic() >= until:
                    raise StoreTimeoutError(
                        f"all bytes of {self.uri_of(key)} within {timeout_s:g} s",
                        "an answer that still goes on",
                        "try again later",
                    ) from error
                last = error
                _wait(attempt)
        kind = StoreTimeoutError if isinstance(last, TIMEOUT_ERRORS) else DamagedAnswerError
        raise kind(
            f"all bytes of {self.uri_of(key)}",
            f"{self.settings.max_attempts} answers that broke off ({type(last).__name__})",
            "try again later",
        ) from last

    def write(self, key: str, data: bytes) -> ObjectInfo:
        """Write an object by one PUT; see `Store.write`."""
        with self._explained(key):
            answer = self._client.put_object(**self._address(key), **self._encryption(), Body=data)
        # a write that a store took is a write, though it names no etag of it
        return ObjectInfo(key, len(data), _etag(answer) or "", _modified(answer))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object by one PUT with `If-None-Match: *`; see `Store.create`."""
        token = uuid.uuid4().hex
        for attempt in range(self.settings.max_attempts):
            try:
                self._put_new(key, data, token)
            except ClientError as error:
                status = _status(error)
                if status == HTTPStatus.PRECONDITION_FAILED:
                    repeated = attempt > 0 or _attempts(error) > 1
                    return repeated and self._is_own(key, token)
                if status != HTTPStatus.CONFLICT:
                    raise self._failure(error, key) from error
                _wait(attempt)
            else:
                return True
        return self._settle_conflict(key)

    def _put_new(self, key: str, data: bytes, token: str) -> None:
        with self._explained(key, answers=False):
            self._client.put_object(
                **self._address(key),
                **self._encryption(),
                Body=data,
                IfNoneMatch="*",
                Metadata={WRITER_TAG: token},
            )

    def _is_own(self, key: str, token: str) -> bool:
        """Tell whether an earlier attempt of ours made the object though its answer got lost."""
        with self._explained(key):
            answer = self._client.head_object(**self._address(key))
        return bool(answer["Metadata"].get(WRITER_TAG) == token)

    def _settle_conflict(self, key: str) -> bool:
        if self.exists(key):
            return False
        raise StoreUnavailableError(
            f"one creator of {self.uri_of(key)}", "409 Conflict each time", "try again later"
        )

    def write_file(self, source: Path, key: str) -> None:
        """Write a file by one PUT, or in parts when it is large; see `Store.write_file`."""
        address = self._address(key)
        with explained(source), source.open("rb") as file, self._explained(key):
            if os.fstat(file.fileno()).st_size <= SINGLE_PUT_BYTES:
                self._client.put_object(**address, **self._encryption(), Body=file)
            else:
                parts = TransferConfig(multipart_threshold=SINGLE_PUT_BYTES, max_concurrency=4)
                self._client.upload_fileobj(
                    file, *address.values(), ExtraArgs=self._encryption(), Config=parts
                )

    def info(self, key: str) -> ObjectInfo | None:
        """Describe an object by one HEAD; see `Store.info`."""
        try:
            with self._explained(key):
                answer = self._client.head_object(**self._foreign_address(key))
        except NotFoundError:
            if not self._bucket_seen:  # the 404 of a HEAD does not tell what is missing
                self.check_root()
            return None
        self._bucket_seen = True
        return self._describe(key, answer, size_field="ContentLength")

    def check_root(self) -> None:
        """Ask for the bucket by one HEAD; see `Store.check_root`."""
        with self._explained(None, answers=False):
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                missing = _status(error) == HTTPStatus.NOT_FOUND
                failure = self._failure(error, None, code="NoSuchBucket" if missing else "")
                if missing or isinstance(failure, StoreUnavailableError):
                    raise failure from error  # others, such as a denial, do not say that it is gone
        self._bucket_seen = True

    def info_as_listed(self, key: str) -> ObjectInfo | None:
        """Describe an object by a listing of its key; see `Store.info_as_listed`."""
        address = self._foreign_address(key)
        with self._explained(key):
            answer = self._client.list_objects_v2(
                Bucket=self.bucket, Prefix=address["Key"], MaxKeys=1
            )
        for entry in answer.get("Contents", ()):
            if entry["Key"] == address["Key"]:
                return self._describe(key, entry, size_field="Size")
        return None

    def _describe(self, key: str, answer: dict[str, Any], *, size_field: str) -> ObjectInfo:
        """Return what an answer, or an entry of a listing, says of an object.

        Size and time stand for an etag that is not there.
        """
        size, etag, modified = answer.get(size_field), _etag(answer), _modified(answer)
        if size is None or (etag is None and "LastModified" not in answer):
            raise StorageError(
                f"an answer that says length and etag of {self.uri_of(key)}",
                f"one without {size_field if size is None else 'ETag and LastModified'}",
                "use a store, or a proxy before it, that keeps to S3",
            )
        return ObjectInfo(key, size, etag or f"{size:x}-{modified.timestamp():.0f}", modified)

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        passes_by: Callable[[str], bool] | None = None,
    ) -> Iterator[ObjectInfo]:
        """List the objects below a folder, page by page; see `Store.list`."""
        after = start_after or ""
        if self.settings.listing is Listing.FOLDERS:
            entries = self._walk(self._folder(prefix), self._root + after)
        else:
            options = {"StartAfter": self._root + after} if after else {}
            pages = self._pages(prefix, options)
            entries = (entry for page in pages for entry in page.get("Contents", ()))
        return self._listed(entries, after)

    def _listed(self, entries: Iterator[dict[str, Any]], start_after: str) -> Iterator[ObjectInfo]:
        last = start_after
        for entry in entries:
            key = entry["Key"].removeprefix(self._root)
            if key == last and key:
                continue  # pages may overlap while others write; some begin with `start_after`
            if key < last:
                raise StorageError(
                    f"keys in order from {self.uri}", f"{key!r} after {last!r}",
                    "set storage.listing=folders",
                )  # fmt: skip
            last = key
            # a console's marker of an empty folder has no bytes
            if entry.get("Size") or not entry["Key"].endswith("/"):
                yield self._describe(key, entry, size_field="Size")

    def _walk(self, folder: str, start_after: str) -> Iterator[dict[str, Any]]:
        """Yield the entries behind a full key, folder by folder, in the order of their keys."""
        request = {"Bucket": self.bucket, "Prefix": folder, "Delimiter": "/"}
        for key, entry in merge_folders(self._fetched_pages(request)):
            if entry is not None:
                if key > start_after:
                    yield entry
            elif key > start_after or start_after.startswith(key):
                yield from self._walk(key, start_after)

    def next_key(self, after: str) -> str | None:
        """Return the next key by a listing of one; see `Store.next_key`."""
        if self.settings.listing is Listing.FOLDERS:
            return super().next_key(after)
        # the folder's own marker is no key: the listing starts behind it
        options = {"StartAfter": self._root + after} if self._root + after else {}
        with self._explained(None):
            answer = self._client.list_objects_v2(
                Bucket=self.bucket, Prefix=self._root, MaxKeys=1, **options
            )
        found: list[str] = [entry["Key"] for entry in answer.get("Contents", ())]
        return found[0].removeprefix(self._root) if found else None

    def list_folders(self, prefix: str = "") -> Iterator[str]:
        """List the common prefixes below a folder; see `Store.list_folders`."""
        return (
            entry["Prefix"].removeprefix(self._root).removesuffix("/")
            for page in self._pages(prefix, {"Delimiter": "/"})
            for entry in page.get("CommonPrefixes", ())
        )

    def _pages(self, prefix: str, options: dict[str, str]) -> Iterator[dict[str, Any]]:
        request = {"Bucket": self.bucket, "Prefix": self._folder(prefix), **options}
        return self._fetched_pages(request)

    def _folder(self, prefix: str) -> str:
        return self._root + (f"{check_prefix(prefix)}/" if prefix else "")

    def _fetched_pages(self, request: dict[str, str]) -> Iterator[dict[str, Any]]:
        with self._explained(None):
            yield from self._client.get_paginator("list_objects_v2").paginate(**request)

    def delete(self, key: str) -> None:
        """Delete an object; see `Store.delete`."""
        with self._explained(key):
            self._client.delete_object(**self._address(key))

    def _encryption(self) -> dict[str, str]:
        wanted = self.settings.server_side_encryption
        return {"ServerSideEncryption": wanted.value} if wanted else {}

    @contextmanager
    def _explained(self, key: str | None, *, answers: bool = True) -> Iterator[None]:
        """Turn boto's errors into ours; with `answers=False` the store's refusals pass."""
        try:
            yield
        except ClientError as error:
            if not answers:
                raise
            raise self._failure(error, key) from error
        except CREDENTIAL_ERRORS as error:
            raise AccessDeniedError(
                f"AWS credentials for {self.uri}",
                f"none that can be used ({type(error).__name__})",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role",
            ) from error
        except NETWORK_ERRORS as error:
            late = isinstance(error, TIMEOUT_ERRORS)
            kind = StoreTimeoutError if late else StoreUnavailableError
            raise kind(
                f"an S3 store at {self._client.meta.endpoint_url}",
                f"no answer ({type(error).__name__})",
                "check the endpoint and the network, or try again later",
            ) from error
        # what else botocore raises of an answer that no S3 store gives: redirects without an end,
        # dates and lengths that are none
        except (BotoCoreError, ValueError, RecursionError) as error:
            raise StorageError(
                f"answers of an S3 store from {self._client.meta.endpoint_url}",
                f"others ({type(error).__name__})",
                "check the endpoint: its address, http or https, and what stands before it",
            ) from error

    def _failure(self, error: ClientError, key: str | None, *, code: str = "") -> Exception:
        answer = error.response.get("Error", {})
        return explain_failure(
            code or str(answer.get("Code", "")),
            _status(error),
            message=str(answer.get("Message", "")),
            uri=self.uri if key is None else self.uri_of(key),
            bucket=self.bucket,
        )


@contextmanager
def _cut_off(body: Any, until: float) -> Iterator[None]:
    """End a body that still arrives at a moment of the monotonic clock: its reader breaks off.

    A socket's own timeout starts anew with each byte, and a thread that reads cannot be ended.
    """
    if until == math.inf:
        yield
        return
    timer = threading.Timer(max(0.0, until - time.monotonic()), _shut_down, (body,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(body: Any) -> None:
    with suppress(RuntimeError, ValueError, OSError):  # all of it has arrived meanwhile
        body._raw_stream.shutdown()  # botocore's own close would wait for the reader


@lru_cache(maxsize=8)
def _process_client(settings: StorageSettings, process_id: int) -> Any:
    """Build the client of this process: a client must not cross a fork with its connections."""
    options = ClientConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": settings.retries.value, "total_max_attempts": settings.max_attempts},
        max_pool_connections=settings.max_pool_connections,
        request_checksum_calculation=settings.checksums.value,
        response_checksum_validation=settings.checksums.value,
        s3={"addressing_style": settings.addressing.value},
        signature_version=UNSIGNED if settings.anonymous else None,
    )
    return Session().client(
        "s3", region_name=settings.region, endpoint_url=settings.endpoint_url, config=options
    )


def _etag(answer: dict[str, Any]) -> str | None:
    etag: str | None = answer.get("ETag")
    return etag.removeprefix("W/").strip('"') if etag else None


def _modified(answer: dict[str, Any]) -> datetime:
    """In whole seconds: an HTTP date has no more, a listing of some servers has."""
    if "LastModified" in answer:
        modified: datetime = answer["LastModified"]
        return modified.astimezone(UTC).replace(microsecond=0)
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _attempts(error: ClientError) -> int:
    return 1 + error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)


def _wait(attempt: int) -> None:
    time.sleep(random.uniform(0, RETRY_WAIT_S * 2**attempt))
