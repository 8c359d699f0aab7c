"""How many lanes and actors a cluster holds, and whether a lane holds the largest fit.

A lane's reservation is in CPUs and GPUs; memory is Ray's to watch, so lanes are also counted in
what their processes take.
"""

import logging
import math
from collections.abc import Iterable, Sequence

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hipray.config.jobs import GridRun, Scaling
from hipray.distributed.cluster import NodeSize, may_grow, read_nodes
from hipray.errors import ConfigError
from hipray.training.memory import GIB, check_gpu_memory, find_largest
from hipray.training.plan import PlannedFit

LANE_BYTES = 3 * GIB
"""What one lane's processes hold besides its fit: the Train worker 1.4 GiB, the task and the
controller that host its run 1.0 GiB, Ray Train's own actors 0.5 GiB (proportional set size,
measured on Linux with a CUDA build of torch)."""
HOST_BYTES = int(1.5 * GIB)
"""The part of it that lies where the run is hosted, beside the driver if there is room."""
ASK_TIMEOUT_S = 60.0
"""Longest wait for a node to tell the size of its GPU; a busy one may not answer."""
SLIVER = 0.001
"""GPU share that a question reserves, so that it is put to a node whose lanes are all taken."""

NO_LIMIT = 2**31
"""Shares of a GPU on a machine for who wants none."""

logger = logging.getLogger(__name__)


def count_lanes(nodes: Iterable[NodeSize], scaling: Scaling, *, fit_bytes: int = 0) -> int:
    """Return how many lanes the nodes hold together, whole lanes on each.

    `fit_bytes` is the largest fit's need on a CPU lane.
    """
    workers = sum(_count_on(node, scaling, LANE_BYTES + fit_bytes) for node in nodes)
    return workers // scaling.workers_per_fit


def _count_on(node: NodeSize, scaling: Scaling, lane_bytes: int) -> int:
    if node.cpus < scaling.cpus_per_lane or node.gpus < scaling.gpus_per_lane:
        return 0
    by_cpu = math.floor(node.cpus / scaling.cpus_per_lane)
    by_memory = max(1, math.floor(node.memory_bytes / lane_bytes))
    return min(by_cpu, by_memory, count_gpu_shares(node.gpus, scaling.gpus_per_lane))


def require_places(count: int, of: str, *, cpus: float, gpus: float, mend: str) -> None:
    """Refuse `count` actors that would wait for ever; warn where nodes may still join.

    Raises ConfigError on a Ray of this machine alone that holds fewer of this size.
    """
    nodes = read_nodes()
    holds = sum(_count_places(node, cpus, gpus) for node in nodes)
    if holds >= count:
        return
    wanted = f"room for {count} {of} at once, each of {cpus:g} CPU and {gpus:g} GPU"
    found = (
        f"a cluster of {sum(node.cpus for node in nodes):g} CPU and "
        f"{sum(node.gpus for node in nodes):g} GPU that holds {holds}"
    )
    if not may_grow():
        raise ConfigError(wanted, found, mend)
    logger.warning("%s: %s; the others wait until nodes join", wanted, found)


def _count_places(node: NodeSize, cpus: float, gpus: float) -> int:
    return min(
        math.floor(node.cpus / cpus) if cpus else NO_LIMIT, count_gpu_shares(node.gpus, gpus)
    )


def count_host_memory() -> int:
    """Return the bytes that a lane's host reserves on a cluster: what a node can give, at most.

    On a Ray of this machine alone it reserves none: there it would only wait for itself.
    """
    if not may_grow():
        return 0
    return int(min(HOST_BYTES, max((node.memory_bytes for node in read_nodes()), default=0)))


def count_gpu_shares(gpus: float, wanted: float) -> int:
    """How often `wanted` fits: a fraction lies on one GPU, two of 0.6 never share one."""
    if wanted <= 0:
        return NO_LIMIT
    if wanted < 1:
        return int(gpus) * math.floor(1 / wanted + 1e-9)
    return math.floor(gpus / wanted)


def check_capacity(config: GridRun, plan: Sequence[PlannedFit]) -> int:
    """Return the largest fit's need on a CPU lane; refuse a grid that cannot run here.

    Raises ConfigError where a lane can never start on a Ray of this machine alone, or where the
    largest fit does not fit into a lane's part of a GPU. Too little RAM is a warning: Ray and the
    system may still find some.
    """
    nodes, scaling = read_nodes(), config.scaling
    require_places(
        scaling.workers_per_fit, "workers of a lane",
        cpus=scaling.cpus_per_lane, gpus=scaling.gpus_per_lane,
        mend="lower scaling.workers_per_fit, cpus_per_lane or gpus_per_lane, or submit the job to "
        "a cluster",
    )  # fmt: skip
    if scaling.gpus_per_lane > 0:
        for gpu_bytes in _gpu_sizes(nodes, scaling):
            check_gpu_memory(
                plan, config.experiment, gpu_bytes=gpu_bytes, gpus_per_lane=scaling.gpus_per_lane
            )
        return 0
    largest = find_largest(plan, config.experiment, gpu=False)
    fit_bytes = largest.total_bytes if largest else 0
    _warn_of_little_memory(nodes, scaling, LANE_BYTES + fit_bytes)
    return fit_bytes


def _warn_of_little_memory(nodes: Sequence[NodeSize], scaling: Scaling, lane_bytes: int) -> None:
    for node in nodes:
        lanes = math.floor(node.cpus / scaling.cpus_per_lane)
        lanes = min(lanes, scaling.lanes or _count_on(node, scaling, lane_bytes))
        if lanes and lanes * lane_bytes > node.memory_bytes:
            logger.warning(
                "%d lanes need about %.1f GiB of memory and a node offers %.1f GiB: "
                "lower scaling.lanes or the batch",
                lanes, lanes * lane_bytes / GIB, node.memory_bytes / GIB,
            )  # fmt: skip


def _gpu_sizes(nodes: Sequence[NodeSize], scaling: Scaling) -> set[int]:
    """Memory in bytes of each kind of GPU; empty where no node has one yet."""
    if scaling.gpu_memory_gib is not None:
        return {int(scaling.gpu_memory_gib * GIB)}
    kinds = {node.gpu_type: node for node in nodes if node.gpus}
    if not kinds:
        logger.warning(
            "no node has a GPU yet: whether the largest fit fits is checked by each lane; "
            "scaling.gpu_memory_gib would check it now"
        )
    asked = {kind: _ask_gpu_bytes(node) for kind, node in kinds.items()}
    return {size for size in asked.values() if size is not None}


def _ask_gpu_bytes(node: NodeSize) -> int | None:
    question = ray.remote(read_gpu_bytes).options(
        num_cpus=0, num_gpus=SLIVER, max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
    )  # fmt: skip
    reference = question.remote()
    try:
        size: int = ray.get(reference, timeout=ASK_TIMEOUT_S)
        return size
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
        ray.cancel(reference, force=True)
        logger.warning("a %s node did not tell its GPU's memory: %s", node.gpu_type, error)
        return None


def read_gpu_bytes() -> int:
    """Return the memory in bytes of this process's first GPU."""
    return int(torch.cuda.get_device_properties(0).total_memory)
