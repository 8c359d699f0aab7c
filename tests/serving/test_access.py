import logging
from hashlib import sha256
from pathlib import Path

import pytest

from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.errors import ConfigError
from hipray.serving.access import HostCheck, TokenCheck, check_exposure, check_token
from hipray.serving.problems import ProblemError

TOKENS = tuple(sha256(token).hexdigest() for token in (b"first", b"second"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_a_loopback_host_may_do_without_tokens(host: str) -> None:
    check_exposure(host, guarded=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", "127.0.0.1.evil"])
def test_a_host_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="token_sha256"):
        check_exposure(host, guarded=False)
    check_exposure(host, guarded=True)


@pytest.mark.parametrize("header", ["Bearer first", "bearer second", "BEARER  first"])
def test_any_of_the_tokens_is_accepted(header: str) -> None:
    assert check_token(header, TOKENS) in {token[:12] for token in TOKENS}


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


@pytest.mark.parametrize(
    "named",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1:8000",
        "127.0.0.1",
        "[::1]:80",
        "[::1]",
        "127.8.0.1",
    ],
)
def test_a_service_without_tokens_answers_to_its_own_names_on_any_port(named: str) -> None:
    HostCheck("127.8.0.1")(named)


@pytest.mark.parametrize(
    "named",
    [
        None, "", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io",
        "evil.example#localhost", "localhost:8000:8000", "::1", "[::1", "127.0.0.2",
    ],
)  # fmt: skip
def test_a_page_that_was_made_to_point_here_is_refused(named: str | None) -> None:
    with pytest.raises(ProblemError, match=r"\[::1\].* or set token_sha256") as caught:
        HostCheck("127.0.0.1")(named)
    assert (caught.value.problem.status, caught.value.problem.code) == (421, "misdirected")


@pytest.mark.parametrize("host", ["fd00::1", "[fd00::1]"])
def test_a_host_of_version_6_is_called_in_brackets(host: str) -> None:
    HostCheck(host)("[fd00::1]:8000")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# since spring\n{TOKENS[0]}  # ward 3\n\n")
    return path


def accepts(check: TokenCheck, token: str) -> bool:
    try:
        check(f"Bearer {token}")
    except ProblemError:
        return False
    return True


def test_without_tokens_and_without_a_file_none_is_asked_for() -> None:
    assert not TokenCheck().is_set


def test_tokens_of_the_file_and_of_the_configuration_are_accepted(token_file: Path) -> None:
    check = TokenCheck(TOKENS[1:], str(token_file))
    assert [accepts(check, token) for token in ("first", "second", "third")] == [True, True, False]


def test_a_changed_file_counts_from_the_next_request_on(token_file: Path) -> None:
    check = TokenCheck((), str(token_file))
    assert (accepts(check, "first"), accepts(check, "second")) == (True, False)
    token_file.write_text(f"{TOKENS[0]}\n{TOKENS[1]}\n")
    assert (accepts(check, "first"), accepts(check, "second")) == (True, True)
    swapped = token_file.with_name("new")
    swapped.write_text(f"{TOKENS[1]}\n")
    swapped.replace(token_file)
    assert (accepts(check, "first"), accepts(check, "second")) == (False, True)


@pytest.mark.parametrize("text", ["", "# nobody\n", "first\n", "\xff\n"])
def test_a_file_without_a_token_accepts_nobody_and_is_no_open_door(
    token_file: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    check = TokenCheck((), str(token_file))
    token_file.write_bytes(text.encode("latin-1"))
    with caplog.at_level(logging.ERROR):
        assert not accepts(check, "first")
        assert not accepts(check, "first")
    assert len(caplog.records) == (0 if text in ("", "# nobody\n") else 1)
    assert "first" not in caplog.text


def test_a_file_that_vanishes_accepts_nobody_until_it_is_back(token_file: Path) -> None:
    check, text = TokenCheck((), str(token_file)), token_file.read_text()
    token_file.unlink()
    assert not accepts(check, "first")
    token_file.write_text(text)
    assert accepts(check, "first")


@pytest.mark.parametrize("text", [None, "", "first\n"])
def test_a_service_does_not_start_with_a_token_file_that_holds_none(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match="token_file"):
        TokenCheck((), str(path))


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "bearer  "])
def test_the_digest_of_nothing_lets_nobody_in(header: str) -> None:
    with pytest.raises(ProblemError):
        check_token(header, (sha256(b"").hexdigest(),))
