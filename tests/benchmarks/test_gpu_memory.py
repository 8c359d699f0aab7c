"""The measured fits of the memory bench, on a CPU."""

from pathlib import Path

import pytest

from hipray.benchmarks.gpu_memory import FitPeak, judge_fit, list_fits, train
from hipray.benchmarks.lanes import build_bench_grid
from hipray.benchmarks.workspace import open_bench_store
from hipray.config.base import load_config
from hipray.config.benchmarks import BenchRun, GridBench
from hipray.config.experiment import ClassifierSettings, Experiment, SegmenterSettings
from hipray.config.jobs import GridRun
from hipray.storage import open_store
from hipray.training.checkpoints import CheckpointStore
from hipray.training.context import FitContext
from hipray.training.memory import GIB, FitMemory
from hipray.training.preparation import read_inputs
from hipray.vocab import Cell, Fit, LabelType, Region, SegmenterArch, SegmenterFit, Variant
from tests.small_workspace import BACKBONE, SmallWorkspace, one_thread

CLASSIFIER = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.AUGMENTED), 0, 0)
SEGMENTER = SegmenterFit(SegmenterArch.UNET, (Region.TOTAL_HIP,), 0, 0)


def test_each_network_of_a_preset_is_measured_once() -> None:
    preset = load_config(GridRun, preset="paper", section="grid")
    fits = list_fits(preset)
    classifiers = [fit.cell.backbone for fit in fits if isinstance(fit, Fit)]
    segmenters = [fit.arch for fit in fits if isinstance(fit, SegmenterFit)]
    assert classifiers == list(preset.backbones)
    assert segmenters == list(preset.experiment.segmenter.archs)


def test_a_fit_that_ran_out_of_the_room_of_its_plan_misses_the_limit() -> None:
    need = FitMemory("unet on resnet34", 8, step_bytes=GIB, bytes_per_film=0, floor_bytes=2 * GIB)
    fits = judge_fit(need, FitPeak(pool_bytes=GIB, beside_bytes=GIB // 2))
    assert (fits.name, fits.ours, fits.target, fits.met) == (
        "gpu_memory_unet_on_resnet34", 1.5, 2.0, True
    )  # fmt: skip
    starved = judge_fit(need, None)
    assert (starved.name, starved.ours, starved.met) == (fits.name, None, False)
    assert starved.as_line()["out_of_memory"]


@pytest.mark.parametrize("fit", [CLASSIFIER, SEGMENTER], ids=["classifier", "segmenter"])
def test_a_measured_fit_trains_and_writes_its_checkpoints_also_without_annotated_masks(
    small_workspace: SmallWorkspace, tmp_path: Path, fit: Fit | SegmenterFit
) -> None:
    networks = Experiment(
        classifier=ClassifierSettings(size_px=32, batch=8, epochs=2),
        segmenter=SegmenterSettings(size_px=32, batch=4, epochs=2),
    )
    run = BenchRun(name="grid", out=str(tmp_path / "bench"), workspace=small_workspace.store.uri)
    checkpoints = CheckpointStore(open_store(str(tmp_path / "checkpoints")))
    with open_bench_store(run) as store, one_thread():
        grid = build_bench_grid(store, GridBench(backbones=(BACKBONE,), working_px=192))
        train(fit, read_inputs(store, grid), networks, FitContext(checkpoints=checkpoints))
    saved = checkpoints.load_latest()
    assert saved is not None
    assert saved.epoch == 2
