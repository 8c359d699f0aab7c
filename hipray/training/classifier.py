"""Training one classifier: views in, scores of its inner-validation and test hips out.

Legend of shapes: n training hips, M moved copies, P side of the view in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from hipray.classification.classifier import Classifier
from hipray.classification.losses import class_weights, classification_loss, score_loss
from hipray.classification.model import build_network
from hipray.classification.odds import OddsScale, find_threshold, standardise
from hipray.config.experiment import Budget, ClassifierSettings, SplitSettings, Target
from hipray.data.augment import scale_batch
from hipray.data.manifest import label_column
from hipray.data.splits import FoldIndices, Indices, hold_back
from hipray.errors import DataError
from hipray.metrics import PlattScaling, apply_platt, fit_platt, sigmoid
from hipray.runtime.network import Answers, TorchNetwork, arrange
from hipray.training.checkpoints import Tensors
from hipray.training.context import FitContext
from hipray.training.homes import find_home
from hipray.training.loop import History, mean_loss, run_epochs
from hipray.training.schedules import build_optimizer, set_learning_rate
from hipray.training.seeds import seed_fit
from hipray.training.thresholds import choose_threshold
from hipray.training.views import MEASURED, LabelledViews, augment_views, labelled_rows
from hipray.vocab import Fit, Part, Variant

VALIDATION_BATCH = 32
"""Films in one forward pass of validation."""
TRAINING, INNER_VALIDATION = "training set", "inner validation set"


@dataclass(frozen=True)
class ClassifierOutcome:
    """A trained classifier with the scores of the hips that did not move its weights."""

    module: nn.Module
    history: History
    odds: OddsScale
    calibrator: PlattScaling
    threshold: float
    predictions: pd.DataFrame
    """hip_id, patient_id, part, label, score, calibrated, threshold, measured, predicted."""


class ClassifierTask:
    """Epochs of a fixed number of optimiser steps; validation on whole views."""

    def __init__(
        self,
        fit: Fit,
        train: LabelledViews,
        inner: LabelledViews,
        *,
        settings: ClassifierSettings,
        odds: OddsScale,
        start: Tensors | None,
        context: FitContext,
    ) -> None:
        self._settings = settings
        self._seed = seed_fit(settings.seed, fit)
        self._context = context
        self.odds = odds
        self._scale = 0.0 if fit.cell.variant is Variant.ORIGINAL else settings.batch_scale
        copies = augment_views(train.films, fit.cell.variant, settings)
        count = copies.shape[1]
        self._home = find_home(copies.nbytes + inner.films.nbytes, context.device)
        self._train = _Examples(
            torch.from_numpy(copies.reshape(-1, *copies.shape[2:]).copy()),
            torch.from_numpy(np.repeat(train.people, count, axis=0)),
            self._targets(train).repeat_interleave(count),
        ).to(self._home)
        self._inner = _Examples(
            torch.from_numpy(inner.films.copy()),
            torch.from_numpy(inner.people.copy()),
            self._targets(inner),
        ).to(self._home)
        films = self._train.films
        shown = len(train.films) if settings.budget is Budget.EQUAL_STEPS else len(films)
        self._steps = math.ceil(shown / settings.batch)
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            network = build_network(fit.cell.backbone, settings, start=start)
        self.module: nn.Module = arrange(network.to(context.device))
        self._shared = context.crew.wrap(self.module, context.device)
        self.optimizer = build_optimizer(
            self.module, lr=settings.lr, weight_decay=settings.weight_decay
        )

    def train_epoch(self, epoch: int, generator: torch.Generator) -> float:
        """Take one epoch of optimiser steps and return the mean loss."""
        settings = self._settings
        set_learning_rate(
            self.optimizer, settings.lr, settings.schedule, epoch=epoch, epochs=settings.epochs
        )
        losses = []
        crew = self._context.crew
        for rows in self._draw(epoch).to(self._home):
            self._context.check_deadline()
            own = self._train.take(crew.share(rows))
            films = scale_batch(self._show(own.films), amount=self._scale, generator=generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._shared, films, own)
            if crew.size > 1:
                total = self._weigh(self._train.wanted[rows])
                loss = crew.weigh(loss, own=self._weigh(own.wanted), total=total)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            losses.append(loss.detach())
        return crew.mean(mean_loss(losses))

    def validate(self) -> float:
        """Return the mean loss on inner validation."""
        total = weights = torch.zeros((), dtype=torch.float64, device=self._context.device)
        for start in range(0, len(self._inner.wanted), VALIDATION_BATCH):
            own = self._inner.take(slice(start, start + VALIDATION_BATCH))
            weight = self._weigh(own.wanted).to(total.device)
            total = total + self._loss(self.module, self._show(own.films), own).double() * weight
            weights = weights + weight
        return float(total / weights)

    def _show(self, films: torch.Tensor) -> torch.Tensor:
        """Return uint8 films (B, P, P) as grey values (B, 1, P, P) in 0..1 on the device.

        Those that are not there travel as bytes, and what moves them is the device's work: a GPU
        waits for a core that resamples films.
        """
        return films.to(self._context.device)[:, None].float() / 255

    def _targets(self, views: LabelledViews) -> torch.Tensor:
        """Labels (n,), or standardised scores (n,)."""
        scale = self.odds.score
        if scale is None:
            return torch.from_numpy(views.labels.copy())
        return torch.from_numpy((views.scores - scale.centre) / scale.spread).float()

    def _weigh(self, wanted: torch.Tensor) -> torch.Tensor:
        """The sum, in float64, of the weights in the loss of films with these targets (n,)."""
        if self.odds.score is not None:
            return torch.ones_like(wanted, dtype=torch.float64).sum()
        normal, abnormal = self.odds.class_weights
        positive = wanted.double().sum()
        return normal * (len(wanted) - positive) + abnormal * positive

    def _loss(self, network: nn.Module, films: torch.Tensor, own: "_Examples") -> torch.Tensor:
        """The mean loss of the examples, whose films are shown as `films`."""
        device = self._context.device
        with self._context.autocast():
            answers = network(films, own.people.to(device))
        wanted = own.wanted.to(device)
        if self.odds.score is not None:
            return score_loss(answers.float(), wanted)
        return classification_loss(answers.float(), wanted, self.odds.class_weights)

    def _draw(self, epoch: int) -> torch.Tensor:
        """Rows (steps, B). One pass over all copies spans several epochs of equal steps."""
        count = len(self._train.films)
        batch = min(self._settings.batch, count)
        wanted = np.arange(epoch * self._steps * batch, (epoch + 1) * self._steps * batch)
        passes = {
            p: np.random.default_rng((self._seed, int(p))).permutation(count)
            for p in np.unique(wanted // count)
        }
        rows = np.array([passes[w // count][w % count] for w in wanted])
        return torch.from_numpy(rows.reshape(self._steps, batch))


@dataclass(frozen=True)
class _Examples:
    """What a network learns from, or is judged by."""

    films: torch.Tensor
    """(n, P, P) uint8."""
    people: torch.Tensor
    """(n, C)."""
    wanted: torch.Tensor
    """Labels (n,), or standardised scores (n,)."""

    def to(self, device: torch.device) -> "_Examples":
        """Return the same on `device`."""
        return _Examples(*(t.to(device) for t in (self.films, self.people, self.wanted)))

    def take(self, rows: torch.Tensor | slice) -> "_Examples":
        """Return some of them."""
        return _Examples(self.films[rows], self.people[rows], self.wanted[rows])


def train_classifier(
    fit: Fit,
    manifest: pd.DataFrame,
    views: LabelledViews,
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
    parts = _part_views(fit, manifest, views, fold=fold, settings=settings, split=split)
    train, inner = parts[Part.TRAIN], parts[Part.INNER]
    task = ClassifierTask(
        fit, train, inner,
        settings=settings, odds=scale_odds(fit, train, settings), start=start, context=context,
    )  # fmt: skip
    history = run_epochs(
        task,
        epochs=settings.epochs,
        patience=settings.patience,
        seed=seed_fit(settings.seed, fit),
        context=context,
    )
    classifier, told = build_answering(task, settings, inner)
    answers = {Part.INNER: told} | {
        part: classifier.ask(own.films, own.people)
        for part, own in parts.items()
        if part is not Part.INNER
    }
    predictions = pd.concat(
        [
            _predictions(manifest, own, classifier, answers[part], part=part)
            for part, own in parts.items()
        ],
        ignore_index=True,
    )
    held = predictions[predictions["part"] == Part.INNER]
    labels, scores = held["label"].to_numpy(), held["score"].to_numpy()
    calibrator = fit_platt(labels, scores)
    threshold = choose_threshold(
        labels, scores, settings.threshold, sensitivity=settings.screening_sensitivity
    )
    predictions["calibrated"] = apply_platt(calibrator, predictions["score"])
    predictions["threshold"] = threshold
    return ClassifierOutcome(
        task.module, history, classifier.odds, calibrator, threshold, predictions
    )


def _part_views(
    fit: Fit,
    manifest: pd.DataFrame,
    views: LabelledViews,
    *,
    fold: FoldIndices,
    settings: ClassifierSettings,
    split: SplitSettings,
) -> dict[Part, LabelledViews]:
    """Deal the views of a fit to its parts; both classes must be there to learn and to judge."""
    kept, held = deal_inner(fit, manifest, fold.train, settings=settings, split=split)
    rows = {Part.TRAIN: kept, Part.INNER: held, Part.TEST: fold.test}
    parts = {part: views.take(views.places_of(chosen)) for part, chosen in rows.items()}
    require_both_classes(fit, parts[Part.TRAIN].labels, TRAINING)
    require_both_classes(fit, parts[Part.INNER].labels, INNER_VALIDATION)
    return parts


def deal_inner(
    fit: Fit,
    manifest: pd.DataFrame,
    train: Indices,
    *,
    settings: ClassifierSettings,
    split: SplitSettings,
) -> tuple[Indices, Indices]:
    """Divide the training rows of a fit into those that are learned and the inner validation."""
    return hold_back(
        manifest,
        train,
        stratify=split,
        fraction=settings.inner_fraction,
        seed=seed_fit(settings.seed, fit),
    )


def check_division(
    fit: Fit,
    manifest: pd.DataFrame,
    train: Indices,
    *,
    settings: ClassifierSettings,
    split: SplitSettings,
) -> None:
    """Raise DataError where no network could learn or judge a fit, whatever it saw."""
    known = labelled_rows(manifest, fit.cell)
    labels = manifest[label_column(fit.cell.label_type, fit.cell.region)]
    kept, held = deal_inner(fit, manifest, train, settings=settings, split=split)
    for rows, part in ((kept, TRAINING), (held, INNER_VALIDATION)):
        own = labels.iloc[np.intersect1d(rows, known)].to_numpy(dtype=np.int64)
        require_both_classes(fit, own, part)


def require_both_classes(fit: Fit, labels: Indices, part: str) -> None:
    """Raise DataError unless labels (n,) of a part of `fit` hold normal and abnormal hips."""
    positive, count = int(labels.sum()), len(labels)
    if not 0 < positive < count:
        raise DataError(
            f"normal and abnormal hips in the {part} of {fit.name}",
            f"{positive} abnormal of {count}",
            "add films, lower the number of folds, or leave this cell out",
        )


def scale_odds(fit: Fit, train: LabelledViews, settings: ClassifierSettings) -> OddsScale:
    """Return how a network's answers are learned and become log odds, from its training views.

    Raises DataError where scores are to be learned and no threshold on them gives the labels.
    """
    if settings.target is Target.LABEL:
        return OddsScale(class_weights(train.labels, settings.class_weighting))
    usual = MEASURED[fit.cell.label_type].usual_threshold
    threshold = find_threshold(train.scores, train.labels, usual=usual)
    if threshold is None:
        raise DataError(
            f"labels of {fit.name} that follow from a threshold on the score",
            "abnormal hips with higher scores than normal ones",
            "set classifier.target = 'label', or ingest without given labels",
        )
    return OddsScale(score=standardise(train.scores, threshold=threshold))


def build_answering(
    task: ClassifierTask, settings: ClassifierSettings, inner: LabelledViews
) -> tuple[Classifier, list[Answers]]:
    """Return the trained network as it answers, and what it answers to the inner views.

    Those tell how far its scores err.
    """
    odds = task.odds
    network = TorchNetwork(task.module, device=next(task.module.parameters()).device)
    first = Classifier(network, settings=settings, odds=odds)
    answers = first.ask(inner.films, inner.people)
    if odds.score is None:
        return first, answers
    errors = first.scores(answers) - inner.scores
    score = replace(odds.score, error=float(np.sqrt(np.mean(np.square(errors)))))
    return Classifier(network, settings=settings, odds=OddsScale(score=score)), answers


def _predictions(
    manifest: pd.DataFrame,
    views: LabelledViews,
    classifier: Classifier,
    answers: Sequence[Answers],
    *,
    part: Part,
) -> pd.DataFrame:
    chosen = manifest.iloc[views.rows]
    return pd.DataFrame(
        {
            "hip_id": chosen["hip_id"].to_numpy(),
            "patient_id": chosen["patient_id"].to_numpy(),
            "part": part.value,
            "label": views.labels,
            "score": sigmoid(classifier.log_odds(answers)),
            "measured": views.scores,
            "predicted": classifier.scores(answers),
        }
    )
