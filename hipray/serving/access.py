"""Who may ask: bearer tokens (RFC 6750), known to the service by their sha256 only."""

import hmac
import ipaddress
from collections.abc import Sequence
from hashlib import sha256
from http import HTTPStatus

from hipray.errors import ConfigError
from hipray.serving.problems import Problem, ProblemError

SCHEME = "bearer"

UNAUTHORIZED = Problem(
    HTTPStatus.UNAUTHORIZED,
    "this service needs the header 'Authorization: Bearer <token>' with a valid token",
    {"WWW-Authenticate": "Bearer"},
)


def check_exposure(host: str, token_sha256: Sequence[str]) -> None:
    """Raise ConfigError for a service that other machines reach and anyone may use."""
    if token_sha256 or is_loopback(host):
        return
    raise ConfigError(
        "a token for a service that other machines can reach",
        f"host = '{host}' and no token_sha256",
        "set token_sha256 to the sha256 of a token, or host = '127.0.0.1'",
    )


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(authorization: str | None, token_sha256: Sequence[str]) -> None:
    """Raise ProblemError (401) unless the header presents an accepted token; none set, all pass."""
    if not token_sha256:
        return
    scheme, _, token = (authorization or "").partition(" ")
    presented = sha256(token.strip().encode()).hexdigest()
    # every digest is compared, each in constant time: the answer's time tells nothing
    matches = [hmac.compare_digest(presented, accepted) for accepted in token_sha256]
    if scheme.lower() != SCHEME or not any(matches):
        raise ProblemError(UNAUTHORIZED)
