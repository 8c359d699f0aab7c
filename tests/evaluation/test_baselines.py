"""Baselines: same hips, same folds, no film."""

import numpy as np
import pytest

from hipray.evaluation.baselines import evaluate_baselines, find_known
from hipray.evaluation.results import read_predictions
from hipray.evaluation.statistics import Metric
from hipray.vocab import Baseline, Covariate, LabelType, Region

from .conftest import SMALL_CELLS

NECK = SMALL_CELLS[0]  # femoral neck, T-score


def measure(grid, manifest, config, told=()):
    known = find_known(manifest, told)
    return evaluate_baselines(read_predictions(grid.predictions), manifest, config, known=known)


@pytest.fixture(scope="module")
def baselines(grid, config):
    found = measure(grid, grid.manifest, config)
    return {(b.region, b.label_type, b.baseline): b for b in found}


def test_every_region_and_label_has_its_baselines_on_its_test_hips(baselines, grid) -> None:
    pairs = {(cell.region, cell.label_type) for cell in grid.cells}
    assert set(baselines) == {(*pair, baseline) for pair in pairs for baseline in Baseline}
    wards = baselines[Region.WARDS_TRIANGLE, LabelType.T_SCORE, Baseline.COVARIATES]
    assert wards.n_hips == 33


def test_the_majority_class_has_an_auroc_of_one_half_and_the_majoritys_accuracy(
    baselines, grid
) -> None:
    result = baselines[Region.WARDS_TRIANGLE, LabelType.BMD, Baseline.MAJORITY]
    share = grid.manifest["label_bmd_wards_triangle"].mean()
    assert result.metrics[Metric.AUROC].value == 0.5
    assert result.metrics[Metric.ACCURACY].value <= max(share, 1 - share) + 1e-9


def test_age_and_sex_find_a_label_that_depends_on_age(make_grid, config) -> None:
    grid = make_grid((NECK,), n_patients=100)
    age = grid.manifest["age"]
    labels = (age + np.random.default_rng(0).normal(0, 4, len(age)) > 73).astype("boolean")
    manifest = grid.manifest.assign(label_t_score_femoral_neck=labels)
    found = measure(grid, manifest, config)
    by_name = {result.baseline: result for result in found}
    assert by_name[Baseline.COVARIATES].metrics[Metric.AUROC].value > 0.85
    assert by_name[Baseline.OST].metrics[Metric.AUROC].value > 0.6
    assert by_name[Baseline.COVARIATES].metrics[Metric.ACCURACY].value > 0.75


def test_a_covariate_that_holds_nothing_does_not_beat_chance(make_grid, config) -> None:
    grid = make_grid((NECK,), n_patients=200)
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, len(grid.manifest)).astype(bool)
    manifest = grid.manifest.assign(label_t_score_femoral_neck=labels)
    found = measure(grid, manifest, config)
    assert found[1].baseline is Baseline.COVARIATES
    assert 0.35 < found[1].metrics[Metric.AUROC].value < 0.65


def test_missing_age_is_filled_and_missing_weight_leaves_ost_out(make_grid, config) -> None:
    grid = make_grid((NECK,))
    manifest = grid.manifest.assign(weight_kg=np.nan)
    manifest.loc[::3, "age"] = np.nan
    found = measure(grid, manifest, config)
    assert [result.baseline for result in found] == [Baseline.MAJORITY, Baseline.COVARIATES]
    assert found[1].n_hips == len(manifest)


def test_the_osta_index_calls_a_light_old_patient_at_risk(make_grid, config) -> None:
    grid = make_grid((NECK,))
    # 0.2 (50 - 56) = -1.2, truncated to -1: at the cut-off. 0.2 (60 - 60) = 0: above it.
    manifest = grid.manifest.assign(age=60.0, weight_kg=60.0)
    manifest.loc[0, ["age", "weight_kg"]] = [56.0, 50.0]
    # 0.2 (50 - 54) = -0.8, truncated towards zero: above the cut-off.
    manifest.loc[1, ["age", "weight_kg"]] = [54.0, 50.0]
    found = measure(grid, manifest, config)
    called = found[-1].hips.set_index("hip_id")["positive"]
    assert found[-1].baseline is Baseline.OST
    assert called[called].index.tolist() == ["h000"]


def test_a_fold_learns_nothing_from_its_own_test_patients(make_grid, config) -> None:
    grid = make_grid((NECK,), repeats=1)
    manifest = grid.manifest.copy()
    # Only the patients of fold 0 are abnormal: without them their fold's training has one class.
    abnormal = manifest["patient_id"].str[1:].astype(int) % 5 == 0
    manifest["label_t_score_femoral_neck"] = abnormal.astype("boolean")
    found = measure(grid, manifest, config)
    called = found[0].hips.set_index("hip_id")["positive"]
    covariates = found[1].hips.set_index("hip_id")
    assert not called.any()
    assert (covariates.loc[manifest["hip_id"][abnormal], "score"] == 0.5).all()


def test_what_networks_are_told_the_baseline_knows_too(make_grid, config) -> None:
    grid = make_grid((NECK,), n_patients=150)
    manifest = grid.manifest
    bmi = manifest["weight_kg"] / (manifest["height_cm"] / 100) ** 2
    manifest = manifest.assign(label_t_score_femoral_neck=(bmi < bmi.median()).astype("boolean"))
    told, untold = (
        next(b for b in measure(grid, manifest, config, t) if b.baseline is Baseline.COVARIATES)
        for t in ((Covariate.BMI,), ())
    )
    assert (told.title, untold.title) == ("Age, sex and BMI", "Age and sex")
    assert told.metrics[Metric.AUROC].value > 0.95 > untold.metrics[Metric.AUROC].value + 0.2


def test_a_baseline_is_named_after_what_is_known(make_grid, config) -> None:
    grid = make_grid((NECK,))
    manifest = grid.manifest.assign(age=np.nan, weight_kg=np.nan)
    titles = [result.title for result in measure(grid, manifest, config)]
    assert titles == ["Majority class", "Sex alone"]
