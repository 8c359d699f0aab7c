"""Jobs on several nodes, each a process of this machine: a head without CPUs, workers with GPUs."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from hipray.storage import Store, open_store
from hipray.vocab import Variant
from tests.cluster.machines import Machines, free_port, running_autoscaler, running_machines
from tests.processes import LOOPBACK, descendants, listening_addresses
from tests.small_release import draw_phantoms, publish_small_release
from tests.small_workspace import SmallWorkspace, grid_config, write_files

pytestmark = [
    pytest.mark.full,
    pytest.mark.cluster,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads sockets from /proc"),
]

GUARDED = ("jobs/", "version", "nodes?view=summary", "serve/applications/", "cluster_status")
PATIENCE_S = 240


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A head and two workers with two CPUs and a GPU each."""
    with running_machines(tmp_path_factory.mktemp("m"), workers=2) as machines:
        yield machines


@pytest.mark.timeout(500)
def test_two_workers_are_asked_before_a_job_and_strangers_are_not_answered(
    machines: Machines, tmp_path: Path
) -> None:
    for path in GUARDED:
        assert httpx.get(f"{machines.dashboard}/api/{path}", timeout=30).status_code == 401
    planned = machines.submit(
        "grid", "--preset", "demo", "--workspace", str(tmp_path), "--dry-run",
        "--set", "scaling.lanes=6", "--set", "scaling.gpus_per_lane=0.5",
    )  # fmt: skip
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "3 nodes: 4 CPU, 2 GPU; token on" in planned.stdout
    assert "workers    2 asked" in planned.stdout
    assert "there is room for 4, the others wait for room" in planned.stdout
    addresses = listening_addresses(descendants(machines.process.pid))
    assert addresses
    assert addresses <= LOOPBACK


@pytest.mark.timeout(1200)
def test_grid_score_and_serve_run_on_several_nodes(
    machines: Machines, small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    words = _grid(small_workspace.store, run="nodes", gpus=0.5)
    trained = machines.submit(*words, timeout_s=900)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "6 of 6 fits done, 6 trained now" in trained.stdout
    again = machines.submit(*words)
    assert _submission_of(again).endswith("-2"), "an ended submission has another attempt"
    assert "0 trained now" in again.stdout
    wrong = machines.submit("grid", "--set", "scaling.lane=1")
    assert wrong.returncode == 2, "a scheduler sees the job's own exit code"
    store = open_store(str(tmp_path / "releases"))
    publish_small_release(store)
    _score_on(machines, store.uri, tmp_path)
    _serve_on(machines, store.uri)
    assert listening_addresses(descendants(machines.process.pid)) <= LOOPBACK


def _submission_of(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the submission id that submit.py told."""
    told = re.search(r"^submission (\S+)$", ended.stderr, re.M)
    assert told, ended.stderr
    return told[1]


def _grid(store: Store, *, run: str, gpus: float, epochs: int = 1) -> list[str]:
    """Words that submit a grid of three segmenters and three classifiers on two lanes.

    Runs of one workspace share the fits of equal settings.
    """
    config = grid_config(store, run=run, variants=(Variant.ORIGINAL,))
    words = [
        "grid", "--workspace", config.workspace, "--run", config.run,
        "--regions", json.dumps(config.regions), "--label-types", json.dumps(config.label_types),
        "--backbones", json.dumps(config.backbones), "--variants", json.dumps(config.variants),
    ]  # fmt: skip
    settings = {
        "scaling.lanes": 2, "scaling.gpus_per_lane": gpus, "scaling.idle_lane_s": 5,
        "experiment.data.working_px": config.experiment.data.working_px,
        "experiment.split.folds": 3, "experiment.segmenter.size_px": 64,
        "experiment.segmenter.encoder": "mobilenet_v2", "experiment.segmenter.epochs": 1,
        "experiment.segmenter.decoder_channels": [32, 32, 16, 16, 16],
        "experiment.classifier.size_px": 64, "experiment.classifier.epochs": epochs,
    }  # fmt: skip
    pairs = (f"{key}={json.dumps(value)}" for key, value in settings.items())
    return [*words, *(word for pair in pairs for word in ("--set", pair))]


@pytest.mark.timeout(1200)
def test_nodes_come_for_a_grid_and_go_after_it(
    small_workspace: SmallWorkspace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_autoscaler(tmp_path_factory.mktemp("a"), most_workers=2) as machines:
        assert machines.count_nodes() == 1
        words = _grid(small_workspace.store, run="grown", gpus=1, epochs=2)
        started = machines.submit("--no-wait", *words)
        assert started.returncode == 0, started.stdout + started.stderr
        _wait_until(lambda: machines.count_nodes() == 3)
        ended = machines.submit(*words, timeout_s=900)  # the same submission: it is followed
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "6 of 6 fits done" in ended.stdout
        assert _submission_of(ended) == _submission_of(started)
        _wait_until(lambda: machines.count_nodes() == 1)
        assert listening_addresses(descendants(machines.process.pid)) <= LOOPBACK


def _score_on(machines: Machines, workspace: str, folder: Path) -> None:
    write_files(folder / "films", draw_phantoms(6))
    output = folder / "scores"
    scored = machines.submit(
        "score", "--workspace", workspace, "--release", "small", "--images", str(folder / "films"),
        "--output", str(output), "--allow-phantom-release", "true", "--set", "shard_files=2",
    )  # fmt: skip
    assert scored.returncode == 0, scored.stdout + scored.stderr
    assert "6 files listed" in scored.stdout


def _serve_on(machines: Machines, workspace: str) -> None:
    """Serve as a job, ask it, stop the job: the endpoint goes and the scheduler reads 143."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    words = ["serve", "--workspace", workspace, "--release", "small", "--port", str(port),
             "--allow-phantom-release", "true",
             "--set", "cpus_per_stage=0.4", "--set", "gpus_per_stage=0"]  # fmt: skip
    started = machines.submit("--no-wait", *words)
    assert started.returncode == 0, started.stdout + started.stderr
    submission = _submission_of(started)
    _wait_until(lambda: _ready(url))
    ((name, film),) = draw_phantoms(1, seed=9).items()
    answer = httpx.post(f"{url}/v1/score", files={"file": (name, film)}, timeout=60)
    assert answer.status_code == 200, answer.text
    stop = httpx.post(
        f"{machines.dashboard}/api/jobs/{submission}/stop", timeout=60,
        headers={"Authorization": f"Bearer {machines.token}"},
    )  # fmt: skip
    assert stop.status_code == 200, stop.text
    _wait_until(lambda: not _ready(url))


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _wait_until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < until, "the moment never came"
        time.sleep(0.5)
