"""The endpoint that a Serve config file deploys, and releases that take each other's place."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.context import _get_global_client
from ray.serve.schema import ApplicationStatus, HTTPOptionsSchema, ServeDeploySchema

from hipray.bundles.bundle import ONNX_FILE
from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.distributed.cluster import read_nodes
from hipray.releases.release import read_release
from hipray.serving import address
from hipray.serving.address import choose_address
from hipray.serving.app import BuildError, build_app
from hipray.serving.applications import (
    APPLICATION,
    INGRESS,
    end_applications,
    end_stages,
    list_stage_applications,
)
from hipray.serving.bindings import describe_setup, name_stages
from hipray.serving.deploying import QUIET, ServingError
from hipray.serving.plan import size_stages
from hipray.serving.proxies import start_proxies
from hipray.serving.serve import run_serve
from hipray.storage import Store, open_store
from tests.serving.steady_load import SteadyLoad, Told, is_answered
from tests.serving.two_releases import assert_answers_of_one_release_each, publish_releases

SETTLE_S = 200.0
"""Allowed for a release that loads, on a busy machine."""

FAST = {"look_back_s": 2, "upscale_delay_s": 1, "downscale_delay_s": 3}


@dataclass
class DeployedFile:
    """A Serve whose applications come from a file, as `serve deploy` gives it to Ray."""

    url: str
    store: Store
    films: list[bytes]

    def arguments(self, release: str) -> dict[str, Any]:
        return {
            "workspace": self.store.uri,
            "release": release,
            "allow_phantom_release": True,
            "cpus_per_stage": 0.1,
            "readers": 1,
            "scaling": FAST,
        }

    def config(self, release: str) -> ServeRun:
        return build_config(ServeRun, self.arguments(release))

    def deploy(self, release: str) -> None:
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "hipray.serving.app:build_app",
            "args": self.arguments(release),
            "deployments": [{"name": INGRESS}],
        }
        file = {"applications": [application], "logging_config": QUIET}
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(file))

    def wait_for(self, wanted: ApplicationStatus) -> None:
        until = time.monotonic() + SETTLE_S
        while (found := serve.status().applications[APPLICATION]).status != wanted:
            assert time.monotonic() < until, found
            time.sleep(0.2)

    def wait_for_stages_of(self, release: str) -> None:
        """Wait until no stages but those of one release are left."""
        published = read_release(self.store, release)
        config = size_stages(self.config(release), published, read_nodes())
        home = name_stages(config, describe_setup(config, published))
        until = time.monotonic() + SETTLE_S
        while (found := list_stage_applications(serve.status())) != {home}:
            assert time.monotonic() < until, found
            time.sleep(0.2)

    def load(self) -> SteadyLoad:
        return SteadyLoad(self.url, [{"files": {"file": ("film", film)}} for film in self.films])

    def digest(self, release: str) -> str:
        return read_release(self.store, release).digest


@pytest.fixture(scope="module")
def deployed(
    ray_session: None, tmp_path_factory: pytest.TempPathFactory, films: list[bytes]
) -> Iterator[DeployedFile]:
    store = open_store(str(tmp_path_factory.mktemp("file")))
    publish_releases(store)
    config = choose_address(ServeRun(port=0))
    start_proxies(config)
    file = DeployedFile(f"http://{config.host}:{config.port}", store, films)
    file.deploy("first")
    file.wait_for(ApplicationStatus.RUNNING)
    yield file
    end_applications({APPLICATION}, drain_s=60)
    end_stages(drain_s=60)
    serve.shutdown()


def is_from(digest: str) -> Any:
    def holds(told: Told) -> bool:
        return is_answered(told) and told.body["release_digest"] == digest

    return holds


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.full
def test_a_changed_file_swaps_the_release_and_no_request_is_lost(deployed: DeployedFile) -> None:
    first, second = deployed.digest("first"), deployed.digest("second")
    with deployed.load() as load:
        load.wait_for(is_from(first), timeout_s=60)
        deployed.deploy("second")
        load.wait_for(is_from(second), count=4, timeout_s=SETTLE_S)
        deployed.wait_for_stages_of("second")
        load.wait_for(is_from(second), count=4, timeout_s=60)
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert {told.body["release_digest"] for told in load.told[-4:]} == {second}
    assert_answers_of_one_release_each(load, deployed.store, deployed.films, "first", "second")
    assert set(serve.status().applications[APPLICATION].deployments) == {INGRESS}


@pytest.mark.ray
@pytest.mark.full
def test_a_release_that_does_not_load_fails_the_file_and_the_one_before_answers_on(
    deployed: DeployedFile,
) -> None:
    deployed.deploy("first")
    deployed.wait_for(ApplicationStatus.RUNNING)
    deployed.wait_for_stages_of("first")
    first = deployed.digest("first")
    with deployed.load() as load:
        load.wait_for(is_from(first), timeout_s=60)
        deployed.deploy("broken")
        deployed.wait_for(ApplicationStatus.DEPLOY_FAILED)
        load.wait_for(is_from(first), count=10, timeout_s=60)
        told = serve.status().applications[APPLICATION].message
        assert "expected release 'broken' to start" in told
        assert ONNX_FILE in told
        assert "Traceback" not in told
        deployed.wait_for_stages_of("first")
        deployed.deploy("first")
        deployed.wait_for(ApplicationStatus.RUNNING)
        load.wait_for(is_from(first), count=10, timeout_s=60)
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert {told.body["release_digest"] for told in load.told} == {first}


@pytest.mark.ray
@pytest.mark.full
def test_stages_that_an_abandoned_file_started_end_too(deployed: DeployedFile) -> None:
    deployed.deploy("first")
    deployed.wait_for(ApplicationStatus.RUNNING)
    deployed.wait_for_stages_of("first")
    deployed.deploy("second")
    until = time.monotonic() + SETTLE_S
    while len(list_stage_applications(serve.status())) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    deployed.deploy("first")
    deployed.wait_for(ApplicationStatus.RUNNING)
    deployed.wait_for_stages_of("first")
    answer = httpx.get(f"{deployed.url}/readyz", timeout=60)
    assert answer.json()["release_digest"] == deployed.digest("first")


@pytest.mark.ray
@pytest.mark.full
def test_hipray_serve_leaves_the_application_of_a_file_alone(deployed: DeployedFile) -> None:
    config = deployed.config("first").model_copy(update={"block": False})
    with pytest.raises(ServingError, match="from a Serve config file"):
        run_serve(config)


def test_without_a_cluster_one_sentence_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BuildError, match=r"expected a Ray cluster, .* found none; deploy the file"):
        build_app(ServeRun())


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A cluster whose Serve listens on a host, as its file's `http_options` say."""

    def listen(host: str) -> None:
        running = SimpleNamespace(http_config=HTTPOptions(host=host))
        monkeypatch.setattr(address, "_get_global_client", lambda **_: running)
        monkeypatch.setattr(address, "check_proxies", lambda config: None)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)

    return listen


def test_a_file_whose_http_options_name_no_host_is_refused_without_tokens(
    listening: Callable[[str], None],
) -> None:
    listening(HTTPOptionsSchema().host)
    with pytest.raises(BuildError, match=r"found host = '0\.0\.0\.0', no token_sha256") as caught:
        build_app(ServeRun(host="127.0.0.1"))
    assert "http_options.host" in str(caught.value)


def test_the_proxies_of_a_files_serve_are_checked(
    listening: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: ServeRun) -> None:
        raise ServingError("a shorter time limit", "90", "lower it")

    listening("127.0.0.1")
    monkeypatch.setattr(address, "check_proxies", refuse)
    with pytest.raises(BuildError, match="found 90; lower it"):
        build_app(ServeRun(request_timeout_s=90))
