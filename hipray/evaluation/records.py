"""Write every number of the report as one long table: one row, one number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from hipray.evaluation.baselines import BaselineResult
from hipray.evaluation.calibration import CalibrationSummary
from hipray.evaluation.comparisons import Comparison, SubgroupResult
from hipray.evaluation.counts import RegionCounts
from hipray.evaluation.intervals import Interval
from hipray.evaluation.paper import CLASSIFIER_TABLES, PaperTables, Split
from hipray.evaluation.results import CellResult, Spread
from hipray.evaluation.segmenters import Overlap, SegmenterResult
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, DataSource

RELEASE = "release"  # the model column of end-to-end numbers


@dataclass(frozen=True)
class Subject:
    """What a number is about."""

    table: str
    region: str = ""
    label_type: str = ""
    variant: str = ""
    model: str = ""
    split: str = Split.TEST


@dataclass(frozen=True)
class NumberRecord(Subject):
    """One number; `n` counts hips, for a mean or SD over fits the fits."""

    metric: str = ""
    value: float = float("nan")
    low: float | None = None
    high: float | None = None
    n: int = 0
    source: str = ""
    paper_value: float | None = None


@dataclass(frozen=True)
class Findings:
    """Everything a report has computed."""

    counts: Sequence[RegionCounts]
    cells: Sequence[CellResult]
    segmenters: Sequence[SegmenterResult]
    baselines: Sequence[BaselineResult]
    calibrations: Mapping[Cell, CalibrationSummary]
    comparisons: Mapping[Cell, Comparison]
    release: Mapping[str, Any] | None
    subgroups: Sequence[SubgroupResult]


def build_number_table(findings: Findings, paper: PaperTables, source: DataSource) -> pd.DataFrame:
    """Return the long table, its columns those of NumberRecord in order."""
    records = [
        replace(record, source=str(source))
        for part in (
            *(_record_counts(region, paper) for region in findings.counts),
            *(_record_segmenter(result, paper) for result in findings.segmenters),
            *(_record_cell(result, paper) for result in findings.cells),
            *(_record_baseline(result) for result in findings.baselines),
            *(_record_calibration(c, findings.calibrations[c.cell]) for c in findings.cells),
            *(_record_comparison(c, findings.comparisons[c.cell]) for c in findings.cells),
            _record_release(findings.release),
            *(_record_subgroup(subgroup) for subgroup in findings.subgroups),
        )
        for record in part
    ]
    columns = [field.name for field in fields(NumberRecord)]
    return pd.DataFrame([asdict(record) for record in records], columns=columns)


def _record_counts(counts: RegionCounts, paper: PaperTables) -> Iterator[NumberRecord]:
    for label_type, n in counts.labelled.items():
        subject = Subject("1", counts.region, label_type, split="")
        yield _record(subject, metric="n_hips", value=n, n=n)
        yield _record(subject, metric="n_abnormal", value=counts.abnormal[label_type], n=n)
    for variant, images in counts.train_images.items():
        trained = Subject("1", counts.region, variant=variant, split=Split.TRAIN)
        record = _record(trained, metric="n_train_images", value=images, n=round(images))
        yield replace(record, paper_value=paper.get_train_images(counts.region, variant))


def _record_segmenter(result: SegmenterResult, paper: PaperTables) -> Iterator[NumberRecord]:
    subject = Subject("5", region=result.region, model=result.arch)
    beside = {Overlap.IOU: paper.get_iou(result.region, result.arch)}
    for overlap, interval in result.overlaps.items():
        yield _bounded(subject, overlap, interval, result.n_hips, beside.get(overlap))


def _record_cell(result: CellResult, paper: PaperTables) -> Iterator[NumberRecord]:
    subject = _subject_of(result.cell)
    for metric, interval in result.pooled.items():
        value = paper.get_metric(result.cell, Split.TEST, metric)
        yield _bounded(subject, metric, interval, result.n_hips, value)
        yield from _spread(subject, metric, result.over_fits[metric], value)
    trained = replace(subject, split=Split.TRAIN)
    for metric, spread in result.train.items():
        value = paper.get_metric(result.cell, Split.TRAIN, metric)
        yield from _spread(trained, metric, spread, value)


def _record_baseline(result: BaselineResult) -> Iterator[NumberRecord]:
    subject = Subject("baselines", result.region, result.label_type, model=result.baseline)
    for metric, interval in result.metrics.items():
        yield _bounded(subject, metric, interval, result.n_hips)


def _record_calibration(result: CellResult, summary: CalibrationSummary) -> Iterator[NumberRecord]:
    subject = replace(_subject_of(result.cell), table="calibration")
    yield _bounded(subject, Metric.BRIER, summary.brier, result.n_hips)
    yield _bounded(subject, Metric.CALIBRATION_SLOPE, summary.slope, result.n_hips)
    for name, value in (
        ("calibration_intercept", summary.intercept),
        ("calibration_in_the_large", summary.in_the_large),
        ("ece", summary.ece),
    ):
        yield _record(subject, metric=name, value=value, n=result.n_hips)


def _record_comparison(result: CellResult, comparison: Comparison) -> Iterator[NumberRecord]:
    subject = replace(_subject_of(result.cell), table="baselines")
    for name, interval in (
        ("auroc_gain_over_age_sex", comparison.over_age_sex),
        ("auroc_behind_best", comparison.behind_best),
    ):
        if interval is not None:
            yield _bounded(subject, name, interval, result.n_hips)


def _record_release(release: Mapping[str, Any] | None) -> Iterator[NumberRecord]:
    if release is None:
        return
    parts = {"": release, **release["regions"]}
    for name, measured in parts.items():
        region, _, label_type = name.partition("-")
        subject = Subject("release", region, label_type, model=RELEASE)
        for metric, bounds in measured["metrics"].items():
            yield _bounded(subject, metric, Interval(**bounds), measured["n_hips"])


def _record_subgroup(result: SubgroupResult) -> Iterator[NumberRecord]:
    subject = Subject("subgroups", model=f"{RELEASE}, {result.attribute} {result.group}")
    for metric, interval in (result.metrics or {}).items():
        yield _bounded(subject, metric, interval, result.n_hips)


def _subject_of(cell: Cell) -> Subject:
    table = str(CLASSIFIER_TABLES[cell.variant, cell.label_type])
    return Subject(table, cell.region, cell.label_type, cell.variant, cell.backbone)


def _spread(
    subject: Subject, metric: Metric, spread: Spread, paper_value: float | None
) -> Iterator[NumberRecord]:
    """Yield mean and SD over fits; the paper's cell is a mean over runs."""
    mean = _record(subject, metric=f"{metric}_mean_over_fits", value=spread.mean, n=spread.n)
    yield replace(mean, paper_value=paper_value)
    yield _record(subject, metric=f"{metric}_sd_over_fits", value=spread.sd, n=spread.n)


def _bounded(
    subject: Subject, metric: str, interval: Interval, n: int, paper_value: float | None = None
) -> NumberRecord:
    record = _record(subject, metric=metric, value=interval.value, n=n)
    return replace(record, low=interval.low, high=interval.high, paper_value=paper_value)


def _record(subject: Subject, *, metric: str, value: float, n: int) -> NumberRecord:
    return NumberRecord(**asdict(subject), metric=metric, value=value, n=n)
