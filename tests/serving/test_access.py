from hashlib import sha256

import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.errors import ConfigError
from hipray.serving.access import check_exposure, check_token
from hipray.serving.problems import ProblemError

TOKENS = tuple(sha256(token).hexdigest() for token in (b"first", b"second"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_a_loopback_host_may_do_without_tokens(host: str) -> None:
    check_exposure(host, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", "127.0.0.1.evil"])
def test_a_host_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="token_sha256"):
        check_exposure(host, ())
    check_exposure(host, TOKENS)


@pytest.mark.parametrize("header", ["Bearer first", "bearer second", "BEARER  first"])
def test_any_of_the_tokens_is_accepted(header: str) -> None:
    check_token(header, TOKENS)


@pytest.mark.parametrize(
    "header", [None, "", "first", "Bearer", "Bearer ", "Basic first", "Bearer third", "Bearer é"]
)
def test_anything_else_is_refused(header: str | None) -> None:
    with pytest.raises(ProblemError) as caught:
        check_token(header, TOKENS)
    assert caught.value.problem.status == 401
    assert caught.value.problem.headers == {"WWW-Authenticate": "Bearer"}


def test_the_digest_itself_is_no_token() -> None:
    with pytest.raises(ProblemError):
        check_token(f"Bearer {TOKENS[0]}", TOKENS)


@pytest.mark.parametrize("value", ["secret", TOKENS[0].upper(), TOKENS[0][:-1]])
def test_a_token_in_clear_is_no_digest(value: str) -> None:
    with pytest.raises(ConfigError, match="token_sha256"):
        build_config(ServeRun, {"token_sha256": [value]})
