import pytest

from hipray.errors import ConfigError
from hipray.storage import Scheme, parse_address


@pytest.mark.parametrize(
    ("uri", "scheme", "path"),
    [
        ("films", Scheme.FILE, "films"),
        ("/films/a:b", Scheme.FILE, "/films/a:b"),
        ("a:b/films", Scheme.FILE, "a:b/films"),
        ("file:///my%20films", Scheme.FILE, "/my films"),
        ("s3://bucket", Scheme.S3, "bucket"),
        ("s3://bucket/my%20films#1", Scheme.S3, "bucket/my%20films#1"),
    ],
)
def test_an_address_names_a_kind_of_store_and_a_place_there(
    uri: str, scheme: Scheme, path: str
) -> None:
    address = parse_address(uri)
    assert (address.scheme, address.path) == (scheme, path)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("uri", ["gs://bucket", "s3:/bucket", "S3://bucket", "file://host/films"])
def test_an_address_of_no_store_is_refused_and_is_never_a_path(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"a local path, file:///path or s3://bucket/prefix"):
        parse_address(uri)
