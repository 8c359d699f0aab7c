"""Masks that can be no hip are told from those that can."""

import numpy as np
import pytest

from hipray.segmentation.plausibility import check_geometry
from hipray.vocab import HEADLINE_REGIONS, REGIONS, RefusalCode, Region


def draw(**boxes):
    """Masks (4, 100, 100) with a box (top, bottom, left, right) for each named region."""
    masks = np.zeros((4, 100, 100), bool)
    for name, (top, bottom, left, right) in boxes.items():
        masks[REGIONS.index(Region(name)), top:bottom, left:right] = True
    return masks


HIP = (20, 80, 20, 70)


def check(masks, asked=HEADLINE_REGIONS):
    return check_geometry(masks, asked=asked, min_area_fraction=0.001)


def test_a_neck_inside_a_larger_hip_is_plausible() -> None:
    assert check(draw(total_hip=HIP, femoral_neck=(30, 45, 30, 50))) is None


def test_true_phantom_masks_are_plausible(small_workspace) -> None:
    from hipray.data.dataset import load_arrays
    from hipray.data.manifest import read_manifest

    store = small_workspace.store
    masks = load_arrays(store, read_manifest(store), side=192).masks
    assert [check(mask) for mask in masks] == [None] * 34


@pytest.mark.parametrize(
    ("boxes", "name"),
    [
        ({"total_hip": HIP}, "Femoral neck"),
        ({"femoral_neck": (30, 45, 30, 50)}, "Total hip"),
        ({"total_hip": HIP, "femoral_neck": (30, 33, 30, 31)}, "Femoral neck"),
        ({}, "Femoral neck"),
    ],
)
def test_a_missing_headline_region_is_named(boxes, name) -> None:
    refusal = check(draw(**boxes))
    assert refusal.code is RefusalCode.REGION_MISSING
    assert refusal.evidence.startswith(name)


def test_a_missing_research_region_is_no_refusal() -> None:
    masks = draw(total_hip=HIP, femoral_neck=(30, 45, 30, 50), wards_triangle=(0, 1, 0, 1))
    assert check(masks) is None


@pytest.mark.parametrize(
    "neck", [(30, 45, 66, 90), (20, 75, 20, 70)], ids=["beside the hip", "as large as the hip"]
)
def test_an_impossible_neck_is_refused(neck) -> None:
    refusal = check(draw(total_hip=HIP, femoral_neck=neck))
    assert refusal.code is RefusalCode.IMPLAUSIBLE_GEOMETRY


def test_a_region_that_nobody_asked_for_may_be_missing() -> None:
    masks = draw(greater_trochanter=(10, 30, 30, 50))
    assert check(masks, asked=(Region.GREATER_TROCHANTER,)) is None
    assert check(masks).code is RefusalCode.REGION_MISSING
