"""Write the numbers that the paper has no table for."""

from collections.abc import Iterator
from dataclasses import replace

from hipray.evaluation.calibration import CellCalibration
from hipray.evaluation.comparisons import Comparison
from hipray.evaluation.decisions import DecisionCurve
from hipray.evaluation.evidence import Evidence
from hipray.evaluation.intervals import exact_interval
from hipray.evaluation.numbers import (
    NumberRecord,
    Subject,
    describe_cell,
    record_interval,
    record_value,
)
from hipray.evaluation.paper import CLASSIFIER_TABLES, TEST_HIPS
from hipray.evaluation.paper_audit import PaperAudit, PaperRow
from hipray.evaluation.regression import RegressionResult
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.evaluation.worth import Worth
from hipray.vocab import Backbone

PAPER_SOURCE = "paper"  # the source column of numbers computed from the paper's tables


def record_extras(evidence: Evidence) -> Iterator[NumberRecord]:
    """Yield calibration, comparisons, regression, decision curves, their worth and the audit."""
    for result in evidence.cells:
        yield from _record_calibration(result, evidence.calibrations[result.cell])
        yield from _record_comparison(result, evidence.comparisons[result.cell])
    for regression in evidence.regression:
        yield from _record_regression(regression)
    for curve in evidence.decisions:
        yield from _record_decisions(curve)
    yield from _record_worth(evidence.worth)
    for record in _record_audit(evidence.audit):
        yield replace(record, source=PAPER_SOURCE)


def _record_calibration(result: CellResult, found: CellCalibration) -> Iterator[NumberRecord]:
    subject = describe_cell(result.cell, "calibration")
    for stage, summary in found.stages.items():
        n = summary.n_hips
        yield record_interval(subject, f"{Metric.BRIER}_{stage}", summary.brier, n)
        yield record_interval(subject, f"{Metric.CALIBRATION_SLOPE}_{stage}", summary.slope, n)
        for name, value in (
            ("calibration_intercept", summary.intercept),
            ("calibration_in_the_large", summary.in_the_large),
            ("ece", summary.ece),
        ):
            yield record_value(subject, metric=f"{name}_{stage}", value=value, n=n)


def _record_comparison(result: CellResult, comparison: Comparison) -> Iterator[NumberRecord]:
    subject, n = describe_cell(result.cell, "ranking"), result.n_hips
    yield record_value(subject, metric="rank", value=comparison.rank, n=n)
    yield record_value(subject, metric="beats_baseline", value=comparison.beats_baseline, n=n)
    gains = {
        "auroc_behind_best": comparison.behind_best,
        **{f"auroc_gain_over_{baseline}": gain for baseline, gain in comparison.over.items()},
    }
    for name, gain in gains.items():
        if gain is None:
            continue
        yield record_interval(subject, name, gain.interval, n)
        if gain.p is not None:
            yield record_value(subject, metric=f"{name}_adjusted_p", value=gain.p, n=n)


def _record_regression(result: RegressionResult) -> Iterator[NumberRecord]:
    subject = describe_cell(result.cell, "regression")
    for metric, interval in result.metrics.items():
        yield record_interval(subject, metric, interval, result.n_hips)


def _record_decisions(curve: DecisionCurve) -> Iterator[NumberRecord]:
    subject = Subject("decision curve", model=curve.name)
    for point in curve.points:
        for name, interval in (
            ("net_benefit", point.model),
            ("net_benefit_treat_all", point.treat_all),
            ("net_benefit_gain", point.gain),
        ):
            metric = f"{name}_at_{point.threshold:.2f}"
            yield record_interval(subject, metric, interval, curve.n_hips)


def _record_worth(worth: Worth) -> Iterator[NumberRecord]:
    subject = Subject("worth")
    for name, value in (
        ("n_cells", worth.n_cells),
        ("n_cells_planned", worth.n_planned),
        ("n_fits", worth.n_fits),
        ("n_patients", worth.n_patients),
        ("n_cells_tested", worth.n_tested),
        ("n_cells_beating_baseline", worth.n_beating),
    ):
        yield record_value(subject, metric=name, value=value, n=worth.n_hips)
    for best in worth.best:
        cell = best.result.cell
        own = Subject("worth", cell.region, cell.label_type)
        yield record_value(own, metric="n_tied_with_best", value=len(best.ties), n=worth.n_hips)


def _record_audit(audit: PaperAudit) -> Iterator[NumberRecord]:
    for (region, label_type), found in audit.prevalences.items():
        subject = Subject("audit", region, label_type)
        record = record_value(subject, metric="prevalence", value=found.value, n=found.n_rows)
        yield replace(record, low=found.low, high=found.high)
    for row in audit.rows:
        yield from _record_row(row, audit)
    for table in dict.fromkeys(CLASSIFIER_TABLES.values()):
        for backbone in Backbone:
            mean = audit.mean_balanced_accuracy(table, backbone)
            if mean is not None:
                subject = Subject("audit", model=backbone)
                metric = f"mean_balanced_accuracy_table_{table}"
                yield record_value(subject, metric=metric, value=mean, n=0)


def _record_row(row: PaperRow, audit: PaperAudit) -> Iterator[NumberRecord]:
    subject = replace(describe_cell(row.cell, "audit"), split=row.split)
    if row in audit.test_rows:
        n = TEST_HIPS[row.cell.region]
        record = record_value(subject, metric="accuracy", value=row.accuracy, n=n)
        low, high = exact_interval(round(row.accuracy * n), n)
        yield replace(record, low=low, high=high, paper_value=row.accuracy)
    for name, found in (
        ("fits_one_run", row in audit.one_run),
        ("at_or_below_majority", row in audit.at_majority),
    ):
        if row in audit.test_rows:
            yield record_value(subject, metric=name, value=found, n=0)
    for name, doubted in (
        ("pasted", row in audit.pasted),
        ("misprinted", row in audit.misprinted),
    ):
        if doubted:
            yield record_value(subject, metric=name, value=1, n=0)
    if row in audit.impossible_f1:
        yield record_value(subject, metric="implied_f1", value=audit.impossible_f1[row], n=0)
