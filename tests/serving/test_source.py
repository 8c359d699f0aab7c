import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipray.config.storage import DEFAULT_STORAGE
from hipray.errors import ConfigError, NotFoundError
from hipray.serving.films import URI_PATTERN
from hipray.serving.pacs import DICOMWEB_SCHEME, PacsSource
from hipray.serving.problems import ProblemError
from hipray.serving.source import FilmSource, hasten
from hipray.storage import InvalidKeyError, ObjectTooLargeError
from tests.conftest import S3Server


def source(*prefixes: str) -> FilmSource:
    return FilmSource(prefixes, DEFAULT_STORAGE, max_bytes=100)


@pytest.mark.parametrize("prefix", ["s3://bucket/in", "s3://bucket/in/"])
def test_a_key_below_an_allowed_prefix_is_found(prefix: str) -> None:
    store, key = source("s3://other", prefix).find("s3://bucket/in/a/film.dcm")
    assert (store.uri, key) == ("s3://bucket/in", "a/film.dcm")


def test_a_whole_bucket_may_be_allowed() -> None:
    store, key = source("s3://bucket").find("s3://bucket/film.dcm")
    assert (store.uri, key) == ("s3://bucket", "film.dcm")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/inside/film.dcm",
        "s3://bucket/in",
        "s3://bucket/film.dcm",
        "s3://bucket2/in/film.dcm",
        "s3://Bucket/in/film.dcm",
        "s3://bucket/%69n/film.dcm",
        "s3://user@bucket/in/film.dcm",
    ],
)
def test_a_key_outside_the_prefix_is_forbidden(uri: str) -> None:
    with pytest.raises(ProblemError) as caught:
        source("s3://bucket/in").find(uri)
    assert caught.value.problem.status == 403


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/in/../secret.dcm",
        "s3://bucket/in/./film.dcm",
        "s3://bucket",
        "s3://bucket/",
        "s3:///in/film.dcm",
        "s3:/bucket/in/film.dcm",
        "S3://bucket/in/film.dcm",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "/etc/passwd",
        "in/film.dcm",
        "",
    ],
)
def test_what_is_no_plain_s3_address_is_a_bad_request(uri: str) -> None:
    with pytest.raises(ProblemError) as caught:
        source("s3://bucket/in").find(uri)
    assert caught.value.problem.status == 400


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 1025])
def test_a_key_that_no_store_holds_is_refused_before_the_store_is_asked(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        source("s3://bucket/in").read(f"s3://bucket/in/{key}")


@pytest.mark.parametrize("key", ["a//film.dcm", "/film.dcm", "a/", "a\\b.dcm", "a..b/c"])
def test_whatever_key_batch_scoring_reads_may_be_named(key: str, s3_server: S3Server) -> None:
    bucket = s3_server.new_bucket()
    s3_server.put(bucket, [f"in/{key}"], b"film")
    films = FilmSource([f"s3://{bucket}/in"], s3_server.settings, max_bytes=100)
    assert films.read(f"s3://{bucket}/in/{key}") == b"film"
    assert re.search(URI_PATTERN, f"s3://{bucket}/in/{key}")


@pytest.mark.parametrize("key", ["", ".", "..", "a/./b", "../b", "a/..", "a\0"])
def test_the_document_rules_out_keys_that_no_store_holds(key: str) -> None:
    assert not re.search(URI_PATTERN, f"s3://bucket/{key}")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(uri=st.from_regex(URI_PATTERN))
def test_what_the_document_allows_is_never_a_malformed_address(uri: str) -> None:
    find = (
        PacsSource((), max_bytes=1).find
        if uri.startswith(DICOMWEB_SCHEME)
        else source("s3://bucket/in").find
    )
    with pytest.raises(ProblemError) as caught:
        find(uri)
    assert caught.value.problem.status == 403


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(ProblemError) as caught:
        source().find("s3://bucket/in/film.dcm")
    assert caught.value.problem.status == 403


@pytest.mark.parametrize("prefix", ["bucket/in", "file:///data", "s3://", "s3://b", "s3://bu/../x"])
def test_a_prefix_that_is_no_s3_address_is_a_config_error(prefix: str) -> None:
    with pytest.raises(ConfigError, match="allowed_prefixes"):
        source(prefix)


def test_objects_are_read_within_the_size_limit(s3_server: S3Server) -> None:
    store = s3_server.new_store()
    store.write("in/small", b"x" * 100)
    store.write("in/large", b"x" * 101)
    films = FilmSource([f"{store.uri}/in"], s3_server.settings, max_bytes=100)
    assert films.read(f"{store.uri}/in/small") == b"x" * 100
    with pytest.raises(ObjectTooLargeError):
        films.read(f"{store.uri}/in/large")
    with pytest.raises(NotFoundError):
        films.read(f"{store.uri}/in/missing")


def test_a_store_is_given_up_within_the_time_of_a_request() -> None:
    hastened = hasten(DEFAULT_STORAGE, 30)
    assert hastened.read_timeout_s * hastened.max_attempts <= 30
    assert hastened.endpoint_url == DEFAULT_STORAGE.endpoint_url
    patient = hasten(DEFAULT_STORAGE, 600)
    assert patient.read_timeout_s == DEFAULT_STORAGE.read_timeout_s
