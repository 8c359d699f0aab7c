"""Assemble the report: one HTML page, its figures, and every number in one CSV.

A pure function from results to files: equal inputs give equal bytes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from hipray import RESEARCH_NOTICE
from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.baselines import evaluate_baselines
from hipray.evaluation.calibration import summarise_calibration
from hipray.evaluation.comparison_tables import (
    build_calibration_table,
    build_comparison_table,
    build_subgroup_table,
)
from hipray.evaluation.comparisons import compare_cells, summarise_subgroups
from hipray.evaluation.counts import count_images
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.evaluation.gallery import Picture, draw_pictures
from hipray.evaluation.layout import LABEL_TITLES, VARIANT_TITLES, TableView
from hipray.evaluation.paper import CLASSIFIER_TABLES, PaperTables, build_caveats, read_paper_tables
from hipray.evaluation.records import Findings, build_number_table
from hipray.evaluation.release import Combine, evaluate_release, score_headline
from hipray.evaluation.results import (
    read_predictions,
    read_source,
    summarise_cells,
)
from hipray.evaluation.segmenters import summarise_segmenters
from hipray.evaluation.tables import build_cell_table, build_count_table, build_segmenter_table
from hipray.vocab import Cell, DataSource


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of; the frames have one row per prediction, fit, score and hip."""

    predictions: pd.DataFrame
    fits: pd.DataFrame
    manifest: pd.DataFrame
    flow: FlowCounts
    leak: LeakCheck
    segmentation: pd.DataFrame | None = None
    overlays: Sequence[bytes] = ()  # PNG
    protocol: Mapping[str, str] = field(default_factory=dict)  # what to state, name to value
    members: Sequence[Cell] = ()  # of a release to evaluate end to end
    combine: Combine = "mean"
    title: str = "Hip radiograph classification report"
    config: EvaluationConfig = field(default_factory=EvaluationConfig)


def build_report(inputs: ReportInputs) -> dict[str, bytes]:
    """Return file name to content: index.html, tables.csv and figures/*.png.

    Raises DataError where predictions are malformed or the manifest mixes phantoms and films.
    """
    source, paper = read_source(inputs.manifest), read_paper_tables()
    predictions = read_predictions(inputs.predictions)
    findings, headline = evaluate_all(inputs, predictions)
    pictures = draw_pictures(findings, headline, source, overlays=_choose_overlays(inputs))
    views = _build_views(inputs, findings, paper=paper, source=source)
    page = _render_page(inputs, findings, views, pictures, source)
    numbers = build_number_table(findings, paper, source)
    return {
        "index.html": page.encode("utf-8"),
        "tables.csv": numbers.to_csv(index=False, lineterminator="\n").encode("utf-8"),
        **{picture.path: picture.png for picture in pictures},
    }


def evaluate_all(
    inputs: ReportInputs, predictions: pd.DataFrame
) -> tuple[Findings, pd.DataFrame | None]:
    """Compute everything the report states, and the release's headline hips where it has one."""
    config = inputs.config
    cells = summarise_cells(predictions, inputs.fits, config)
    baselines = evaluate_baselines(predictions, inputs.manifest, config)
    release, headline = _evaluate_members(inputs, predictions)
    return (
        Findings(
            counts=count_images(inputs.fits, inputs.manifest),
            cells=cells,
            segmenters=_summarise_segmentation(inputs),
            baselines=baselines,
            calibrations={c.cell: summarise_calibration(c.hips, config) for c in cells},
            comparisons=compare_cells(cells, baselines, config),
            release=release,
            subgroups=(
                [] if headline is None else summarise_subgroups(headline, inputs.manifest, config)
            ),
        ),
        headline,
    )


def _summarise_segmentation(inputs: ReportInputs) -> list[Any]:
    if inputs.segmentation is None or inputs.segmentation.empty:
        return []
    return list(summarise_segmenters(inputs.segmentation, inputs.config))


def _evaluate_members(
    inputs: ReportInputs, predictions: pd.DataFrame
) -> tuple[dict[str, Any] | None, pd.DataFrame | None]:
    if not inputs.members:
        return None, None
    release = evaluate_release(
        predictions,
        inputs.members,
        combine=inputs.combine,
        manifest=inputs.manifest,
        config=inputs.config,
    )
    scores = score_headline(
        predictions, inputs.members, combine=inputs.combine, manifest=inputs.manifest
    )
    return release, scores.hips


def _choose_overlays(inputs: ReportInputs) -> Sequence[bytes]:
    return inputs.overlays[: inputs.config.max_overlays]


def _build_views(
    inputs: ReportInputs, findings: Findings, *, paper: PaperTables, source: DataSource
) -> list[TableView]:
    run = {(c.cell.variant, c.cell.label_type) for c in findings.cells}
    views = [build_count_table(findings.counts, paper, source)]
    if findings.segmenters:
        views.append(build_segmenter_table(findings.segmenters, paper, source))
    views += [
        build_cell_table(variant, label, findings.cells, paper=paper, source=source)
        for variant, label in CLASSIFIER_TABLES
        if (variant, label) in run
    ]
    views += [
        build_comparison_table(findings.cells, findings.baselines, findings.comparisons, source),
        build_calibration_table(findings.cells, findings.calibrations, source),
    ]
    if findings.subgroups:
        minimum = inputs.config.subgroup_minimum
        views.append(build_subgroup_table(findings.subgroups, source, minimum))
    return views


def _list_absences(inputs: ReportInputs, findings: Findings) -> list[str]:
    """Return one sentence per part of the paper that these results do not hold."""
    run = {(c.cell.variant, c.cell.label_type) for c in findings.cells}
    absences = [
        f"Table {number} ({VARIANT_TITLES[variant]}, {LABEL_TITLES[label]} label) is absent: "
        "no such fit has finished."
        for (variant, label), number in CLASSIFIER_TABLES.items()
        if (variant, label) not in run
    ]
    if not findings.segmenters:
        absences.insert(0, "Table 5 is absent: no segmenter was scored in this run.")
    if findings.release is None:
        absences.append("No release was evaluated end to end.")
    if not inputs.overlays:
        absences.append("No segmentation overlays were given.")
    return absences


def _render_page(
    inputs: ReportInputs,
    findings: Findings,
    views: Sequence[TableView],
    pictures: Sequence[Picture],
    source: DataSource,
) -> str:
    environment = Environment(
        loader=PackageLoader("hipray.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=inputs.title,
        notice=RESEARCH_NOTICE,
        source=source,
        n_hips=len(inputs.manifest),
        n_patients=inputs.manifest["patient_id"].nunique(),
        flow=inputs.flow,
        leak=inputs.leak,
        protocol=_describe_protocol(inputs, findings),
        release=findings.release,
        headline_metrics=_HEADLINE_METRICS,
        absences=_list_absences(inputs, findings),
        views=views,
        pictures=[(p, _locate(p, inputs.config)) for p in pictures],
        caveats=build_caveats(),
    )


_HEADLINE_METRICS = {
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "calibration_slope": "Calibration slope",
}


def _describe_protocol(inputs: ReportInputs, findings: Findings) -> dict[str, str]:
    """Return what was derived from the results after what the caller states."""
    predictions, config = inputs.predictions, inputs.config
    splits = predictions[["repeat", "fold"]].drop_duplicates()
    return {
        **inputs.protocol,
        "Splits in these results": f"{len(splits)} (repeat, fold) pairs of "
        f"{splits['repeat'].nunique()} repeats",
        "Cells and fits": f"{len(findings.cells)} of 72 cells, "
        f"{sum(c.n_fits for c in findings.cells)} fits",
        "Intervals": f"{config.level:.0%} percentile bootstrap over patients, {config.resamples} "
        f"resamples, seed {config.seed}, on scores averaged over repeats",
        "Threshold and calibration": "chosen on the inner hips of each fit, never on test hips",
    }


def _locate(picture: Picture, config: EvaluationConfig) -> str:
    if not config.embed_figures:
        return picture.path
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
