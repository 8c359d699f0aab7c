"""The vocabulary: names, aliases and units of work."""

import pytest

from hipray.vocab import (
    HEADLINE_REGIONS,
    Cell,
    Fit,
    LabelType,
    Region,
    SegmenterArch,
    SegmenterFit,
    Variant,
    View,
    parse_region,
)


@pytest.mark.parametrize(
    ("word", "region"),
    [
        ("Neck", Region.FEMORAL_NECK),
        ("femoral_neck", Region.FEMORAL_NECK),
        ("Ward’s", Region.WARDS_TRIANGLE),
        ("TROCH", Region.GREATER_TROCHANTER),
        (" total  hip ", Region.TOTAL_HIP),
        ("大轉子", Region.GREATER_TROCHANTER),
    ],
)
def test_a_region_is_known_by_the_words_of_reports(word: str, region: Region) -> None:
    assert parse_region(word) is region


def test_every_region_is_known_by_its_own_name() -> None:
    assert [parse_region(region) for region in Region] == list(Region)


def test_an_unknown_word_is_no_region() -> None:
    assert parse_region("femoral shaft") is None


def test_only_neck_and_total_hip_may_carry_a_diagnosis() -> None:
    assert {region for region in Region if not region.research_only} == set(HEADLINE_REGIONS)


def test_only_the_segmented_variant_is_matted() -> None:
    assert {v for v in Variant if v.view is View.MATTED} == {Variant.SEGMENTED}


def test_names_of_fits_tell_what_they_are() -> None:
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "vgg16", Variant.ORIGINAL)
    assert Fit(cell, 1, 3).name == "total_hip-t_score-vgg16-original-r1f3"
    whole = SegmenterFit(SegmenterArch.UNET, tuple(Region), 0, 2)
    assert whole.name == "unet-all-r0f2"
    single = SegmenterFit(SegmenterArch.UNETPP, (Region.TOTAL_HIP,), 0, 2)
    assert single.name == "unetpp-total_hip-r0f2"
