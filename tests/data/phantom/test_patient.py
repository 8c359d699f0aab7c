import csv
import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipray.config.phantom import PhantomConfig
from hipray.data.dxa.checks import BMD_RANGES
from hipray.data.phantom import DXA_COLUMNS, dxa_csv, plan_archive, sample_patient, sample_truth
from hipray.data.phantom.patient import T_SCORES
from hipray.data.phantom.scanner import density_of
from hipray.data.reference import YOUNG_NORMALS, DxaSystem
from hipray.vocab import HEADLINE_REGIONS, REGIONS, Region, Sex, Side


def read_reports(config: PhantomConfig) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(dxa_csv(config, plan_archive(config)).decode())))


@pytest.fixture(scope="module")
def reports() -> list[dict[str, str]]:
    return read_reports(PhantomConfig())


def test_the_reports_cover_the_papers_134_patients_139_hips_and_72_full_reports(reports) -> None:
    assert len({row["patient_id"] for row in reports}) == 134
    per_hip = Counter((row["patient_id"], row["side"]) for row in reports)
    assert len(per_hip) == 139
    assert Counter(per_hip.values()) == {4: 72, 2: 67}


def test_device_b_reports_neck_and_total_hip_only(reports) -> None:
    shown = {row["region"] for row in reports if row["device"] == "Hologic B"}
    assert shown == set(HEADLINE_REGIONS)


def test_the_papers_prevalences_are_met_exactly(reports) -> None:
    positives = Counter(row["region"] for row in reports if float(row["t_score"]) <= -2.5)
    wanted = {
        region: round(spread.prevalence * sum(row["region"] == region for row in reports))
        for region, spread in T_SCORES.items()
    }
    assert positives == wanted
    assert wanted[Region.FEMORAL_NECK] == 62
    assert wanted[Region.WARDS_TRIANGLE] == 48


@pytest.mark.parametrize("seed", range(5))
def test_prevalences_are_exact_for_any_seed_and_size(seed) -> None:
    config = PhantomConfig(seed=seed, n_patients=61, n_second_hips=7, n_device_a=68)
    rows = read_reports(config)
    for region, spread in T_SCORES.items():
        scores = [float(row["t_score"]) for row in rows if row["region"] == region]
        assert sum(score <= -2.5 for score in scores) == round(spread.prevalence * 68)


def test_prevalences_come_near_the_papers_without_the_shift() -> None:
    n = 2000
    config = PhantomConfig(
        n_patients=n, n_second_hips=0, n_device_a=n, exact_prevalence=False, seed=5
    )
    scores = np.array(
        [sample_truth(config, sample_patient(5, f"P{i}"), side=Side.LEFT).t_score for i in range(n)]
    )
    wanted = [T_SCORES[region].prevalence for region in REGIONS]
    assert np.abs((scores <= -2.5).mean(axis=0) - wanted).max() < 0.04


def test_every_t_score_follows_from_the_printed_density(reports) -> None:
    for row in reports:
        key = (DxaSystem.HOLOGIC, Sex(row["sex"]), Region(row["region"]))
        score = YOUNG_NORMALS[key][0].score(float(row["bmd_g_cm2"]))
        assert abs(score - float(row["t_score"])) <= 0.05 + 1e-9


def test_reports_print_three_decimals_of_density_and_one_of_each_score(reports) -> None:
    assert tuple(reports[0]) == DXA_COLUMNS
    for row in reports:
        assert len(row["bmd_g_cm2"].partition(".")[2]) == 3
        assert len(row["t_score"].partition(".")[2]) == 1
        assert len(row["z_score"].partition(".")[2]) == 1
        assert "-0.0" not in (row["t_score"], row["z_score"])


def test_both_hips_of_a_patient_share_the_person_and_differ_in_density(reports) -> None:
    people, hips = {}, {}
    for row in reports:
        person = tuple(row[key] for key in ("sex", "age", "weight_kg", "height_cm", "device"))
        assert people.setdefault(row["patient_id"], person) == person
        hips.setdefault(row["patient_id"], {}).setdefault(row["side"], []).append(row["bmd_g_cm2"])
    pairs = [tuple(sides.values()) for sides in hips.values() if len(sides) == 2]
    assert len(pairs) == 5
    assert all(left != right for left, right in pairs)


def test_hips_of_one_patient_correlate_by_0_92() -> None:
    config, total = PhantomConfig(seed=3), REGIONS.index(Region.TOTAL_HIP)
    pairs = []
    for number in range(1500):
        patient = sample_patient(3, f"P{number}")
        truths = [sample_truth(config, patient, side=side) for side in (Side.LEFT, Side.RIGHT)]
        age_effect = -0.041 * (patient.age - 73)
        pairs.append([truth.t_score[total] - age_effect for truth in truths])
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1] - 0.92) < 0.03


@given(
    st.floats(-20, 8), st.floats(0.001, 5), st.sampled_from(REGIONS), st.sampled_from(list(Sex)[:2])
)
@settings(max_examples=200, deadline=None)
def test_density_rises_with_t_and_stays_in_the_range_of_people(t_score, step, region, sex) -> None:
    low, high = (density_of(region, sex, t) for t in (t_score, t_score + step))
    assert BMD_RANGES[region][0] <= low <= high
