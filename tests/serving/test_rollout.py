"""Changes and faults while callers do not stop asking."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview, ServeStatus

from hipray.bundles.bundle import ONNX_FILE, load_bundle, publish_bundle
from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.config.storage import StorageSettings
from hipray.errors import StoreUnavailableError
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release, read_release, write_release
from hipray.runtime.memory import GIB
from hipray.serving import rollout
from hipray.serving import serve as endpoint_module
from hipray.serving.app import APPLICATION, INGRESS, STAGES_PREFIX, _live
from hipray.serving.rollout import (
    RolloutError,
    _ask_memory,
    _check_memory,
    _NotRunningError,
    _run,
    drain_time,
    end_applications,
    end_stages,
    last_line,
)
from hipray.serving.serve import ServedEndpoint, run_serve
from hipray.serving.together import StageMemory
from hipray.storage import Store, open_store
from tests.conftest import S3Server
from tests.serving.answers import TOLERANCE
from tests.serving.faulty_network import FaultyWay
from tests.serving.steady_load import SteadyLoad, assert_nobody_was_lost, is_answered
from tests.small_release import publish_small_release

STALL_S = 15.0
RECOVER_S = 240.0
"""Allowed for a replica that starts anew, on a busy machine."""


@dataclass
class Served:
    """An endpoint whose films and bundles come over a way that can fail."""

    endpoint: ServedEndpoint
    store: Store
    way: FaultyWay
    films: list[bytes]

    def config(self, release: str, **changes: Any) -> ServeRun:
        return serve_config(self.store, release, **changes)

    def load(self, *, by_uri: bool = False, callers: int = 2) -> SteadyLoad:
        if by_uri:
            names = [f"{self.store.uri}/films/{n}.dcm" for n in range(len(self.films))]
            requests: list[dict[str, Any]] = [{"json": {"uri": name}} for name in names]
        else:
            requests = [{"files": {"file": ("film", film)}} for film in self.films]
        return SteadyLoad(self.endpoint.url, requests, callers)

    def served_digest(self) -> str:
        return str(httpx.get(f"{self.endpoint.url}/readyz").json()["release_digest"])


def serve_config(store: Store, release: str, **changes: Any) -> ServeRun:
    fields = {
        "workspace": store.uri,
        "storage": store.settings,
        "release": release,
        "port": 0,
        "fused": True,
        "allow_phantom_release": True,
        "allowed_prefixes": [f"{store.uri}/films"],
        "cpus_per_stage": 0.1,
        "readers": 1,
        "block": False,
        "scaling": {"look_back_s": 2, "upscale_delay_s": 1, "downscale_delay_s": 3},
    }
    return build_config(ServeRun, {**fields, **changes})


@pytest.fixture(scope="module")
def served(ray_session: None, s3_server: S3Server, films: list[bytes]) -> Iterator[Served]:
    way = FaultyWay(int(s3_server.endpoint_url.rpartition(":")[2]))
    settings = StorageSettings(
        endpoint_url=f"http://127.0.0.1:{way.port}", max_attempts=2, connect_timeout_s=2
    )
    store = open_store(f"s3://{s3_server.new_bucket()}/work", settings)
    first = publish_small_release(store, name="first")
    shifted = first.members[0].model_copy(update={"platt_intercept": 1.0})
    second = first.model_copy(update={"name": "second", "members": (shifted, *first.members[1:])})
    altered = first.members[0].model_copy(
        update={"bundle": publish_altered(store, first.members[0].bundle)}
    )
    broken = first.model_copy(update={"name": "broken", "members": (altered, *first.members[1:])})
    for release in (second, broken):
        write_release(store, release)
    for number, film in enumerate(films):
        store.write(f"films/{number}.dcm", film)
    endpoint = run_serve(serve_config(store, "first"))
    yield Served(endpoint, store, way, films)
    endpoint.shutdown()
    way.close()


def publish_altered(store: Store, digest: str) -> str:
    """Publish a copy of a bundle whose network's bytes are not those it was published with."""
    bundle = load_bundle(store, digest)
    description = bundle.description.model_copy(update={"name": "altered"})
    copy = publish_bundle(store, description, bundle.files)
    store.write(f"bundles/{copy}/{ONNX_FILE}", bundle.files[ONNX_FILE] + b"more")
    return copy


def assert_answers_of_one_release_each(load: SteadyLoad, served: Served, *names: str) -> None:
    """Every answer has the very numbers of the release that it names."""
    releases = [read_release(served.store, name) for name in names]
    wanted = {release.digest: probabilities(served, release) for release in releases}
    for told in filter(is_answered, load.told):
        expected = wanted[told.body["release_digest"]][told.number]
        assert list_probabilities(told.body["hips"]) == pytest.approx(expected, abs=TOLERANCE)


def probabilities(served: Served, release: Release) -> list[list[float]]:
    pipeline = Pipeline(load_stages(served.store, release))
    return [
        [region.probability for hip in pipeline(film).hips for region in hip.regions]
        for film in served.films
    ]


def list_probabilities(hips: list[dict[str, Any]]) -> list[float]:
    return [region["probability"] for hip in hips for region in hip["regions"]]


@pytest.mark.ray
@pytest.mark.full
def test_a_release_takes_the_place_of_another_and_no_request_is_lost(served: Served) -> None:
    first, second = (read_release(served.store, name) for name in ("first", "second"))
    assert served.served_digest() == first.digest
    told: list[str] = []
    with served.load() as load:
        load.wait_for(is_answered, timeout_s=60)
        endpoint = run_serve(served.config("second"), announce=told.append)
        load.wait_for(is_answered, count=4, timeout_s=60)
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert endpoint.url == served.endpoint.url
    assert {t.body["release_digest"] for t in load.told} == {first.digest, second.digest}
    assert {t.body["release_digest"] for t in load.told[-2:]} == {second.digest}
    assert_answers_of_one_release_each(load, served, "first", "second")
    assert "in place of first" in told[0]
    applications = [name for name in serve.status().applications if name.startswith(STAGES_PREFIX)]
    assert len(applications) == 1


@pytest.mark.ray
@pytest.mark.full
def test_a_release_that_does_not_load_leaves_the_one_before_answering(served: Served) -> None:
    before, applications = served.served_digest(), set(serve.status().applications)
    with served.load() as load, pytest.raises(RolloutError, match="answers on") as caught:
        run_serve(served.config("broken"))
    assert caught.value.exit_code == 10
    assert ONNX_FILE in str(caught.value)
    assert "as it was published" in str(caught.value)
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert served.served_digest() == before
    assert set(serve.status().applications) == applications


def kill_replica(part: str) -> None:
    """End one replica of a deployment as the kernel would."""
    named = ray.util.list_named_actors(all_namespaces=True)
    (name, *_) = [a["name"] for a in named if part in a["name"] and "REPLICA" in a["name"]]
    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


@pytest.mark.ray
@pytest.mark.full
def test_a_stage_that_dies_costs_time_and_no_request(served: Served) -> None:
    with served.load() as load:
        load.wait_for(is_answered, timeout_s=60)
        kill_replica("#pipeline#")
        load.wait_for(is_answered, count=4, timeout_s=RECOVER_S)
    assert_nobody_was_lost(load)


@pytest.mark.ray
@pytest.mark.full
def test_an_ingress_that_dies_is_told_by_problems_until_another_is_there(served: Served) -> None:
    with served.load() as load:
        load.wait_for(is_answered, timeout_s=60)
        kill_replica(f"{APPLICATION}#{INGRESS}#")
        load.wait_for(is_answered, count=4, timeout_s=RECOVER_S)
    assert_nobody_was_lost(load)


@pytest.mark.ray
@pytest.mark.full
def test_a_store_that_stalls_makes_callers_wait_and_loses_none(served: Served) -> None:
    with served.load(by_uri=True) as load:
        load.wait_for(is_answered, timeout_s=60)
        with served.way.stalled():
            time.sleep(STALL_S)
        load.wait_for(is_answered, count=4, timeout_s=60)
    assert_nobody_was_lost(load)
    assert max(told.seconds for told in load.told) > STALL_S - 5


@pytest.mark.ray
@pytest.mark.full
def test_a_bundle_store_out_of_reach_stops_no_release_that_is_loaded(served: Served) -> None:
    before = served.served_digest()
    with served.load() as load:
        load.wait_for(is_answered, timeout_s=60)
        with served.way.cut():
            with pytest.raises(StoreUnavailableError):
                run_serve(served.config("first"))
            load.wait_for(is_answered, count=10, timeout_s=60)
            kill_replica("#pipeline#")
            time.sleep(STALL_S)
        load.wait_for(is_answered, count=4, timeout_s=RECOVER_S)
    assert_nobody_was_lost(load)
    assert served.served_digest() == before


def count_replicas() -> int:
    applications = serve.status().applications
    (home,) = [name for name in applications if name.startswith(STAGES_PREFIX)]
    return applications[home].deployments["pipeline"].replica_states.get("RUNNING", 0)


def wait_for_replicas(count: int, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while count_replicas() != count:
        assert time.monotonic() < until, f"{count_replicas()} replicas"
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.full
def test_load_starts_a_replica_and_idleness_ends_it(served: Served) -> None:
    run_serve(served.config("second", batch=1, max_replicas=2))
    with served.load(callers=12) as load:
        wait_for_replicas(2, RECOVER_S)
        load.wait_for(is_answered, count=4, timeout_s=60)
    assert_nobody_was_lost(load)
    wait_for_replicas(1, RECOVER_S)


class FakeServe:
    """Serve's applications, which end after some looks at them, or never."""

    def __init__(self, *names: str, looks: float) -> None:
        self.names, self.looks, self.deleted = {*names}, looks, set[str]()

    def delete(self, name: str, _blocking: bool = True) -> None:
        assert not _blocking  # it would fail after a minute
        self.deleted.add(name)

    def status(self) -> ServeStatus:
        self.looks -= 1
        if self.looks < 0:
            self.names -= self.deleted
        told = dict.fromkeys(self.names, ApplicationStatusOverview("RUNNING", "", 0.0, {}))
        return ServeStatus(applications=told)


@pytest.fixture
def fake_serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeServe]:
    def make(*names: str, looks: float) -> FakeServe:
        fake = FakeServe(*names, looks=looks)
        monkeypatch.setattr(rollout, "serve", fake)
        monkeypatch.setattr(rollout, "POLL_S", 0.001)
        return fake

    return make


def test_applications_are_ended_and_waited_for(
    fake_serve: Callable[..., FakeServe], caplog: pytest.LogCaptureFixture
) -> None:
    old, new = f"{STAGES_PREFIX}old", f"{STAGES_PREFIX}new"
    fake = fake_serve(old, new, "other", looks=5)
    end_stages(but=new, drain_s=30)
    assert (fake.deleted, fake.names) == ({old}, {new, "other"})
    end_applications({"never deployed"}, drain_s=30)
    assert caplog.text == ""


def test_an_application_that_does_not_end_in_time_is_told_of_and_fails_nothing(
    fake_serve: Callable[..., FakeServe], caplog: pytest.LogCaptureFixture
) -> None:
    fake = fake_serve(APPLICATION, looks=1e9)
    end_applications({APPLICATION}, drain_s=0.01)
    assert fake.deleted == {APPLICATION}
    assert f"{APPLICATION} still ends" in caplog.text


def test_replicas_may_drain_for_as_long_as_serve_lets_them() -> None:
    config = ServeRun(request_timeout_s=300)
    assert drain_time(config) > _live(config)["graceful_shutdown_timeout_s"] > 300


def test_an_endpoint_ends_all_that_was_started_for_it_whatever_fails_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def end(name: str) -> Callable[..., None]:
        def fail(*_: Any, **__: Any) -> None:
            ended.append(name)
            raise TimeoutError(name)

        return fail

    monkeypatch.setattr(endpoint_module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(endpoint_module.ray, "shutdown", end("ray"))
    for name in ("end_applications", "end_stages", "_leave_serve"):
        monkeypatch.setattr(endpoint_module, name, end(name))
    with pytest.raises(TimeoutError):
        ServedEndpoint("http://127.0.0.1:1", "first", "0", drain_s=1, owns_ray=True).shutdown()
    assert ended == ["end_applications", "end_stages", "_leave_serve", "ray"]


def test_an_application_that_starts_too_slowly_is_told_with_serves_reason(
    fake_serve: Callable[..., FakeServe], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_serve(looks=0)
    waiting = DeploymentStatusOverview("UPDATING", "CONFIG", {}, "waits for\n{GPU: 1}")
    status = ServeStatus(
        applications={"app": ApplicationStatusOverview("DEPLOYING", "", 0, {"one": waiting})}
    )
    monkeypatch.setattr(fake, "status", lambda: status)
    monkeypatch.setattr(fake, "RunTarget", lambda *_: None, raising=False)
    monkeypatch.setattr(fake, "run_many", lambda *_, **__: None, raising=False)
    with pytest.raises(_NotRunningError, match=r"within 0 s \(waits for {GPU: 1}\)"):
        _run(SimpleNamespace(), "app", None, 0.01)  # type: ignore[arg-type]


def test_stages_that_do_not_fit_together_are_not_put_behind_the_door(
    matted: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def tell(name: str, home: str) -> StageMemory:
        asked.append(name)
        return StageMemory(("here",), 2 * GIB, GIB, GIB)

    monkeypatch.setattr(rollout, "_ask_memory", tell)
    monkeypatch.setattr(rollout, "read_nodes", lambda: [None])
    with pytest.raises(_NotRunningError, match=r"4\.00 GiB or more \(1 x segmenter 2\.00, 1 x ens"):
        _check_memory(ServeRun(), matted, "home")
    assert asked == ["segmenter", "ensemble"]
    _check_memory(ServeRun(fused=True), matted, "home")


def test_a_stage_that_does_not_say_its_memory_does_not_run(
    fake_serve: Callable[..., FakeServe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: str) -> None:
        raise TimeoutError

    monkeypatch.setattr(fake_serve(looks=0), "get_deployment_handle", fail, raising=False)
    with pytest.raises(_NotRunningError, match=r"no pipeline .* \(TimeoutError\)"):
        _ask_memory("pipeline", "home")


def test_the_last_line_of_a_message_is_the_one_that_says_something() -> None:
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == ""
