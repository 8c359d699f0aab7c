"""Regression cells: agreement with measured values, each hip once."""

import numpy as np
import pandas as pd
import pytest

from hipray.evaluation.regression import RegressionMetric, summarise_regression
from hipray.evaluation.results import read_predictions
from hipray.vocab import Backbone, Cell, LabelType, Region, Variant

from .conftest import build_manifest, predict_cell

CELL = Cell(Region.TOTAL_HIP, LabelType.BMD, Backbone.VGG16, Variant.ORIGINAL)
OTHER = Cell(Region.FEMORAL_NECK, LabelType.BMD, Backbone.VGG16, Variant.ORIGINAL)


def add_values(rows: pd.DataFrame, manifest: pd.DataFrame, offset: float = 0.0) -> pd.DataFrame:
    measured = rows["hip_id"].map(manifest.set_index("hip_id")["bmd_total_hip"])
    noise = np.random.default_rng(0).normal(0, 0.05, len(rows))
    return rows.assign(measured=measured, predicted=measured + noise + offset)


@pytest.fixture(scope="module")
def rows():
    manifest = build_manifest(100)
    return add_values(predict_cell(manifest, CELL), manifest, offset=0.1)


def test_every_number_is_that_of_hips_averaged_over_repeats(rows, config) -> None:
    result = summarise_regression(read_predictions(rows), config)[0]
    tests = rows[rows["part"] == "test"]
    hips = tests.groupby("hip_id")[["measured", "predicted"]].mean()
    error = hips["predicted"] - hips["measured"]
    found = {metric: interval.value for metric, interval in result.metrics.items()}
    assert found == pytest.approx(
        {
            RegressionMetric.PEARSON_R: np.corrcoef(hips["measured"], hips["predicted"])[0, 1],
            RegressionMetric.RMSE: np.sqrt(np.mean(error**2)),
            RegressionMetric.MEAN_ABSOLUTE_ERROR: error.abs().mean(),
            RegressionMetric.BIAS: error.mean(),
        }
    )
    assert (result.n_hips, result.n_patients) == (110, 100)
    assert all(i.low < i.value < i.high for i in result.metrics.values())


def test_a_constant_has_no_correlation_but_an_error(rows, config) -> None:
    flat = rows.assign(predicted=1.0)
    found = summarise_regression(read_predictions(flat), config)[0].metrics
    assert np.isnan(found[RegressionMetric.PEARSON_R].value)
    assert found[RegressionMetric.RMSE].value > 0


def test_classification_cells_beside_regression_cells_have_no_row(rows, config) -> None:
    manifest = build_manifest(100)
    both = pd.concat([rows, predict_cell(manifest, OTHER)], ignore_index=True)
    results = summarise_regression(read_predictions(both), config)
    assert [result.cell for result in results] == [CELL]


def test_without_the_columns_there_is_no_result(rows, config) -> None:
    bare = read_predictions(rows.drop(columns=["measured", "predicted"]))
    assert summarise_regression(bare, config) == []
