"""Compute everything that a report states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from hipray.errors import DataError
from hipray.evaluation.baselines import BaselineResult, evaluate_baselines, find_known
from hipray.evaluation.calibration import CellCalibration, calibrate_cell
from hipray.evaluation.comparisons import Comparison, compare_cells
from hipray.evaluation.counts import RegionCounts, count_images
from hipray.evaluation.decisions import DecisionCurve, trace_decision_curve
from hipray.evaluation.headline import score_headline
from hipray.evaluation.inputs import ReportInputs
from hipray.evaluation.paper import PaperTables, read_paper_tables
from hipray.evaluation.paper_audit import PaperAudit, audit_paper
from hipray.evaluation.regression import RegressionResult, summarise_regression
from hipray.evaluation.release import evaluate_release
from hipray.evaluation.release_result import ReleaseResult
from hipray.evaluation.results import (
    CellResult,
    read_predictions,
    read_source,
    select_cell,
    summarise_cells,
)
from hipray.evaluation.segmenters import SegmenterResult, summarise_segmenters
from hipray.evaluation.subgroups import SubgroupResult, summarise_subgroups
from hipray.evaluation.worth import Worth, assess_worth, find_best_cell
from hipray.vocab import Cell, DataSource

RELEASE = "release"  # the name of end-to-end numbers
NO_MEMBERS = "No release was evaluated end to end: no T-score cell of a headline region is done."


@dataclass(frozen=True)
class ReleaseEvidence:
    """A release end to end, or the sentence that says why there is none."""

    result: ReleaseResult | None = None
    hips: pd.DataFrame | None = None  # hip_id, patient_id, label, score, positive
    absence: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything a report has computed."""

    source: DataSource
    paper: PaperTables
    audit: PaperAudit
    counts: Sequence[RegionCounts]
    cells: Sequence[CellResult]
    segmenters: Sequence[SegmenterResult]
    baselines: Sequence[BaselineResult]
    calibrations: Mapping[Cell, CellCalibration]
    comparisons: Mapping[Cell, Comparison]
    regression: Sequence[RegressionResult]
    release: ReleaseEvidence
    subgroups: Sequence[SubgroupResult]
    decisions: Sequence[DecisionCurve]
    worth: Worth


def evaluate_all(inputs: ReportInputs) -> Evidence:
    """Compute everything the report states.

    Raises DataError where predictions are malformed or the manifest mixes phantoms and films.
    """
    config, paper = inputs.config, read_paper_tables()
    predictions = read_predictions(inputs.predictions)
    cells = summarise_cells(predictions, inputs.fits, config)
    known = find_known(inputs.manifest, inputs.told)
    baselines = evaluate_baselines(predictions, inputs.manifest, config, known=known)
    comparisons = compare_cells(cells, baselines, config)
    release = _evaluate_members(inputs, predictions)
    return Evidence(
        source=read_source(inputs.manifest),
        paper=paper,
        audit=audit_paper(paper),
        counts=count_images(inputs.fits, inputs.manifest),
        cells=cells,
        segmenters=_summarise_segmentation(inputs),
        baselines=baselines,
        calibrations={
            c.cell: calibrate_cell(select_cell(predictions, c.cell), config) for c in cells
        },
        comparisons=comparisons,
        regression=summarise_regression(predictions, config),
        release=release,
        subgroups=_divide_release(release, inputs),
        decisions=_trace_decisions(release, cells, inputs),
        worth=assess_worth(
            cells, comparisons, planned=inputs.planned_cells, level=config.level, known=known
        ),
    )


def _summarise_segmentation(inputs: ReportInputs) -> list[SegmenterResult]:
    if inputs.segmentation is None or inputs.segmentation.empty:
        return []
    return summarise_segmenters(inputs.segmentation, inputs.config)


def _evaluate_members(inputs: ReportInputs, predictions: pd.DataFrame) -> ReleaseEvidence:
    if not inputs.members:
        return ReleaseEvidence(absence=NO_MEMBERS)
    try:
        scores = score_headline(
            predictions, inputs.members, manifest=inputs.manifest, config=inputs.config
        )
        result = evaluate_release(
            scores, predictions, inputs.members, manifest=inputs.manifest, config=inputs.config,
            told=inputs.told,
        )  # fmt: skip
    except DataError as error:  # the cells' own results still stand
        absence = f"No release was evaluated end to end: expected {error.expected}, "
        return ReleaseEvidence(absence=f"{absence}found {error.found}.")
    return ReleaseEvidence(result, scores.hips)


def _divide_release(release: ReleaseEvidence, inputs: ReportInputs) -> list[SubgroupResult]:
    if release.hips is None:
        return []
    return summarise_subgroups(release.hips, inputs.manifest, inputs.config)


def _trace_decisions(
    release: ReleaseEvidence, cells: Sequence[CellResult], inputs: ReportInputs
) -> list[DecisionCurve]:
    best = find_best_cell(cells)
    models = {
        **({} if release.hips is None else {RELEASE: release.hips}),
        **({} if best is None else {best.cell.name: best.hips}),
    }
    return [trace_decision_curve(name, hips, inputs.config) for name, hips in models.items()]
