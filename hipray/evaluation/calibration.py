"""Summarise how far probabilities can be taken at their word, before and after calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, bootstrap_patients
from hipray.evaluation.results import pool_repeats
from hipray.evaluation.statistics import Metric, choose_statistics
from hipray.metrics import (
    apply_platt,
    calibration_in_the_large,
    calibration_line,
    ece,
    fit_platt,
)
from hipray.vocab import Part


class CalibrationStage(StrEnum):
    """Which probabilities of a cell are looked at."""

    RAW = "raw"
    PER_FIT = "per_fit"  # Platt scaling of each fit on its own inner hips
    POOLED = "pooled"  # Platt scaling on the inner hips of all fits, without the test fold's


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of the calibration plot: hips, mean probability and observed rate."""

    n: int
    mean_probability: float
    rate: float


@dataclass(frozen=True)
class CalibrationSummary:
    """Calibration of one cell's pooled out-of-fold probabilities (Van Calster et al. 2019)."""

    n_hips: int
    brier: Interval
    slope: Interval  # 1 is calibrated, below 1 overconfident
    intercept: float  # of the same regression
    in_the_large: float  # 0 is calibrated, above 0 too low on the whole
    ece: float
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class CellCalibration:
    """One cell's calibration at every stage it has."""

    stages: Mapping[CalibrationStage, CalibrationSummary]
    used: CalibrationStage  # the stage of the probabilities that the cell's other numbers use

    @property
    def current(self) -> CalibrationSummary:
        """The calibration of the probabilities in use."""
        return self.stages[self.used]


def calibrate_cell(rows: pd.DataFrame, config: EvaluationConfig) -> CellCalibration:
    """Summarise one cell's inner and test rows, as `read_predictions` returns them.

    A stage is absent where its probabilities are: per fit, where the fits were not calibrated;
    pooled, where a fold's pool lacks a class.
    """
    rows = rows.reset_index(drop=True)
    tests = rows[rows["part"] == Part.TEST]
    calibrated = bool(tests["calibrated_cell"].all())
    scores = {
        CalibrationStage.RAW: tests["score"],
        CalibrationStage.PER_FIT: tests["calibrated"] if calibrated else None,
        CalibrationStage.POOLED: calibrate_on_pool(rows),
    }
    return CellCalibration(
        stages={
            stage: summarise_calibration(pool_repeats(tests.assign(probability=found)), config)
            for stage, found in scores.items()
            if found is not None
        },
        used=CalibrationStage.PER_FIT if calibrated else CalibrationStage.RAW,
    )


def calibrate_on_pool(rows: pd.DataFrame) -> "pd.Series[float] | None":
    """Return the test rows' probabilities after Platt scaling on pooled inner rows.

    The pool of a test fold holds the inner rows of all fits of the cell but those of patients
    tested in that fold: no test label calibrates itself. None where a pool lacks a class. The
    index of `rows` is unique.
    """
    inner = rows[rows["part"] == Part.INNER]
    parts = []
    for _, fold in rows[rows["part"] == Part.TEST].groupby(["repeat", "fold"]):
        pool = inner[~inner["patient_id"].isin(fold["patient_id"])]
        if pool["label"].nunique() < 2:
            return None
        calibrator = fit_platt(pool["label"].to_numpy(), pool["score"].to_numpy())
        parts.append(pd.Series(apply_platt(calibrator, fold["score"]), index=fold.index))
    return pd.concat(parts).reindex(rows.index[rows["part"] == Part.TEST])


def summarise_calibration(hips: pd.DataFrame, config: EvaluationConfig) -> CalibrationSummary:
    """Summarise the calibration of pooled hips (`patient_id`, `label`, `score`, `positive`)."""
    bounds = bootstrap_patients(
        hips,
        choose_statistics((Metric.BRIER, Metric.CALIBRATION_SLOPE)),
        config,
    )
    labels, scores = hips["label"].to_numpy(), hips["score"].to_numpy()
    return CalibrationSummary(
        n_hips=len(hips),
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
