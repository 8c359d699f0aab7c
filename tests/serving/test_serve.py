"""The endpoint as it is deployed: Ray Serve, its proxy and real HTTP."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import ray
from ray import serve
from ray.serve.config import HTTPOptions

from hipray.answers import answer_as_dict
from hipray.config.base import build_config
from hipray.config.images import ImageLimits
from hipray.config.jobs import ServeRun
from hipray.errors import BundleError, ConfigError, RunBusyError
from hipray.inference import blank_hips
from hipray.pipeline import Pipeline
from hipray.releases.release import Release, read_release, write_release
from hipray.serving.address import FREE_PORTS, choose_address, find_free_port
from hipray.serving.applications import list_stage_applications
from hipray.serving.bindings import (
    bind_stages,
    build_door,
    build_stages,
    describe_setup,
    name_stages,
    read_served,
)
from hipray.serving.clock import Step, StepClock
from hipray.serving.deploying import ServingError
from hipray.serving.graph import call_stage
from hipray.serving.ingress import by_value
from hipray.serving.intake import IntakeLimits
from hipray.serving.messages import Message
from hipray.serving.problems import PROBLEM_TYPE, explain
from hipray.serving.proxies import _ask_proxies
from hipray.serving.rollout import hold_rollout
from hipray.serving.serve import ServedEndpoint, run_serve
from hipray.serving.stage_errors import ForeignReleaseError
from hipray.storage import Store
from tests.cluster.known_metrics import list_labels
from tests.conftest import S3Server
from tests.data.film_files import build_dicom, save_dicom
from tests.serving.answers import assert_same, flatten, without_request
from tests.serving.hostile_files import hostile_files

MAX_FILE_BYTES = 2_000_000
CLUSTER = Path(__file__).resolve().parent.parent.parent / "cluster"
MONITORING = (CLUSTER / "grafana.json", CLUSTER / "alerts.yaml")
OF_ENDPOINT = re.compile(r"\bray_(?:serve|hipray_(?!grid))\w+")


@dataclass(frozen=True)
class Deployed:
    """One release served split at /, and the folder that callers may name."""

    endpoint: ServedEndpoint
    allowed: Store
    config: ServeRun

    def post(self, graph: str, **options: Any) -> httpx.Response:
        path = {"split": "/v1/score", "fused": "/fused/v1/score"}[graph]
        return httpx.post(self.endpoint.url + path, timeout=120, **options)


def serve_config(workspace: Store, **changes: Any) -> ServeRun:
    fields = {
        "workspace": workspace.uri,
        "release": "matted",
        "port": 0,
        "allow_phantom_release": True,
        "cpus_per_stage": 0.1,
        "block": False,
        "limits": ImageLimits(max_file_bytes=MAX_FILE_BYTES),
    }
    return build_config(ServeRun, {**fields, **changes})


def stages_application() -> str:
    """Return the application of the model stages that are deployed split."""
    status = serve.status()
    (name,) = [
        name
        for name in list_stage_applications(status)
        if "segmenter" in status.applications[name].deployments
    ]
    return name


@pytest.fixture(scope="module")
def deployed(ray_session: None, workspace: Store, s3_server: S3Server) -> Iterator[Deployed]:
    allowed = s3_server.new_store()
    config = serve_config(
        workspace, allowed_prefixes=[f"{allowed.uri}/in"], storage=s3_server.settings
    )
    endpoint = run_serve(config)
    yield Deployed(endpoint, allowed, config)
    endpoint.shutdown()
    assert ray.is_initialized()  # it was not started for the endpoint


@pytest.fixture(scope="module")
def fused(deployed: Deployed) -> Iterator[None]:
    """The same release served fused at /fused."""
    config = deployed.config.model_copy(update={"fused": True})
    setup = describe_setup(config, read_served(config))
    serve.run(build_stages(config, setup), name=name_stages(config, setup), route_prefix=None)
    serve.run(build_door(config, setup), name="fused", route_prefix="/fused")
    yield
    serve.delete("fused")


@pytest.fixture(params=["split", pytest.param("fused", marks=pytest.mark.full)])
def graph(request: pytest.FixtureRequest) -> str:
    """How the stages lie; README's own test serves them fused."""
    if request.param == "fused":
        request.getfixturevalue("fused")
    return str(request.param)


@pytest.mark.ray
def test_the_proxies_keep_the_bounds_of_the_endpoint(deployed: Deployed, workspace: Store) -> None:
    limits = ImageLimits(max_file_bytes=MAX_FILE_BYTES)
    assert list_limits() == [IntakeLimits.of(ServeRun(limits=limits))]
    with pytest.raises(ServingError, match="lower it"):
        run_serve(serve_config(workspace, request_timeout_s=90))
    larger = ImageLimits(max_file_bytes=2 * MAX_FILE_BYTES)
    with pytest.raises(ServingError, match="max_file_bytes"):
        run_serve(serve_config(workspace, limits=larger))


def list_limits() -> list[IntakeLimits]:
    """Return what the guards of all proxies were started with."""
    return [guard.kwargs["limits"] for proxy in _ask_proxies() for guard in proxy.middlewares]


@pytest.mark.ray
def test_uploads_and_stored_films_get_the_answer_of_the_pipeline(
    deployed: Deployed, pipeline: Pipeline, films: list[bytes], graph: str
) -> None:
    probabilities = []
    for number, film in enumerate(films):
        wanted = answer_as_dict(pipeline(film))
        probabilities += [v for p, v in flatten(wanted) if p.endswith("/probability")]
        deployed.allowed.write(f"in/{number}.dcm", film)
        uri = f"{deployed.allowed.uri}/in/{number}.dcm"
        uploaded = deployed.post(graph, files={"file": ("film.dcm", film)})
        assert_same(without_request(uploaded), wanted)
        assert_same(without_request(deployed.post(graph, json={"uri": uri})), wanted)
    assert len(set(np.round(probabilities, 4))) > 6  # equal answers would prove nothing


@pytest.mark.ray
def test_callers_at_the_same_time_each_get_their_own_answer(
    deployed: Deployed, pipeline: Pipeline, films: list[bytes], graph: str
) -> None:
    def upload(film: bytes) -> httpx.Response:
        return deployed.post(graph, files={"file": ("film.dcm", film)})

    crowd = films * 3
    with ThreadPoolExecutor(len(crowd)) as pool:
        answers = list(pool.map(upload, crowd))
    wanted = [answer_as_dict(pipeline(film)) for film in films] * 3
    for answer, expected in zip(answers, wanted, strict=True):
        assert_same(without_request(answer), expected)
    assert len({answer.json()["request_id"] for answer in answers}) == len(crowd)


def endless_form() -> Iterator[bytes]:
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    for _ in range(200):
        yield b"x" * 100_000


FORM = {"content-type": "multipart/form-data; boundary=b"}

REQUESTS: list[tuple[Callable[[], dict[str, Any]], int]] = [
    (lambda: {"files": {"file": ("x", save_dicom(build_dicom(BodyPartExamined="HAND")))}}, 200),
    (lambda: {"files": {"file": ("x", b"no film")}}, 422),
    (lambda: {"files": {"file": ("x", save_dicom(build_dicom())[:-5000])}}, 422),
    (lambda: {"files": {"file": ("x", save_dicom(build_dicom(Rows=65535, Columns=65535)))}}, 413),
    (lambda: {"files": {"file": ("x", b"x" * (MAX_FILE_BYTES + 1))}}, 413),
    (lambda: {"content": endless_form(), "headers": FORM}, 413),
    (lambda: {"content": b"{}", "headers": {"content-type": "application/json"}}, 400),
    (lambda: {"json": {"uri": "s3://elsewhere/in/film.dcm"}}, 403),
    (lambda: {"content": b"film"}, 415),
]


@pytest.mark.ray
def test_hostile_requests_end_as_refusals_or_problems_and_films_are_served_on(
    deployed: Deployed, films: list[bytes], graph: str
) -> None:
    for build, status in REQUESTS:
        answer = deployed.post(graph, **build())
        assert answer.status_code == status, answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]
        if status == 200:
            assert answer.json()["refusal"] is not None
        else:
            assert answer.headers["content-type"] == PROBLEM_TYPE
    assert deployed.post(graph, files={"file": ("x", films[0])}).json()["refusal"] is None


def list_replicas() -> set[str]:
    """Return the names of all replicas that live; one that starts anew has another."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if "REPLICA" in actor["name"]}


@pytest.mark.ray
@pytest.mark.full
def test_hostile_files_end_no_replica_of_the_endpoint(
    deployed: Deployed, films: list[bytes]
) -> None:
    before = list_replicas()
    for data in hostile_files(60, seed=2):
        answer = deployed.post("split", files={"file": ("film", data)})
        assert answer.status_code in (200, 413, 422), answer.text
        if answer.status_code != 200:
            assert answer.headers["content-type"] == PROBLEM_TYPE
            assert answer.json()["code"] != "defect"
    assert deployed.post("split", files={"file": ("x", films[0])}).json()["refusal"] is None
    assert list_replicas() == before


class HangingStage:
    """Never answers, and notes what becomes of its requests."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, message: Message[str]) -> Message[str]:
        self.seen.append("begun")
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        return message

    def tell(self) -> list[str]:
        return self.seen


@pytest.mark.ray
@pytest.mark.full
def test_a_deployed_stage_sees_that_the_time_of_its_caller_is_over(deployed: Deployed) -> None:
    handle = serve.run(serve.deployment(HangingStage).bind(), name="hanging", route_prefix=None)

    async def ask() -> None:
        message = Message("digest", time.time() + 60, "film")
        async with asyncio.timeout(1):
            await call_stage(by_value(handle), message, StepClock(), Step.MODEL)

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    until = time.monotonic() + 30
    while (seen := handle.tell.remote().result()) != ["begun", "cancelled"]:
        assert time.monotonic() < until, seen
        time.sleep(0.1)
    serve.delete("hanging")


@pytest.mark.ray
def test_a_missing_key_is_the_callers_problem(deployed: Deployed) -> None:
    answer = deployed.post("split", json={"uri": f"{deployed.allowed.uri}/in/none.dcm"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM_TYPE)


@pytest.mark.ray
def test_a_deployed_stage_refuses_another_release_by_name(
    deployed: Deployed, matted: Release
) -> None:
    handle = serve.get_deployment_handle("segmenter", stages_application())
    handle = handle.options(_by_reference=False)
    foreign = Message("0" * 64, 1e12, blank_hips(matted))
    with pytest.raises(ForeignReleaseError) as caught:
        handle.remote(foreign).result(timeout_s=60)
    assert explain(caught.value).status == 503


@pytest.mark.ray
def test_liveness_readiness_and_models_answer(deployed: Deployed) -> None:
    url = deployed.endpoint.url
    assert httpx.get(f"{url}/healthz").json()["status"] == "live"
    ready = httpx.get(f"{url}/readyz").json()
    assert ready["status"] == "ready"
    assert ready["release_digest"] == deployed.endpoint.release_digest
    assert httpx.get(f"{url}/v1/models").json()["digest"] == deployed.endpoint.release_digest


@pytest.mark.ray
def test_an_endpoint_takes_the_address_of_the_ray_serve_that_runs(
    deployed: Deployed, workspace: Store
) -> None:
    chosen = choose_address(serve_config(workspace, port=0))
    assert deployed.endpoint.url == f"http://{chosen.host}:{chosen.port}"
    with pytest.raises(ServingError, match="expected an endpoint on port 1, found Ray Serve at"):
        choose_address(serve_config(workspace, port=1))


@pytest.mark.parametrize(
    ("release", "fused", "stages"),
    [
        ("matted", False, {"segment", "matte", "classify"}),
        ("matted", True, {"fused"}),
        ("whole", False, {"classify"}),
    ],
)
def test_only_the_stages_that_a_release_needs_are_bound(
    workspace: Store, release: str, fused: bool, stages: set[str]
) -> None:
    config = serve_config(workspace, fused=fused)
    setup = describe_setup(config, read_release(workspace, release))
    assert set(bind_stages(config, setup)) == stages


@pytest.mark.skipif(not Path("/proc/sys/net").exists(), reason="reads the range from /proc")
def test_a_free_port_is_none_that_an_outgoing_connection_may_take() -> None:
    assert find_free_port("127.0.0.1") in FREE_PORTS
    dealt_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert FREE_PORTS.stop <= dealt_out


@pytest.mark.parametrize(("least", "most"), [(2, 2), (2, 4)])
def test_replicas_of_a_stage_are_kept_on_as_many_nodes_as_asked_for(
    workspace: Store, least: int, most: int
) -> None:
    bounds = {"min_replicas": least, "max_replicas": most, "max_replicas_per_node": 1}
    config = serve_config(workspace, scaling={"matting": bounds})
    stages = bind_stages(config, describe_setup(config, read_release(workspace, "matted")))
    spread = {
        key: each._bound_deployment._replica_config.max_replicas_per_node
        for key, each in stages.items()
    }
    assert spread == {"segment": None, "matte": 1, "classify": None}


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.usefixtures("fused")
def test_each_graph_has_its_own_deployments() -> None:
    applications = serve.status().applications
    (fused,) = list_stage_applications(serve.status()) - {stages_application()}
    for door in ("hipray", "fused"):
        assert set(applications[door].deployments) == {"ingress"}
    split = applications[stages_application()].deployments
    assert set(split) == {"segmenter", "matting", "ensemble"}
    assert set(applications[fused].deployments) == {"pipeline"}


def test_a_ray_serve_without_a_proxy_is_no_place_for_an_endpoint(
    workspace: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(http_config=HTTPOptions(host=None))
    monkeypatch.setattr("hipray.serving.address._get_global_client", lambda **_: silent)
    with pytest.raises(ServingError, match="HTTP proxy"):
        choose_address(serve_config(workspace))


def test_one_process_at_a_time_rolls_out(ray_session: None) -> None:
    with hold_rollout(), pytest.raises(RunBusyError, match="wait for it"), hold_rollout():
        pass
    with hold_rollout():
        pass


def test_an_open_service_does_not_start(workspace: Store) -> None:
    with pytest.raises(ConfigError, match="token"):
        read_served(serve_config(workspace, host="0.0.0.0"))


def test_a_release_of_phantoms_is_served_on_request_only(workspace: Store) -> None:
    with pytest.raises(ConfigError, match="allow_phantom_release"):
        read_served(serve_config(workspace, allow_phantom_release=False))


def test_an_unknown_release_is_named_with_those_that_exist(workspace: Store) -> None:
    with pytest.raises(BundleError, match="matted"):
        read_served(serve_config(workspace, release="missing"))


def test_a_wrong_prefix_is_found_before_anything_starts(workspace: Store) -> None:
    with pytest.raises(ConfigError, match="allowed_prefixes"):
        read_served(serve_config(workspace, allowed_prefixes=["/data/in"]))


def test_a_release_of_another_preprocessing_version_is_not_served(
    workspace: Store, matted: Release
) -> None:
    old = matted.model_copy(update={"name": "old", "preprocessing_version": "0"})
    write_release(workspace, old)
    with pytest.raises(BundleError, match="preprocessing"):
        read_served(serve_config(workspace, release="old"))


@pytest.mark.ray
def test_ray_shows_what_dashboard_and_alerts_ask_of_an_endpoint(
    deployed: Deployed, films: list[bytes]
) -> None:
    deployed.post("split", files={"file": ("x", films[0])})
    deployed.post("split", files={"file": ("x", b"no film")})
    deployed.post("split", files={"file": ("x", b"x" * (20 * MAX_FILE_BYTES))})
    asked = {name for path in MONITORING for name in OF_ENDPOINT.findall(path.read_text("utf-8"))}
    refused = 'ray_hipray_refusals_total.*code="unreadable"'
    by_proxy = 'ray_hipray_problems_total(?=.*code="too_large")(?=.*release="")'
    missing = {*(f"{name}{{" for name in asked), refused, by_proxy}
    until = time.monotonic() + 60  # processes report every few seconds, each at its own time
    while missing:
        assert time.monotonic() < until, missing
        shown = httpx.get(f"{deployed.endpoint.url}/metrics", timeout=30).text
        missing -= {name for name in missing if re.search(f"^{name}", shown, re.M)}
        time.sleep(0.5)
    for name in asked:
        labels = set(re.findall(r'[{,](\w+)="', "".join(re.findall(rf"^{name}{{.*", shown, re.M))))
        assert list_labels(name) <= labels, name
