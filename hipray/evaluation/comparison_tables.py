"""Lay out the ranking of cells beside baselines, and their calibration."""

from collections.abc import Mapping, Sequence

from hipray.evaluation.baselines import BASELINE_TITLES, BaselineResult
from hipray.evaluation.calibration import CalibrationStage, CellCalibration
from hipray.evaluation.comparisons import Comparison, Gain
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
    format_spread,
)
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.vocab import Baseline, Cell, DataSource, LabelType, Region

_COMPARED = (Metric.ACCURACY, Metric.BALANCED_ACCURACY, Metric.AUROC)

AVERAGED = (
    "A hip's probability is the mean over repeats: one run, or a release of one repeat, is "
    "expected to do worse and to be more overconfident."
)

STAGE_TITLES = {
    CalibrationStage.RAW: "raw",
    CalibrationStage.PER_FIT: "per fit",
    CalibrationStage.POOLED: "pooled",
}


def build_comparison_table(
    results: Sequence[CellResult],
    baselines: Sequence[BaselineResult],
    comparisons: Mapping[Cell, Comparison],
    source: DataSource,
) -> TableView:
    """Lay out each region and label: its baselines, then its cells from best to worst AUROC."""
    groups = sorted(
        {_group_of(b) for b in baselines},
        key=lambda group: (list(LabelType).index(group[0]), list(Region).index(group[1])),
    )
    ranked = sorted(results, key=lambda result: comparisons[result.cell].rank)
    blocks = tuple(
        Block(
            f"{region.display_name}, {LABEL_TITLES[label_type]}",
            (
                *(_baseline_row(b) for b in baselines if _group_of(b) == (label_type, region)),
                *(
                    _comparison_row(r, comparisons[r.cell])
                    for r in ranked
                    if _group_of(r.cell) == (label_type, region)
                ),
            ),
        )
        for label_type, region in groups
    )
    return TableView(
        anchor="baselines",
        title=f"Ranking beside baselines ({source} data)",
        caption="Baselines never see a film. Differences of AUROC are paired on the same hips and "
        "repeats; p is two-sided and adjusted (max-T over the same resamples): against the best "
        "for all pairs of the region and label, against a baseline for all cells of the run. A "
        "cell that cannot be told apart from the best is a tie. A cell with fewer fits than others "
        "of its region and label comes last and is not held against them. "
        f"{AVERAGED}",
        columns=(
            *(metric.heading for metric in _COMPARED),
            "Behind best",
            *(f"Gain over {BASELINE_TITLES[baseline].lower()}" for baseline in Baseline),
        ),
        blocks=blocks,
    )


def build_calibration_table(
    results: Sequence[CellResult],
    calibrations: Mapping[Cell, CellCalibration],
    source: DataSource,
) -> TableView:
    """Lay out calibration before and after Platt scaling, per fit and pooled."""
    rows = tuple(
        Row(
            result.cell.name,
            f"{describe_hips(result)}; in use: {STAGE_TITLES[calibrations[result.cell].used]}",
            (
                Entry(format_spread(result.over_fits[Metric.CALIBRATION_SLOPE])),
                *_calibration_entries(calibrations[result.cell]),
            ),
        )
        for result in results
    )
    return TableView(
        anchor="calibration",
        title=f"Calibration before and after ({source} data)",
        caption="Calibrated: slope 1, intercept 0. A slope below 1 is overconfidence. Per fit: "
        "Platt scaling of each fit on its own inner hips. Pooled: Platt scaling on the inner hips "
        "of all fits of the cell, without the patients of the test fold it is applied to. "
        f"{AVERAGED} The slope of one fit, on its own test hips, is of the probabilities in use.",
        columns=(
            "Slope of one fit",
            *(
                f"{name}, {STAGE_TITLES[stage]}"
                for name in ("Slope", "Intercept", "ECE", "Brier score")
                for stage in CalibrationStage
            ),
        ),
        blocks=(Block("Pooled out-of-fold probabilities", rows),),
    )


def _group_of(scored: BaselineResult | Cell) -> tuple[LabelType, Region]:
    return scored.label_type, scored.region


def _baseline_row(result: BaselineResult) -> Row:
    detail = f"{result.n_hips} hips of {result.n_patients} patients"
    entries = [Entry(format_interval(result.metrics[metric])) for metric in _COMPARED]
    blanks = [Entry("")] * (1 + len(Baseline))
    return Row(result.title, detail, (*entries, *blanks))


def _comparison_row(result: CellResult, comparison: Comparison) -> Row:
    entries = [Entry(format_interval(result.pooled[metric])) for metric in _COMPARED]
    return Row(
        f"{comparison.rank}. {result.cell.backbone}, {VARIANT_TITLES[result.cell.variant]}",
        describe_hips(result),
        (
            *entries,
            _gap_entry(comparison),
            *(_gain_entry(comparison.over.get(baseline)) for baseline in Baseline),
        ),
    )


def _gap_entry(comparison: Comparison) -> Entry:
    if comparison.behind_best is None:
        return Entry("best" if comparison.rank == 1 else "fewer fits: not compared")
    tie = "tie, " if comparison.tied_with_best else ""
    return _gain_entry(comparison.behind_best, tie)


def _gain_entry(gain: Gain | None, prefix: str = "") -> Entry:
    if gain is None:
        return Entry(DASH)
    p = "too few hips to test" if gain.p is None else f"adjusted p {gain.p:.3f}"
    return Entry(format_interval(gain.interval), prefix + p)


def _calibration_entries(found: CellCalibration) -> tuple[Entry, ...]:
    summaries = [found.stages.get(stage) for stage in CalibrationStage]
    return (
        *(Entry(format_interval(s.slope) if s else DASH) for s in summaries),
        *(Entry(format_number(s.intercept if s else None)) for s in summaries),
        *(Entry(format_number(s.ece if s else None)) for s in summaries),
        *(Entry(format_interval(s.brier) if s else DASH) for s in summaries),
    )
