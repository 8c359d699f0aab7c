"""The addresses of stores: which schemes there are, and what an address names."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from hipray.errors import ConfigError

ANY_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*:/"
"""How an address begins whose scheme may be no store's; what has none is a path or a key."""


class Scheme(StrEnum):
    """A kind of store, by what its addresses begin with."""

    FILE = "file://"
    S3 = "s3://"


@dataclass(frozen=True)
class Address:
    """What an address names."""

    scheme: Scheme
    path: str
    """Of a file: the path on this machine. On S3: the bucket, with the prefix or key in it."""

    def __str__(self) -> str:
        """The address as people write it: a path of this machine needs no scheme."""
        return self.path if self.scheme is Scheme.FILE else f"{self.scheme}{self.path}"


def parse_address(uri: str) -> Address:
    """Return what a local path, `file:///path` or `s3://bucket/prefix` names.

    Raises ConfigError on any other address.
    """
    if re.match(ANY_SCHEME, uri) is None:
        return Address(Scheme.FILE, uri)
    if uri.startswith(f"{Scheme.FILE}/"):
        return Address(Scheme.FILE, unquote(uri.removeprefix(Scheme.FILE)))
    if uri.startswith(Scheme.S3):
        return Address(Scheme.S3, uri.removeprefix(Scheme.S3))
    raise ConfigError(
        "a local path, file:///path or s3://bucket/prefix", f"'{uri}'", "correct the address"
    )
