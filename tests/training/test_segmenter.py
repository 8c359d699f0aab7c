"""Training a segmenter: annotated hips only, and only those of the training side."""

import dataclasses

import numpy as np
import pytest
import torch

from hipray.errors import DataError
from hipray.training.context import FitContext
from hipray.training.segmenter import _mean_shares, _SegmenterTask, train_segmenter
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


def test_an_epoch_waits_for_its_device_once(inputs, watch_host) -> None:
    train = inputs.fold(NECK).train
    task = _SegmenterTask(
        NECK, inputs.arrays, rows=(train[:6], train[6:8]),
        settings=BRIEF, context=FitContext(), start=None,
    )  # fmt: skip
    assert watch_host(task) == ["_local_scalar_dense"]


def test_a_region_starts_at_its_share_of_the_films_that_show_it() -> None:
    masks = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, 0] = True  # a quarter
    masks[1, 0, :2] = True  # a half
    masks[2, 0] = True
    annotated = torch.tensor([[True, False], [True, False], [False, False]])
    assert _mean_shares(masks, annotated) == [0.375, 0.0]


def test_each_fold_draws_its_own_start_about_the_shares_of_its_training_side(inputs) -> None:
    never = BRIEF.model_copy(update={"lr": 1e-12, "epochs": 1})
    starts = [
        train_segmenter(
            fit, inputs.manifest, inputs.arrays, fold=inputs.fold(fit), settings=never,
            context=FitContext(),
        ).module.segmentation_head[0]
        for fit in (NECK, dataclasses.replace(NECK, fold=1))
    ]  # fmt: skip
    assert not torch.equal(starts[0].weight, starts[1].weight)
    shares = [torch.sigmoid(start.bias).item() for start in starts]
    neck = inputs.arrays.masks[:, REGIONS.index(Region.FEMORAL_NECK)].mean()
    assert shares == pytest.approx([neck, neck], rel=0.3)
