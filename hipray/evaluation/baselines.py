"""Score the same test hips without looking at a film: what any network must beat.

The majority class, the person's covariates (logistic regression on the same folds), and the
Osteoporosis Self-assessment Tool for Asians, which needs no training.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hipray.config.evaluation import EvaluationConfig
from hipray.config.jobs import GridRun
from hipray.data.manifest import label_column
from hipray.data.person import read_people
from hipray.evaluation.intervals import Interval, bootstrap_patients
from hipray.evaluation.results import pool_repeats
from hipray.evaluation.statistics import CELL_METRICS, Metric, choose_statistics
from hipray.metrics import youden_threshold
from hipray.vocab import Baseline, Covariate, LabelType, Part, Region, Sex

LEAST_KNOWN = 0.5
"""Share of hips of which a covariate must be known for a baseline to be made of it."""
ALWAYS_ASKED = frozenset({Covariate.AGE, Covariate.SEX})
"""What a radiograph shows of a person anyway; what networks are told beside it is asked, too."""
OST_PER_UNIT = 0.2  # index = 0.2 (weight in kg - age in years), truncated (Koh et al. 2001)
OST_CUTOFF = -1.0  # at or below it the risk is raised (Koh et al. 2001)
OST_RANGE = 40.0  # the index lies within +-40 for any adult: scales it into [0, 1]


BASELINE_TITLES = {
    Baseline.MAJORITY: "Majority class",
    Baseline.COVARIATES: "Covariates",
    Baseline.OST: "OSTA (weight and age)",
}

COVARIATE_TITLES = {Covariate.AGE: "age", Covariate.SEX: "sex", Covariate.BMI: "BMI"}


def name_covariates(known: Sequence[Covariate]) -> str:
    """Return covariates as a person reads them: "age, sex and BMI"; of one "sex alone"."""
    *first, last = (COVARIATE_TITLES[covariate] for covariate in known)
    return f"{', '.join(first)} and {last}" if first else f"{last} alone"


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
    tests: pd.DataFrame  # repeat, hip_id, patient_id, label, probability
    title: str  # the name a person reads, with what it knows


def title_baseline(baseline: Baseline, known: Sequence[Covariate]) -> str:
    """Return the name a person reads; that of the covariates baseline says what it knows."""
    if baseline is not Baseline.COVARIATES or not known:
        return BASELINE_TITLES[baseline]
    name = name_covariates(known)
    return name[:1].upper() + name[1:]


def list_told(run: GridRun) -> tuple[Covariate, ...]:
    """Return what any network of a run is told beside the film."""
    told = {c for b in run.backbones for c in run.experiment.classifier_of(b).covariates}
    return tuple(covariate for covariate in Covariate if covariate in told)


def find_known(manifest: pd.DataFrame, told: Collection[Covariate]) -> tuple[Covariate, ...]:
    """Return what the covariates baseline is made of: age and sex, and what networks are `told`.

    Each where it is known of most hips and differs among them.
    """
    people = _describe_people(manifest)
    return tuple(
        covariate
        for covariate in Covariate
        if covariate in ALWAYS_ASKED | {*told}
        and people[covariate].notna().mean() >= LEAST_KNOWN
        and people[covariate].nunique() > 1
    )


def evaluate_baselines(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    config: EvaluationConfig,
    *,
    known: tuple[Covariate, ...],
) -> list[BaselineResult]:
    """Return every baseline on the test hips of every region and label in `predictions`.

    A fold's training hips are all labelled hips of patients that are not in its test fold. `known`
    is what `find_known` returns.
    """
    tests = predictions[predictions["part"] == Part.TEST]
    groups = [rows for _, rows in tests.groupby(["region", "label_type"])]
    return [
        _build_result(baseline, rows, scored, config, known)
        for rows, hips in ((rows, _read_covariates(manifest, rows)) for rows in groups)
        for baseline, score in _list_scorers(known).items()
        if not (scored := _score_folds(rows, hips, score)).empty
    ]


def score_baselines(
    folds: pd.DataFrame,
    manifest: pd.DataFrame,
    labels: "pd.Series[float]",
    *,
    known: tuple[Covariate, ...],
) -> dict[Baseline, pd.DataFrame]:
    """Return the pooled hips of every baseline for labels of any endpoint.

    `folds` has a row (`repeat`, `fold`, `hip_id`) per tested hip; `labels` are in manifest order,
    NaN where unknown.
    """
    hips = _with_covariates(manifest, labels)
    scored = {b: _score_folds(folds, hips, score) for b, score in _list_scorers(known).items()}
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


def _score_covariates(
    train: pd.DataFrame, test: pd.DataFrame, *, known: tuple[Covariate, ...]
) -> pd.DataFrame:
    if train["label"].nunique() < 2:
        return _score_majority(train, test)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    medians = train[[*known]].median().fillna(0.0)
    model.fit(_design(train, medians), train["label"])
    fitted = model.predict_proba(_design(train, medians))[:, 1]
    return test.assign(
        score=model.predict_proba(_design(test, medians))[:, 1],
        threshold=youden_threshold(train["label"], fitted),
    )


def _score_ost(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    # to a thousandth: numbers that a manifest keeps in 32 bits lie just beside whole ones
    index = np.trunc(np.round(OST_PER_UNIT * (test["weight_kg"] - test["age"]), 3))
    scaled = test.assign(
        score=((OST_RANGE - index) / (2 * OST_RANGE)).clip(0, 1),
        threshold=(OST_RANGE - OST_CUTOFF) / (2 * OST_RANGE),
    )
    return scaled.dropna(subset=["score"])


def _list_scorers(known: tuple[Covariate, ...]) -> dict[Baseline, Scorer]:
    scorers: dict[Baseline, Scorer] = {Baseline.MAJORITY: _score_majority}
    if known:
        scorers[Baseline.COVARIATES] = partial(_score_covariates, known=known)
    return scorers | {Baseline.OST: _score_ost}


def _read_covariates(manifest: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled hips of the manifest with their covariates, weight and this label."""
    column = label_column(LabelType(rows["label_type"].iloc[0]), Region(rows["region"].iloc[0]))
    return _with_covariates(manifest, manifest[column])


def _with_covariates(manifest: pd.DataFrame, labels: "pd.Series[Any]") -> pd.DataFrame:
    hips = pd.concat([manifest[["hip_id", "patient_id"]], _describe_people(manifest)], axis=1)
    labelled = hips.assign(label=labels.astype("boolean"))
    return labelled.dropna(subset=["label"]).astype({"label": int})


def _describe_people(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return each covariate and the weight as numbers, NaN where not known; women are 1."""
    women = {Sex.FEMALE: 1.0, Sex.MALE: 0.0}
    rows = [
        {
            Covariate.AGE.value: person.age,
            Covariate.SEX.value: women.get(person.sex),
            Covariate.BMI.value: person.bmi,
            "weight_kg": person.weight_kg,
        }
        for person in read_people(manifest)
    ]
    return pd.DataFrame(rows, index=manifest.index, dtype=float)


def _score_folds(rows: pd.DataFrame, hips: pd.DataFrame, score: Scorer) -> pd.DataFrame:
    folds = rows[["repeat", "fold", "hip_id"]].drop_duplicates().groupby(["repeat", "fold"])
    scored = [
        _score_fold(fold["hip_id"], hips, score).assign(repeat=fold["repeat"].iloc[0])
        for _, fold in folds
    ]
    return pd.concat(scored, ignore_index=True)


def _score_fold(hip_ids: "pd.Series[str]", hips: pd.DataFrame, score: Scorer) -> pd.DataFrame:
    test = hips[hips["hip_id"].isin(hip_ids)]
    train = hips[~hips["patient_id"].isin(test["patient_id"])]
    return score(train, test) if len(train) and len(test) else test.iloc[:0]


def _design(hips: pd.DataFrame, medians: "pd.Series[float]") -> pd.DataFrame:
    """Return each covariate (the training median where missing) and whether it is missing."""
    told = hips[medians.index]
    missing = told.isna().astype(float).add_suffix("_missing")
    return pd.concat([told.fillna(medians), missing], axis=1)


def _build_result(
    baseline: Baseline,
    rows: pd.DataFrame,
    scored: pd.DataFrame,
    config: EvaluationConfig,
    known: tuple[Covariate, ...],
) -> BaselineResult:
    tests = scored.assign(probability=scored["score"])
    hips = pool_repeats(tests)
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
        tests=tests,
        title=title_baseline(baseline, known),
    )
