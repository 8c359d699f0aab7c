"""A look at the place a job would run in, by the driver and by each worker.

For dry runs: nothing is written but one probe object, which is removed again.
"""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hipray import __version__
from hipray.config.jobs import Scaling
from hipray.digests import source_digest
from hipray.distributed.capacity import count_lanes
from hipray.distributed.cluster import NodeSize, connect, may_grow, read_nodes
from hipray.errors import ConfigError, HiprayError, NotFoundError, StorageError
from hipray.runtime.engine import count_cpus
from hipray.storage import Scheme, Store, check_store, parse_address

ANSWER_S = 120.0
"""Longest wait for a worker's answer; the first task on a node starts a process."""
NO_CPU = 0.001
"""Stands for a share of no CPU where places are counted."""


@dataclass(frozen=True)
class Place:
    """A store that a job uses."""

    role: str
    store: Store
    written: bool


@dataclass(frozen=True)
class Ask:
    """Processes of one kind that a job reserves room for."""

    what: str
    count: int | None
    """None: as many as there is room for."""
    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Sight:
    """What one process sees."""

    versions: dict[str, str]
    first_keys: tuple[str | None, ...]
    """Of each place, its first object's key; None where there is none yet."""


def survey(places: Sequence[Place], asks: Sequence[Ask]) -> Iterator[str]:
    """Yield what is found, line by line.

    Raises the StorageError of a store that this process or a worker cannot use, ConfigError for
    workers with other versions, and for a share that this machine alone can never give.
    """
    own = look([place.store for place in places])
    yield "versions   " + ", ".join(f"{name} {value}" for name, value in own.versions.items())
    for place, first in zip(places, own.first_keys, strict=True):
        yield _describe_place(place, first)
    if not may_grow():
        nodes = [read_this_machine()]
        yield f"cluster    none: RAY_ADDRESS is not set; this machine has {_sum(nodes)}"
    else:
        connect()
        nodes = read_nodes()
        yield f"cluster    {len(nodes)} nodes: {_sum(nodes)}; {_describe_token()}"
        yield _ask_workers(places, own, [node for node in nodes if node.cpus or node.gpus])
    yield from (_weigh(ask, nodes) for ask in asks)


def look(stores: Sequence[Store]) -> Sight:
    """Return what this process sees; raises the StorageError of a store it cannot list."""
    versions = {
        "hipray": __version__,
        "source": source_digest("")[:12],
        "ray": ray.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    return Sight(versions, tuple(_first_key(store) for store in stores))


def read_this_machine() -> NodeSize:
    """Return what a private Ray on this machine would offer."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = float(torch.cuda.device_count())
    return NodeSize("", float(count_cpus()), gpus, float(memory), "GPU" if gpus else "")


def _first_key(store: Store) -> str | None:
    try:
        return next((info.key for info in store.list()), None)
    except NotFoundError:
        if parse_address(store.uri).scheme is not Scheme.FILE:
            raise  # a bucket is not made by a job
        return None


def _describe_place(place: Place, first: str | None) -> str:
    found = "empty or not made yet" if first is None else "found"
    if not place.written:
        return f"{place.role:<10} {place.store.uri}: {found}, read only"
    if place.store.local_path("probe") is not None:
        return f"{place.role:<10} {place.store.uri}: {found}, on this machine's disk"
    check_store(place.store)
    return f"{place.role:<10} {place.store.uri}: {found}; writes, lists and conditional writes work"


def _describe_token() -> str:
    if ray._raylet.get_authentication_mode() == ray._raylet.AuthenticationMode.TOKEN:
        return "token on"
    return "TOKEN OFF: whoever reaches the cluster runs code on it; set RAY_AUTH_MODE=token"


def _ask_workers(places: Sequence[Place], own: Sight, nodes: Sequence[NodeSize]) -> str:
    if not nodes:
        return "workers    none yet: they come with the job, and were not asked"
    for node, sight in zip(nodes, _look_from(places, nodes), strict=True):
        _compare(places, own, sight, node)
    return f"workers    {len(nodes)} asked: same versions, and each sees the same stores"


def _look_from(places: Sequence[Place], nodes: Sequence[NodeSize]) -> list[Sight]:
    stores = [place.store for place in places]
    questions = [
        ray.remote(look).options(
            num_cpus=0, max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(stores)
        for node in nodes
    ]  # fmt: skip
    try:
        sights: list[Sight] = ray.get(questions, timeout=ANSWER_S)
        return sights
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HiprayError):
            raise error.cause from None
        raise
    except ray.exceptions.GetTimeoutError:
        raise ConfigError(
            f"an answer of every worker within {ANSWER_S:.0f} s", "none of one", "see `ray status`"
        ) from None


def _compare(places: Sequence[Place], own: Sight, sight: Sight, node: NodeSize) -> None:
    if sight.versions != own.versions:
        other = {k: v for k, v in sight.versions.items() if v != own.versions[k]}
        raise ConfigError(
            f"the driver's versions on every worker: {own.versions}",
            f"{other} on node {node.node_id[:8]}",
            "submit the package as py_modules, or use one image everywhere",
        )
    for place, here, there in zip(places, own.first_keys, sight.first_keys, strict=True):
        if here is not None and there is None:
            raise StorageError(
                f"{place.store.uri} to be the same folder on every worker",
                f"nothing there on node {node.node_id[:8]}",
                "use an s3:// address or a file system that all machines share",
            )


def _sum(nodes: Sequence[NodeSize]) -> str:
    return f"{sum(n.cpus for n in nodes):g} CPU, {sum(n.gpus for n in nodes):g} GPU"


def _weigh(ask: Ask, nodes: Sequence[NodeSize]) -> str:
    share = Scaling(cpus_per_lane=ask.cpus or NO_CPU, gpus_per_lane=ask.gpus)
    holds = count_lanes(nodes, share)
    asked = f"{ask.count or 'as many as fit'} {ask.what} x {ask.cpus:g} CPU, {ask.gpus:g} GPU"
    if holds == 0 and not may_grow():
        raise ConfigError(
            f"a machine with {ask.cpus:g} CPU and {ask.gpus:g} GPU for one of the {ask.what}",
            f"{_sum(nodes)}",
            "ask for less, or submit the job to a cluster",
        )
    if holds == 0:
        return f"resources  {asked}; no node holds one yet: they wait until such a node comes"
    waits = "" if ask.count is None or ask.count <= holds else ", the others wait for room"
    return f"resources  {asked}; there is room for {holds}{waits}"
