"""The memory of all stages of a release together: each alone may fit where all do not."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from hipray.runtime.memory import (
    MemoryGauge,
    read_gpu_left,
    read_memory_left,
    require_memory,
)


@dataclass(frozen=True)
class StageMemory:
    """What one replica takes, and what is left where it runs."""

    place: tuple[str, ...]
    """Its node, and its GPU where its networks lie there."""
    total: int
    """Bytes of its networks, of one batch and of one explanation."""
    coming: int
    """Bytes of these that it does not hold now."""
    left: int | None
    """Bytes that all processes there may still take; None where the system does not tell."""


@dataclass(frozen=True)
class ReplicasMemory:
    """What the replicas of one stage take: as many as are kept without load."""

    stage: str
    replicas: int
    each: StageMemory
    gpus: float = 0
    """GPUs, or the part of one, that each of them reserves."""


def measure_replica(gauge: MemoryGauge) -> StageMemory:
    """Return what this replica takes."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids()["GPU"] if gauge.on_gpu else []
    left = read_gpu_left() if gauge.on_gpu else read_memory_left()
    return StageMemory((context.get_node_id(), *gpus), gauge.total_bytes, gauge.coming_bytes, left)


def require_memory_together(told: Sequence[ReplicasMemory], *, nodes: int) -> None:
    """Raise MemoryLimitError, naming the sum, where a place cannot hold all that share it.

    Of several nodes nobody knows which has a stage's other replicas: then the one that answered
    counts. Those of one node share its memory, and a GPU as many as have room on it: Ray fills one
    before it begins another.
    """
    sharing = defaultdict(list)
    for stage in told:
        sharing[stage.each.place].append(stage)
    for stages in sharing.values():
        counts = _count_replicas(stages) if nodes == 1 else {s.stage: 1 for s in stages}
        rooms = [stage.each.left for stage in stages if stage.each.left is not None]
        if not rooms:
            continue
        held = sum(counts[s.stage] * (s.each.total - s.each.coming) for s in stages)
        parts = {f"{counts[s.stage]} x {s.stage}": counts[s.stage] * s.each.total for s in stages}
        require_memory(parts, held + min(rooms), "what all stages have together where they run")


def _count_replicas(stages: Sequence[ReplicasMemory]) -> dict[str, int]:
    """The replicas of each stage that share a place of the only node, at most."""
    if not any(map(_on_gpu, stages)):
        return {stage.stage: stage.replicas for stage in stages}
    counts = {stage.stage: 1 for stage in stages}
    room = 1 - sum(stage.gpus for stage in stages)
    for stage in sorted(stages, key=lambda stage: stage.each.coming, reverse=True):
        more = min(stage.replicas - 1, max(0, math.floor(round(room / stage.gpus, 6))))
        counts[stage.stage] += more
        room -= more * stage.gpus
    return counts


def _on_gpu(stage: ReplicasMemory) -> bool:
    return len(stage.each.place) > 1
