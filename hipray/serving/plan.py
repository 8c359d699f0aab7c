"""The model stages of a release: which there are, what a replica of each takes, and its place.

A new release starts before the old one ends, so two of them must find room.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hipray.config.jobs import ServeRun
from hipray.config.serving import LEAST_CPUS_PER_STAGE, ReplicaBounds
from hipray.distributed.capacity import require_places
from hipray.distributed.cluster import NodeSize, read_free_cpus
from hipray.releases.release import Release
from hipray.serving.stages import EnsembleStage, FusedStage, MattingStage, SegmenterStage
from hipray.vocab import RuntimeChoice, View

RELEASES = 2
"""Releases that must find room at a time."""

CPU_PART = 1 / 16
"""Least part of a core that a stage is given."""
GPU_PARTS = 10_000
"""Ray counts GPUs in parts of this size."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePlan:
    """One model stage that a release needs."""

    kind: type
    name: str
    bounds: ReplicaBounds
    cpus: float
    """CPUs that one replica reserves."""
    gpus: float
    """GPUs that one replica reserves."""

    @property
    def has_networks(self) -> bool:
        """Whether its replicas hold networks: cutting out regions takes none."""
        return self.kind is not MattingStage


def list_stages(config: ServeRun, release: Release) -> dict[str, StagePlan]:
    """Return the stages by the names that the ingress takes them; the last one is asked last."""
    scaling, gpus = config.scaling, config.gpus_per_stage or 0
    cpus = config.stage_cpus
    if config.fused:
        return {"fused": StagePlan(FusedStage, "pipeline", scaling.pipeline, cpus, gpus)}
    stages = {}
    if release.segmenters:
        stages["segment"] = StagePlan(SegmenterStage, "segmenter", scaling.segmenter, cpus, gpus)
        if release.view is View.MATTED:
            stages["matte"] = StagePlan(MattingStage, "matting", scaling.matting, cpus, 0)
    stages["classify"] = StagePlan(EnsembleStage, "ensemble", scaling.ensemble, cpus, gpus)
    return stages


def count_cpus(config: ServeRun, release: Release) -> int:
    """Return how many CPUs a Ray of the endpoint's own must say it has.

    These are Ray's shares, not cores: without load a replica takes none.
    """
    return math.ceil(RELEASES * _reserve_cpus(config, release))


def _reserve_cpus(config: ServeRun, release: Release) -> float:
    """The CPUs that the least replicas of one release reserve."""
    stages = list_stages(config, release).values()
    ingress = config.scaling.ingress.min_replicas * config.cpus_per_ingress
    return ingress + sum(stage.bounds.min_replicas * stage.cpus for stage in stages)


def size_stages(config: ServeRun, release: Release, nodes: Sequence[NodeSize]) -> ServeRun:
    """Return the configuration with what a replica of a stage takes of these nodes.

    What it says itself stays; what is chosen here does not count as said, so that another release
    in its place chooses anew. By default the replicas of two releases share the GPUs, if there are
    any, and the cores of the smallest node.
    """
    cpus, gpus = config.cpus_per_stage, config.gpus_per_stage
    sizes = {
        "cpus_per_stage": _share_cores(config, release, nodes) if cpus is None else cpus,
        "gpus_per_stage": _share_gpus(config, release, nodes) if gpus is None else gpus,
    }
    return ServeRun.model_construct(config.model_fields_set, **{**dict(config), **sizes})


def _share_cores(config: ServeRun, release: Release, nodes: Sequence[NodeSize]) -> float:
    """Whole cores where there are that many beside the ingress, else a part of one."""
    cores = min((node.cpus for node in nodes if node.cpus), default=0)
    if not cores:
        return LEAST_CPUS_PER_STAGE
    ingress = config.scaling.ingress.min_replicas * config.cpus_per_ingress
    replicas = sum(s.bounds.min_replicas for s in list_stages(config, release).values())
    share = (cores / RELEASES - ingress) / replicas
    if share >= 1:
        return math.floor(share)
    return min(LEAST_CPUS_PER_STAGE, math.floor(share / CPU_PART) * CPU_PART)


def _share_gpus(config: ServeRun, release: Release, nodes: Sequence[NodeSize]) -> float:
    """The largest GPU, or whole part of one, of which there is one for each replica."""
    gpus = sum(math.floor(node.gpus) for node in nodes)
    usable: bool = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
    if not gpus or not usable or config.runtime is RuntimeChoice.ONNX:
        return 0
    stages = list_stages(config.model_copy(update={"gpus_per_stage": 1.0}), release).values()
    replicas = sum(stage.bounds.min_replicas for stage in stages if stage.gpus)
    return math.floor(GPU_PARTS / math.ceil(RELEASES * replicas / gpus)) / GPU_PARTS


def require_room(stages: Sequence[StagePlan]) -> None:
    """Refuse replicas that would wait for ever; warn where nodes may still join.

    `stages` are those of all releases that run at a time. Raises ConfigError.
    """
    on_gpus = [stage for stage in stages if stage.gpus]
    _require(on_gpus, gpus=max((stage.gpus for stage in on_gpus), default=0))
    _require(stages, gpus=0)


def tell_wait(config: ServeRun, release: Release) -> None:
    """Warn that a release waits where replicas that load has started hold the CPUs it reserves.

    They end some time after the load, so it may still start before it is given up.
    """
    wanted, free = _reserve_cpus(config, release), read_free_cpus()
    if wanted > free:
        logger.warning(
            "release '%s' reserves %g CPU and %g are free: it waits up to %g s "
            "(rollout_timeout_s) for nodes to join, or for replicas that load has started to end; "
            "less load or a lower max_replicas of what answers now makes room",
            release.name, wanted, free, config.rollout_timeout_s,
        )  # fmt: skip


def _require(stages: Sequence[StagePlan], *, gpus: float) -> None:
    if not stages:
        return
    require_places(
        sum(stage.bounds.min_replicas for stage in stages),
        "replicas of " + ", ".join(dict.fromkeys(stage.name for stage in stages)),
        cpus=max(stage.cpus for stage in stages),
        gpus=gpus,
        mend="lower cpus_per_stage, gpus_per_stage (a fraction shares a GPU) or the least replicas "
        "in `scaling`, or end the endpoint before another one is served",
    )
