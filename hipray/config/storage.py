"""How the store is reached: the S3 settings of every job, the same in driver and workers."""

from enum import StrEnum

from pydantic import Field

from hipray.config.base import Config


class ChecksumMode(StrEnum):
    """When botocore adds a checksum to a request and checks that of an answer."""

    WHEN_SUPPORTED = "when_supported"
    WHEN_REQUIRED = "when_required"


class AddressingStyle(StrEnum):
    """Where a request names the bucket: chosen by botocore, in the path or in the host name."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class Encryption(StrEnum):
    """The server-side encryption a write asks for (`x-amz-server-side-encryption`)."""

    AES256 = "AES256"
    KMS = "aws:kms"


class RetryMode(StrEnum):
    """How botocore tries again: with pauses alone, or also sending less while it is throttled."""

    STANDARD = "standard"
    ADAPTIVE = "adaptive"


class Listing(StrEnum):
    """How the keys of a bucket are listed in their order."""

    FLAT = "flat"
    FOLDERS = "folders"


class StorageSettings(Config):
    """How S3 is reached. Credentials are never here: they come by the usual AWS chain."""

    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+/?$")
    """Address of an S3-compatible store; None takes AWS_ENDPOINT_URL, or AWS itself."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    """Region of the bucket; None takes AWS_DEFAULT_REGION or the profile."""
    checksums: ChecksumMode = ChecksumMode.WHEN_SUPPORTED
    """`when_required` for older stores that answer 411 to trailer checksums."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds to wait for a connection, per attempt."""
    read_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for the next bytes of an answer, per attempt."""
    max_attempts: int = Field(default=6, ge=1, le=20)
    """Attempts per request, the first included; the waits between them double, with jitter."""
    retries: RetryMode = RetryMode.STANDARD
    """`adaptive` limits the rate of a process' requests while the store throttles it."""
    max_pool_connections: int = Field(default=32, ge=1)
    """Connections kept per process; use at least as many as threads that read at once."""
    server_side_encryption: Encryption | None = None
    """Encryption asked for on each write; off, because some stores refuse the header."""
    addressing: AddressingStyle = AddressingStyle.AUTO
    """`path` for stores without a host name per bucket."""
    listing: Listing = Listing.FLAT
    """`folders` for stores that list folder by folder, such as SeaweedFS, where `a/x` may come
    before `a-b/x`: it costs a request for each folder."""
    anonymous: bool = False
    """Send unsigned requests: for public buckets only."""


DEFAULT_STORAGE = StorageSettings()
"""AWS as the environment describes it."""
