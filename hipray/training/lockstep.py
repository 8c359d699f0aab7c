"""The networks of all inner folds of a trial, trained in lockstep.

After every epoch of all of them a trial has one figure, the mean inner-validation log loss, so
that trials can be compared from the first epochs on. Folds trained one after another would give a
weak trial away only when its first folds are paid for in full, and on fewer hips.

Legend of shapes: n hips, P side of the view in pixels, E epochs.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hipray.config.experiment import ClassifierSettings
from hipray.metrics import PROBABILITY_MARGIN, auroc, sigmoid
from hipray.training.classifier import ClassifierTask, build_answering
from hipray.training.schedules import build_optimizer
from hipray.training.views import LabelledViews

WORST_LOG_LOSS = -math.log(PROBABILITY_MARGIN)
"""Log loss of a network that diverged: every hip wrong with full certainty."""


@dataclass(frozen=True)
class Figures:
    """Where a trial stands after an epoch."""

    epoch: int
    """Epochs trained."""
    log_loss: float
    """The lowest mean over the inner folds so far, free of class weights."""
    auroc: float
    """Mean over the inner folds at that epoch."""
    best_epoch: int
    """The epoch, from 1, of the lowest log loss."""
    seconds: float
    """Time of training and validation."""
    curve: tuple[float, ...]
    """The lowest log loss after each epoch (E,)."""
    ended: bool = False
    """Whether the trial ended by itself and was not cut short."""


@dataclass(frozen=True)
class InnerFold:
    """One inner fold of a trial: its training and the views that judge it."""

    task: ClassifierTask
    inner: LabelledViews
    """The validation views."""


class LockstepTask:
    """The networks of all inner folds as one task, so that they advance epoch by epoch together.

    They share one optimiser object. It touches only weights that have a gradient, which are those
    of the fold whose step it is: the steps are the same as with an optimiser each.
    """

    def __init__(self, parts: Sequence[InnerFold], *, settings: ClassifierSettings, epochs: int):
        self._parts = parts
        self._settings = settings
        self._epoch, self._started = 0, 0.0
        self.module: nn.Module = nn.ModuleList([part.task.module for part in parts])
        # kept in the module, the curves are part of every checkpoint
        self.module.register_buffer("curves", torch.full((3, epochs), math.nan).double())
        self.optimizer = build_optimizer(
            self.module, lr=settings.lr, weight_decay=settings.weight_decay
        )
        for part in parts:
            part.task.optimizer = self.optimizer

    def train_epoch(self, epoch: int, generator: torch.Generator) -> float:
        """Take one epoch in every fold and return the mean loss."""
        self._epoch, self._started = epoch, time.perf_counter()
        return float(np.mean([part.task.train_epoch(epoch, generator) for part in self._parts]))

    def validate(self) -> float:
        """Return the mean log loss of the inner folds, free of their class weights."""
        judged = [self._judge(part) for part in self._parts]
        loss, area = (float(np.mean(values)) for values in zip(*judged, strict=True))
        seconds = time.perf_counter() - self._started
        self._curves()[:, self._epoch] = torch.tensor([loss, area, seconds]).double()
        return loss

    def figures(self, epoch: int) -> Figures:
        """Return where the trial stands after `epoch` epochs."""
        losses, areas, seconds = self._curves()[:, :epoch].numpy()
        best = int(np.argmin(losses))
        return Figures(
            epoch=epoch,
            log_loss=float(losses[best]),
            auroc=float(areas[best]),
            best_epoch=best + 1,
            seconds=round(float(seconds.sum()), 3),
            curve=tuple(np.minimum.accumulate(losses).tolist()),
        )

    def _curves(self) -> torch.Tensor:
        return self.module.get_buffer("curves")

    def _judge(self, part: InnerFold) -> tuple[float, float]:
        labels = part.inner.labels
        network, answers = build_answering(part.task, self._settings, part.inner)
        scores = sigmoid(network.log_odds(answers))
        if not np.isfinite(scores).all():
            return WORST_LOG_LOSS, 0.5
        sure = np.where(labels == 1, scores, 1 - scores)
        loss = -np.log(np.clip(sure, PROBABILITY_MARGIN, 1.0)).mean()
        return float(loss), auroc(labels, scores)
