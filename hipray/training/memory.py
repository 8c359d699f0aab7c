"""What a fit needs in memory, so that a grid that cannot fit is refused before it starts.

The estimate is computed: the network is built without storage on torch's `meta` device, one
training step's saved activations are counted, and the states of weights, gradients and optimiser
are added. What a GPU adds to that (context, workspaces, held films, fragmentation) is an allowance.
Held against 15 fits on an H200 (`hipray bench grid`; the paper's networks at 224 px in two batches
and at 448 px), which held no films yet and copied their checkpoints on the GPU, it was 1.2 to 2.0
times what they had in use, and 0.91 to 1.31 times what they took where nothing kept torch's pool
from growing. With held films, checkpoints copied off the GPU and scores in full float32, and with
torch's pool limited to the estimate as a lane's is to its part of a GPU, the paper's five networks
took 0.77 to 0.95 of it; VGG16 takes 2.4 times as much where nothing limits its pool.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from hipray.classification.model import build_network as build_classifier
from hipray.config.experiment import ClassifierSettings, Experiment, SegmenterSettings
from hipray.errors import ConfigError
from hipray.segmentation.model import build_network as build_segmenter
from hipray.training.homes import HELD_BYTES
from hipray.training.plan import PlannedFit
from hipray.vocab import Covariate, Fit, SegmenterArch, SegmenterFit

GIB = 2**30
STEP_BYTES_PER_WEIGHT = 22
"""While a step runs: weight, gradient and two Adam moments in fp32 (16), the best epoch's copy
(4) and the bfloat16 copy that autocasting keeps (2)."""
KEEP_BYTES_PER_WEIGHT = 24
"""While the best epoch is copied: the first 20 of the above, and the copy (4) that takes the last
one's place. Checkpoints are copied off the GPU."""
SCORED_FILMS = 32
"""Most films in one forward pass without gradients."""
LIVE_MAPS = 3
"""Largest feature maps alive at once: a layer's input, its output and one more gradient."""
CONTEXT_BYTES = 8 * GIB // 10
"""CUDA's context and its libraries, beside torch's pool: 0.75 to 0.76 GiB on an H200, CUDA 13."""
GPU_ALLOWANCE = GIB + HELD_BYTES
"""The above, the convolution workspaces, and the most films that a fit holds on its GPU."""
FRAGMENTATION = 1.2
"""What the caching allocator reserves above what is in use; an allowance."""
PROBE_FILMS = 2
"""Films of the counted step: batch norm needs two."""


@dataclass(frozen=True)
class NetworkSize:
    """What one network holds in fp32."""

    weights: int
    saved_bytes_per_film: int
    """Activations kept for the backward pass."""
    largest_map_bytes_per_film: int


@dataclass(frozen=True)
class FitMemory:
    """What one fit needs."""

    network: str
    batch: int
    step_bytes: int
    """What a training step needs besides its films."""
    bytes_per_film: int
    floor_bytes: int
    """What the copy of an epoch or scoring needs, whatever the batch."""

    @property
    def total_bytes(self) -> int:
        """The need at the configured batch."""
        return max(self.floor_bytes, self.step_bytes + self.batch * self.bytes_per_film)

    def largest_batch(self, room: int) -> int:
        """Return the largest batch that fits into `room` bytes, 0 for none."""
        if self.floor_bytes > room:
            return 0
        return max(0, (room - self.step_bytes) // self.bytes_per_film)


def describe_fit_memory(
    fit: Fit | SegmenterFit, experiment: Experiment, *, gpu: bool = True
) -> FitMemory:
    """Return what `fit` needs on a GPU (bfloat16 activations) or a CPU, by part."""
    if isinstance(fit, SegmenterFit):
        settings = experiment.segmenter
        size = measure_segmenter(fit.arch, settings, len(fit.regions))
        return _fit_memory(f"{fit.arch} on {settings.encoder}", settings.batch, size, gpu=gpu)
    own = experiment.classifier_of(fit.cell.backbone)
    return _fit_memory(fit.cell.backbone, own.batch, measure_classifier(fit.cell.backbone, own),
                       gpu=gpu)  # fmt: skip


def find_largest(
    plan: Iterable[PlannedFit], experiment: Experiment, *, gpu: bool = True
) -> FitMemory | None:
    """Return the need of the plan's largest fit, or None of an empty plan."""
    needs = {describe_fit_memory(p.fit, experiment, gpu=gpu) for p in plan}
    return max(needs, key=lambda need: need.total_bytes, default=None)


def check_gpu_memory(
    plan: Sequence[PlannedFit], experiment: Experiment, *, gpu_bytes: int, gpus_per_lane: float
) -> None:
    """Raise ConfigError where the plan's largest fit does not fit into a lane's part of a GPU."""
    largest = find_largest(plan, experiment)
    lane_bytes = int(min(1.0, gpus_per_lane) * gpu_bytes)
    if largest is None or largest.total_bytes <= lane_bytes:
        return
    raise ConfigError(
        f"the largest fit ({largest.network}, batch {largest.batch}) to fit into a lane's "
        f"{lane_bytes / GIB:.1f} GiB (scaling.gpus_per_lane = {gpus_per_lane:g} of "
        f"{gpu_bytes / GIB:.1f} GiB)",
        f"a need of about {largest.total_bytes / GIB:.1f} GiB",
        f"{_remedy(largest, gpu_bytes, lane_bytes)}",
    )


def limit_pool(gpus: float) -> None:
    """Keep torch's pool within the part of its GPU that this process may use; 1 or more is all."""
    if gpus < 1:
        total = int(torch.cuda.get_device_properties(0).total_memory)
        torch.cuda.set_per_process_memory_fraction(pool_share(gpu_bytes=total, gpus=gpus))


def pool_share(*, gpu_bytes: int, gpus: float) -> float:
    """Return the part of a GPU that torch may reserve in a process that has `gpus` of it.

    What the process holds beside torch's pool comes out of its share, too: full pools of all who
    share the GPU must fit beside one another.
    """
    return max(0.0, gpus - CONTEXT_BYTES / gpu_bytes)


def _remedy(need: FitMemory, gpu_bytes: int, lane_bytes: int) -> str:
    packed = gpu_bytes // need.total_bytes
    share = ""
    if packed:  # as much as packs as many, and never less than the need
        digits = max(1e4 // packed, math.ceil(1e4 * need.total_bytes / gpu_bytes))
        share = f"set scaling.gpus_per_lane to {digits / 1e4:g}"
    batch = need.largest_batch(lane_bytes)
    smaller = f"lower the batch to {batch}" if batch >= 2 else ""
    fallback = "use a GPU with more memory, smaller films (size_px) or a smaller network"
    return " or ".join(filter(None, (share, smaller))) or fallback


def _fit_memory(network: str, batch: int, size: NetworkSize, *, gpu: bool) -> FitMemory:
    precision = 0.5 if gpu else 1.0  # autocasting keeps activations in bfloat16
    spare = FRAGMENTATION if gpu else 1.0
    context = GPU_ALLOWANCE if gpu else 0
    live = LIVE_MAPS * size.largest_map_bytes_per_film
    step = int(size.weights * STEP_BYTES_PER_WEIGHT * spare)
    keep = int(size.weights * KEEP_BYTES_PER_WEIGHT * spare)
    score = step + int(SCORED_FILMS * live * spare)  # scores are computed in fp32
    per_film = int((size.saved_bytes_per_film + live) * precision * spare)
    return FitMemory(network, batch, context + step, per_film, context + max(keep, score))


@lru_cache(maxsize=64)
def measure_classifier(backbone: str, settings: ClassifierSettings) -> NetworkSize:
    """Count a classifier at its film size; nothing is allocated.

    Raises ConfigError for films that are too small for the network.
    """
    with torch.device("meta"):
        network = build_classifier(backbone, settings, pretrained=False)
    try:
        return _measure(network, settings.size_px, told=2 * len(Covariate))
    except RuntimeError as error:
        raise ConfigError(
            f"films that {backbone} can take",
            f"size_px = {settings.size_px} ({str(error).splitlines()[0]})",
            "raise size_px or take another network",
        ) from error


@lru_cache(maxsize=16)
def measure_segmenter(
    arch: SegmenterArch, settings: SegmenterSettings, outputs: int
) -> NetworkSize:
    """Count a segmenter at its film size; nothing is allocated."""
    plain = settings.model_copy(update={"weights": "none"})
    with torch.device("meta"):
        network = build_segmenter(arch, plain, outputs=outputs)
    return _measure(network, settings.size_px)


def _measure(network: nn.Module, size_px: int, *, told: int = 0) -> NetworkSize:
    """Run one forward pass in training mode and add up what it keeps for the backward pass.

    `told` is how many numbers tell the network of each person.
    """
    owned = {_storage(t) for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in owned:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    films = torch.empty(PROBE_FILMS, 1, size_px, size_px, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        people = [torch.empty(PROBE_FILMS, told, device="meta")] if told else []
        logits = network.train()(
            films, *people
        )  # held: storages must not be freed and numbered anew
    del logits
    return NetworkSize(
        weights=sum(p.numel() for p in network.parameters()),
        saved_bytes_per_film=sum(kept.values()) // PROBE_FILMS,
        largest_map_bytes_per_film=max(kept.values(), default=0) // PROBE_FILMS,
    )


def _storage(tensor: torch.Tensor) -> int:
    # a meta tensor has no address: its storage's own number tells views of one storage apart
    return int(tensor.untyped_storage()._cdata)
