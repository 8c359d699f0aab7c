"""Score the same test hips without looking at a film: what any network must beat.

The majority class, age and sex (logistic regression on the same folds), and the Osteoporosis
Self-assessment Tool for Asians, which needs no training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hipray.config.evaluation import EvaluationConfig
from hipray.data.manifest import label_column
from hipray.evaluation.intervals import Interval, bootstrap_patients
from hipray.evaluation.results import pool_repeats
from hipray.evaluation.statistics import CELL_METRICS, Metric, choose_statistics
from hipray.metrics import youden_threshold
from hipray.vocab import LabelType, Part, Region, Sex

LEAST_KNOWN = 0.5
"""Share of hips whose age or sex must be known for a baseline of age and sex."""
OST_PER_UNIT = 0.2  # index = 0.2 (weight in kg - age in years), truncated (Koh et al. 2001)
OST_CUTOFF = -1.0  # at or below it the risk is raised (Koh et al. 2001)
OST_RANGE = 40.0  # the index lies within +-40 for any adult: scales it into [0, 1]


class Baseline(StrEnum):
    """A way to score a hip without its film."""

    MAJORITY = "majority"
    AGE_SEX = "age_sex"
    OST = "ost"

    @property
    def heading(self) -> str:
        """The name a person reads."""
        return BASELINE_TITLES[self]


BASELINE_TITLES = {
    Baseline.MAJORITY: "Majority class",
    Baseline.AGE_SEX: "Age and sex",
    Baseline.OST: "OSTA (weight and age)",
}


@dataclass(frozen=True)
class BaselineResult:
    """What a baseline reaches on the test hips of one region and label."""

    baseline: Baseline
    region: Region
    label_type: LabelType
    n_hips: int
    n_patients: int
    n_positives: int
    metrics: Mapping[Metric, Interval]
    hips: pd.DataFrame  # hip_id, patient_id, label, score, positive


def evaluate_baselines(
    predictions: pd.DataFrame, manifest: pd.DataFrame, config: EvaluationConfig
) -> list[BaselineResult]:
    """Return every baseline on the test hips of every region and label in `predictions`.

    A fold's training hips are all labelled hips of patients that are not in its test fold.
    """
    tests = predictions[predictions["part"] == Part.TEST]
    return [
        _build_result(baseline, rows, scored, config)
        for _, rows in tests.groupby(["region", "label_type"])
        for baseline, score in _SCORERS.items()
        if not (scored := _score_folds(rows, _read_covariates(manifest, rows), score)).empty
    ]


def score_baselines(
    folds: pd.DataFrame, manifest: pd.DataFrame, labels: "pd.Series[float]"
) -> dict[Baseline, pd.DataFrame]:
    """Return the pooled hips of every baseline for labels of any endpoint.

    `folds` has a row (`repeat`, `fold`, `hip_id`) per tested hip; `labels` are in manifest order,
    NaN where unknown.
    """
    hips = _with_covariates(manifest, labels)
    scored = {b: _score_folds(folds, hips, score) for b, score in _SCORERS.items()}
    return {
        baseline: pool_repeats(rows.assign(probability=rows["score"]))
        for baseline, rows in scored.items()
        if not rows.empty
    }


Scorer = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""Takes training and test hips; returns the test hips with `score` in [0, 1] and `threshold`."""


def _score_majority(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    # One constant score has an AUROC of one half; the threshold alone says which class it is.
    abnormal = float(train["label"].mean()) >= 0.5
    return test.assign(score=0.5, threshold=0.0 if abnormal else 1.0)


def _score_age_and_sex(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    if not _knows_people(train):
        return test.iloc[:0]
    if train["label"].nunique() < 2:
        return _score_majority(train, test)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    median_age = float(train["age"].median()) if train["age"].notna().any() else 0.0
    model.fit(_design(train, median_age), train["label"])
    fitted = model.predict_proba(_design(train, median_age))[:, 1]
    return test.assign(
        score=model.predict_proba(_design(test, median_age))[:, 1],
        threshold=youden_threshold(train["label"], fitted),
    )


def _knows_people(hips: pd.DataFrame) -> bool:
    """Whether age or sex is known of most hips and differs among them."""
    sex = hips["sex"].where(hips["sex"] != Sex.UNKNOWN)
    return any(
        known.notna().mean() >= LEAST_KNOWN and known.nunique() > 1 for known in (hips["age"], sex)
    )


def _score_ost(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    # to a thousandth: numbers that a manifest keeps in 32 bits lie just beside whole ones
    index = np.trunc(np.round(OST_PER_UNIT * (test["weight_kg"] - test["age"]), 3))
    scaled = test.assign(
        score=((OST_RANGE - index) / (2 * OST_RANGE)).clip(0, 1),
        threshold=(OST_RANGE - OST_CUTOFF) / (2 * OST_RANGE),
    )
    return scaled.dropna(subset=["score"])


_SCORERS: Mapping[Baseline, Scorer] = {
    Baseline.MAJORITY: _score_majority,
    Baseline.AGE_SEX: _score_age_and_sex,
    Baseline.OST: _score_ost,
}


def _read_covariates(manifest: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled hips of the manifest with age, sex, weight and this label."""
    column = label_column(LabelType(rows["label_type"].iloc[0]), Region(rows["region"].iloc[0]))
    return _with_covariates(manifest, manifest[column])


def _with_covariates(manifest: pd.DataFrame, labels: "pd.Series[Any]") -> pd.DataFrame:
    hips = manifest[["hip_id", "patient_id", "sex"]].assign(
        age=pd.to_numeric(manifest["age"], errors="coerce").astype(float),
        weight_kg=pd.to_numeric(manifest["weight_kg"], errors="coerce").astype(float),
        label=labels.astype("boolean"),
    )
    return hips.dropna(subset=["label"]).astype({"label": int})


def _score_folds(rows: pd.DataFrame, hips: pd.DataFrame, score: Scorer) -> pd.DataFrame:
    folds = rows[["repeat", "fold", "hip_id"]].drop_duplicates().groupby(["repeat", "fold"])
    scored = [_score_fold(fold["hip_id"], hips, score) for _, fold in folds]
    return pd.concat(scored, ignore_index=True)


def _score_fold(hip_ids: "pd.Series[str]", hips: pd.DataFrame, score: Scorer) -> pd.DataFrame:
    test = hips[hips["hip_id"].isin(hip_ids)]
    train = hips[~hips["patient_id"].isin(test["patient_id"])]
    return score(train, test) if len(train) and len(test) else test.iloc[:0]


def _design(hips: pd.DataFrame, median_age: float) -> pd.DataFrame:
    """Return age (the training median where missing), whether it is missing, and sex."""
    return pd.DataFrame(
        {
            "age": hips["age"].fillna(median_age),
            "age_missing": hips["age"].isna().astype(float),
            "female": (hips["sex"] == Sex.FEMALE).astype(float),
            "male": (hips["sex"] == Sex.MALE).astype(float),
        }
    )


def _build_result(
    baseline: Baseline, rows: pd.DataFrame, scored: pd.DataFrame, config: EvaluationConfig
) -> BaselineResult:
    hips = pool_repeats(scored.assign(probability=scored["score"]))
    return BaselineResult(
        baseline=baseline,
        region=Region(rows["region"].iloc[0]),
        label_type=LabelType(rows["label_type"].iloc[0]),
        n_hips=len(hips),
        n_patients=hips["patient_id"].nunique(),
        n_positives=int(hips["label"].sum()),
        metrics=bootstrap_patients(
            hips,
            choose_statistics(CELL_METRICS),
            config,
        ),
        hips=hips,
    )
