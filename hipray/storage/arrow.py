"""A store as Ray and pyarrow want it: a filesystem and a path on it."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from hipray.config.storage import AddressingStyle, ChecksumMode, StorageSettings
from hipray.errors import ConfigError

CHECKSUM_SWITCH = "AWS_REQUEST_CHECKSUM_CALCULATION"
"""Environment variable of the AWS SDK, which pyarrow offers no option for."""


class S3Files(fs.S3FileSystem):  # type: ignore[misc]  # pyarrow ships no types
    """pyarrow's S3 that is opened in every process as in the first, its checksums included.

    Its uploads are streams, whose checksums are trailers: older stores answer 411 to these, so
    that a store which is not AWS gets them only where the environment asks for them.
    """

    def __init__(self, settings: StorageSettings) -> None:
        """Credentials come by the usual AWS chain; the environment is read when it is opened."""
        if _endpoint(settings) or settings.checksums is ChecksumMode.WHEN_REQUIRED:
            os.environ.setdefault(CHECKSUM_SWITCH, ChecksumMode.WHEN_REQUIRED.value)
        super().__init__(**_options(settings))
        self._settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        """Open it anew from its settings."""
        return S3Files, (self._settings,)


def arrow_filesystem(uri: str, settings: StorageSettings) -> tuple[fs.FileSystem, str]:
    """Return a pyarrow filesystem for `uri` and the path of `uri` on it.

    Credentials and, where none is set, the endpoint come by the usual AWS chain.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file", "s3"):
        raise ConfigError("a local path, file:///path or s3://bucket/prefix", f"'{uri}'",
                          "correct the address")  # fmt: skip
    if parts.scheme != "s3":
        return fs.LocalFileSystem(), str(Path(parts.path if parts.scheme else uri).resolve())
    return S3Files(settings), f"{parts.netloc}{parts.path}".rstrip("/")


def _options(settings: StorageSettings) -> dict[str, object]:
    options: dict[str, object] = {
        "anonymous": settings.anonymous,
        "connect_timeout": settings.connect_timeout_s,
        "force_virtual_addressing": settings.addressing is AddressingStyle.VIRTUAL,
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
