"""Changes and faults while callers do not stop asking."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import ray
from ray import serve

from hipray.bundles.bundle import ONNX_FILE
from hipray.config.base import build_config
from hipray.config.jobs import ServeRun
from hipray.config.storage import StorageSettings
from hipray.errors import StoreUnavailableError
from hipray.releases.release import Release, read_release
from hipray.serving import rollout
from hipray.serving import serve as endpoint_module
from hipray.serving.applications import APPLICATION, INGRESS, STAGES_PREFIX
from hipray.serving.bindings import name_stages
from hipray.serving.deploying import NotRunningError
from hipray.serving.ingress import DoorPlan
from hipray.serving.rollout import RolloutError, deploy
from hipray.serving.serve import ServedEndpoint, run_serve
from hipray.storage import Store, open_store
from tests.conftest import S3Server
from tests.serving.conftest import stage_setup
from tests.serving.faulty_network import FaultyWay
from tests.serving.steady_load import SteadyLoad, assert_nobody_was_lost, is_answered
from tests.serving.two_releases import assert_answers_of_one_release_each, publish_releases

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
    publish_releases(store)
    for number, film in enumerate(films):
        store.write(f"films/{number}.dcm", film)
    endpoint = run_serve(serve_config(store, "first"))
    yield Served(endpoint, store, way, films)
    endpoint.shutdown()
    way.close()


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
    assert_answers_of_one_release_each(load, served.store, served.films, "first", "second")
    assert "in place of first" in told[0]
    applications = [name for name in serve.status().applications if name.startswith(STAGES_PREFIX)]
    assert len(applications) == 1


@pytest.mark.ray
@pytest.mark.full
@pytest.mark.parametrize(
    ("release", "reason"),
    [("broken", f"{ONNX_FILE} .*as it was published"), ("astray", "the golden log_odds of astray")],
)
def test_a_release_that_does_not_start_leaves_the_one_before_answering(
    served: Served, release: str, reason: str
) -> None:
    before, applications = served.served_digest(), set(serve.status().applications)
    with served.load() as load, pytest.raises(RolloutError, match="answers on") as caught:
        run_serve(served.config(release))
    assert caught.value.exit_code == 10
    assert re.search(reason, str(caught.value))
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


@pytest.mark.ray
@pytest.mark.full
def test_each_stage_of_the_split_graph_may_die_and_costs_no_request(served: Served) -> None:
    run_serve(served.config("first", fused=False))
    with served.load() as load:
        for stage in ("segmenter", "matting", "ensemble"):
            load.wait_for(is_answered, count=2, timeout_s=60)
            kill_replica(f"#{stage}#")
            load.wait_for(is_answered, count=4, timeout_s=RECOVER_S)
    assert_nobody_was_lost(load)


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


GONE = StoreUnavailableError("a store", "none", "try again")


@pytest.fixture
def rollout_log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a rollout asks of Serve, in order: whose door it deploys, whose stages it ends."""
    asked: list[str] = []
    monkeypatch.setattr(rollout, "deploy_stages", lambda config, setup: asked.append("stages"))
    monkeypatch.setattr(rollout, "build_door", lambda config, setup: f"door of {setup.batch}")
    monkeypatch.setattr(rollout, "run_application", lambda door, *_: asked.append(door))
    monkeypatch.setattr(
        rollout, "end_applications", lambda names, *, drain_s: asked.append(f"ends {[*names]}")
    )
    return asked


def fail_once(asked: list[str], name: str, error: BaseException) -> Callable[..., None]:
    """Fail at the first call; later ones are noted."""

    def act(*args: Any, **_: Any) -> None:
        first = not any(word.startswith(name) for word in asked)
        asked.append(name if first else str(args[0]))
        if first:
            raise error

    return act


@pytest.fixture
def plans(matted: Release) -> tuple[DoorPlan, DoorPlan]:
    """What answers, and what takes its place, over a store that nobody reaches any more."""
    old = stage_setup(open_store("/nowhere"), matted)
    new = replace(old, batch=9, release_text=named(matted, "new").model_dump_json())
    config = ServeRun(workspace="/nowhere")
    return DoorPlan(config, old, False), DoorPlan(config, new, False)


def named(release: Release, name: str) -> Release:
    return release.model_copy(update={"name": name})


@pytest.mark.parametrize(
    "error", [GONE, TimeoutError("late"), NotRunningError("no"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("where", ["deploy_stages", "run_application"])
def test_whatever_stops_a_rollout_leaves_the_old_door_and_no_new_stages(
    rollout_log: list[str],
    plans: tuple[DoorPlan, DoorPlan],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: BaseException,
) -> None:
    before, new = plans
    monkeypatch.setattr(rollout, where, fail_once(rollout_log, where, error))
    with pytest.raises((RolloutError, KeyboardInterrupt)) as caught:
        deploy(new.config, new.setup, before=before)
    ends = f"ends {[name_stages(new.config, new.setup)]}"
    restores = {"deploy_stages": [], "run_application": ["door of 4"]}[where]
    assert rollout_log[rollout_log.index(where) + 1 :] == [*restores, ends]
    told = caplog.text if isinstance(caught.value, KeyboardInterrupt) else str(caught.value)
    assert "release 'matted' answers on" in told


def test_an_undoing_that_fails_itself_goes_on_and_tells_what_stopped_the_rollout(
    rollout_log: list[str], plans: tuple[DoorPlan, DoorPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise TimeoutError("no controller")

    before, new = plans
    monkeypatch.setattr(rollout, "run_application", fail)
    with pytest.raises(RolloutError, match=r"TimeoutError \(no controller\); .* answers on"):
        deploy(new.config, new.setup, before=before)
    assert rollout_log[-1].startswith("ends")


def test_stages_that_the_old_door_asks_too_stay_where_a_rollout_stops(
    rollout_log: list[str], plans: tuple[DoorPlan, DoorPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = plans
    where = "run_application"
    monkeypatch.setattr(rollout, where, fail_once(rollout_log, where, GONE))
    with pytest.raises(RolloutError):
        deploy(before.config, before.setup, before=before)
    assert rollout_log == ["stages", where, "door of 4"]
