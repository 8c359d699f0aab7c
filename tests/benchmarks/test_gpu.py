"""The GPU part of the grid bench, on whatever device there is."""

import os
from pathlib import Path

import pytest
import torch

from hipray.benchmarks.gpu import GpuTrainer, compare_packings
from hipray.benchmarks.lanes import build_bench_grid
from hipray.benchmarks.workspace import open_bench_store
from hipray.config.benchmarks import BenchRun, GpuBench, GridBench
from hipray.training.preparation import prepare
from tests.small_workspace import BACKBONE, SmallWorkspace, one_thread


def test_one_process_tells_how_fast_it_trains_and_how_fast_the_plain_step_is(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    run = BenchRun(name="grid", out=str(tmp_path), workspace=small_workspace.store.uri)
    cores = os.sched_getaffinity(0)
    with open_bench_store(run) as store, one_thread():
        grid = build_bench_grid(store, GridBench(backbones=(BACKBONE,), working_px=192))
        trainer = GpuTrainer(grid.model_dump(mode="json"), BACKBONE, 32, 8, threads=1, gpus=0)
        trainer.warm_up()
        assert trainer.rate_task(0.05) > 0
        assert trainer.rate_plain(0.05) > 0
    os.sched_setaffinity(0, cores)


@pytest.mark.full
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_packed_processes_are_measured_together_and_the_grid_is_projected_from_them(
    small_workspace: SmallWorkspace, tmp_path: Path
) -> None:
    small = GpuBench(size_px=32, batch=8, processes=(1, 2), seconds=0.2, preset="demo")
    bench = GridBench(backbones=(BACKBONE,), working_px=192)
    run = BenchRun(name="grid", out=str(tmp_path), workspace=small_workspace.store.uri)
    with open_bench_store(run) as store:
        grid = build_bench_grid(store, bench)
        prepare(store, grid)
        gpus = 1.0 if torch.cuda.is_available() else 0.0
        *rates, projected = compare_packings(store, grid, small, gpus=gpus)
    assert [measure.context["processes"] for measure in rates] == [1, 2]
    assert all(measure.ours and measure.peer for measure in rates)
    assert projected.unit == "h"
