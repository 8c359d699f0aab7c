"""The memory of all stages of a release together: each alone may fit where all do not."""

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


def measure_replica(gauge: MemoryGauge) -> StageMemory:
    """Return what this replica takes."""
    context = ray.get_runtime_context()
    gpus = context.get_accelerator_ids()["GPU"] if gauge.on_gpu else []
    left = read_gpu_left() if gauge.on_gpu else read_memory_left()
    return StageMemory((context.get_node_id(), *gpus), gauge.total_bytes, gauge.coming_bytes, left)


def require_memory_together(told: Sequence[ReplicasMemory], *, nodes: int) -> None:
    """Raise MemoryLimitError, naming the sum, where a place cannot hold all that share it.

    Of several nodes nobody knows which has a stage's other replicas: then the one that answered
    counts.
    """
    sharing = defaultdict(list)
    for stage in told:
        sharing[stage.each.place].append(stage)
    for stages in sharing.values():
        counts = {s.stage: s.replicas if nodes == 1 and not _on_gpu(s) else 1 for s in stages}
        rooms = [stage.each.left for stage in stages if stage.each.left is not None]
        if not rooms:
            continue
        held = sum(counts[s.stage] * (s.each.total - s.each.coming) for s in stages)
        parts = {f"{counts[s.stage]} x {s.stage}": counts[s.stage] * s.each.total for s in stages}
        require_memory(parts, held + min(rooms), "what all stages have together where they run")


def _on_gpu(stage: ReplicasMemory) -> bool:
    return len(stage.each.place) > 1
