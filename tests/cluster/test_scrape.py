"""A real Prometheus reads a guarded head: discovery, scraping, and the queries of the dashboard."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.local_head import ROOT, LocalHead, running_local_head
from tests.cluster.machines import free_port
from tests.cluster.ray_metrics import RAY_METRICS, SCRAPED

CLUSTER = ROOT / "cluster"
PATIENCE_S = 180.0
RUN = """
import time
from collections import Counter
import ray
from hipray.distributed.grid_metrics import GridMetrics
from hipray.training.tally import Tally
from hipray.vocab import FitState
ray.init(log_to_driver=False)
metrics = GridMetrics("trial")
while True:
    metrics.show(Tally({}, Counter({FitState.DONE: 3}), Counter({FitState.DONE: 1})), lanes=2)
    time.sleep(1)
"""
"""A driver with a run's metrics."""
OF_EXPORTER = ("__name__", "otel_scope_")
ELSEWHERE = ("ray_serve_", "ray_node_gpus_", "ray_node_gram_", "autoscaler_recently_failed_")
SILENT = {name for name in RAY_METRICS if name.startswith(ELSEWHERE)}
"""Metrics of Ray of which a head without GPUs, an endpoint and nodes that fail has no series."""
SHOWN = (
    "Fits by state", "Cells by state", "Lanes", "CPU", "Memory", "Disk free", "Object store",
)  # fmt: skip
"""Panels that have something to show on a head without GPUs, nodes to come and an endpoint."""


@contextmanager
def _running(command: list[str], folder: Path, **options: Any) -> Iterator[None]:
    with (folder / "said.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()
        process.wait()


def _write_config(head: LocalHead, folder: Path, *, by_file: bool) -> Path:
    """Write cluster/prometheus.yaml for this head, with one of its two ways to find nodes."""
    text = (CLUSTER / "prometheus.yaml").read_text("utf-8")
    nowhere = str(folder / "nowhere")
    for before, after in (
        ("http://127.0.0.1:8265", f"http://127.0.0.1:{free_port()}" if by_file else head.dashboard),
        ("/etc/prometheus/ray_token", str(head.folder / "auth_token")),
        ("/tmp/hipray-1000", str(head.folder) if by_file else nowhere),
        ("scrape_interval: 15s", "scrape_interval: 2s"),
        ("evaluation_interval: 30s", "evaluation_interval: 2s"),
        ("alerts.yaml", str(CLUSTER / "alerts.yaml")),
    ):
        assert before in text
        text = text.replace(before, after)
    path = folder / "prometheus.yaml"
    path.write_text(text, "utf-8")
    return path


class _Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the series of a query; none while Prometheus starts."""
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.url}/query", params={"query": text}, timeout=20)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return list(answer.json()["data"]["result"])
        return []

    def wait_for(self, text: str) -> list[dict[str, Any]]:
        """Return the series of a query that has some, or none after a while."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if found := self.query(text):
                return found
            time.sleep(2)
        return []


@contextmanager
def _running_prometheus(config: Path, folder: Path) -> Iterator[_Prometheus]:
    port = free_port()
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with _running(command, folder):
        yield _Prometheus(port)


@pytest.fixture
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHead]:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    with running_local_head(tmp_path_factory.mktemp("h")) as running:
        yield running


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_prometheus_finds_a_guarded_head_and_its_series_fill_the_dashboard(
    head: LocalHead, tmp_path: Path
) -> None:
    config = _write_config(head, tmp_path, by_file=False)
    driver = [sys.executable, "-c", RUN]
    environment = head.client_environment | {"PYTHONPATH": str(ROOT)}
    with (
        _running(driver, tmp_path, env=environment, cwd=tmp_path),
        _running_prometheus(config, tmp_path) as prometheus,
    ):
        assert prometheus.wait_for("count(up == 1) >= 3"), "node, autoscaler and dashboard"
        assert prometheus.wait_for('ray_hipray_grid_fits{run="trial", state="done"} == 3')
        panels = json.loads((CLUSTER / "grafana.json").read_text("utf-8"))["panels"]
        for panel in panels:
            for target in panel["targets"]:
                text = target["expr"].replace("$run", ".*")
                if panel["title"] in SHOWN:
                    assert prometheus.wait_for(text), text
        silent = set()
        for name, metric in RAY_METRICS.items():
            found = prometheus.query(name) if name in SILENT else prometheus.wait_for(name)
            silent |= set() if found else {name}
            for series in found:
                labels = {key for key in series["metric"] if not key.startswith(OF_EXPORTER)}
                assert labels <= metric.labels | SCRAPED, name
        assert silent <= SILENT, silent - SILENT
        assert prometheus.query("absent(ray_node_cpu_count)") == []
        rules = httpx.get(f"{prometheus.url}/rules", timeout=20).json()["data"]["groups"]
        assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


@pytest.mark.full
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_prometheus_finds_a_local_head_by_its_file_too(head: LocalHead, tmp_path: Path) -> None:
    config = _write_config(head, tmp_path, by_file=True)
    with _running_prometheus(config, tmp_path) as prometheus:
        assert prometheus.wait_for("count(up == 1) >= 3")
