"""The service in this process: real stages and decoders behind the real HTTP interface."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle

from hipray.bundles.loading import Loading
from hipray.config.jobs import ServeRun
from hipray.data.pseudonyms import Pseudonyms
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, read_release
from hipray.runtime.engine import Engine
from hipray.serving import applications, deploying, logs
from hipray.serving.access import HostCheck, TokenCheck
from hipray.serving.admission import Admission
from hipray.serving.api import build_api
from hipray.serving.graph import FusedGraph, Graph, SplitGraph
from hipray.serving.ingress import build_service, by_value
from hipray.serving.service import ScoringService
from hipray.serving.stages import (
    EnsembleStage,
    FusedStage,
    MattingStage,
    SegmenterStage,
    StageSetup,
)
from hipray.storage import Store, open_store
from hipray.vocab import Runtime, View
from tests.serving.documented import assert_documented
from tests.serving.fake_serve import FakeServe
from tests.small_release import draw_phantoms, publish_small_release

ONNX_ON_CPU = Engine(Runtime.ONNX)
"""What is chosen for releases whose bundles all have an export."""

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("served")))
    publish_small_release(store, name="matted")
    publish_small_release(store, name="whole", view=View.WHOLE, segmenters=False)
    return store


@pytest.fixture(scope="session")
def films() -> list[bytes]:
    """Three hips and a pelvis, which has two."""
    return list(draw_phantoms(4, seed=11, n_patients=3, pelvis_films=1).values())


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """One event loop for all tests: batches and semaphores belong to the loop they began on."""
    with asyncio.Runner() as runner:
        yield runner.run


def stage_setup(workspace: Store, release: Release) -> StageSetup:
    return StageSetup(
        workspace=workspace.uri,
        storage=workspace.settings,
        release_text=release.model_dump_json(),
        batch=4,
        batch_wait_s=0.01,
        cpus=1,
        engine=ONNX_ON_CPU,
        memory_gib=None,
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as the deployed stages, and small networks gain nothing from more


@pytest.fixture(scope="session", autouse=True)
def batches_outside_a_replica() -> Iterator[None]:
    """Leave out a warning of @serve.batch: Ray 2.60 asks a replica's context for its threshold,
    and local testing mode has none."""
    with pytest.MonkeyPatch.context() as patch:
        name = "_warn_if_max_batch_size_exceeds_max_ongoing_requests"
        patch.setattr(f"ray.serve.batching._BatchQueue.{name}", lambda queue: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def logs_outside_a_replica() -> Iterator[None]:
    """Leave hipray's logger to pytest where this process runs what opens a replica's logs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "ROOT", logging.getLogger("replica"))
        yield


def start_stage(stage: type, setup: StageSetup) -> DeploymentHandle:
    """Start a stage as Ray Serve does, in a thread of this process and without a cluster."""
    app = serve.deployment(stage).options(max_ongoing_requests=16).bind(setup)
    return serve.run(app, name=stage.__name__, _local_testing_mode=True)


@pytest.fixture(scope="session")
def matted(workspace: Store) -> Release:
    return read_release(workspace, "matted")


@pytest.fixture(scope="session")
def split_graph(workspace: Store, matted: Release) -> SplitGraph:
    setup = stage_setup(workspace, matted)
    segment, matte, classify = (
        start_stage(stage, setup) for stage in (SegmenterStage, MattingStage, EnsembleStage)
    )
    return SplitGraph(
        matted,
        by_value(segment),
        by_value(matte),
        by_value(classify),
        by_value(classify, "explain"),
    )


@pytest.fixture(scope="session")
def fused_graph(workspace: Store, matted: Release) -> FusedGraph:
    stage = start_stage(FusedStage, stage_setup(workspace, matted))
    return FusedGraph(matted.digest, by_value(stage), by_value(stage, "explain"))


@pytest.fixture(scope="session")
def pipeline(workspace: Store, matted: Release) -> Pipeline:
    return Pipeline(load_stages(workspace, matted, Loading(ONNX_ON_CPU, explaining=True)))


@dataclass(frozen=True)
class LocalApi:
    """The HTTP interface, reached without a socket; every answer must be as it is documented."""

    app: Any
    run: Run
    service: ScoringService

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.request(method, path, **options)
        assert_documented(answer)
        return answer

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.run(self.send("GET", path, **options))

    def post(self, path: str = "/v1/score", **options: Any) -> httpx.Response:
        return self.run(self.send("POST", path, **options))

    def upload(self, film: bytes, **options: Any) -> httpx.Response:
        return self.post(files={"file": ("film", film)}, **options)


@pytest.fixture
def make_api(split_graph: SplitGraph, run: Run) -> Iterator[Callable[..., LocalApi]]:
    services = []

    def make(
        *,
        graph: Graph | None = None,
        running: int = 4,
        pseudonyms: Pseudonyms | None = None,
        **changes: Any,
    ) -> LocalApi:
        config = ServeRun(readers=1, **changes)
        service = build_service(config, split_graph.release, ONNX_ON_CPU, graph or split_graph)
        services.append(service)
        app = build_api(
            service,
            Admission(running=running, waiting=config.queue),
            max_file_bytes=config.limits.max_file_bytes,
            check_token=TokenCheck(config.token_sha256, config.token_file),
            check_host=HostCheck(config.host),
            pseudonyms=pseudonyms,
        )
        return LocalApi(app, run, service)

    yield make
    for service in services:
        service.close()


@pytest.fixture
def fake_serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeServe]:
    def make(*names: str, looks: float) -> FakeServe:
        fake = FakeServe(*names, looks=looks)
        for module in (applications, deploying):
            monkeypatch.setattr(module, "serve", fake)
        monkeypatch.setattr(applications, "POLL_S", 0.001)
        return fake

    return make
