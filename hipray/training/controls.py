"""Negative and positive controls: what a model must not learn, and what it must be able to."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hipray.classification.classifier import Classifier
from hipray.classification.odds import OddsScale
from hipray.config.experiment import ClassifierSettings, ClassWeighting, MattingSettings
from hipray.data.dataset import HipArrays
from hipray.data.framing import Pixels
from hipray.data.manifest import basis_column, label_column, missing_column, score_column
from hipray.metrics import accuracy, auroc, count_confusion
from hipray.runtime.network import TorchNetwork
from hipray.training.classifier import ClassifierTask
from hipray.training.context import local_context
from hipray.training.loop import run_epochs
from hipray.training.views import build_views, labelled_rows
from hipray.vocab import Cell, DxaQuantity, Fit, LabelType, Region, Variant

LABEL_COLUMNS = (label_column, missing_column, basis_column)


def permute_labels(manifest: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the manifest with the DXA results dealt anew among all hips, each hip's as a whole.

    Both hips of a patient keep being one patient; nothing in a film then tells its labels, nor the
    T-scores that a headline is judged by.
    """
    order = np.random.default_rng(seed).permutation(len(manifest))
    columns = [c for region in Region for c in _dxa_columns(region) if c in manifest]
    dealt = manifest[columns].iloc[order].set_axis(manifest.index)
    return manifest.assign(**{column: dealt[column] for column in columns})


def _dxa_columns(region: Region) -> list[str]:
    return [
        *(score_column(quantity, region) for quantity in DxaQuantity),
        *(column(kind, region) for kind in LabelType for column in LABEL_COLUMNS),
    ]


def mean_intensity_auroc(
    films: Pixels, manifest: pd.DataFrame, split: pd.DataFrame, cell: Cell
) -> float:
    """Return the out-of-fold AUROC of a logistic regression on each film's mean grey value."""
    rows = labelled_rows(manifest, cell)
    labels = manifest[label_column(cell.label_type, cell.region)].iloc[rows].astype(int).to_numpy()
    means = films[rows].mean(axis=(1, 2)).reshape(-1, 1)
    folds = split[split["repeat"] == 0].set_index("hip_id")["fold"]
    fold = folds.loc[manifest["hip_id"].iloc[rows]].to_numpy()
    scores = np.zeros(len(rows))
    for k in np.unique(fold):
        scaler = StandardScaler().fit(means[fold != k])
        model = LogisticRegression().fit(scaler.transform(means[fold != k]), labels[fold != k])
        scores[fold == k] = model.predict_proba(scaler.transform(means[fold == k]))[:, 1]
    return auroc(labels, scores)


def overfit_accuracy(
    backbone: str, arrays: HipArrays, manifest: pd.DataFrame, *, hips: int, epochs: int
) -> float:
    """Return the training accuracy of `backbone` on `hips` whole films learned by heart.

    A network that cannot learn 32 films has a defect in its training. No other use of training
    accuracy is meant.
    """
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, backbone, Variant.ORIGINAL)
    settings = ClassifierSettings(
        size_px=64, epochs=epochs, patience=epochs, lr=3e-4, dropout=0.0, batch=16,
        class_weighting=ClassWeighting.NONE,
    )  # fmt: skip
    views = build_views(
        cell, manifest, arrays, masks=None, classifier=settings, matting=MattingSettings()
    )
    normal, abnormal = (np.flatnonzero(views.labels == label) for label in (0, 1))
    known = views.take(np.concatenate([normal[: hips // 2], abnormal[: hips - hips // 2]]))
    context = local_context()
    task = ClassifierTask(
        Fit(cell, 0, 0), known, known,
        settings=settings, odds=OddsScale(), start=None, context=context,
    )  # fmt: skip
    run_epochs(task, epochs=epochs, patience=epochs, seed=settings.seed, context=context)
    answering = Classifier(TorchNetwork(task.module, device=context.device), settings=settings)
    odds = answering(known.films, known.people)
    return accuracy(count_confusion(known.labels, odds >= 0))
