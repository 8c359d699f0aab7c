"""Cells from predictions: pooling, spread, refusals."""

import math

import numpy as np
import pandas as pd
import pytest

from hipray import metrics
from hipray.errors import DataError
from hipray.evaluation.calibration import summarise_calibration
from hipray.evaluation.comparisons import compare_cells
from hipray.evaluation.results import (
    pool_repeats,
    read_predictions,
    read_source,
    select_cell,
    summarise_cells,
)
from hipray.evaluation.segmenters import Overlap, summarise_segmenters
from hipray.evaluation.statistics import PAPER_METRICS, Metric
from hipray.evaluation.subgroups import summarise_subgroups
from hipray.vocab import Region, SegmenterArch

from .conftest import score_segmenters


def test_a_cell_reports_hips_patients_positives_and_fits(grid, config) -> None:
    results = summarise_cells(read_predictions(grid.predictions), grid.fits, config)
    assert {result.cell for result in results} == set(grid.cells)
    neck = results[0]
    labels = grid.manifest["label_t_score_femoral_neck"]
    assert neck.cell.region is Region.FEMORAL_NECK
    assert (neck.n_hips, neck.n_patients, neck.n_fits) == (66, 60, 10)
    assert neck.n_positives == labels.sum()
    assert neck.train[Metric.ACCURACY].mean == pytest.approx(0.9)
    assert set(neck.train) == set(PAPER_METRICS)


def test_the_spread_over_fits_is_that_of_single_fits(grid, config) -> None:
    predictions = read_predictions(grid.predictions)
    result = summarise_cells(predictions, grid.fits, config)[0]
    tests = select_cell(predictions, result.cell).query("part == 'test'")
    accuracies = [
        np.mean((fit["score"] >= fit["threshold"]) == fit["label"])
        for _, fit in tests.groupby(["repeat", "fold"])
    ]
    spread = result.over_fits[Metric.ACCURACY]
    assert (spread.mean, spread.n) == (pytest.approx(np.mean(accuracies)), 10)
    assert spread.sd == pytest.approx(np.std(accuracies, ddof=1))


def test_scores_of_a_hip_are_averaged_over_repeats_before_the_statistic(grid, config) -> None:
    predictions = read_predictions(grid.predictions)
    result = summarise_cells(predictions, grid.fits, config)[0]
    tests = select_cell(predictions, result.cell).query("part == 'test'")
    mean = tests.groupby("hip_id")[["label", "calibrated"]].mean()
    assert result.pooled[Metric.AUROC].value == pytest.approx(
        metrics.auroc(mean["label"], mean["calibrated"])
    )


def test_a_hip_is_positive_where_its_mean_margin_is_not_negative() -> None:
    tests = pd.DataFrame(
        {
            "hip_id": ["a", "a", "b", "b"],
            "patient_id": ["p", "p", "q", "q"],
            "label": [1, 1, 0, 0],
            "score": [0.9, 0.3, 0.4, 0.4],
            "probability": [0.8, 0.2, 0.1, 0.3],
            "threshold": [0.6, 0.5, 0.5, 0.5],
        }
    )
    pooled = pool_repeats(tests).set_index("hip_id")
    assert pooled["positive"].to_dict() == {"a": True, "b": False}
    assert pooled["score"].to_dict() == pytest.approx({"a": 0.5, "b": 0.2})


def test_a_cell_with_one_missing_calibration_uses_raw_scores_throughout(grid) -> None:
    frame = grid.predictions.copy()
    frame.loc[0, "calibrated"] = math.nan
    predictions = read_predictions(frame)
    touched, other = (select_cell(predictions, cell) for cell in grid.cells[:2])
    assert (touched["probability"] == touched["score"]).all()
    assert (other["probability"] == other["calibrated"]).all()


@pytest.mark.parametrize(
    ("column", "value"),
    [("score", 1.2), ("label", 2), ("calibrated", -0.1), ("threshold", math.nan), ("part", "x")],
)
def test_values_out_of_range_are_refused_by_name(grid, column, value) -> None:
    frame = grid.predictions.copy()
    frame.loc[3, column] = value
    with pytest.raises(DataError, match=f"1 rows with another {column}"):
        read_predictions(frame)


def test_a_missing_column_is_named(grid) -> None:
    with pytest.raises(DataError, match="none named threshold"):
        read_predictions(grid.predictions.drop(columns="threshold"))


def test_a_hip_tested_twice_in_one_repeat_is_refused(grid) -> None:
    twice = grid.predictions[grid.predictions["part"] == "test"].iloc[[0]].assign(fold=4)
    with pytest.raises(DataError, match="one test fold per repeat"):
        read_predictions(pd.concat([grid.predictions, twice]))


def test_phantoms_and_films_are_not_reported_together(grid) -> None:
    mixed = grid.manifest.assign(source=["real"] + ["phantom"] * (len(grid.manifest) - 1))
    with pytest.raises(DataError, match="one data source per report"):
        read_source(mixed)


def test_calibration_summary_agrees_with_the_metrics(grid, config) -> None:
    result = summarise_cells(read_predictions(grid.predictions), grid.fits, config)[0]
    summary = summarise_calibration(result.hips, config)
    labels, scores = result.hips["label"], result.hips["score"]
    slope, intercept = metrics.calibration_line(labels, scores)
    assert summary.slope.value == pytest.approx(slope)
    assert summary.slope.low < slope < summary.slope.high
    assert summary.intercept == pytest.approx(intercept)
    assert summary.ece == pytest.approx(metrics.ece(labels, scores))
    assert sum(b.n for b in summary.bins) == result.n_hips


def test_networks_that_differ_by_noise_are_tied_and_the_best_has_no_gap(grid, config) -> None:
    results = summarise_cells(read_predictions(grid.predictions), grid.fits, config)
    comparisons = compare_cells(results, [], config)
    pair = [comparisons[cell] for cell in grid.cells[:2]]
    assert sorted(c.behind_best is None for c in pair) == [False, True]
    assert [c.tied_with_best for c in pair].count(True) == 1
    assert all(not c.over for c in pair)


def test_small_subgroups_show_no_numbers(grid, config) -> None:
    result = summarise_cells(read_predictions(grid.predictions), grid.fits, config)[0]
    config = config.model_copy(update={"subgroup_minimum": 22})
    groups = summarise_subgroups(result.hips, grid.manifest, config)
    for group in groups:
        assert (group.metrics is None) == (group.n_positives is None)
        assert group.metrics is None or group.n_hips >= config.subgroup_minimum
    by_sex = [group for group in groups if group.attribute == "sex"]
    assert sum(group.n_hips for group in by_sex) == result.n_hips
    assert any(group.metrics is None for group in groups)
    assert any(group.metrics is not None for group in groups)


def test_segmenters_are_summarised_per_hip(grid, config) -> None:
    scores = score_segmenters(grid.manifest)
    again = scores.assign(repeat=1, iou=scores["iou"] - 0.1)
    results = summarise_segmenters(pd.concat([scores, again]), config)
    assert len(results) == len(Region) * len(SegmenterArch)
    first = results[0]
    own = scores[(scores["arch"] == first.arch) & (scores["region"] == first.region)]
    iou = first.overlaps[Overlap.IOU]
    assert iou.value == pytest.approx(own["iou"].mean() - 0.05)
    assert iou.low < iou.value < iou.high
    assert (first.n_hips, first.n_patients) == (66, 60)
