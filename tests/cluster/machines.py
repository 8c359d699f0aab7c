"""Several machines of a Ray cluster as processes of this one: python -m tests.cluster.machines 2

Prints the addresses, waits for the end of its input and ends everything it started.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hipray.distributed.loopback import SWITCH

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINE = {"num_cpus": 2, "num_gpus": 1}
"""What each worker offers; the GPU is a number only."""


@dataclass(frozen=True)
class Machines:
    """A running cluster, from the outside."""

    process: "subprocess.Popen[str]"
    dashboard: str
    environment: dict[str, str]
    """For ray, serve and cluster/submit.py."""

    @property
    def token(self) -> str:
        return Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text("utf-8").strip()

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
        yield Machines(process, dashboard, {**environment, "RAY_API_SERVER_ADDRESS": dashboard})
    finally:
        try:
            process.communicate("", timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


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
    for _ in range(workers):
        cluster.add_node(**MACHINE)
    address = {"gcs": cluster.address, "dashboard": cluster.webui_url}
    sys.stdout.write(json.dumps(address) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    _run(int(sys.argv[1]))
