"""Summarise how well a regression reads the measured value (T- or Z-score)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, build_interval, draw_weights
from hipray.evaluation.results import CELL_COLUMNS, order_cell, read_cell
from hipray.metrics import FloatArray
from hipray.vocab import Cell, Part

REGRESSION_COLUMNS = ("measured", "predicted")  # null for classification fits


class RegressionMetric(StrEnum):
    """What is computed of measured and predicted values; all but r in the value's unit."""

    PEARSON_R = "pearson_r"
    RMSE = "rmse"
    MEAN_ABSOLUTE_ERROR = "mean_absolute_error"
    BIAS = "bias"  # mean of predicted - measured


@dataclass(frozen=True)
class RegressionResult:
    """Agreement of one cell's out-of-fold predictions with DXA, each hip counted once."""

    cell: Cell
    n_hips: int
    n_patients: int
    metrics: Mapping[RegressionMetric, Interval]


def summarise_regression(
    predictions: pd.DataFrame, config: EvaluationConfig
) -> list[RegressionResult]:
    """Return one result per cell that predicted values; none without such columns."""
    if not set(REGRESSION_COLUMNS) <= set(predictions):
        return []
    tests = predictions[predictions["part"] == Part.TEST].dropna(subset=list(REGRESSION_COLUMNS))
    results = [_summarise(rows, config) for _, rows in tests.groupby(CELL_COLUMNS)]
    return sorted(results, key=lambda result: order_cell(result.cell))


def _summarise(rows: pd.DataFrame, config: EvaluationConfig) -> RegressionResult:
    hips = rows.groupby(["hip_id", "patient_id"], as_index=False)[list(REGRESSION_COLUMNS)].mean()
    measured, predicted = (hips[c].to_numpy(dtype=np.float64) for c in REGRESSION_COLUMNS)
    weights = np.concatenate(list(draw_weights(hips, config.resamples, config.seed)))
    once = np.ones((1, len(hips)))
    return RegressionResult(
        cell=read_cell(rows),
        n_hips=len(hips),
        n_patients=hips["patient_id"].nunique(),
        metrics={
            metric: build_interval(
                float(measure(measured, predicted, once)[0]),
                measure(measured, predicted, weights),
                config,
                limits=_LIMITS[metric],
            )
            for metric, measure in _MEASURES.items()
        },
    )


Measure = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""Takes measured (n,), predicted (n,) and weights (B, n); returns (B,)."""


def _pearson_r(measured: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    # Centred on the sample first: the moments of far values would lose their digits.
    x, y = measured - measured.mean(), predicted - predicted.mean()
    mx, my = _mean(x, weights), _mean(y, weights)
    spread = (_mean(x * x, weights) - mx**2) * (_mean(y * y, weights) - my**2)
    shared = _mean(x * y, weights) - mx * my
    root = np.sqrt(np.maximum(spread, 0.0))
    empty = np.full(shared.shape, np.nan)
    r = np.divide(shared, root, out=empty, where=root > 0)
    return np.asarray(np.clip(r, -1.0, 1.0), dtype=np.float64)


def _rmse(measured: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(_mean((predicted - measured) ** 2, weights)), dtype=np.float64)


def _mean_absolute_error(
    measured: FloatArray, predicted: FloatArray, weights: FloatArray
) -> FloatArray:
    return _mean(np.abs(predicted - measured), weights)


def _bias(measured: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(predicted - measured, weights)


def _mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray(weights @ values / weights.sum(axis=1), dtype=np.float64)


_LIMITS: Mapping[RegressionMetric, tuple[float, float]] = {
    RegressionMetric.PEARSON_R: (-1.0, 1.0),
    RegressionMetric.RMSE: (0.0, math.inf),
    RegressionMetric.MEAN_ABSOLUTE_ERROR: (0.0, math.inf),
    RegressionMetric.BIAS: (-math.inf, math.inf),
}
_MEASURES: Mapping[RegressionMetric, Measure] = {
    RegressionMetric.PEARSON_R: _pearson_r,
    RegressionMetric.RMSE: _rmse,
    RegressionMetric.MEAN_ABSOLUTE_ERROR: _mean_absolute_error,
    RegressionMetric.BIAS: _bias,
}
