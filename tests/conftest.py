"""Fixtures for every test: an S3 server on loopback, one Ray, no real secrets, a small grid."""

import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hipray.config.storage import StorageSettings
from hipray.storage import Store, open_store

if TYPE_CHECKING:
    from tests.small_workspace import SmallArchive, SmallGrid, SmallWorkspace

AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}

OWN_SERVER = "HIPRAY_TEST_S3"
"""Environment variable: the S3 server to test against, with the keys of the AWS_* variables."""


SHARED = frozenset({"ray_session", "small_archive", "small_workspace", "small_grid"})
"""Fixtures that are dear to make: all tests that need them run in one process."""

SHARED_GROUP = "shared"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests for two processes: those with shared fixtures, and each other module.

    The longest come first, so that neither process waits for the other at the end.
    """
    groups = {item: _group_of(item) for item in items}
    slow = {groups[item] for item in items if item.get_closest_marker("cluster")}
    items.sort(key=lambda item: (groups[item] != SHARED_GROUP, groups[item] not in slow))
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))


def _group_of(item: pytest.Item) -> str:
    shares = SHARED & set(getattr(item, "fixturenames", ()))
    return SHARED_GROUP if shares else item.nodeid.partition("::")[0]


@pytest.fixture(scope="session", autouse=True)
def aws_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        for name, value in AWS_ENVIRONMENT.items():
            patch.setenv(name, os.environ.get(name, value) if OWN_SERVER in os.environ else value)
        yield


@dataclass(frozen=True)
class S3Server:
    """An S3 server on loopback, or where the environment says."""

    endpoint_url: str

    @property
    def settings(self) -> StorageSettings:
        return StorageSettings(endpoint_url=self.endpoint_url)

    def new_bucket(self) -> str:
        import boto3

        bucket = f"hipray-{uuid.uuid4().hex[:12]}"
        boto3.client("s3", endpoint_url=self.endpoint_url).create_bucket(Bucket=bucket)
        return bucket

    def put(self, bucket: str, keys: Iterable[str], body: bytes = b"x") -> None:
        """Write objects past the package's own door, whatever their keys."""
        import boto3

        client = boto3.client("s3", endpoint_url=self.endpoint_url)
        for key in keys:
            client.put_object(Bucket=bucket, Key=key, Body=body)

    def new_store(self) -> Store:
        return open_store(f"s3://{self.new_bucket()}/archive", self.settings)


class MotoServer(S3Server):
    """A moto server of this process: it keeps objects in memory and accepts any credentials."""

    def put(self, bucket: str, keys: Iterable[str], body: bytes = b"x") -> None:
        """Write objects into its memory, which takes no request each."""
        from moto.s3.models import s3_backends

        backend = s3_backends["123456789012"]["aws"]
        for key in keys:
            backend.put_object(bucket, key, body)


def _serialise(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Answer one request at a time: moto checks If-None-Match and writes in two steps."""
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            return list(app(environ, start_response))

    return answer


@pytest.fixture(scope="session")
def s3_server(aws_environment: None) -> Iterator[S3Server]:
    if own := os.environ.get(OWN_SERVER):
        yield S3Server(own)
        return
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    app = _serialise(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield MotoServer(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def ray_session(aws_environment: None) -> Iterator[None]:
    """One private Ray for all tests marked `ray`; workers inherit the environment set here."""
    import ray

    from hipray.distributed.cluster import RAY_ENVIRONMENT, start_here
    from hipray.distributed.loopback import SWITCH
    from hipray.serving.running import ENVIRONMENT

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in {**RAY_ENVIRONMENT, **ENVIRONMENT, SWITCH: "0"}.items():
            patch.setenv(name, value)
        start_here(cpus=4)
        yield
        ray.shutdown()


@pytest.fixture(scope="session", autouse=True)
def decoded_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The node's folder of decoded films, empty at the start of a test session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HIPRAY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> "SmallArchive":
    """34 phantom films of 30 patients with annotations and a DXA table; do not write to it."""
    from tests.small_workspace import write_archive

    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def small_workspace(
    tmp_path_factory: pytest.TempPathFactory, small_archive: "SmallArchive"
) -> "SmallWorkspace":
    """The small archive, ingested; tests that train write only below runs/ and fits/."""
    from tests.small_workspace import ingest

    return ingest(tmp_path_factory.mktemp("workspace"), small_archive)


@pytest.fixture(scope="session")
def small_grid(small_workspace: "SmallWorkspace", decoded_cache: Path) -> "SmallGrid":
    """A finished grid on the small workspace: three segmenters and six classifiers."""
    from tests.small_workspace import grid_config, train_grid

    return train_grid(small_workspace.store, grid_config(small_workspace.store))
