"""A store as Ray and pyarrow open it."""

import pytest
from pyarrow import fs

from hipray.config.storage import StorageSettings
from hipray.errors import ConfigError
from hipray.storage.arrow import arrow_filesystem


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_address_is_a_path_of_this_machine(tmp_path, prefix):
    filesystem, path = arrow_filesystem(f"{prefix}{tmp_path}", StorageSettings())
    assert isinstance(filesystem, fs.LocalFileSystem)
    assert path == str(tmp_path)


def test_an_s3_address_is_a_bucket_and_a_prefix():
    filesystem, path = arrow_filesystem("s3://films/a/b/", StorageSettings(region="us-east-1"))
    assert isinstance(filesystem, fs.S3FileSystem)
    assert path == "films/a/b"


def test_an_unknown_scheme_is_refused_and_never_a_local_path():
    with pytest.raises(ConfigError, match=r"found 'az://container/work'"):
        arrow_filesystem("az://container/work", StorageSettings())
