"""What a grid would cost before it runs: cells, fits, hips, resources and time."""

import math
import os
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from hipray.config.jobs import GridRun
from hipray.data.dataset import DataIdentity
from hipray.data.manifest import label_column, read_manifest
from hipray.storage import Store
from hipray.training.plan import PlannedFit, build_cells, plan_fits
from hipray.training.preparation import chosen_folds
from hipray.vocab import Fit, LabelType, Region, SegmenterArch, SegmenterFit, Variant

PAPER_HIPS, PAPER_PATIENTS = 139, 134
PAPER_LABELLED = {
    Region.FEMORAL_NECK: 139,
    Region.GREATER_TROCHANTER: 72,
    Region.WARDS_TRIANGLE: 72,
    Region.TOTAL_HIP: 139,
}
"""Hips with a label in the paper's archive (section 3.2)."""

TRAIN_SECONDS_AT_64 = {"vgg16": 0.041, "resnet50": 0.022, "densenet121": 0.015}
"""Seconds to train on one 64 px film, one core with AVX2; cost grows with the area."""
OTHER_SECONDS_AT_64 = 0.025
SEGMENT_SECONDS_AT_128 = {SegmenterArch.UNET: 0.038, SegmenterArch.UNETPP: 0.09}
"""The same for one 128 px film with a resnet18 encoder."""
OTHER_SEGMENT_SECONDS_AT_128 = 0.09
START_UP_S = 30.0
"""Start of Ray and of a lane's Train run."""
PAPER_COPIES = 7
"""Films in the augmented arm for one original (Table 1)."""


@dataclass(frozen=True)
class Archive:
    """What the plan counts on."""

    hips: int
    patients: int
    labelled: dict[tuple[Region, LabelType], int]
    has_masks: bool
    where: str


def describe_plan(store: Store, config: GridRun) -> str:
    """Return the plan of a grid as text; nothing is trained or written.

    Without a manifest in the workspace the paper's archive is planned for.
    """
    archive = _read_archive(store, config.manifest)
    cells = build_cells(config.regions, config.label_types, config.backbones, config.variants)
    plan = plan_fits(
        cells,
        config.experiment,
        data=DataIdentity("plan", "plan", "plan"),
        test_folds=chosen_folds(config),
        has_masks=archive.has_masks,
    )
    classifiers = [p for p in plan if isinstance(p.fit, Fit)]
    seconds = sum(_seconds(p, config, archive) for p in plan)
    lanes, scaling = config.scaling.lanes, config.scaling
    longest = max((_seconds(p, config, archive) for p in plan), default=0.0)
    wall = START_UP_S + max(seconds / lanes, longest)
    labelled = ", ".join(
        f"{region.display_name} {archive.labelled[region, config.label_types[0]]}"
        for region in config.regions
    )
    guard = "OVERRIDDEN, leaks are counted" if config.experiment.leakage.allow else "on"
    return "\n".join(
        [
            f"run        {config.run} in {config.workspace}",
            f"cells      {len(cells)} = {len(config.regions)} regions x "
            f"{len(config.label_types)} labels x {len(config.backbones)} backbones x "
            f"{len(config.variants)} variants",
            f"fits       {len(plan)} = {len(plan) - len(classifiers)} segmenters + "
            f"{len(classifiers)} classifiers ({_describe_split(config)})",
            f"images     {archive.hips} hips ({archive.where}); labelled: {labelled}",
            f"patients   {archive.patients}",
            f"leak guard {guard}",
            f"start from {config.experiment.classifier.weights} weights (classifiers), "
            f"{config.experiment.segmenter.weights} weights (segmenters)",
            f"resources  {lanes} lanes x {scaling.cpus_per_lane:g} CPU, "
            f"{scaling.gpus_per_lane:g} GPU = {lanes * scaling.cpus_per_lane:g} CPU, "
            f"{lanes * scaling.gpus_per_lane:g} GPU; this machine has {os.cpu_count()} CPU",
            f"time       at most {_duration(wall)} on CPU lanes if no fit stops early "
            f"({_duration(seconds)} of one core); GPU lanes are far faster and not estimated",
        ]
    )


def _describe_split(config: GridRun) -> str:
    split = config.experiment.split
    return (
        f"{split.repeats} x {split.folds} folds by {split.unit}, {len(chosen_folds(config))} tested"
    )


def _read_archive(store: Store, key: str) -> Archive:
    if not store.exists(key):
        labelled = {(region, kind): n for region, n in PAPER_LABELLED.items() for kind in LabelType}
        where = "the paper's archive: the workspace has no manifest yet"
        return Archive(PAPER_HIPS, PAPER_PATIENTS, labelled, has_masks=True, where=where)
    manifest: pd.DataFrame = read_manifest(store, key)
    counts = {
        (region, kind): int(manifest[label_column(kind, region)].notna().sum())
        for region in Region
        for kind in LabelType
    }
    masks = Counter(c for c in manifest.columns if c.startswith("mask_key_") and manifest[c].any())
    return Archive(
        len(manifest), manifest["patient_id"].nunique(), counts,
        has_masks=bool(masks), where="manifest of the workspace",
    )  # fmt: skip


def _seconds(planned: PlannedFit, config: GridRun, archive: Archive) -> float:
    share = 1 - 1 / config.experiment.split.folds
    if isinstance(planned.fit, SegmenterFit):
        segmenter = config.experiment.segmenter
        area = (segmenter.size_px / 128) ** 2
        per_film = SEGMENT_SECONDS_AT_128.get(planned.fit.arch, OTHER_SEGMENT_SECONDS_AT_128) * area
        return archive.hips * share * segmenter.epochs * per_film
    cell = planned.fit.cell
    settings = config.experiment.classifier_of(cell.backbone)
    per_film = TRAIN_SECONDS_AT_64.get(cell.backbone, OTHER_SECONDS_AT_64)
    films = archive.labelled[cell.region, cell.label_type] * share * (1 - settings.inner_fraction)
    longer = cell.variant is not Variant.ORIGINAL and settings.budget == "equal_epochs"
    films *= PAPER_COPIES if longer else 1
    return films * settings.epochs * per_film * (settings.size_px / 64) ** 2


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{math.ceil(hours / 24)} days"
