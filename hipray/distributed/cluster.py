"""The connection to Ray: the cluster a job was submitted to, or a private one on this machine."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import ray

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report leaves a hospital's network
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}
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


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, else start Ray here; do nothing when connected.

    A private Ray listens on loopback only and opens no dashboard.
    """
    if ray.is_initialized():
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    options = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(
        address=os.environ.get("RAY_ADDRESS"),
        log_to_driver=bool(os.environ.get("HIPRAY_RAY_LOGS")),
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )


def may_grow() -> bool:
    """Whether nodes may join: a private Ray on this machine stays as it is."""
    return bool(os.environ.get("RAY_ADDRESS"))


def read_nodes() -> list[NodeSize]:
    """Return the live nodes of the connected cluster."""
    return [
        _describe(node["NodeID"], node.get("Resources", {}))
        for node in ray.nodes()
        if node["Alive"]
    ]


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
