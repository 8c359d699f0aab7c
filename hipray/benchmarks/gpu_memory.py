"""What a fit takes on a GPU, measured with the real fit in as much room as a plan counts on.

One process trains one fit of each network of a preset for a few epochs, each with its checkpoint,
and lets it score. It is limited to the plan's need as a lane is to its part of a GPU: with the
whole of it VGG16 reserves more than twice what it takes in that room. What the fit takes is the
most that torch's pool reserved and what the process holds beside that pool: CUDA's context and the
libraries' own memory.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from hipray.benchmarks.measure import Measure, hold_below
from hipray.config.base import load_config
from hipray.config.benchmarks import GpuBench
from hipray.config.experiment import Experiment
from hipray.config.jobs import GridRun
from hipray.data.dataset import HipArrays
from hipray.storage import open_store
from hipray.training.checkpoints import CheckpointStore
from hipray.training.classifier import train_classifier
from hipray.training.context import FitContext, local_context
from hipray.training.inputs import FitInputs
from hipray.training.memory import GIB, FitMemory, describe_fit_memory, limit_pool
from hipray.training.preparation import read_inputs
from hipray.training.segmenter import train_segmenter
from hipray.training.views import build_views
from hipray.vocab import REGIONS, Cell, Fit, LabelType, SegmenterFit, Variant

EPOCHS = 2
"""The second epoch runs beside what the first one's checkpoint left."""


@dataclass(frozen=True)
class FitPeak:
    """The most that one fit took."""

    pool_bytes: int
    """Reserved by torch."""
    beside_bytes: int
    """Held beside torch's pool when the fit was over."""

    @property
    def total_bytes(self) -> int:
        """What the GPU must have for it."""
        return self.pool_bytes + self.beside_bytes


def compare_memory(grid: GridRun, bench: GpuBench) -> Iterator[Measure]:
    """Yield what each network's fit takes against the plan's need of it; a GPU is needed.

    `grid` names the films; networks, sizes and batches are those of the bench's preset.
    """
    preset = load_config(GridRun, preset=bench.preset, section="grid")
    probe = ray.remote(MemoryProbe).options(num_cpus=0, num_gpus=1)
    prober = probe.remote(grid.model_dump(mode="json"), _shorten(preset).model_dump(mode="json"))
    for fit in list_fits(preset):
        need = describe_fit_memory(fit, preset.experiment)
        yield judge_fit(need, ray.get(prober.measure.remote(fit, need.total_bytes)))
    ray.kill(prober)


def judge_fit(need: FitMemory, peak: FitPeak | None) -> Measure:
    """Hold what a fit took against the plan's need; None is one that ran out of memory in it."""
    name, limit = f"gpu_memory_{need.network.replace(' ', '_')}", need.total_bytes / GIB
    about: dict[str, Any] = {"batch": need.batch, "out_of_memory": peak is None}
    if peak is None:
        return Measure(name, "GiB", target=limit, met=False, n=1, context=about)
    about["beside_pool_gib"] = peak.beside_bytes / GIB
    return hold_below(name, [peak.total_bytes / GIB], unit="GiB", limit=limit, **about)


def list_fits(grid: GridRun) -> list[Fit | SegmenterFit]:
    """Return one fit of each network of a grid."""
    cells = [Cell(grid.regions[0], LabelType.T_SCORE, name, Variant.AUGMENTED)
             for name in grid.backbones]  # fmt: skip
    settings = grid.experiment.segmenter
    regions = REGIONS[:1] if settings.per_region else REGIONS
    segmenters = [SegmenterFit(arch, regions, repeat=0, fold=0) for arch in settings.archs]
    return [*(Fit(cell, repeat=0, fold=0) for cell in cells), *segmenters]


class MemoryProbe:
    """The process that trains the measured fits, one after another."""

    def __init__(self, films: dict[str, Any], networks: dict[str, Any]) -> None:
        config = GridRun.model_validate(films)
        inputs = read_inputs(open_store(config.workspace, config.storage), config)
        self._inputs = inputs
        self._experiment = GridRun.model_validate(networks).experiment

    def measure(self, fit: Fit | SegmenterFit, room_bytes: int) -> FitPeak | None:
        """Train, save and score `fit` within `room_bytes` of the GPU.

        Returns the most that it took, None where its memory ran out.
        """
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        limit_pool(room_bytes / torch.cuda.get_device_properties(0).total_memory)
        with tempfile.TemporaryDirectory() as folder:
            context = FitContext(
                device=local_context().device, checkpoints=CheckpointStore(open_store(folder))
            )
            try:
                train(fit, self._inputs, self._experiment, context)
            except torch.OutOfMemoryError:
                return None
        free, total = torch.cuda.mem_get_info()
        beside = total - free - torch.cuda.memory_reserved()
        return FitPeak(torch.cuda.max_memory_reserved(), beside)


def train(
    fit: Fit | SegmenterFit, inputs: FitInputs, experiment: Experiment, context: FitContext
) -> None:
    """Run `fit` on the films of `inputs` with the networks and sizes of `experiment`.

    Segmenters learn the left half of each film: masks change what is learned and not what it takes.
    """
    if isinstance(fit, SegmenterFit):
        train_segmenter(
            fit, inputs.manifest, _halve(inputs.arrays),
            fold=inputs.fold(fit), settings=experiment.segmenter, context=context,
        )  # fmt: skip
        return
    settings = experiment.classifier_of(fit.cell.backbone)
    views = build_views(
        fit.cell, inputs.manifest, inputs.arrays,
        masks=None, classifier=settings, matting=experiment.matting,
    )  # fmt: skip
    train_classifier(
        fit, inputs.manifest, views, fold=inputs.fold(fit),
        settings=settings, split=inputs.experiment.split, context=context,
    )  # fmt: skip


def _halve(arrays: HipArrays) -> HipArrays:
    count, side = arrays.films.shape[:2]
    masks = np.zeros((count, len(REGIONS), side, side), np.bool_)
    masks[..., : side // 2] = True
    return HipArrays(arrays.films, masks, np.ones((count, len(REGIONS)), np.bool_))


def _shorten(grid: GridRun) -> GridRun:
    """The preset with few epochs and random start weights: neither changes the memory.

    The paper's learning rate is refused without start weights.
    """
    short: dict[str, Any] = {"epochs": EPOCHS, "patience": EPOCHS, "weights": "none", "lr": 1e-4}
    experiment = grid.experiment
    return grid.model_copy(
        update={
            "experiment": experiment.model_copy(
                update={
                    "classifier": experiment.classifier.model_copy(update=short),
                    "segmenter": experiment.segmenter.model_copy(update=short),
                }
            )
        }
    )
