"""Training one classifier: views in, scores of its inner-validation and test hips out.

Legend of shapes: n training hips, M moved copies, P side of the view in pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from hipray.classification.classifier import Classifier
from hipray.classification.losses import class_weights, classification_loss
from hipray.classification.model import build_network
from hipray.config.experiment import Budget, ClassifierSettings, SplitSettings
from hipray.data.augment import scale_batch
from hipray.data.framing import Pixels
from hipray.data.splits import FoldIndices, Indices, hold_back
from hipray.errors import DataError
from hipray.metrics import (
    PlattScaling,
    apply_platt,
    fit_platt,
    sigmoid,
)
from hipray.training.checkpoints import Tensors
from hipray.training.context import FitContext
from hipray.training.loop import History, run_epochs
from hipray.training.thresholds import choose_threshold
from hipray.training.views import Views, augment_views
from hipray.vocab import Fit, Variant


@dataclass(frozen=True)
class ClassifierOutcome:
    """A trained classifier with the scores of the hips that did not move its weights."""

    module: nn.Module
    history: History
    weights: tuple[float, float]
    """Class weights of the loss, taken out of every score."""
    calibrator: PlattScaling
    threshold: float
    predictions: pd.DataFrame
    """hip_id, patient_id, part (inner, test, train), label, score, calibrated, threshold."""


class ClassifierTask:
    """Epochs of a fixed number of optimiser steps; validation on whole views."""

    def __init__(
        self,
        fit: Fit,
        train: tuple[Pixels, Indices],
        inner: tuple[Pixels, Indices],
        *,
        settings: ClassifierSettings,
        weights: tuple[float, float],
        start: Tensors | None,
        context: FitContext,
    ) -> None:
        self._settings = settings
        self._context = context
        self._weights = weights
        self._scale = 0.0 if fit.cell.variant is Variant.ORIGINAL else settings.batch_scale
        copies = augment_views(train[0], fit.cell.variant, settings)
        self._films = torch.from_numpy(copies.reshape(-1, *copies.shape[2:]).copy())
        self._labels = torch.from_numpy(np.repeat(train[1], copies.shape[1]))
        self._inner = (torch.from_numpy(inner[0].copy()), torch.from_numpy(inner[1].copy()))
        shown = len(train[0]) if settings.budget is Budget.EQUAL_STEPS else len(self._films)
        self._steps = math.ceil(shown / settings.batch)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            network = build_network(fit.cell.backbone, settings)
        if start is not None:
            network.load_state_dict(start)
        self.module: nn.Module = network.to(context.device)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            (p for p in self.module.parameters() if p.requires_grad),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )

    def train_epoch(self, epoch: int, generator: torch.Generator) -> float:
        """Take one epoch of optimiser steps and return the mean loss."""
        losses = []
        for rows in self._draw(epoch):
            self._context.check_deadline()
            films = self._films[rows][:, None].float() / 255
            films = scale_batch(films, amount=self._scale, generator=generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(films, self._labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses))

    def validate(self) -> float:
        """Return the mean loss on inner validation."""
        films, labels = self._inner
        total = 0.0
        for start in range(0, len(films), 32):
            batch = films[start : start + 32][:, None].float() / 255
            loss = self._loss(batch, labels[start : start + 32])
            total += loss.item() * len(batch)
        return total / len(films)

    def _loss(self, films: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        device = self._context.device
        with self._context.autocast():
            logits = self.module(films.to(device))
        return classification_loss(logits.float(), labels.to(device), self._weights)

    def _draw(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Rows of each step. One pass over all copies spans several epochs of equal steps."""
        batch, count = min(self._settings.batch, len(self._films)), len(self._films)
        wanted = np.arange(epoch * self._steps * batch, (epoch + 1) * self._steps * batch)
        passes = {
            p: np.random.default_rng((self._settings.seed, int(p))).permutation(count)
            for p in np.unique(wanted // count)
        }
        rows = np.array([passes[w // count][w % count] for w in wanted])
        return list(rows.reshape(self._steps, batch))


def train_classifier(
    fit: Fit,
    manifest: pd.DataFrame,
    views: Views,
    *,
    fold: FoldIndices,
    settings: ClassifierSettings,
    split: SplitSettings,
    context: FitContext,
    start: Tensors | None = None,
) -> ClassifierOutcome:
    """Train `fit` and score the hips it did not learn from.

    The epoch, the threshold and the calibration come from inner validation; test hips only
    receive scores. Raises DataError where the training or inner side has one class.
    """
    kept, held = hold_back(
        manifest,
        fold.train,
        stratify=split,
        fraction=settings.inner_fraction,
        seed=settings.seed * 1009 + fit.repeat * 101 + fit.fold,
    )
    fitted, inner, test = (
        np.flatnonzero(np.isin(views.rows, rows)) for rows in (kept, held, fold.test)
    )
    _require_both_classes(fit, views.labels[fitted], "training")
    _require_both_classes(fit, views.labels[inner], "inner validation")
    weights = class_weights(views.labels[fitted], settings.class_weighting)
    task = ClassifierTask(
        fit,
        (views.films[fitted], views.labels[fitted]),
        (views.films[inner], views.labels[inner]),
        settings=settings,
        weights=weights,
        start=start,
        context=context,
    )
    history = run_epochs(
        task,
        epochs=settings.epochs,
        patience=settings.patience,
        seed=settings.seed,
        context=context,
    )
    classifier = Classifier(
        task.module, size_px=settings.size_px, weights=weights, device=context.device
    )
    scores = sigmoid(classifier(views.films))
    calibrator = fit_platt(views.labels[inner], scores[inner])
    threshold = choose_threshold(
        views.labels[inner], scores[inner], settings.threshold,
        sensitivity=settings.screening_sensitivity,
    )  # fmt: skip
    parts = [("train", fitted), ("inner", inner), ("test", test)]
    predictions = pd.concat(
        [_predictions(manifest, views, scores, rows=rows, part=part) for part, rows in parts],
        ignore_index=True,
    )
    predictions["calibrated"] = apply_platt(calibrator, predictions["score"])
    predictions["threshold"] = threshold
    return ClassifierOutcome(task.module, history, weights, calibrator, threshold, predictions)


def _require_both_classes(fit: Fit, labels: Indices, part: str) -> None:
    positive, count = int(labels.sum()), len(labels)
    if not 0 < positive < count:
        raise DataError(
            f"normal and abnormal hips in the {part} set of {fit.name}",
            f"{positive} abnormal of {count}",
            "add films, lower split.folds, or leave this cell out",
        )


def _predictions(
    manifest: pd.DataFrame,
    views: Views,
    scores: npt.NDArray[np.float64],
    *,
    rows: Indices,
    part: str,
) -> pd.DataFrame:
    chosen = manifest.iloc[views.rows[rows]]
    return pd.DataFrame(
        {
            "hip_id": chosen["hip_id"].to_numpy(),
            "patient_id": chosen["patient_id"].to_numpy(),
            "part": part,
            "label": views.labels[rows],
            "score": scores[rows],
        }
    )
