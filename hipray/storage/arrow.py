"""A store as Ray and pyarrow want it: a filesystem and a path on it."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError


def arrow_filesystem(uri: str, settings: StorageSettings) -> tuple[fs.FileSystem, str]:
    """Return a pyarrow filesystem for `uri` and the path of `uri` on it.

    Credentials come by the usual AWS chain; AWS_ENDPOINT_URL counts where no endpoint is set.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file", "s3"):
        raise ConfigError("a local path, file:///path or s3://bucket/prefix", f"'{uri}'",
                          "correct the address")  # fmt: skip
    if parts.scheme != "s3":
        return fs.LocalFileSystem(), str(Path(parts.path if parts.scheme else uri).resolve())
    endpoint = settings.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, object] = {"region": settings.region} if settings.region else {}
    if endpoint:
        where = urlsplit(endpoint)
        options |= {"endpoint_override": where.netloc, "scheme": where.scheme}
    return fs.S3FileSystem(**options), f"{parts.netloc}{parts.path}".rstrip("/")
