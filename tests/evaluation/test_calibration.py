"""Calibration before and after: pooled Platt scaling that no test label touches."""

import numpy as np
import pandas as pd
import pytest

from hipray import metrics
from hipray.evaluation.calibration import CalibrationStage, calibrate_cell, calibrate_on_pool
from hipray.evaluation.results import pool_repeats, read_predictions
from hipray.vocab import Backbone, Cell, LabelType, Region, Variant

from .conftest import build_manifest, predict_cell

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, Backbone.VGG16, Variant.ORIGINAL)


@pytest.fixture(scope="module")
def rows():
    """One repeat of a cell whose raw scores are far too bold."""
    frame = predict_cell(build_manifest(300), CELL, strength=1.0, repeats=1)
    bold = metrics.sigmoid(4 * metrics.logit(frame["score"]) + 1)
    return read_predictions(frame.assign(score=bold, calibrated=bold))


def test_a_pooled_probability_is_platts_on_the_other_folds_inner_hips(rows) -> None:
    found = calibrate_on_pool(rows)
    tests = rows[(rows["part"] == "test") & (rows["fold"] == 3)]
    inner = rows[(rows["part"] == "inner") & ~rows["patient_id"].isin(tests["patient_id"])]
    assert 0 < len(inner) < (rows["part"] == "inner").sum()
    calibrator = metrics.fit_platt(inner["label"], inner["score"])
    expected = metrics.apply_platt(calibrator, tests["score"])
    assert found.loc[tests.index].to_numpy() == pytest.approx(expected)


def test_no_hip_calibrates_itself(rows) -> None:
    # Each hip is inner somewhere and tested elsewhere: both of its labels are turned.
    hip = rows["hip_id"].iloc[0]
    turned = rows.assign(label=rows["label"].where(rows["hip_id"] != hip, 1 - rows["label"]))
    before, after = calibrate_on_pool(rows), calibrate_on_pool(turned)
    own = rows.loc[before.index, "hip_id"] == hip
    assert before[own].to_numpy() == pytest.approx(after[own].to_numpy(), abs=0)
    assert not np.allclose(before[~own], after[~own], atol=1e-9)


def test_pooling_mends_overconfidence(rows, config) -> None:
    stages = calibrate_cell(rows, config).stages
    raw, pooled = stages[CalibrationStage.RAW], stages[CalibrationStage.POOLED]
    assert raw.slope.value < 0.5
    assert pooled.slope.value == pytest.approx(1, abs=0.25)
    assert pooled.ece < raw.ece
    assert pooled.brier.value < raw.brier.value
    assert abs(pooled.in_the_large) < abs(raw.in_the_large)


def test_each_stage_is_measured_on_the_same_hips_as_the_cell(rows, config) -> None:
    found = calibrate_cell(rows, config)
    assert set(found.stages) == set(CalibrationStage)
    assert found.used is CalibrationStage.PER_FIT
    tests = rows[rows["part"] == "test"]
    hips = pool_repeats(tests.assign(probability=tests["score"]))
    raw = found.stages[CalibrationStage.RAW]
    assert raw.n_hips == len(hips)
    assert raw.brier.value == pytest.approx(np.mean((hips["score"] - hips["label"]) ** 2))


def test_a_cell_without_calibration_has_no_per_fit_stage(rows, config) -> None:
    bare = read_predictions(rows.assign(calibrated=np.nan))
    found = calibrate_cell(bare, config)
    assert CalibrationStage.PER_FIT not in found.stages
    assert found.current is found.stages[CalibrationStage.RAW]


def test_a_pool_of_one_class_calibrates_nothing(rows, config) -> None:
    inner = rows["part"] == "inner"
    one = rows[~inner | (rows["label"] == 1)]
    assert calibrate_on_pool(one) is None
    assert CalibrationStage.POOLED not in calibrate_cell(one, config).stages


def test_repeated_index_labels_do_no_harm(rows, config) -> None:
    again = rows.copy()
    again.index = pd.Index(np.zeros(len(rows), dtype=int))
    first, second = (calibrate_cell(frame, config) for frame in (rows, again))
    pooled = CalibrationStage.POOLED
    assert first.stages[pooled].brier == second.stages[pooled].brier
