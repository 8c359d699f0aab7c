"""Summarise the out-of-fold overlap of the segmenters, per network and region (Table 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, bootstrap_patients
from hipray.evaluation.statistics import SHARE, mean_score
from hipray.vocab import Region, SegmenterArch


class Overlap(StrEnum):
    """How a predicted mask is compared with the true one."""

    IOU = "iou"  # foreground
    DICE = "dice"  # foreground
    BACKGROUND_IOU = "background_iou"


@dataclass(frozen=True)
class SegmenterResult:
    """Mean overlap of one network on one region, each hip counted once."""

    arch: SegmenterArch
    region: Region
    n_hips: int
    n_patients: int
    overlaps: Mapping[Overlap, Interval]
    hips: pd.DataFrame  # hip_id, patient_id and the overlaps, averaged over repeats


def summarise_segmenters(scores: pd.DataFrame, config: EvaluationConfig) -> list[SegmenterResult]:
    """Return one result per region and network, with intervals over patients."""
    return [
        _summarise(arch, region, rows, config)
        for region in Region
        for arch in SegmenterArch
        if not (rows := scores[(scores["arch"] == arch) & (scores["region"] == region)]).empty
    ]


def _summarise(
    arch: SegmenterArch, region: Region, rows: pd.DataFrame, config: EvaluationConfig
) -> SegmenterResult:
    columns = [overlap for overlap in Overlap if overlap in rows]
    hips = rows.groupby(["hip_id", "patient_id"], as_index=False)[columns].mean()
    return SegmenterResult(
        arch=arch,
        region=region,
        n_hips=len(hips),
        n_patients=hips["patient_id"].nunique(),
        overlaps={overlap: _bound_mean(hips, overlap, config) for overlap in columns},
        hips=hips,
    )


def _bound_mean(hips: pd.DataFrame, overlap: Overlap, config: EvaluationConfig) -> Interval:
    # A mean asks for neither label nor decision: the constants stand in for both.
    bounds = bootstrap_patients(
        hips.assign(score=hips[overlap], label=0, positive=False),
        {overlap: mean_score},
        config,
        limits=SHARE,
    )
    return bounds[overlap]
