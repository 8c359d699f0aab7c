"""Compare models on the same hips, so that a tie is called a tie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.baselines import Baseline, BaselineResult
from hipray.evaluation.intervals import Interval, bootstrap_difference, bootstrap_patients
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import STATISTICS, Metric, choose_statistics
from hipray.vocab import Cell

AGE_BANDS = {"under 65": (0, 65), "65 to 74": (65, 75), "75 and over": (75, 200)}  # years
SUBGROUP_METRICS = (Metric.AUROC, Metric.SENSITIVITY, Metric.SPECIFICITY)


@dataclass(frozen=True)
class Comparison:
    """A cell's AUROC beside the best network's and beside age and sex, on common hips."""

    behind_best: Interval | None  # best - this; None for the best itself
    over_age_sex: Interval | None  # this - age and sex; None without that baseline

    @property
    def tied_with_best(self) -> bool:
        """Whether the paired interval leaves open that the best is no better."""
        return self.behind_best is not None and self.behind_best.includes_zero


@dataclass(frozen=True)
class SubgroupResult:
    """The numbers of one subgroup; None where it is too small or holds one class."""

    attribute: str
    group: str
    n_hips: int
    n_positives: int
    metrics: Mapping[Metric, Interval] | None


def compare_cells(
    results: Sequence[CellResult], baselines: Sequence[BaselineResult], config: EvaluationConfig
) -> dict[Cell, Comparison]:
    """Compare each cell with the best backbone of its region, label and variant, by AUROC."""
    return {
        result.cell: Comparison(
            behind_best=_measure_gap(_find_best(result, results), result, config),
            over_age_sex=_measure_gap(result, _find_age_sex(result, baselines), config),
        )
        for result in results
    }


def summarise_subgroups(
    hips: pd.DataFrame, manifest: pd.DataFrame, config: EvaluationConfig
) -> list[SubgroupResult]:
    """Return AUROC, sensitivity and specificity by sex, age band, side and DXA device."""
    known = hips.merge(manifest[["hip_id", "sex", "age", "side", "device"]], on="hip_id")
    bands = known.assign(age=_band_ages(known["age"].astype(float)))
    return [
        _measure_subgroup(attribute, str(group), rows, config)
        for attribute in ("sex", "age", "side", "device")
        for group, rows in bands.groupby(attribute)
    ]


def _measure_gap(
    first: CellResult | None, second: CellResult | BaselineResult | None, config: EvaluationConfig
) -> Interval | None:
    if first is None or second is None or first is second:
        return None
    if not set(first.hips["hip_id"]) & set(second.hips["hip_id"]):
        return None
    return bootstrap_difference(
        first.hips,
        second.hips,
        STATISTICS[Metric.AUROC],
        n_resamples=config.resamples,
        seed=config.seed,
        level=config.level,
    )


def _find_best(result: CellResult, results: Sequence[CellResult]) -> CellResult | None:
    cell = result.cell
    rivals = [
        other
        for other in results
        if (other.cell.region, other.cell.label_type, other.cell.variant)
        == (cell.region, cell.label_type, cell.variant)
        and other.pooled[Metric.AUROC].value == other.pooled[Metric.AUROC].value  # defined
    ]
    return max(rivals, key=lambda other: other.pooled[Metric.AUROC].value, default=None)


def _find_age_sex(result: CellResult, baselines: Sequence[BaselineResult]) -> BaselineResult | None:
    for baseline in baselines:
        same = (baseline.region, baseline.label_type) == (
            result.cell.region,
            result.cell.label_type,
        )
        if same and baseline.baseline is Baseline.AGE_SEX:
            return baseline
    return None


def _band_ages(ages: "pd.Series[float]") -> "pd.Series[str]":
    bands = pd.Series("unknown", index=ages.index)
    for name, (low, high) in AGE_BANDS.items():
        bands[(ages >= low) & (ages < high)] = name
    return bands


def _measure_subgroup(
    attribute: str, group: str, rows: pd.DataFrame, config: EvaluationConfig
) -> SubgroupResult:
    shown = len(rows) >= config.subgroup_minimum and rows["label"].nunique() == 2
    return SubgroupResult(
        attribute=attribute,
        group=group,
        n_hips=len(rows),
        n_positives=int(rows["label"].sum()),
        metrics=_bound_subgroup(rows, config) if shown else None,
    )


def _bound_subgroup(rows: pd.DataFrame, config: EvaluationConfig) -> dict[Metric, Interval]:
    return bootstrap_patients(
        rows,
        choose_statistics(SUBGROUP_METRICS),
        n_resamples=config.resamples,
        seed=config.seed,
        level=config.level,
    )
