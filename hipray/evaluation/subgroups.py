"""Measure a release's headline result in parts of the archive, where they are large enough."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, bootstrap_patients, count_least
from hipray.evaluation.statistics import Metric, choose_statistics

AGE_BANDS = {"below 65": (0, 65), "from 65 to 74": (65, 75), "from 75": (75, 200)}  # years
ATTRIBUTES = ("sex", "age", "side", "device")
SUBGROUP_METRICS = (Metric.AUROC, Metric.SENSITIVITY, Metric.SPECIFICITY)


@dataclass(frozen=True)
class SubgroupResult:
    """The numbers of one subgroup; None where it has too few patients, or too few of a class."""

    attribute: str
    group: str
    n_hips: int
    n_positives: int | None  # None as the metrics: of few people it would say who
    metrics: Mapping[Metric, Interval] | None


def summarise_subgroups(
    hips: pd.DataFrame, manifest: pd.DataFrame, config: EvaluationConfig
) -> list[SubgroupResult]:
    """Return AUROC, sensitivity and specificity by sex, age band, side and DXA device."""
    known = hips.merge(manifest[["hip_id", *ATTRIBUTES]], on="hip_id")
    bands = known.assign(
        age=_band_ages(pd.to_numeric(known["age"], errors="coerce")),
        device=known["device"].astype("object").where(known["device"].notna(), "unknown"),
    )
    return [
        _measure_subgroup(attribute, str(group), rows, config)
        for attribute in ATTRIBUTES
        for group, rows in bands.groupby(attribute)
    ]


def _band_ages(ages: "pd.Series[float]") -> "pd.Series[str]":
    bands = pd.Series("unknown", index=ages.index)
    for name, (low, high) in AGE_BANDS.items():
        bands[(ages >= low) & (ages < high)] = name
    return bands


def _measure_subgroup(
    attribute: str, group: str, rows: pd.DataFrame, config: EvaluationConfig
) -> SubgroupResult:
    enough = rows["patient_id"].nunique() >= config.subgroup_minimum
    shown = enough and count_least(rows) >= config.subgroup_class_minimum
    return SubgroupResult(
        attribute=attribute,
        group=group,
        n_hips=len(rows),
        n_positives=int(rows["label"].sum()) if shown else None,
        metrics=_bound_subgroup(rows, config) if shown else None,
    )


def _bound_subgroup(rows: pd.DataFrame, config: EvaluationConfig) -> dict[Metric, Interval]:
    return bootstrap_patients(
        rows,
        choose_statistics(SUBGROUP_METRICS),
        config,
    )
