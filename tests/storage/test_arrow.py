"""A store as Ray and pyarrow open it."""

import os
import pickle
import re
from pathlib import Path

import pytest
from moto.moto_server.werkzeug_app import MotoRequestHandler
from pyarrow import fs

from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError
from hipray.storage.arrow import CHECKSUM_SWITCH, arrow_filesystem
from tests.conftest import MotoServer, S3Server


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_address_is_a_path_of_this_machine(tmp_path, prefix) -> None:
    filesystem, path = arrow_filesystem(f"{prefix}{tmp_path}", StorageSettings())
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert path == str(tmp_path)


def test_an_s3_address_is_a_bucket_and_a_prefix() -> None:
    filesystem, path = arrow_filesystem("s3://films/a/b/", StorageSettings(region="us-east-1"))
    assert filesystem.type_name == "py::s3"
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
    assert elsewhere == filesystem
    assert os.environ[CHECKSUM_SWITCH] == "when_required"
    with elsewhere.open_output_stream(f"{path}/tuner.pkl") as stream:
        stream.write(b"state")
    assert store.read("tuner.pkl") == b"state"


@pytest.fixture
def asked(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first lines of what the S3 server is asked from here on."""
    lines: list[str] = []
    if not isinstance(s3_server, MotoServer):
        pytest.skip("the server is not of this process")
    monkeypatch.setattr(
        MotoRequestHandler, "log_request", lambda self, *_: lines.append(self.requestline)
    )
    return lines


def _is_within(line: str, root: str) -> bool:
    """Whether a role that reads, writes and lists below `bucket/prefix` only may ask this."""
    bucket, _, prefix = root.partition("/")
    listing = rf"GET /{bucket}\?(\S+&)?prefix={prefix}(%2F|[& ])"
    deleting = rf"POST /{bucket}\?delete "  # of keys, each of which counts by itself
    return re.match(rf"\w+ /{root}/|{listing}|{deleting}", line) is not None


def test_ray_opens_and_fills_a_store_whose_role_knows_one_prefix_only(
    s3_server: S3Server, asked: list[str], tmp_path: Path
) -> None:
    from ray.train.v2._internal.execution import storage as ray_storage

    store = s3_server.new_store()
    filesystem, root = arrow_filesystem(store.uri, s3_server.settings)
    asked.clear()
    ray_storage.StorageContext(f"{root}/train", "lane", storage_filesystem=filesystem)
    for name in ("a/state.json", "b/deep/result.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}", "utf-8")
    ray_storage._upload_to_fs_path(str(tmp_path), filesystem, f"{root}/tune")
    ray_storage._upload_to_fs_path(
        str(tmp_path), filesystem, f"{root}/tune", exclude=["*/state.json"]
    )
    assert [line for line in asked if not _is_within(line, root)] == []
    assert [line for line in asked if re.match(r"PUT \S+/ ", line)] == [], "markers of folders"
    written = {found.key for found in store.list()}
    assert {"tune/a/state.json", "tune/b/deep/result.json"} < written
    ray_storage.delete_fs_path(filesystem, f"{root}/tune")
    assert written - {found.key for found in store.list()} >= {"tune/a/state.json"}
    assert [line for line in asked if not _is_within(line, root)] == []


def test_pyarrows_own_s3_asks_for_the_bucket_itself(s3_server: S3Server, asked: list[str]) -> None:
    where = s3_server.endpoint_url.removeprefix("http://")
    plain = fs.S3FileSystem(endpoint_override=where, scheme="http", region="us-east-1")
    root = s3_server.new_store().uri.removeprefix("s3://")
    plain.create_dir(f"{root}/train")
    assert not all(_is_within(line, root) for line in asked if root.split("/")[0] in line)


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
