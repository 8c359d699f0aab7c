"""Training on a GPU: films per second of packed processes, and the wall time of the whole grid.

Each process is a Ray actor with a part of the GPU, as packed lanes are. Ours is the classifier's
own task in the local context (bfloat16 autocasting) with weights in channels_last; the peer is
the plain step on a batch that lies on the GPU, in one process that has it alone.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch

from hipray.benchmarks.gpu_memory import compare_memory
from hipray.benchmarks.measure import Measure, Pair, compare_rates, skip
from hipray.benchmarks.steps import FedTask, build_fed_task, step_from_memory
from hipray.config.base import load_config
from hipray.config.benchmarks import GpuBench
from hipray.config.jobs import GridRun
from hipray.distributed.cluster import read_nodes
from hipray.storage import Store, open_store
from hipray.training.context import local_context
from hipray.training.costs import PAPER_FILMS, count_showings
from hipray.training.memory import limit_pool
from hipray.training.plan import build_cells
from hipray.training.preparation import chosen_folds, read_inputs
from hipray.vocab import Cell

WARM_UP_STEPS = 5
PREFIX = "gpu_training"


@dataclass(frozen=True)
class Rates:
    """Films per second of one network."""

    packed: dict[int, float]
    """All processes together, by their number."""
    plain: float
    """The plain step."""

    @property
    def best(self) -> float:
        """The highest rate of any packing."""
        return max(self.packed.values())


def measure_gpu(store: Store, grid: GridRun, bench: GpuBench) -> Iterator[Measure]:
    """Yield rates for each network and packing, the projected time of a grid, and memory."""
    if not any(node.gpus for node in read_nodes()):  # this process may not see one
        yield skip(PREFIX, unit="films/s", reason="Ray knows no GPU here")
        return
    yield from compare_packings(store, grid, bench, gpus=1.0)
    yield from compare_memory(grid, bench)


def compare_packings(
    store: Store, grid: GridRun, bench: GpuBench, *, gpus: float
) -> Iterator[Measure]:
    """Yield the measures on `gpus` GPUs in all; 0 runs the same on CPUs."""
    rates: dict[str, Rates] = {}
    for name in grid.backbones:
        rates[name] = rate = _measure_network(grid, name, bench, gpus)
        for processes, packed in rate.packed.items():
            yield compare_rates(
                f"{PREFIX}_{name}_x{processes}",
                [Pair(packed, rate.plain)],
                unit="films/s",
                backbone=name,
                processes=processes,
                size_px=bench.size_px,
                batch=bench.batch,
                seconds=bench.seconds,
            )
    yield _project(rates, load_config(GridRun, preset=bench.preset, section="grid"), bench)


def _measure_network(grid: GridRun, backbone: str, bench: GpuBench, gpus: float) -> Rates:
    packed: dict[int, float] = {}
    plain = 0.0
    for processes in bench.processes:
        actor = ray.remote(GpuTrainer).options(num_cpus=0, num_gpus=gpus / processes)
        payload = grid.model_dump(mode="json")
        threads = max(1, (os.cpu_count() or 1) // processes)
        share = gpus / processes
        trainers = [actor.remote(payload, backbone, bench.size_px, bench.batch, threads, share)
                    for _ in range(processes)]  # fmt: skip
        ray.get([trainer.warm_up.remote() for trainer in trainers])
        if not plain:
            plain = ray.get(trainers[0].rate_plain.remote(bench.seconds))
        packed[processes] = sum(ray.get([t.rate_task.remote(bench.seconds) for t in trainers]))
        for trainer in trainers:
            ray.kill(trainer)
    return Rates(packed, plain)


class GpuTrainer:
    """One training process on a part of a GPU."""

    def __init__(
        self,
        payload: dict[str, Any],
        backbone: str,
        size_px: int,
        batch: int,
        threads: int,
        gpus: float,
    ) -> None:
        _use_all_cores()
        torch.set_num_threads(threads)
        if gpus:
            limit_pool(gpus)
        config = GridRun.model_validate(payload)
        inputs = read_inputs(open_store(config.workspace, config.storage), config)
        settings = config.experiment.classifier.model_copy(
            update={"size_px": size_px, "batch": batch}
        )
        self._context = local_context()
        self._fed = build_fed_task(inputs, backbone, settings, self._context)
        self._generator = torch.Generator().manual_seed(0)

    def warm_up(self) -> None:
        """Take a few steps of both kinds: kernels are chosen and memory is reserved."""
        for epoch in range(WARM_UP_STEPS):
            self._fed.task.train_epoch(epoch, self._generator)
            step_from_memory(self._fed, self._context)

    def rate_task(self, seconds: float) -> float:
        """Return films per second of the task's own steps over `seconds`."""
        return _rate(
            lambda step: self._fed.task.train_epoch(step, self._generator), self._fed, seconds
        )

    def rate_plain(self, seconds: float) -> float:
        """Return films per second of steps on the ready batch over `seconds`."""
        return _rate(lambda _: step_from_memory(self._fed, self._context), self._fed, seconds)


def _use_all_cores() -> None:
    """Undo the pinning of the Ray that this process comes from: a GPU needs its feeders."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _rate(step: Callable[[int], float], fed: FedTask, seconds: float) -> float:
    """Films per second; each step returns a loss, which waits for the device."""
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step(steps)
        steps += 1
    return steps * len(fed.films) / (time.perf_counter() - started)


def _project(rates: dict[str, Rates], grid: GridRun, bench: GpuBench) -> Measure:
    """The wall time of a preset's cells with these networks, at the best packing of each.

    Both sides train every epoch; segmenters, scoring and the fixed cost of a fit come on top.
    """
    cells = build_cells(grid.regions, grid.label_types, tuple(rates), grid.variants)
    fits = len(chosen_folds(grid)) * grid.experiment.split.repeats
    shown = {cell: fits * count_films_shown(cell, grid) for cell in cells}
    ours = sum(films / rates[cell.backbone].best for cell, films in shown.items()) / 3600
    peer = sum(films / rates[cell.backbone].plain for cell, films in shown.items()) / 3600
    return Measure(
        f"{PREFIX}_grid_projected", "h", ours, peer, peer / ours, n=1,
        context={"preset": bench.preset, "cells": len(cells), "fits": fits * len(cells)},
    )  # fmt: skip


def count_films_shown(cell: Cell, grid: GridRun) -> float:
    """Return how many films one fit of `cell` learns from, all epochs, on the paper's archive."""
    experiment = grid.experiment
    settings = experiment.classifier_of(cell.backbone)
    films = PAPER_FILMS.labelled[cell.region, cell.label_type] * (1 - 1 / experiment.split.folds)
    copies = count_showings(settings, cell.variant)
    return films * (1 - settings.inner_fraction) * copies * settings.epochs
