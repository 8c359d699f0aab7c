"""A store as Ray and pyarrow want it: a filesystem and a path on it."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from hipray.config.storage import AddressingStyle, ChecksumMode, StorageSettings
from hipray.storage.addresses import Scheme, parse_address

CHECKSUM_SWITCH = "AWS_REQUEST_CHECKSUM_CALCULATION"
"""Environment variable of the AWS SDK, which pyarrow offers no option for."""


class S3Files(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow ships no types
    """pyarrow's S3 without folders, opened in every process as in the first.

    S3 has keys and no folders. pyarrow's own S3 makes them all the same when Ray asks before it
    writes: it asks for the bucket itself (HeadBucket, which a role that may list one prefix only is
    refused) and writes an empty object for each part of the path. Here making one does nothing. It
    is a handler and no subclass, because a copy of a folder makes folders within C++, past any
    method of Python.

    Uploads are streams, whose checksums are trailers: older stores answer 411 to these, so that a
    store which is not AWS gets them only where the environment asks for them.
    """

    def __init__(self, settings: StorageSettings) -> None:
        """Credentials come by the usual AWS chain; the environment is read when it is opened."""
        if _endpoint(settings) or settings.checksums is ChecksumMode.WHEN_REQUIRED:
            os.environ.setdefault(CHECKSUM_SWITCH, ChecksumMode.WHEN_REQUIRED.value)
        self._settings = settings
        self._s3 = fs.S3FileSystem(**_options(settings))

    def __reduce__(self) -> tuple[Any, ...]:
        """Open it anew from its settings."""
        return S3Files, (self._settings,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Files) and self._settings == other._settings

    __hash__ = None  # type: ignore[assignment]  # as pyarrow's own file systems

    def get_type_name(self) -> str:
        """Return the name that messages show."""
        return str(self._s3.type_name)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: the first object below a path is all that a folder is."""

    def delete_dir(self, path: str) -> None:
        """Delete all objects below a path."""
        self._s3.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all objects below a path."""
        self._s3.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        """Refuse, as pyarrow's own S3 does: it would be every bucket."""
        self._s3.delete_dir_contents("", accept_root_dir=True)

    def delete_file(self, path: str) -> None:
        """Delete an object."""
        self._s3.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        """Copy an object, then delete it."""
        self._s3.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy an object within the store."""
        self._s3.copy_file(src, dest)

    def get_file_info(self, paths: list[str]) -> Any:
        """Describe objects."""
        return self._s3.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        """Describe the objects below a path."""
        return self._s3.get_file_info(selector)

    def open_input_stream(self, path: str) -> Any:
        """Open an object to be read from its start to its end."""
        return self._s3.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        """Open an object to be read at any place."""
        return self._s3.open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """Open an object to be written."""
        return self._s3.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        """Refuse, as pyarrow's own S3 does."""
        return self._s3.open_append_stream(path, metadata=metadata)

    def normalize_path(self, path: str) -> str:
        """Return a path as pyarrow writes it."""
        return str(self._s3.normalize_path(path))


def arrow_filesystem(uri: str, settings: StorageSettings) -> tuple[fs.FileSystem, str]:
    """Return a pyarrow filesystem for `uri` and the path of `uri` on it.

    Credentials and, where none is set, the endpoint come by the usual AWS chain. Raises ConfigError
    as `parse_address`.
    """
    address = parse_address(uri)
    match address.scheme:
        case Scheme.FILE:
            return fs.LocalFileSystem(), str(Path(address.path).resolve())
        case Scheme.S3:
            return fs.PyFileSystem(S3Files(settings)), address.path.rstrip("/")


def _options(settings: StorageSettings) -> dict[str, object]:
    options: dict[str, object] = {
        "anonymous": settings.anonymous,
        "connect_timeout": settings.connect_timeout_s,
        "force_virtual_addressing": settings.addressing is AddressingStyle.VIRTUAL,
        # in the thread that writes: Ray copies several files at a time, and uploads that wait for a
        # thread of pyarrow's own pool wait for each other (apache/arrow#32372)
        "background_writes": False,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=settings.max_attempts),
    }
    if settings.region:
        options["region"] = settings.region
    if endpoint := _endpoint(settings):
        where = urlsplit(endpoint)
        options |= {"endpoint_override": where.netloc, "scheme": where.scheme}
    return options


def _endpoint(settings: StorageSettings) -> str | None:
    environment = os.environ
    return (
        settings.endpoint_url
        or environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
    )
