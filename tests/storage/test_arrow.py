"""A store as Ray and pyarrow open it."""

import os
import pickle

import pytest
from pyarrow import fs

from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError
from hipray.storage.arrow import CHECKSUM_SWITCH, arrow_filesystem
from tests.conftest import S3Server


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_address_is_a_path_of_this_machine(tmp_path, prefix) -> None:
    filesystem, path = arrow_filesystem(f"{prefix}{tmp_path}", StorageSettings())
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert path == str(tmp_path)


def test_an_s3_address_is_a_bucket_and_a_prefix() -> None:
    filesystem, path = arrow_filesystem("s3://films/a/b/", StorageSettings(region="us-east-1"))
    assert isinstance(filesystem, fs.S3FileSystem)
    assert path == "films/a/b"


def test_an_unknown_scheme_is_refused_and_never_a_local_path() -> None:
    with pytest.raises(ConfigError, match=r"found 'az://container/work'"):
        arrow_filesystem("az://container/work", StorageSettings())


def test_a_filesystem_that_travels_is_opened_as_it_was(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CHECKSUM_SWITCH, raising=False)
    store = s3_server.new_store()
    filesystem, path = arrow_filesystem(store.uri, s3_server.settings)
    monkeypatch.delenv(CHECKSUM_SWITCH)
    elsewhere = pickle.loads(pickle.dumps(filesystem))
    assert os.environ[CHECKSUM_SWITCH] == "when_required"
    with elsewhere.open_output_stream(f"{path}/tuner.pkl") as stream:
        stream.write(b"state")
    assert store.read("tuner.pkl") == b"state"


def test_the_endpoint_of_s3_alone_counts_before_that_of_all_services(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECKSUM_SWITCH, "when_required")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    store = s3_server.new_store()
    store.write("a", b"x")
    filesystem, path = arrow_filesystem(store.uri, StorageSettings())
    assert filesystem.get_file_info(f"{path}/a").size == 1


def test_aws_itself_keeps_the_checksums_of_its_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKSUM_SWITCH, raising=False)
    arrow_filesystem("s3://films/a", StorageSettings(region="us-east-1"))
    assert CHECKSUM_SWITCH not in os.environ
