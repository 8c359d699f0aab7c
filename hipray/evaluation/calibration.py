"""Summarise how far probabilities can be taken at their word."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, bootstrap_patients
from hipray.evaluation.statistics import Metric, choose_statistics
from hipray.metrics import calibration_in_the_large, calibration_line, ece


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of the calibration plot: hips, mean probability and observed rate."""

    n: int
    mean_probability: float
    rate: float


@dataclass(frozen=True)
class CalibrationSummary:
    """Calibration of one cell's pooled out-of-fold probabilities (Van Calster et al. 2019)."""

    brier: Interval
    slope: Interval  # 1 is calibrated, below 1 overconfident
    intercept: float  # of the same regression
    in_the_large: float  # 0 is calibrated, above 0 too low on the whole
    ece: float
    bins: tuple[CalibrationBin, ...]


def summarise_calibration(hips: pd.DataFrame, config: EvaluationConfig) -> CalibrationSummary:
    """Summarise the calibration of pooled hips (`patient_id`, `label`, `score`, `positive`)."""
    bounds = bootstrap_patients(
        hips,
        choose_statistics((Metric.BRIER, Metric.CALIBRATION_SLOPE)),
        n_resamples=config.resamples,
        seed=config.seed,
        level=config.level,
    )
    labels, scores = hips["label"].to_numpy(), hips["score"].to_numpy()
    return CalibrationSummary(
        brier=bounds[Metric.BRIER],
        slope=bounds[Metric.CALIBRATION_SLOPE],
        intercept=calibration_line(labels, scores)[1],
        in_the_large=calibration_in_the_large(labels, scores),
        ece=ece(labels, scores, bins=config.calibration_bins),
        bins=_bin_hips(hips, config.calibration_bins),
    )


def _bin_hips(hips: pd.DataFrame, n_bins: int) -> tuple[CalibrationBin, ...]:
    place = np.clip((hips["score"] * n_bins).astype(int), 0, n_bins - 1)
    return tuple(
        CalibrationBin(len(rows), float(rows["score"].mean()), float(rows["label"].mean()))
        for _, rows in hips.groupby(place)
    )
