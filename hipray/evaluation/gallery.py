"""Choose and draw the pictures of a report."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hipray.evaluation.decisions import DecisionCurve
from hipray.evaluation.evidence import RELEASE, Evidence
from hipray.evaluation.figures import (
    Curve,
    FigureCaption,
    draw_calibration,
    draw_confusion,
    draw_decision_curve,
    draw_overlap_boxes,
    draw_roc,
)
from hipray.evaluation.intervals import build_sample
from hipray.evaluation.layout import LABEL_TITLES, VARIANT_TITLES
from hipray.evaluation.results import CellResult
from hipray.evaluation.statistics import Metric
from hipray.vocab import Cell, DataSource


@dataclass(frozen=True)
class Picture:
    """One figure file with the sentence that describes it."""

    path: str
    png: bytes
    text: str


def draw_pictures(evidence: Evidence, *, overlays: Sequence[bytes]) -> list[Picture]:
    """Return the decision curves, the segmenters' and every cell group's figures, in this order."""
    source = evidence.source
    return [
        *(_draw_decisions(curve, source) for curve in evidence.decisions),
        *_draw_segmentation(evidence, source),
        *(
            Picture(f"figures/overlay-{i:02d}.png", png, f"Segmentation overlay, {source} data")
            for i, png in enumerate(overlays)
        ),
        *(
            p
            for group in _group_cells(evidence.cells)
            for p in _draw_group(group, evidence, source)
        ),
    ]


def _draw_decisions(curve: DecisionCurve, source: DataSource) -> Picture:
    caption = FigureCaption(curve.name, source, curve.n_hips, curve.n_patients)
    stem = RELEASE if curve.name == RELEASE else "best-cell"
    return Picture(
        f"figures/{stem}-decision-curve.png",
        draw_decision_curve(curve, caption),
        f"Decision curve: {curve.name}, {caption.line}",
    )


def _draw_segmentation(evidence: Evidence, source: DataSource) -> list[Picture]:
    if not evidence.segmenters:
        return []
    hips = pd.concat([result.hips for result in evidence.segmenters])
    unique = hips.drop_duplicates("hip_id")
    caption = _caption("Segmentation", unique, source)
    png = draw_overlap_boxes(evidence.segmenters, caption)
    return [Picture("figures/segmentation-iou.png", png, f"Foreground IoU, {caption.line}")]


def _draw_group(
    group: Sequence[CellResult], evidence: Evidence, source: DataSource
) -> list[Picture]:
    """Draw the cells that share region, label and variant: one curve per network."""
    cell = group[0].cell
    caption = _caption(_name_group(cell), _widest(group).hips, source)
    curves = [_build_curve(result, evidence) for result in group]
    stem = f"figures/{cell.region}-{cell.label_type}-{cell.variant}"
    return [
        Picture(
            f"{stem}-{kind}.png", draw(curves, caption), f"{words}: {caption.title}, {caption.line}"
        )
        for kind, words, draw in (
            ("roc", "ROC", draw_roc),
            ("calibration", "Calibration", draw_calibration),
            ("confusion", "Confusion matrix", draw_confusion),
        )
    ]


def _build_curve(result: CellResult, evidence: Evidence) -> Curve:
    return Curve(
        name=result.cell.backbone,
        sample=build_sample(result.hips),
        auroc=result.pooled[Metric.AUROC],
        bins=evidence.calibrations[result.cell].current.bins,
    )


def _group_cells(results: Sequence[CellResult]) -> list[list[CellResult]]:
    groups: dict[tuple[str, str, str], list[CellResult]] = {}
    for result in results:
        cell = result.cell
        groups.setdefault((cell.variant, cell.label_type, cell.region), []).append(result)
    return list(groups.values())


def _widest(group: Sequence[CellResult]) -> CellResult:
    # Unfinished grids leave networks with fewer hips; the figure states the largest count.
    return max(group, key=lambda result: result.n_hips)


def _name_group(cell: Cell) -> str:
    words = (cell.region.display_name, LABEL_TITLES[cell.label_type], VARIANT_TITLES[cell.variant])
    return ", ".join(words)


def _caption(title: str, hips: pd.DataFrame, source: DataSource) -> FigureCaption:
    return FigureCaption(title, source, len(hips), hips["patient_id"].nunique())
