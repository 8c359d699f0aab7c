"""One fit from data to files: what a lane runs, on any machine, with or without Ray."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
from torch import nn

from hipray.classification.spec import ClassifierSpec
from hipray.data.framing import Mask
from hipray.data.leakage import check_mask_origins
from hipray.errors import DataError
from hipray.metrics import accuracy, count_confusion, f1, sensitivity, specificity
from hipray.segmentation.spec import SegmenterSpec
from hipray.training.classifier import ClassifierOutcome, train_classifier
from hipray.training.context import FitContext
from hipray.training.fit_files import (
    HISTORY_FILE,
    MASK_SCORES_FILE,
    MASKS_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    FitFiles,
    dump_frame,
    dump_json,
    dump_masks,
    load_masks,
)
from hipray.training.inputs import FitInputs
from hipray.training.segmenter import SegmenterOutcome, train_segmenter
from hipray.training.starts import read_start_weights
from hipray.training.views import build_views, count_moves
from hipray.vocab import REGIONS, Fit, MaskSource, Part, SegmenterFit, View


def run_segmenter_fit(fit: SegmenterFit, inputs: FitInputs, context: FitContext) -> FitFiles:
    """Train a segmenter and return its weights, out-of-fold masks and their scores."""
    settings = inputs.experiment.segmenter
    outcome = train_segmenter(
        fit,
        inputs.manifest,
        inputs.arrays,
        fold=inputs.fold(fit),
        settings=settings,
        context=context,
        start=read_start_weights(inputs.store, settings.weights),
    )
    spec = SegmenterSpec(
        arch=fit.arch,
        regions=fit.regions,
        settings=settings,
        working_px=inputs.experiment.data.working_px,
    )
    hip_ids = inputs.manifest["hip_id"].iloc[outcome.test_rows].tolist()
    drawn = outcome.segmentation
    return FitFiles(
        {
            WEIGHTS_FILE: dump_weights(outcome.module),
            MODEL_FILE: dump_json(spec.model_dump(mode="json")),
            MASKS_FILE: dump_masks(hip_ids, drawn.masks, drawn.confidence),
            MASK_SCORES_FILE: dump_frame(outcome.scores),
            HISTORY_FILE: dump_json(outcome.history.as_dict()),
        },
        _segmenter_summary(outcome),
    )


def run_classifier_fit(
    fit: Fit, inputs: FitInputs, context: FitContext, *, masks: Mapping[int, list[bytes]]
) -> FitFiles:
    """Train a classifier and return its weights and scores.

    `masks` maps a fold to the mask files of that fold's segmenters; empty for whole views.
    """
    settings = inputs.experiment.classifier_of(fit.cell.backbone)
    views = build_views(
        fit.cell,
        inputs.manifest,
        inputs.arrays,
        masks=out_of_fold_masks(fit, inputs, masks),
        classifier=settings,
        matting=inputs.experiment.matting,
    )
    start = read_start_weights(inputs.store, settings.weights)
    outcome = train_classifier(
        fit,
        inputs.manifest,
        views,
        fold=inputs.fold(fit),
        settings=settings,
        split=inputs.experiment.split,
        context=context,
        start=start,
    )
    spec = ClassifierSpec(
        cell=fit.cell,
        settings=settings,
        matting=inputs.experiment.matting,
        odds=outcome.odds,
        calibrator=outcome.calibrator,
        threshold=outcome.threshold,
        working_px=inputs.experiment.data.working_px,
    )
    return FitFiles(
        {
            WEIGHTS_FILE: dump_weights(outcome.module),
            MODEL_FILE: dump_json(spec.model_dump(mode="json")),
            PREDICTIONS_FILE: dump_frame(outcome.predictions),
            HISTORY_FILE: dump_json(outcome.history.as_dict()),
        },
        _classifier_summary(outcome, count_moves(fit.cell.variant, settings)),
    )


def out_of_fold_masks(fit: Fit, inputs: FitInputs, files: Mapping[int, list[bytes]]) -> Mask | None:
    """Return masks (N, R, S, S) in manifest order, each by a segmenter that never saw its patient.

    `files` maps a fold to the mask files of that fold's segmenters; None where none are needed.
    """
    if fit.cell.variant.view is View.WHOLE or not _uses_predictions(inputs):
        return None
    rows = {hip_id: row for row, hip_id in enumerate(inputs.manifest["hip_id"])}
    side = inputs.experiment.data.working_px
    masks = np.zeros((len(rows), len(REGIONS), side, side), np.bool_)
    origins = []
    for fold, parts in files.items():
        for part in parts:
            hip_ids, drawn = load_masks(part)
            for hip_id, mask in zip(hip_ids, drawn, strict=True):
                masks[rows[hip_id]] |= mask
                origins.append({"hip_id": hip_id, "fold": fold})
    if len({origin["hip_id"] for origin in origins}) != len(rows):
        raise DataError(
            "a predicted mask for every hip", f"{len(origins)} of {len(rows)}", "run the segmenters"
        )
    check_mask_origins(
        inputs.split,
        pd.DataFrame(origins),
        repeat=fit.repeat,
        allow=inputs.experiment.leakage.allow,
    )
    return masks


def _uses_predictions(inputs: FitInputs) -> bool:
    return inputs.experiment.matting.mask is not MaskSource.TRUE


def dump_weights(module: nn.Module) -> bytes:
    """Return a network's tensors as the bytes of a safetensors file."""
    state = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    data: bytes = safetensors.torch.save(state)
    return data


def _segmenter_summary(outcome: SegmenterOutcome) -> dict[str, Any]:
    by_region = outcome.scores.groupby("region") if len(outcome.scores) else None
    return {
        "epochs": outcome.history.epochs,
        "best_epoch": outcome.history.best_epoch,
        "n_test": len(outcome.test_rows),
        "iou": {} if by_region is None else by_region["iou"].mean().to_dict(),
    }


def _classifier_summary(outcome: ClassifierOutcome, copies: int) -> dict[str, Any]:
    parts = dict(tuple(outcome.predictions.groupby("part")))
    train = parts[Part.TRAIN]
    counts = count_confusion(train["label"], train["score"] >= outcome.threshold)
    return {
        "epochs": outcome.history.epochs,
        "best_epoch": outcome.history.best_epoch,
        **{f"n_{part}": len(parts.get(part, ())) for part in Part},
        "n_train_images": copies * len(train),
        "train_accuracy": accuracy(counts),
        "train_sensitivity": sensitivity(counts),
        "train_specificity": specificity(counts),
        "train_f1": f1(counts),
    }
