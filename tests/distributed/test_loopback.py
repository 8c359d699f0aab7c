"""A Ray of one machine is reached from that machine only."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from ray import serve
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from hipray.distributed.lanes import AloneConfig
from tests.processes import LOOPBACK, descendants, listening_addresses

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads sockets from /proc"),
]


def _addresses() -> set[str]:
    return listening_addresses(descendants(os.getpid()))


@contextmanager
def _watched() -> Iterator[set[str]]:
    """Collect the addresses that are listened on meanwhile, looking four times a second."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            seen.update(_addresses())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_a_private_ray_its_workers_and_its_replicas_listen_on_loopback_only(
    ray_session: None,
) -> None:
    @serve.deployment
    class Stage:
        def __call__(self) -> int:
            return len(_addresses())

    serve.start(http_options={"host": "127.0.0.1", "port": 0})
    try:
        handle = serve.run(Stage.bind(), name="loopback", route_prefix="/loopback")
        handle.options(_by_reference=False).remote().result(timeout_s=60)
        seen = _addresses()
    finally:
        serve.shutdown()
    assert seen
    assert seen <= LOOPBACK


@pytest.mark.full
def test_a_lane_of_one_worker_opens_no_port(ray_session: None, tmp_path: Path) -> None:
    with _watched() as seen:
        result = TorchTrainer(
            lambda _: ray.get_runtime_context().get_node_id(),
            torch_config=AloneConfig(),
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(name="alone", storage_path=str(tmp_path)),
        ).fit()
    assert result.return_value
    assert seen <= LOOPBACK
