"""Lay out what holds for a release or single cells: subgroups, decisions and regression."""

from collections.abc import Sequence

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.decisions import DecisionCurve, DecisionPoint
from hipray.evaluation.layout import Block, Entry, Row, TableView, format_interval
from hipray.evaluation.regression import RegressionMetric, RegressionResult
from hipray.evaluation.subgroups import SUBGROUP_METRICS, SubgroupResult
from hipray.vocab import DataSource

SHOWN_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # the long table has all

REGRESSION_TITLES = {
    RegressionMetric.PEARSON_R: "Pearson r",
    RegressionMetric.RMSE: "RMSE",
    RegressionMetric.MEAN_ABSOLUTE_ERROR: "Mean absolute error",
    RegressionMetric.BIAS: "Bias (predicted - measured)",
}


def build_subgroup_table(
    subgroups: Sequence[SubgroupResult], source: DataSource, config: EvaluationConfig
) -> TableView:
    """Lay out a release's headline result by sex, age band, side and device."""
    attributes = list(dict.fromkeys(subgroup.attribute for subgroup in subgroups))
    blocks = tuple(
        Block(
            attribute.capitalize(),
            tuple(_subgroup_row(s) for s in subgroups if s.attribute == attribute),
        )
        for attribute in attributes
    )
    return TableView(
        anchor="subgroups",
        title=f"Release by subgroup ({source} data)",
        caption=f"Groups of fewer than {config.subgroup_minimum} patients, or of fewer than "
        f"{config.subgroup_class_minimum:g} of a class, show no numbers. The intervals are not "
        "corrected for the number of groups.",
        columns=("AUROC", "Sensitivity", "Specificity"),
        blocks=blocks,
    )


def build_decision_table(curves: Sequence[DecisionCurve], source: DataSource) -> TableView:
    """Lay out the net benefit of each model beside calling all or none abnormal."""
    blocks = tuple(
        Block(
            f"{curve.name}, {curve.n_hips} hips of {curve.n_patients} patients",
            tuple(_decision_row(p) for p in curve.points if p.threshold in SHOWN_THRESHOLDS),
        )
        for curve in curves
    )
    return TableView(
        anchor="decisions",
        title=f"Decision curve ({source} data)",
        caption="Net benefit per hip (Vickers and Elkin 2006): hits less false alarms, an alarm "
        "weighing t/(1 - t) at threshold probability t. Calling none abnormal has 0. The best "
        "cell was chosen on these hips, which flatters it.",
        columns=("Model", "Call all abnormal", "Gain over the better of all and none"),
        blocks=blocks,
    )


def build_regression_table(results: Sequence[RegressionResult], source: DataSource) -> TableView:
    """Lay out how well predicted values agree with DXA, per cell."""
    rows = tuple(
        Row(
            result.cell.name,
            f"{result.n_hips} hips of {result.n_patients} patients",
            tuple(
                Entry(format_interval(result.metrics[metric], digits=3))
                for metric in RegressionMetric
            ),
        )
        for result in results
    )
    return TableView(
        anchor="regression",
        title=f"Regression ({source} data)",
        caption="Predicted against measured values of out-of-fold hips, predictions averaged over "
        "repeats; errors in the unit of the measured value.",
        columns=tuple(REGRESSION_TITLES[metric] for metric in RegressionMetric),
        blocks=(Block("Cell", rows),),
    )


def _subgroup_row(subgroup: SubgroupResult) -> Row:
    metrics = subgroup.metrics
    entries = tuple(
        Entry(format_interval(metrics[metric]) if metrics else "too few")
        for metric in SUBGROUP_METRICS
    )
    abnormal = "" if subgroup.n_positives is None else f", {subgroup.n_positives} abnormal"
    return Row(subgroup.group, f"{subgroup.n_hips} hips{abnormal}", entries)


def _decision_row(point: DecisionPoint) -> Row:
    values = (point.model, point.treat_all, point.gain)
    entries = tuple(Entry(format_interval(value, digits=3)) for value in values)
    return Row(f"t = {point.threshold:.1f}", "", entries)
