"""Lay out what the paper has no table for: baselines, calibration and subgroups."""

from collections.abc import Mapping, Sequence

from hipray.evaluation.baselines import BaselineResult
from hipray.evaluation.calibration import CalibrationSummary
from hipray.evaluation.comparisons import SUBGROUP_METRICS, Comparison, SubgroupResult
from hipray.evaluation.layout import (
    DASH,
    LABEL_TITLES,
    VARIANT_TITLES,
    Block,
    Entry,
    Row,
    TableView,
    describe_hips,
    format_interval,
    format_number,
)
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, DataSource, LabelType, Region

_COMPARED = (Metric.ACCURACY, Metric.BALANCED_ACCURACY, Metric.AUROC)


def build_comparison_table(
    results: Sequence[CellResult],
    baselines: Sequence[BaselineResult],
    comparisons: Mapping[Cell, Comparison],
    source: DataSource,
) -> TableView:
    """Lay out the baselines of each region and label above its cells, on the same test hips."""
    groups = sorted(
        {_group_of(b) for b in baselines},
        key=lambda group: (list(LabelType).index(group[0]), list(Region).index(group[1])),
    )
    blocks = tuple(
        Block(
            f"{region.display_name}, {LABEL_TITLES[label_type]}",
            (
                *(_baseline_row(b) for b in baselines if _group_of(b) == (label_type, region)),
                *(
                    _comparison_row(r, comparisons[r.cell])
                    for r in results
                    if _group_of(r.cell) == (label_type, region)
                ),
            ),
        )
        for label_type, region in groups
    )
    return TableView(
        anchor="baselines",
        title=f"Beside baselines ({source} data)",
        caption="Baselines never see a film. Gains and gaps are paired differences of AUROC on the "
        "same hips; a gap whose interval includes zero is a tie.",
        columns=("Accuracy", "Balanced accuracy", "AUROC", "Gain over age and sex", "Behind best"),
        blocks=blocks,
    )


def build_calibration_table(
    results: Sequence[CellResult],
    calibrations: Mapping[Cell, CalibrationSummary],
    source: DataSource,
) -> TableView:
    """Lay out Brier score, calibration slope, calibration in the large and ECE per cell."""
    rows = tuple(
        Row(
            result.cell.name,
            describe_hips(result) + ("" if result.calibrated else "; raw probabilities"),
            _calibration_entries(calibrations[result.cell]),
        )
        for result in results
    )
    return TableView(
        anchor="calibration",
        title=f"Calibration ({source} data)",
        caption="Calibrated: slope 1, in the large 0. A slope below 1 is overconfidence.",
        columns=("Brier score", "Slope", "In the large", "Expected calibration error"),
        blocks=(Block("Pooled out-of-fold probabilities", rows),),
    )


def build_subgroup_table(
    subgroups: Sequence[SubgroupResult], source: DataSource, minimum: int
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
        caption=f"Groups of fewer than {minimum} hips, or of one class only, show no numbers.",
        columns=("AUROC", "Sensitivity", "Specificity"),
        blocks=blocks,
    )


def _group_of(scored: BaselineResult | Cell) -> tuple[LabelType, Region]:
    return scored.label_type, scored.region


def _baseline_row(result: BaselineResult) -> Row:
    detail = f"{result.n_hips} hips of {result.n_patients} patients"
    entries = [Entry(format_interval(result.metrics[metric])) for metric in _COMPARED]
    return Row(result.baseline.heading, detail, (*entries, Entry(""), Entry("")))


def _comparison_row(result: CellResult, comparison: Comparison) -> Row:
    entries = [Entry(format_interval(result.pooled[metric])) for metric in _COMPARED]
    gain, gap = comparison.over_age_sex, comparison.behind_best
    tie = "tie" if comparison.tied_with_best else ""
    return Row(
        f"{result.cell.backbone}, {VARIANT_TITLES[result.cell.variant]}",
        describe_hips(result),
        (
            *entries,
            Entry(format_interval(gain) if gain else DASH),
            Entry(format_interval(gap) if gap else "best", tie),
        ),
    )


def _calibration_entries(summary: CalibrationSummary) -> tuple[Entry, ...]:
    return (
        Entry(format_interval(summary.brier)),
        Entry(format_interval(summary.slope)),
        Entry(format_number(summary.in_the_large)),
        Entry(format_number(summary.ece)),
    )


def _subgroup_row(subgroup: SubgroupResult) -> Row:
    metrics = subgroup.metrics
    entries = tuple(
        Entry(format_interval(metrics[metric]) if metrics else "too few")
        for metric in SUBGROUP_METRICS
    )
    return Row(subgroup.group, f"{subgroup.n_hips} hips, {subgroup.n_positives} abnormal", entries)
