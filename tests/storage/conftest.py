"""A store of each kind, and an S3 server that answers as told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hipray.storage import Store, open_store
from tests.storage.scripted import ScriptedS3


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "archive"))
    new: Store = request.getfixturevalue("s3_server").new_store()
    return new


@pytest.fixture
def scripted_s3() -> Iterator[ScriptedS3]:
    scripted = ScriptedS3()
    yield scripted
    scripted.close()
