"""Training a segmenter: annotated hips only, and only those of the training side."""

import dataclasses

import numpy as np
import pytest

from hipray.errors import DataError
from hipray.training.context import FitContext
from hipray.training.segmenter import train_segmenter
from hipray.vocab import REGIONS, Region, SegmenterArch, SegmenterFit
from tests.small_workspace import EXPERIMENT

NECK = SegmenterFit(SegmenterArch.UNET, (Region.FEMORAL_NECK,), 0, 0)
BRIEF = EXPERIMENT.segmenter.model_copy(update={"epochs": 8, "size_px": 32})


def train(inputs, arrays, fit=NECK):
    return train_segmenter(
        fit, inputs.manifest, arrays, fold=inputs.fold(fit), settings=BRIEF, context=FitContext()
    )


def change_test_side(inputs, fit, **changes):
    """The arrays with other content on the test side."""
    arrays = {name: np.array(value) for name, value in vars(inputs.arrays).items()}
    for name, value in changes.items():
        arrays[name][inputs.fold(fit).test] = value
    return dataclasses.replace(inputs.arrays, **arrays)


def test_test_hips_influence_no_weight(inputs) -> None:
    first = train(inputs, inputs.arrays)
    changed = train(inputs, change_test_side(inputs, NECK, films=7, masks=True))
    states = [o.module.state_dict() for o in (first, changed)]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert list(first.test_rows) == list(inputs.fold(NECK).test)
    confidences = [o.segmentation.confidence for o in (first, changed)]
    assert not np.array_equal(*confidences), "but their own answers, of course"


def test_a_network_of_one_region_leaves_the_other_masks_empty(inputs) -> None:
    outcome = train(inputs, inputs.arrays)
    others = [n for n, region in enumerate(REGIONS) if region is not Region.FEMORAL_NECK]
    assert not outcome.segmentation.masks[:, others].any()
    assert set(outcome.scores["region"]) == {Region.FEMORAL_NECK}


def test_hips_without_an_annotation_are_segmented_and_not_scored(inputs) -> None:
    outcome = train(inputs, change_test_side(inputs, NECK, has_mask=False))
    assert len(outcome.segmentation.masks) == len(inputs.fold(NECK).test)
    assert outcome.scores.empty


def test_too_few_annotated_patients_are_refused_naming_the_region(inputs) -> None:
    has_mask = np.zeros_like(inputs.arrays.has_mask)
    has_mask[inputs.fold(NECK).train[:2]] = True
    with pytest.raises(
        DataError, match=r"masks of Femoral neck for 3 patients or more, found [12]"
    ):
        train(inputs, dataclasses.replace(inputs.arrays, has_mask=has_mask))
