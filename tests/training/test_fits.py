"""A fit from data to files: complete, repeatable, and never with a mask that leaks."""

import io
import json

import numpy as np
import pytest

from hipray.classification.classifier import Classifier
from hipray.classification.model import build_network
from hipray.classification.spec import ClassifierSpec
from hipray.config.base import build_config
from hipray.data.person import encode_people, read_people
from hipray.errors import DataError, LeakageError
from hipray.metrics import sigmoid
from hipray.runtime.network import TorchNetwork
from hipray.training.context import FitContext
from hipray.training.fit_files import (
    HISTORY_FILE,
    MASK_SCORES_FILE,
    MASKS_FILE,
    MODEL_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    load_frame,
    load_masks,
)
from hipray.training.fits import run_classifier_fit
from hipray.vocab import REGIONS, Cell, Fit, LabelType, Region, SegmenterFit, Variant
from tests.small_workspace import BACKBONE

SEGMENTED = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.SEGMENTED), 0, 0)
ORIGINAL = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.ORIGINAL), 0, 0)


def dump_masks(inputs, rows):
    """Annotated masks of `rows` in the form of a segmenter fit's file."""
    masks = np.array(inputs.arrays.masks[rows])
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, bits=np.packbits(masks), shape=np.array(masks.shape),
        confidence=np.ones((len(rows), 4), np.float32),
        hip_ids=inputs.manifest["hip_id"].iloc[rows].to_numpy(dtype=str),
    )  # fmt: skip
    return buffer.getvalue()


def masks_by_fold(inputs):
    folds = [Fit(SEGMENTED.cell, 0, fold) for fold in range(3)]
    return {fit.fold: [dump_masks(inputs, inputs.fold(fit).test)] for fit in folds}


def done_of(small_grid, fit):
    planned = next(p for p in small_grid.preparation.plan if p.fit == fit)
    return small_grid.ledger.read_done(planned.digest)


def read(small_grid, fit, name):
    return small_grid.ledger.read_file(done_of(small_grid, fit), name)


def test_masks_from_a_segmenter_that_saw_the_patient_stop_the_fit(inputs) -> None:
    masks = masks_by_fold(inputs)
    swapped = {0: masks[1], 1: masks[0], 2: masks[2]}
    with pytest.raises(LeakageError, match=r"masks from segmenters trained on the same patient"):
        run_classifier_fit(SEGMENTED, inputs, FitContext(), masks=swapped)


def test_a_hip_without_a_predicted_mask_stops_the_fit(inputs) -> None:
    masks = masks_by_fold(inputs)
    del masks[2]
    with pytest.raises(DataError, match=r"expected a predicted mask for every hip"):
        run_classifier_fit(SEGMENTED, inputs, FitContext(), masks=masks)


def test_the_same_masks_and_seed_give_the_same_bytes(inputs) -> None:
    masks = masks_by_fold(inputs)
    first, again = (
        run_classifier_fit(SEGMENTED, inputs, FitContext(), masks=masks) for _ in range(2)
    )
    for name in (WEIGHTS_FILE, PREDICTIONS_FILE, MODEL_FILE, HISTORY_FILE):
        assert first.files[name] == again.files[name]


def test_the_files_rebuild_the_network_that_gave_the_scores(small_grid) -> None:
    import safetensors.torch

    spec = build_config(ClassifierSpec, json.loads(read(small_grid, ORIGINAL, MODEL_FILE)))
    network = build_network(spec.cell.backbone, spec.settings)
    network.load_state_dict(safetensors.torch.load(read(small_grid, ORIGINAL, WEIGHTS_FILE)))
    classifier = Classifier(TorchNetwork(network), settings=spec.settings, odds=spec.odds)
    inputs = small_grid.preparation.inputs
    people = encode_people(read_people(inputs.manifest))
    scores = sigmoid(classifier(np.array(inputs.arrays.films), people))
    frame = load_frame(read(small_grid, ORIGINAL, PREDICTIONS_FILE)).set_index("hip_id")
    assert np.allclose(frame.loc[inputs.manifest["hip_id"]]["score"], scores, atol=1e-4)
    assert (frame["threshold"] == spec.threshold).all()


def test_the_summary_counts_every_part(small_grid) -> None:
    done = done_of(small_grid, ORIGINAL)
    frame = load_frame(read(small_grid, ORIGINAL, PREDICTIONS_FILE))
    counts = {f"n_{part}": n for part, n in frame["part"].value_counts().items()}
    assert counts.items() <= done.summary.items()
    assert sum(counts.values()) == 34


def test_a_segmenter_leaves_masks_and_scores_of_its_own_test_hips(small_grid) -> None:
    inputs = small_grid.preparation.inputs
    for planned in small_grid.preparation.plan:
        if isinstance(planned.fit, SegmenterFit):
            tested = inputs.manifest["hip_id"].iloc[inputs.fold(planned.fit).test]
            hips, masks = load_masks(read(small_grid, planned.fit, MASKS_FILE))
            scores = load_frame(read(small_grid, planned.fit, MASK_SCORES_FILE))
            assert hips == list(tested)
            assert set(scores["hip_id"]) == set(tested)
            assert set(scores["region"]) == set(REGIONS)
            row = scores[scores["region"] == Region.TOTAL_HIP].iloc[0]
            drawn = masks[hips.index(row["hip_id"]), REGIONS.index(Region.TOTAL_HIP)]
            truth = inputs.arrays.masks[
                list(inputs.manifest["hip_id"]).index(row["hip_id"]),
                REGIONS.index(Region.TOTAL_HIP),
            ]
            assert row["iou"] == pytest.approx((drawn & truth).sum() / (drawn | truth).sum())


def test_a_briefly_trained_segmenter_already_finds_the_total_hip(small_grid) -> None:
    fits = [p.fit for p in small_grid.preparation.plan if isinstance(p.fit, SegmenterFit)]
    for fit in fits:
        assert done_of(small_grid, fit).summary["iou"][Region.TOTAL_HIP] > 0.3


def test_no_patient_or_path_is_named_in_what_a_fit_says_of_itself(small_grid) -> None:
    text = read(small_grid, ORIGINAL, MODEL_FILE) + read(small_grid, ORIGINAL, HISTORY_FILE)
    patients = small_grid.preparation.inputs.manifest["patient_id"]
    assert not [patient for patient in patients if patient.encode() in text]
    assert small_grid.store.uri.encode() not in text
