"""Several machines of a Ray cluster as processes of this one: python -m tests.cluster.machines 2

Prints the addresses, loses a worker and gets another one for each line of its input, and ends
everything it started at the input's end.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hipray.distributed.loopback import SWITCH
from tests.processes import descendants, kill_all

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINE = {"num_cpus": 2, "num_gpus": 1}
"""What each worker offers; the GPU is a number only."""

HEAD_ID = "f" * 56
"""The node that Ray's test autoscaler takes for the head."""
HEAD_TYPE = "ray.head.default"
"""The type that Ray's fake provider gives the head, whatever the configuration says."""
START_S = 240.0


@dataclass(frozen=True)
class Machines:
    """A running cluster, from the outside."""

    process: "subprocess.Popen[str]"
    gcs: str
    """Where drivers connect."""
    dashboard: str
    environment: dict[str, str]
    """For ray, serve and cluster/submit.py."""

    @property
    def token(self) -> str:
        return Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text("utf-8").strip()

    def count_nodes(self) -> int:
        """Return how many nodes live, the head among them."""
        known = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.get(f"{self.dashboard}/api/v0/nodes", headers=known, timeout=60).json()
        return sum(node["state"] == "ALIVE" for node in answer["data"]["result"]["result"])

    def lose_worker(self) -> None:
        """Let a worker vanish without a farewell, and another one join."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def submit(self, *words: str, timeout_s: float = 400) -> "subprocess.CompletedProcess[str]":
        """Run cluster/submit.py and return how it ended."""
        return subprocess.run(
            [sys.executable, str(ROOT / "cluster/submit.py"), *words],
            env=self.environment, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip


def private_environment(folder: Path) -> dict[str, str]:
    """Return an environment for a Ray of its own in a folder, with a token, on loopback."""
    token = folder / "auth_token"
    token.write_text("0123456789abcdef" * 4, "utf-8")
    token.chmod(0o600)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {
        **kept, SWITCH: "0", "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(ROOT),
        "NO_ALBUMENTATIONS_UPDATE": "1", "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
    }  # fmt: skip


@contextmanager
def running_machines(folder: Path, workers: int) -> Iterator[Machines]:
    """Run a head without CPUs and some workers, and end them."""
    environment = private_environment(folder)
    with (folder / "machines.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.machines", str(workers)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, (folder / "machines.log").read_text("utf-8")[-3000:]
        address = json.loads(said)
        dashboard = f"http://{address['dashboard']}"
        known = {**environment, "RAY_API_SERVER_ADDRESS": dashboard}
        yield Machines(process, address["gcs"], dashboard, known)
    finally:
        own = descendants(process.pid)
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            process.communicate("", timeout=90)
        kill_all(own)  # drivers of jobs outlive a cluster that is ended under them


@contextmanager
def running_autoscaler(folder: Path, *, most_workers: int) -> Iterator[Machines]:
    """Run a head whose autoscaler starts and ends workers on this machine, and end them all."""
    port, dashboard = free_port(), free_port()
    config = folder / "autoscaler.json"
    config.write_text(json.dumps(_autoscaler_config(port, most_workers)), "utf-8")
    environment = private_environment(folder) | {
        "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }  # fmt: skip
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            ["ray", "start", "--head", "--block", "--num-cpus=0", f"--port={port}",
             f"--autoscaling-config={config}", f"--temp-dir={folder}", "--disable-usage-stats",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
             f"--dashboard-agent-listen-port={free_port()}"],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{dashboard}"
    known = {**environment, "RAY_API_SERVER_ADDRESS": url}
    machines = Machines(process, f"127.0.0.1:{port}", url, known)
    try:
        _wait_for_head(machines, folder / "head.log")
        yield machines
    finally:
        _end(process)


def _autoscaler_config(port: int, most_workers: int) -> dict[str, Any]:
    return {
        "cluster_name": "machines", "max_workers": most_workers, "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0, "auth": {}, "docker": {}, "file_mounts": {},
        "provider": {
            "type": "external", "launch_multiple": True, "head_node_id": HEAD_ID,
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {
                "resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0,
                "max_workers": most_workers,
            },
        },
        "head_node_type": HEAD_TYPE, "head_start_ray_commands": [], "worker_start_ray_commands": [],
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
        "worker_setup_commands": [], "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
    }  # fmt: skip


def _wait_for_head(machines: Machines, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        with suppress(httpx.HTTPError, KeyError, TypeError, ValueError):
            if machines.count_nodes() == 1:
                return
        said = log.read_text("utf-8")[-3000:]
        assert machines.process.poll() is None, said
        assert time.monotonic() < until, said
        time.sleep(1)


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process and all that it started; none of them is anyone else's."""
    own = descendants(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    kill_all(own)
    process.wait()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _run(workers: int) -> None:
    from ray.cluster_utils import Cluster

    head: dict[str, Any] = {
        "num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1",
        "dashboard_port": free_port(), "dashboard_agent_listen_port": free_port(),
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=head)
    running = [cluster.add_node(**MACHINE) for _ in range(workers)]
    address = {"gcs": cluster.address, "dashboard": cluster.webui_url}
    sys.stdout.write(json.dumps(address) + "\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(running.pop(0), allow_graceful=False)
        running.append(cluster.add_node(**MACHINE))
    cluster.shutdown()


if __name__ == "__main__":
    _run(int(sys.argv[1]))
