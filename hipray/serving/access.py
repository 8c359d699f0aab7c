"""Who may ask: bearer tokens (RFC 6750), known to the service by their sha256 only.

Without tokens, whoever is on this machine and calls it by its own name.
"""

import hmac
import ipaddress
import logging
import re
from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from hipray.errors import ConfigError
from hipray.serving.problems import Problem, ProblemError

BEARER = "bearer"

DIGEST = re.compile(r"[0-9a-f]{64}")

CALLER_DIGITS = 12
"""Digits of a token's digest that name its holder in audit lines."""

MAX_TOKEN_FILE_BYTES = 1_000_000
"""Bytes of a token file: more than ten thousand digests."""

UNAUTHORIZED = Problem(
    HTTPStatus.UNAUTHORIZED,
    "this service needs the header 'Authorization: Bearer <token>' with a valid token",
    {"WWW-Authenticate": "Bearer"},
)

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What programs on this machine call it."""

MISDIRECTED = Problem(
    HTTPStatus.MISDIRECTED_REQUEST,
    "without tokens this service answers only who calls it localhost, 127.0.0.1, [::1] or by its "
    "configured host; call it so, or set token_sha256",
)

logger = logging.getLogger(__name__)


def check_exposure(host: str, *, guarded: bool) -> None:
    """Raise ConfigError for a service that other machines reach and anyone may use."""
    if guarded or is_loopback(host):
        return
    raise ConfigError(
        "a token for a service that other machines can reach",
        f"host = '{host}', no token_sha256 and no token_file",
        "set token_sha256 to the sha256 of a token, or host = '127.0.0.1' (in a Serve config file: "
        "http_options.host)",
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class HostCheck:
    """Accepts requests to this machine's own names, where no token tells callers apart.

    A web page whose name is made to point at loopback (DNS rebinding) reaches a service through a
    browser here and may read its answers; its requests carry the page's name.
    """

    def __init__(self, host: str) -> None:
        """`host` is where the service listens."""
        bare = host.strip("[]").lower()
        self._names = LOCAL_NAMES | {f"[{bare}]" if ":" in bare else bare}

    def __call__(self, host: str | None) -> None:
        """Raise ProblemError (421) for a Host header with another name, on whatever port."""
        if re.sub(r":\d*$", "", (host or "").lower()) not in self._names:
            raise ProblemError(MISDIRECTED)


class TokenCheck:
    """Accepts the bearer tokens whose digests the configuration or a token file names."""

    def __init__(self, token_sha256: Sequence[str] = (), token_file: str | None = None) -> None:
        """Raises ConfigError for a token file that is missing or has no digest."""
        self._fixed = tuple(token_sha256)
        self._file = None if token_file is None else TokenFile(Path(token_file))
        if token_file is not None and not Path(token_file).is_file():
            raise ConfigError(
                "a token_file with one sha256 of a token per line",
                f"no file '{token_file}'",
                "correct the path or write it first",
            )
        if self._file is not None and not self._file.read():
            raise ConfigError(
                "a token_file with one sha256 of a token per line",
                f"none in '{token_file}'",
                "write it first",
            )

    @property
    def is_set(self) -> bool:
        """Whether a token is asked for at all."""
        return self._file is not None or bool(self._fixed)

    def __call__(self, authorization: str | None) -> str:
        """Return the caller's name; raise ProblemError (401) for a header without a valid token."""
        added = () if self._file is None else self._file.read()
        return check_token(authorization, (*self._fixed, *added))


class TokenFile:
    """The digests in a file, read again when the file changes.

    A file that cannot be read, and a line that is no digest, accept nobody: the log says so once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._digests: tuple[str, ...] = ()

    def read(self) -> tuple[str, ...]:
        """Return the digests that the file has now."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen, self._digests = stamp, self._parse()
        return self._digests

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()  # of the link's target: secrets are swapped by links
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev

    def _parse(self) -> tuple[str, ...]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MAX_TOKEN_FILE_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            logger.error("the token file accepts nobody: %s", type(error).__name__)
            return ()
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        wrong = [n for n, line in enumerate(lines, 1) if line and not DIGEST.fullmatch(line)]
        if wrong:
            logger.error("the token file has lines that are no sha256: %s", wrong[:10])
        return tuple(line for line in lines if DIGEST.fullmatch(line))


def check_token(authorization: str | None, token_sha256: Sequence[str]) -> str:
    """Return the first digits of the presented token's digest, as the configuration has it.

    Raises ProblemError (401) unless the header presents one of these tokens.
    """
    scheme, _, token = (authorization or "").partition(" ")
    presented = sha256(token.strip().encode()).hexdigest()
    # every digest is compared, each in constant time: the answer's time tells nothing
    matches = [hmac.compare_digest(presented, accepted) for accepted in token_sha256]
    if scheme.lower() != BEARER or not token.strip() or not any(matches):
        raise ProblemError(UNAUTHORIZED)
    return presented[:CALLER_DIGITS]
