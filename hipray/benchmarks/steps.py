"""The cost of feeding a network: training steps on real films against steps on ready tensors.

The real step is one epoch of the classifier's own task with a training set of one batch, in the
augmented variant: rows are drawn, gathered from uint8 copies, made float and scaled, the loss is
weighted, and the network learns. What an epoch costs once falls on that one step. The other step
learns the same from a float batch that lies in memory. Both use one network and optimiser, turn
about, so that drift of the machine and of the caches hits both.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from hipray.benchmarks.lanes import count_lane_threads
from hipray.benchmarks.machine import use_threads
from hipray.benchmarks.measure import Measure, Pair, compare_rates
from hipray.classification.losses import classification_loss
from hipray.config.benchmarks import GridBench
from hipray.config.experiment import ClassifierSettings
from hipray.training.classifier import ClassifierTask, scale_odds
from hipray.training.context import FitContext
from hipray.training.inputs import FitInputs
from hipray.training.views import LabelledViews, build_views
from hipray.vocab import Cell, Fit, LabelType, Variant

STEP_TARGET = 0.95
"""Least rate of real steps over steps from memory."""
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class FedTask:
    """A task and one float batch of what it learns from."""

    task: ClassifierTask
    films: torch.Tensor
    """(B, 1, P, P) in 0..1."""
    labels: torch.Tensor
    """(B,)."""


def compare_steps(inputs: FitInputs, bench: GridBench) -> Iterator[Measure]:
    """Yield, for each network, films per second of real steps against steps from memory."""
    threads = count_lane_threads(bench)
    context = FitContext()
    with use_threads(threads):
        for backbone in bench.backbones:
            fed = build_fed_task(inputs, backbone, inputs.experiment.classifier, context)
            yield compare_rates(
                f"step_real_vs_memory_{backbone}",
                _time_steps(fed, bench.step_rounds, context),
                unit="films/s",
                target=STEP_TARGET,
                backbone=backbone,
                threads=threads,
            )


def build_fed_task(
    inputs: FitInputs, backbone: str, settings: ClassifierSettings, context: FitContext
) -> FedTask:
    """Return the task of an augmented fit whose training set is one batch of both classes."""
    cell = Cell(inputs.experiment.split.stratify_region, LabelType.T_SCORE, backbone,
                Variant.AUGMENTED)  # fmt: skip
    fit = Fit(cell, repeat=0, fold=0)
    views = build_views(
        cell, inputs.manifest, inputs.arrays,
        masks=None, classifier=settings, matting=inputs.experiment.matting,
    )  # fmt: skip
    train = _take_balanced(views.take(views.places_of(inputs.fold(fit).train)), settings.batch)
    task = ClassifierTask(
        fit, train, train,
        settings=settings, odds=scale_odds(fit, train, settings), start=None, context=context,
    )  # fmt: skip
    task.module.train()
    films = torch.from_numpy(train.films.copy())[:, None].float() / 255
    labels = torch.from_numpy(train.labels.copy())
    return FedTask(task, films.to(context.device), labels.to(context.device))


def _take_balanced(views: LabelledViews, count: int) -> LabelledViews:
    """The first films of each class, in equal parts where there are enough."""
    abnormal, normal = np.flatnonzero(views.labels == 1), np.flatnonzero(views.labels == 0)
    few = min(len(abnormal), count // 2)
    return views.take(np.concatenate([abnormal[:few], normal[: count - few]]))


def _time_steps(fed: FedTask, rounds: int, context: FitContext) -> list[Pair]:
    generator = torch.Generator().manual_seed(0)
    films = len(fed.films)
    for epoch in range(WARM_UP_STEPS):
        fed.task.train_epoch(epoch, generator)
        step_from_memory(fed, context)
    pairs = []
    for epoch in range(rounds):
        real = _seconds(partial(fed.task.train_epoch, epoch, generator))
        memory = _seconds(partial(step_from_memory, fed, context))
        pairs.append(Pair(films / real, films / memory))
    return pairs


def step_from_memory(fed: FedTask, context: FitContext) -> float:
    """Take one optimiser step on the ready batch and return its loss."""
    task = fed.task
    task.optimizer.zero_grad(set_to_none=True)
    with context.autocast():
        logits = task.module(fed.films)
    loss = classification_loss(logits.float(), fed.labels, task.odds.class_weights)
    loss.backward()  # type: ignore[no-untyped-call]
    task.optimizer.step()
    return loss.item()


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
