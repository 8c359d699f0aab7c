import pytest

from hipray.config.labels import DxaSystem
from hipray.data.reference import (
    AGE_CURVES,
    STANDARDISED,
    YOUNG_NORMALS,
    compute_t,
    compute_z,
    convert_bmd,
    mean_for_age,
    to_standardised,
    vendor_references,
)
from hipray.vocab import REGIONS, Region, Sex

FN, TH, GT, WT = (
    Region.FEMORAL_NECK,
    Region.TOTAL_HIP,
    Region.GREATER_TROCHANTER,
    Region.WARDS_TRIANGLE,
)
GE, HOLOGIC, NORLAND = DxaSystem.GE_LUNAR, DxaSystem.HOLOGIC, DxaSystem.NORLAND


def test_bmd_two_and_a_half_sd_below_the_young_mean_has_t_of_minus_2_5() -> None:
    assert compute_t(0.858 - 2.5 * 0.120, system=HOLOGIC, sex=Sex.FEMALE, region=FN) == -2.5


def test_the_young_mean_itself_has_t_of_zero_in_every_table() -> None:
    for (system, sex, region), normals in YOUNG_NORMALS.items():
        assert compute_t(normals[0].mean, system=system, sex=sex, region=region) == 0.0


@pytest.mark.parametrize("region", [FN, TH, GT])
def test_the_two_makers_young_means_agree_through_standardised_bmd(region) -> None:
    lunar = YOUNG_NORMALS[GE, Sex.FEMALE, region][0]
    hologic = YOUNG_NORMALS[HOLOGIC, Sex.FEMALE, region][0]
    converted = convert_bmd(lunar.mean, source=GE, target=HOLOGIC, region=region)
    assert converted == pytest.approx(hologic.mean, abs=0.004)
    slope = STANDARDISED[GE, region][1] / STANDARDISED[HOLOGIC, region][1]
    assert lunar.sd * slope == pytest.approx(hologic.sd, abs=0.002)
    assert lunar.verified and hologic.verified


def test_young_total_hip_in_standardised_bmd_is_the_published_0_956() -> None:
    sbmd = to_standardised(0.942, system=HOLOGIC, region=TH)
    assert sbmd == pytest.approx(0.956, abs=0.001)


@pytest.mark.parametrize(("system", "region"), list(STANDARDISED))
def test_converting_there_and_back_returns_the_same_bmd(system, region) -> None:
    there = convert_bmd(0.7, source=system, target=HOLOGIC, region=region)
    assert convert_bmd(there, source=HOLOGIC, target=system, region=region) == pytest.approx(0.7)


def test_wards_triangle_is_not_converted_between_makers() -> None:
    assert convert_bmd(0.5, source=GE, target=HOLOGIC, region=WT) is None


def test_norland_is_scored_on_the_hologic_scale() -> None:
    bmd = convert_bmd(0.942 - 2 * 0.122, source=HOLOGIC, target=NORLAND, region=TH)
    assert compute_t(bmd, system=NORLAND, sex=Sex.FEMALE, region=TH) == -2.0


def test_no_score_is_invented_without_a_reference() -> None:
    assert compute_t(0.7, system=DxaSystem.UNKNOWN, sex=Sex.FEMALE, region=FN) is None
    assert compute_t(0.7, system=GE, sex=Sex.MALE, region=FN) is None
    assert compute_z(0.7, system=HOLOGIC, sex=Sex.MALE, region=FN, age=70) is None
    assert compute_z(0.7, system=HOLOGIC, sex=Sex.FEMALE, region=GT, age=70) is None


def test_the_age_mean_follows_the_chart_and_is_linear_between_its_points() -> None:
    arguments = {"system": HOLOGIC, "sex": Sex.FEMALE, "region": FN}
    assert mean_for_age(**arguments, age=70) == pytest.approx(0.654)
    assert mean_for_age(**arguments, age=65) == pytest.approx((0.711 + 0.654) / 2)
    assert mean_for_age(**arguments, age=85) == pytest.approx(0.575)


@pytest.mark.parametrize("age", [29.9, 85.1])
def test_the_age_mean_is_not_extrapolated(age) -> None:
    assert mean_for_age(system=HOLOGIC, sex=Sex.FEMALE, region=FN, age=age) is None


def test_bone_declines_with_age_on_every_curve() -> None:
    for curve in AGE_CURVES.values():
        means = [mean for _, mean in curve.points]
        assert means == sorted(means, reverse=True)


def test_z_is_the_distance_from_the_age_mean_in_young_sd() -> None:
    z = compute_z(0.654 - 0.120, system=HOLOGIC, sex=Sex.FEMALE, region=FN, age=70)
    assert z == -1.0


def test_z_of_the_total_hip_on_hologic_comes_through_the_lunar_chart() -> None:
    mean = mean_for_age(system=HOLOGIC, sex=Sex.FEMALE, region=TH, age=70)
    assert mean == pytest.approx(0.784, abs=0.002)
    assert compute_z(mean - 0.122, system=HOLOGIC, sex=Sex.FEMALE, region=TH, age=70) == -1.0


def test_a_man_may_have_been_scored_against_women_or_men() -> None:
    assert len(vendor_references(HOLOGIC, Sex.MALE, TH)) == 2
    assert vendor_references(GE, Sex.MALE, TH) == ()


def test_every_hologic_region_has_a_reference_for_both_sexes() -> None:
    for region in REGIONS:
        for sex in (Sex.FEMALE, Sex.MALE):
            assert (HOLOGIC, sex, region) in YOUNG_NORMALS
