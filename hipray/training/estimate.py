"""What a grid would cost before it runs: cells, fits, hips, resources, memory and time."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from hipray.config.experiment import IMAGENET_WEIGHTS
from hipray.config.jobs import GridRun
from hipray.data.dataset import DataIdentity
from hipray.data.manifest import mask_column, read_manifest
from hipray.progress import describe_duration
from hipray.runtime.engine import count_cpus
from hipray.storage import Store
from hipray.training.costs import (
    PAPER_FILMS,
    PAPER_PATIENTS,
    FilmCounts,
    count_films,
    estimate_seconds,
)
from hipray.training.memory import GIB, find_largest
from hipray.training.plan import PlannedFit, list_cells, plan_fits
from hipray.training.preparation import chosen_folds, refuse_idle_settings
from hipray.vocab import Fit, Region

START_UP_S = 30.0
"""Start of Ray and of a lane's Train run."""


@dataclass(frozen=True)
class Archive:
    """What the plan counts on."""

    films: FilmCounts
    patients: int
    has_masks: bool
    where: str


def describe_plan(store: Store, config: GridRun) -> str:
    """Return the plan of a grid as text; nothing is trained or written.

    Without a manifest in the workspace the paper's archive is planned for.
    """
    refuse_idle_settings(config)
    archive = _read_archive(store, config.manifest)
    cells = list_cells(config)
    plan = plan_fits(
        cells,
        config.experiment,
        data=DataIdentity("plan", "plan", "plan"),
        test_folds=chosen_folds(config),
        has_masks=archive.has_masks,
        films=archive.films,
    )
    classifiers = [p for p in plan if isinstance(p.fit, Fit)]
    labelled = ", ".join(
        f"{region.display_name} {archive.films.labelled[region, config.label_types[0]]}"
        for region in config.regions
    )
    guard = "OVERRIDDEN, leaks are counted" if config.experiment.leakage.allow else "on"
    return "\n".join(
        [
            f"run        {config.run} in {config.workspace}",
            f"cells      {len(cells)} = {len(config.regions)} regions x "
            f"{len(config.label_types)} labels x {len(config.backbones)} backbones x "
            f"{len(config.variants)} variants"
            if cells
            else "cells      none, segmenters only",
            f"fits       {len(plan)} = {len(plan) - len(classifiers)} segmenters + "
            f"{len(classifiers)} classifiers ({_describe_split(config)})",
            f"images     {archive.films.hips} hips ({archive.where}); labelled: {labelled}",
            f"patients   {archive.patients}",
            f"leak guard {guard}",
            f"start from {_describe_starts(config, plan)}",
            f"resources  {_describe_resources(config, len(plan))}",
            f"memory     {_describe_memory(plan, config)}",
            f"time       {_describe_time(plan, config, archive.films)}",
        ]
    )


def estimate_grid_seconds(plan: Sequence[PlannedFit], config: GridRun, films: FilmCounts) -> float:
    """Return the seconds of one core that all fits of a plan take together, at most."""
    return sum(estimate_seconds(p.fit, config.experiment, films) for p in plan)


def _describe_starts(config: GridRun, plan: Sequence[PlannedFit]) -> str:
    """The weights that networks start from; those of a hub are not tried before the grid is."""
    kinds = {"classifiers": config.experiment.classifier.weights}
    if any(not isinstance(p.fit, Fit) for p in plan):
        kinds["segmenters"] = config.experiment.segmenter.weights
    told = ", ".join(f"{weights} weights ({kind})" for kind, weights in kinds.items())
    return told + ("; fetched when it starts" if IMAGENET_WEIGHTS in kinds.values() else "")


def _describe_split(config: GridRun) -> str:
    split = config.experiment.split
    return (
        f"{split.repeats} x {split.folds} folds by {split.unit}, {len(chosen_folds(config))} tested"
    )


def _count_lanes(config: GridRun, fits: int) -> int:
    """Lanes of the configuration; without a number, those that this machine's CPUs hold."""
    here = int(count_cpus() // config.scaling.cpus_per_lane)
    return max(1, min(config.scaling.lanes or here, fits))


def _describe_resources(config: GridRun, fits: int) -> str:
    scaling, lanes = config.scaling, _count_lanes(config, fits)
    each = f"{scaling.cpus_per_lane:g} CPU, {scaling.gpus_per_lane:g} GPU"
    here = f"this machine has {count_cpus()} CPU"
    if scaling.lanes is None:
        return f"as many lanes as the cluster holds, each {each}; {here}: {lanes} lanes"
    return (
        f"{lanes} lanes x {each} = {lanes * scaling.cpus_per_lane:g} CPU, "
        f"{lanes * scaling.gpus_per_lane:g} GPU; {here}"
    )


def _describe_memory(plan: Sequence[PlannedFit], config: GridRun) -> str:
    gpu = config.scaling.gpus_per_lane > 0
    largest = find_largest(plan, config.experiment, gpu=gpu)
    if largest is None:
        return "nothing to train"
    where = "of a GPU" if gpu else "besides the lane's own processes"
    return (
        f"about {largest.total_bytes / GIB:.1f} GiB {where} for the largest fit "
        f"({largest.network}, batch {largest.batch})"
    )


def _describe_time(plan: Sequence[PlannedFit], config: GridRun, films: FilmCounts) -> str:
    total = estimate_grid_seconds(plan, config, films)
    longest = max((estimate_seconds(p.fit, config.experiment, films) for p in plan), default=0.0)
    wall = START_UP_S + max(total / _count_lanes(config, len(plan)), longest)
    return (
        f"roughly {describe_duration(wall)} on CPU lanes if no fit stops early "
        f"({describe_duration(total)} of one core); GPU lanes are far faster and not estimated"
    )


def _read_archive(store: Store, key: str) -> Archive:
    if not store.exists(key):
        where = "the paper's archive: the workspace has no manifest yet"
        return Archive(PAPER_FILMS, PAPER_PATIENTS, has_masks=True, where=where)
    manifest: pd.DataFrame = read_manifest(store, key)
    has_masks = any(manifest[mask_column(region)].notna().any() for region in Region)
    return Archive(
        count_films(manifest), manifest["patient_id"].nunique(),
        has_masks=has_masks, where="manifest of the workspace",
    )  # fmt: skip
