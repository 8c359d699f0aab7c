"""Write every number of the report as one long table: one row, one number."""

from collections.abc import Iterator
from dataclasses import asdict, fields, replace

import pandas as pd

from hipray.evaluation.baselines import BaselineResult
from hipray.evaluation.counts import RegionCounts
from hipray.evaluation.evidence import RELEASE, Evidence, ReleaseEvidence
from hipray.evaluation.extra_records import record_extras
from hipray.evaluation.numbers import (
    NumberRecord,
    Subject,
    describe_cell,
    record_interval,
    record_spread,
    record_value,
)
from hipray.evaluation.paper import PaperTables, Split
from hipray.evaluation.release_result import MeasuredScores
from hipray.evaluation.results import CellResult
from hipray.evaluation.segmenters import Overlap, SegmenterResult
from hipray.evaluation.subgroups import SubgroupResult


def build_number_table(evidence: Evidence) -> pd.DataFrame:
    """Return the long table, its columns those of NumberRecord in order."""
    records = [
        replace(record, source=record.source or str(evidence.source))
        for part in (
            *(_record_counts(region, evidence.paper) for region in evidence.counts),
            *(_record_segmenter(result, evidence.paper) for result in evidence.segmenters),
            *(_record_cell(result, evidence.paper) for result in evidence.cells),
            *(_record_baseline(result) for result in evidence.baselines),
            _record_release(evidence.release),
            *(_record_subgroup(subgroup) for subgroup in evidence.subgroups),
            record_extras(evidence),
        )
        for record in part
    ]
    columns = [field.name for field in fields(NumberRecord)]
    return pd.DataFrame([asdict(record) for record in records], columns=columns)


def _record_counts(counts: RegionCounts, paper: PaperTables) -> Iterator[NumberRecord]:
    for label_type, n in counts.labelled.items():
        subject = Subject("1", counts.region, label_type, split="")
        yield record_value(subject, metric="n_hips", value=n, n=n)
        yield record_value(subject, metric="n_abnormal", value=counts.abnormal[label_type], n=n)
    for variant, images in counts.train_images.items():
        trained = Subject("1", counts.region, variant=variant, split=Split.TRAIN)
        record = record_value(trained, metric="n_train_images", value=images, n=round(images))
        yield replace(record, paper_value=paper.get_train_images(counts.region, variant))


def _record_segmenter(result: SegmenterResult, paper: PaperTables) -> Iterator[NumberRecord]:
    subject = Subject("5", region=result.region, model=result.arch)
    beside = {Overlap.IOU: paper.get_iou(result.region, result.arch)}
    for overlap, interval in result.overlaps.items():
        yield record_interval(subject, overlap, interval, result.n_hips, beside.get(overlap))


def _record_cell(result: CellResult, paper: PaperTables) -> Iterator[NumberRecord]:
    subject = describe_cell(result.cell)
    for metric, interval in result.pooled.items():
        value = paper.get_metric(result.cell, Split.TEST, metric)
        yield record_interval(subject, metric, interval, result.n_hips, value)
        yield from record_spread(subject, metric, result.over_fits[metric], value)
    trained = replace(subject, split=Split.TRAIN)
    for metric, spread in result.train.items():
        value = paper.get_metric(result.cell, Split.TRAIN, metric)
        yield from record_spread(trained, metric, spread, value)


def _record_baseline(result: BaselineResult) -> Iterator[NumberRecord]:
    subject = Subject("baselines", result.region, result.label_type, model=result.baseline)
    for metric, interval in result.metrics.items():
        yield record_interval(subject, metric, interval, result.n_hips)


def _record_release(release: ReleaseEvidence) -> Iterator[NumberRecord]:
    if release.result is None:
        return
    whole = Subject("release", "", "", model=RELEASE)
    yield from _record_scores(whole, release.result)
    for scores in release.result.regions:
        subject = Subject("release", scores.region, scores.label_type, model=RELEASE)
        yield from _record_scores(subject, scores)


def _record_scores(subject: Subject, scores: MeasuredScores) -> Iterator[NumberRecord]:
    for metric, stated in scores.metrics.items():
        yield record_interval(subject, metric, stated.interval, scores.n_hips)


def _record_subgroup(result: SubgroupResult) -> Iterator[NumberRecord]:
    subject = Subject("subgroups", model=f"{RELEASE}, {result.attribute} {result.group}")
    for metric, interval in (result.metrics or {}).items():
        yield record_interval(subject, metric, interval, result.n_hips)
