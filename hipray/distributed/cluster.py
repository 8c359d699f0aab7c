"""The connection to Ray: the cluster a job was submitted to, or a private one on this machine."""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from hipray.distributed.loopback import WORKER_HOOK, choose_loopback, is_on_loopback
from hipray.errors import ClusterUnavailableError, ConfigError
from hipray.runtime.engine import count_cpus

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report leaves a hospital's network
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # a process that reserved no GPU sees none: torch would open a context on each that it sees
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
"""What a Ray that is started here runs with; `cluster/` says it to other nodes."""
REACH_S = 10.0
"""Seconds that the head may take to accept a connection."""
TYPE_PREFIX = "accelerator_type:"
"""How Ray names a node's kind of GPU among its resources."""


@dataclass(frozen=True)
class NodeSize:
    """What one live node offers to Ray, used or not."""

    node_id: str
    cpus: float
    gpus: float
    memory_bytes: float
    gpu_type: str
    """Empty where the node has no GPU."""


def connect(*, min_cpus: int = 0) -> None:
    """Connect to the cluster of RAY_ADDRESS, else start Ray here; do nothing when connected.

    A Ray that is started says that it has `min_cpus` CPUs where the machine has fewer.
    """
    if ray.is_initialized():
        return
    address = _cluster_address()
    if address is None:
        start_here(cpus=max(count_cpus(), min_cpus) if min_cpus else None)
    else:
        _reach(address)
        try:
            _init(address=address)
        except (ConnectionError, ray.exceptions.AuthenticationError) as error:
            found = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"a Ray cluster at {address} that takes this job's token",
                f"'{found[:200]}'",
                "check RAY_ADDRESS, RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN)",
            ) from error


def _reach(address: str) -> None:
    """Raise ClusterUnavailableError where nobody listens: Ray itself would ask for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return  # auto, or a name that Ray alone understands
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()
    except OSError as error:
        raise ClusterUnavailableError(
            f"a Ray cluster at {address}", f"{error.strerror or error}",
            "start it or correct RAY_ADDRESS",
        ) from error  # fmt: skip


def start_here(*, cpus: int | None = None) -> None:
    """Start a private Ray, which listens on loopback only and has no dashboard.

    `cpus` is what it offers; None: what this process may use of the machine.
    """
    choose_loopback()
    _init(address="local", include_dashboard=False, num_cpus=cpus or _pinned_cpus())


def _pinned_cpus() -> int | None:
    """The CPUs that this process is kept on; None where it may use all: Ray counts those itself."""
    allowed = count_cpus()
    return allowed if allowed < (os.cpu_count() or 1) else None


def _init(**options: Any) -> None:
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if is_on_loopback():
        options["runtime_env"] = {"worker_process_setup_hook": WORKER_HOOK}
    ray.init(
        log_to_driver=bool(os.environ.get("HIPRAY_RAY_LOGS")),
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )


def may_grow() -> bool:
    """Whether nodes may join: a private Ray on this machine stays as it is."""
    return _cluster_address() is not None


def _cluster_address() -> str | None:
    """The cluster a job was submitted to; None where Ray is to start here."""
    address = os.environ.get("RAY_ADDRESS")
    return address if address and address != "local" else None


def read_nodes() -> list[NodeSize]:
    """Return the live nodes of the connected cluster."""
    return [
        _describe(node["NodeID"], node.get("Resources", {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


def read_free_cpus() -> float:
    """Return the CPUs of the connected cluster that nobody has reserved, over all nodes."""
    return float(ray.available_resources().get("CPU", 0.0))


def _describe(node_id: str, resources: Mapping[str, float]) -> NodeSize:
    types = [name.removeprefix(TYPE_PREFIX) for name in resources if name.startswith(TYPE_PREFIX)]
    gpus = resources.get("GPU", 0.0)
    return NodeSize(
        node_id=node_id,
        cpus=resources.get("CPU", 0.0),
        gpus=gpus,
        memory_bytes=resources.get("memory", 0.0),
        gpu_type=(types[0] if types else "GPU") if gpus else "",
    )
