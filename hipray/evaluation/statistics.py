"""Compute a metric for many weightings of one sample at once: the arithmetic of the bootstrap.

Shapes: n hips, B weightings. A weighting counts how often each hip is in a resample; weights of
one give the metric itself.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hipray.metrics import BoolArray, FloatArray, logit, sigmoid

SLOPE_STEPS = 25  # Newton steps of the calibration slope; where it exists it arrives in under ten
SLOPE_TOLERANCE = 1e-6  # largest last step that counts as arrived


class Metric(StrEnum):
    """What is computed of scores and decisions."""

    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"
    F1 = "f1"
    ACCURACY = "accuracy"
    AUROC = "auroc"
    BALANCED_ACCURACY = "balanced_accuracy"
    PPV = "ppv"
    NPV = "npv"
    AUPRC = "auprc"
    BRIER = "brier"
    CALIBRATION_SLOPE = "calibration_slope"

    @property
    def heading(self) -> str:
        """The name a person reads."""
        return METRIC_TITLES[self]


METRIC_TITLES = {
    Metric.SENSITIVITY: "Sensitivity",
    Metric.SPECIFICITY: "Specificity",
    Metric.F1: "F1-score",
    Metric.ACCURACY: "Accuracy",
    Metric.AUROC: "AUROC",
    Metric.BALANCED_ACCURACY: "Balanced accuracy",
    Metric.PPV: "PPV",
    Metric.NPV: "NPV",
    Metric.AUPRC: "AUPRC",
    Metric.BRIER: "Brier score",
    Metric.CALIBRATION_SLOPE: "Calibration slope",
}

PAPER_METRICS = (Metric.SENSITIVITY, Metric.SPECIFICITY, Metric.F1, Metric.ACCURACY)
"""The columns of Tables 6 to 10, in the paper's order."""

CELL_METRICS = (*PAPER_METRICS, Metric.AUROC, Metric.BALANCED_ACCURACY)
"""What every cell and baseline reports."""


@dataclass(frozen=True)
class Sample:
    """One row per hip: truth (n,), score (n,) and decision (n,)."""

    labels: BoolArray
    scores: FloatArray
    positives: BoolArray


WeightedStatistic = Callable[[Sample, FloatArray], FloatArray]
"""Takes a sample of n hips and weights (B, n); returns (B,), NaN where it is not defined."""


def compute_statistics(
    sample: Sample, statistics: Mapping[Metric, WeightedStatistic]
) -> dict[Metric, float]:
    """Return each statistic of the sample itself."""
    once = np.ones((1, sample.labels.size))
    return {name: float(statistic(sample, once)[0]) for name, statistic in statistics.items()}


def mean_score(sample: Sample, weights: FloatArray) -> FloatArray:
    """Return the weighted mean of the scores, shape (B,)."""
    return _divide(weights @ sample.scores, weights.sum(axis=1))


def _sensitivity(sample: Sample, weights: FloatArray) -> FloatArray:
    return _share(weights, sample.labels & sample.positives, sample.labels)


def _specificity(sample: Sample, weights: FloatArray) -> FloatArray:
    return _share(weights, ~sample.labels & ~sample.positives, ~sample.labels)


def _accuracy(sample: Sample, weights: FloatArray) -> FloatArray:
    everyone = np.ones_like(sample.labels)
    return _share(weights, sample.labels == sample.positives, everyone)


def _balanced_accuracy(sample: Sample, weights: FloatArray) -> FloatArray:
    return (_sensitivity(sample, weights) + _specificity(sample, weights)) / 2


def _ppv(sample: Sample, weights: FloatArray) -> FloatArray:
    return _share(weights, sample.labels & sample.positives, sample.positives)


def _npv(sample: Sample, weights: FloatArray) -> FloatArray:
    return _share(weights, ~sample.labels & ~sample.positives, ~sample.positives)


def _f1(sample: Sample, weights: FloatArray) -> FloatArray:
    hits = weights @ (sample.labels & sample.positives)
    misses = weights @ (sample.labels ^ sample.positives)
    return _divide(2 * hits, 2 * hits + misses)


def _auroc(sample: Sample, weights: FloatArray) -> FloatArray:
    positive, negative = _class_weights_by_score(sample, weights)
    below = np.cumsum(negative, axis=1) - negative
    wins = np.sum(positive * (below + negative / 2), axis=1)
    return _divide(wins, positive.sum(axis=1) * negative.sum(axis=1))


def _auprc(sample: Sample, weights: FloatArray) -> FloatArray:
    positive, negative = (part[:, ::-1] for part in _class_weights_by_score(sample, weights))
    hits = np.cumsum(positive, axis=1)
    called = hits + np.cumsum(negative, axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return _divide(np.sum(positive * precision, axis=1), positive.sum(axis=1))


def _brier(sample: Sample, weights: FloatArray) -> FloatArray:
    errors = np.square(sample.scores - sample.labels)
    return _divide(weights @ errors, weights.sum(axis=1))


def _calibration_slope(sample: Sample, weights: FloatArray) -> FloatArray:
    """Run Newton on (slope, intercept) for all B weightings side by side."""
    x = logit(sample.scores)
    # From zero, where the curvature is largest: from a slope of 1 bold scores overshoot for good.
    beta = np.zeros((weights.shape[0], 2))
    arrived = np.zeros(weights.shape[0], dtype=np.bool_)
    moving = ~arrived
    with np.errstate(all="ignore"):  # a weighting without a finite slope ends as NaN below
        for _ in range(SLOPE_STEPS):
            step = _slope_step(x, sample.labels, weights[moving], beta[moving])
            beta[moving] += step
            arrived[moving] = np.abs(step).max(axis=1) < SLOPE_TOLERANCE
            moving = ~arrived & np.isfinite(beta).all(axis=1)
            if not moving.any():
                break
    return np.where(arrived, beta[:, 0], np.nan)


def _slope_step(x: FloatArray, labels: BoolArray, w: FloatArray, beta: FloatArray) -> FloatArray:
    fitted = sigmoid(beta[:, :1] * x + beta[:, 1:])
    residual = w * (labels - fitted)
    curvature = w * fitted * (1 - fitted)
    g1, g0 = residual @ x, residual.sum(axis=1)
    h11, h10, h00 = curvature @ x**2, curvature @ x, curvature.sum(axis=1)
    determinant = h11 * h00 - h10**2
    moves = np.stack([h00 * g1 - h10 * g0, h11 * g0 - h10 * g1], axis=1)
    return np.asarray(moves / determinant[:, None], dtype=np.float64)


def _class_weights_by_score(sample: Sample, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sum the weights of each class at each distinct score, low to high; two arrays (B, k)."""
    order = np.argsort(sample.scores, kind="stable")
    scores, labels, ordered = sample.scores[order], sample.labels[order], weights[:, order]
    starts = np.flatnonzero(np.diff(scores, prepend=-np.inf) > 0)
    positive = np.add.reduceat(ordered * labels, starts, axis=1)
    negative = np.add.reduceat(ordered * ~labels, starts, axis=1)
    return positive, negative


def _share(weights: FloatArray, part: BoolArray, whole: BoolArray) -> FloatArray:
    return _divide(weights @ part, weights @ whole)


def _divide(part: FloatArray, whole: FloatArray) -> FloatArray:
    empty = np.full(part.shape, np.nan)
    return np.asarray(np.divide(part, whole, out=empty, where=whole > 0), dtype=np.float64)


STATISTICS: Mapping[Metric, WeightedStatistic] = {
    Metric.SENSITIVITY: _sensitivity,
    Metric.SPECIFICITY: _specificity,
    Metric.F1: _f1,
    Metric.ACCURACY: _accuracy,
    Metric.AUROC: _auroc,
    Metric.BALANCED_ACCURACY: _balanced_accuracy,
    Metric.PPV: _ppv,
    Metric.NPV: _npv,
    Metric.AUPRC: _auprc,
    Metric.BRIER: _brier,
    Metric.CALIBRATION_SLOPE: _calibration_slope,
}

NO_LIMITS = (-math.inf, math.inf)
SHARE = (0.0, 1.0)

LIMITS: Mapping[str, tuple[float, float]] = {
    Metric.SENSITIVITY: SHARE,
    Metric.SPECIFICITY: SHARE,
    Metric.F1: SHARE,
    Metric.ACCURACY: SHARE,
    Metric.AUROC: SHARE,
    Metric.BALANCED_ACCURACY: SHARE,
    Metric.PPV: SHARE,
    Metric.NPV: SHARE,
    Metric.AUPRC: SHARE,
    Metric.BRIER: SHARE,
    Metric.CALIBRATION_SLOPE: NO_LIMITS,
}
"""The least and largest value of each metric."""

DENOMINATORS: Mapping[str, Callable[[Sample], BoolArray]] = {
    Metric.SENSITIVITY: lambda sample: sample.labels,
    Metric.SPECIFICITY: lambda sample: ~sample.labels,
    Metric.ACCURACY: lambda sample: np.ones_like(sample.labels),
    Metric.PPV: lambda sample: sample.positives,
    Metric.NPV: lambda sample: ~sample.positives,
}
"""Of each metric that is a share of hips, the hips (n,) it is a share of."""


def choose_statistics(metrics: tuple[Metric, ...]) -> dict[Metric, WeightedStatistic]:
    """Return the statistics of these metrics."""
    return {metric: STATISTICS[metric] for metric in metrics}
