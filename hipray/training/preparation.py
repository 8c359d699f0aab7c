"""Everything a grid settles before a fit is trained: data, split, leak check and plan."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from hipray.classification.model import check_backbone
from hipray.config.jobs import GridRun
from hipray.data.dataset import DataIdentity, identify_data
from hipray.data.images import PREPROCESSING_VERSION
from hipray.data.leakage import LeakReport, describe_leaks, refuse_leaks
from hipray.data.manifest import label_column, mask_column, read_manifest, read_table, write_table
from hipray.data.splits import deal_split, split_name
from hipray.errors import ConfigError, DataError
from hipray.storage import Store
from hipray.training.classifier import check_division
from hipray.training.inputs import FitInputs
from hipray.training.leak_check import check_leaks
from hipray.training.plan import (
    PlannedFit,
    list_cells,
    plan_fits,
    shaping_digest,
)
from hipray.training.run_plan import RunPlan
from hipray.training.starts import digest_starts
from hipray.training.tracking import check_tracking
from hipray.vocab import REGIONS, LabelType, MaskSource, Region, SegmenterFit, Variant

logger = logging.getLogger(__name__)

FOLDERS_OF_NETWORKS = ("bundles/", "fits/")
"""Where a workspace keeps networks that its own hips have trained."""


@dataclass(frozen=True)
class Preparation:
    """A grid ready to run."""

    inputs: FitInputs
    plan: list[PlannedFit]
    leaks: LeakReport
    data: DataIdentity


def prepare(store: Store, config: GridRun) -> Preparation:
    """Read the manifest, deal or read the split, check it for leaks and plan all fits.

    Raises ConfigError, DataError or LeakageError before anything is trained.
    """
    for backbone in (*config.backbones, *config.experiment.backbones):
        check_backbone(backbone)
    check_tracking(config.tracking)
    manifest = read_manifest(store, config.manifest)
    inputs = read_inputs(store, config, manifest)
    check_version(manifest)
    if config.cells:
        check_labels(manifest, config)
    data = identify_data(manifest, inputs.split)
    leaks = _refuse_leaks(inputs, config, data)
    return Preparation(inputs, plan_grid(config, inputs, data), leaks, data)


def describe_run(config: GridRun, preparation: Preparation) -> RunPlan:
    """Return what the run is made of, for its lanes, status, report and release."""
    return RunPlan(
        config=config,
        data=preparation.data,
        leaks=preparation.leaks.counts(),
        leaks_allowed=preparation.leaks.overridden,
        optimistic=explain_optimism(config, preparation.data),
        source=shaping_digest(),
        fits=tuple(preparation.plan),
    )


def explain_optimism(config: GridRun, data: DataIdentity) -> str | None:
    """Return why tuned settings make this grid's results optimistic, or None.

    The tuner trained and validated on all folds but one: only that one tests what it chose.
    """
    starts = [config.experiment.classifier_of(backbone).weights for backbone in config.backbones]
    starts.append(config.experiment.segmenter.weights)
    own = [weights for weights in starts if weights.startswith(FOLDERS_OF_NETWORKS)]
    if own:
        return f"hips tested here may have trained the start weights {own[0]}"
    tuning = config.experiment.tuning
    if tuning is None:
        return None
    if tuning.split != data.split:
        return (
            f"the settings were tuned in '{tuning.run}' on another split of this or other data: "
            "hips tested here may have chosen them"
        )
    tested = {
        (repeat, fold)
        for repeat in range(config.experiment.split.repeats)
        for fold in chosen_folds(config)
    }
    if tested <= {(tuning.repeat, tuning.fold)}:
        return None
    return (
        f"the settings were tuned in '{tuning.run}' on all but fold {tuning.fold} of repeat "
        f"{tuning.repeat}, and other folds are tested here; test_folds = [{tuning.fold}] with "
        "split.repeats = 1 tests only hips that the tuner did not see"
    )


def check_version(manifest: pd.DataFrame) -> None:
    """Raise DataError for hips that another preprocessing made than films will meet."""
    found = sorted(set(manifest["preprocessing_version"]))
    if found != [PREPROCESSING_VERSION]:
        raise DataError(
            f"hips of preprocessing version {PREPROCESSING_VERSION}",
            f"version {', '.join(found)}",
            "ingest the archive again",
        )


def check_labels(manifest: pd.DataFrame, config: GridRun) -> None:
    """Raise DataError for a region and label of the grid that no network could learn."""
    for region in config.regions:
        for label_type in config.label_types:
            labels = manifest[label_column(label_type, region)].dropna()
            if labels.nunique() < 2:
                raise DataError(
                    f"normal and abnormal hips for {region} {label_type}",
                    f"{int(labels.sum())} abnormal of {len(labels)} labelled hips",
                    "leave that region or label out, or see ingest's flow for what is missing",
                )


def check_divisions(inputs: FitInputs, plan: Sequence[PlannedFit]) -> None:
    """Raise DataError for the first fit that lacks normal or abnormal hips to learn or to judge."""
    seen: set[tuple[Region, LabelType, int, int, int, float]] = set()
    for fit in (planned.fit for planned in plan):
        if isinstance(fit, SegmenterFit):
            continue
        settings = inputs.experiment.classifier_of(fit.cell.backbone)
        what = (fit.cell.region, fit.cell.label_type, fit.repeat, fit.fold)
        if (key := (*what, settings.seed, settings.inner_fraction)) not in seen:
            seen.add(key)
            check_division(
                fit, inputs.manifest, inputs.fold(fit).train,
                settings=settings, split=inputs.experiment.split,
            )  # fmt: skip


def refuse_idle_settings(config: GridRun) -> None:
    """Raise ConfigError for settings of a network that the grid does not train.

    A tuned experiment may hold more networks than one grid tests.
    """
    idle = sorted(set(config.experiment.backbones) - set(config.backbones))
    if idle and config.experiment.tuning is None:
        raise ConfigError(
            f"experiment.backbones only of the networks of the grid: {', '.join(config.backbones)}",
            ", ".join(idle),
            "add it to backbones or leave its settings out",
        )


def read_inputs(store: Store, config: GridRun, manifest: pd.DataFrame | None = None) -> FitInputs:
    """Return the data of a grid; the split is dealt once and then read from its file."""
    manifest = read_manifest(store, config.manifest) if manifest is None else manifest
    split = _read_or_deal_split(store, config, manifest)
    return FitInputs(store, manifest, split, config.experiment)


def require_same_data(inputs: FitInputs, learned: DataIdentity) -> None:
    """Raise DataError where the workspace no longer holds what a run has `learned` from."""
    if identify_data(inputs.manifest, inputs.split) != learned:
        raise DataError(
            "the manifest and split that the run was trained on",
            "others: the archive was ingested again since",
            "submit the grid again; fits whose data did not change are kept",
        )


def plan_grid(config: GridRun, inputs: FitInputs, data: DataIdentity) -> list[PlannedFit]:
    """Return every fit of the grid."""
    has_masks = check_masks(inputs.manifest, config)
    return plan_fits(
        list_cells(config),
        config.experiment,
        data=data,
        test_folds=chosen_folds(config),
        has_masks=has_masks,
        starts=digest_starts(inputs.store, config.experiment, config.backbones),
    )


def chosen_folds(config: GridRun) -> tuple[int, ...]:
    """Return the folds that are tested."""
    folds = config.experiment.split.folds
    if config.test_folds is None:
        return tuple(range(folds))
    outside = [fold for fold in config.test_folds if not 0 <= fold < folds]
    if outside:
        raise ConfigError(
            f"test_folds within 0..{folds - 1}", f"{outside}", "correct test_folds or split.folds"
        )
    return config.test_folds


def split_key(config: GridRun) -> str:
    """Return the workspace key of the grid's split."""
    return f"splits/{split_name(config.experiment.split)}.parquet"


def check_masks(manifest: pd.DataFrame, config: GridRun) -> bool:
    """Return whether any hip has annotated masks; raise DataError for a variant without its own."""
    annotated = manifest[[mask_column(region) for region in REGIONS]].notna()
    if Variant.SEGMENTED not in config.variants or not config.cells:
        return bool(annotated.any(axis=None))
    if not annotated.any(axis=None):
        raise DataError(
            "annotated masks for the segmented variant",
            "none in the manifest",
            "add labelme files beside the films, or set variants = ['original', 'augmented']",
        )
    missing = int((~annotated.all(axis=1)).sum())
    if missing and config.experiment.matting.mask is MaskSource.TRUE:
        raise DataError(
            f"annotated masks of all {len(REGIONS)} regions for matting.mask = 'true'",
            f"{missing} hips without",
            "annotate them or set matting.mask = 'predicted'",
        )
    return True


def _read_or_deal_split(store: Store, config: GridRun, manifest: pd.DataFrame) -> pd.DataFrame:
    key = split_key(config)
    if store.exists(key):
        split: pd.DataFrame = read_table(store, key).to_pandas()
        if _list_hips(split) == _list_hips(manifest):
            return split
    split = deal_split(manifest, config.experiment.split)
    write_table(store, key, pa.Table.from_pandas(split, preserve_index=False))
    return split


def _list_hips(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Every hip with its patient: a hip that changed its patient needs another split."""
    return set(zip(table["hip_id"], table["patient_id"], strict=True))


def _refuse_leaks(inputs: FitInputs, config: GridRun, data: DataIdentity) -> LeakReport:
    report, key = check_leaks(inputs, data, test_folds=chosen_folds(config))
    refuse_leaks(report, listed_at=inputs.store.uri_of(key))
    if report.overridden:
        logger.warning(
            "%d pairs lie on both sides of a fold (%s), which leakage.allow lets through: results "
            "will be too good; all are in %s",
            len(report.leaks), describe_leaks(report.counts()), inputs.store.uri_of(key),
        )  # fmt: skip
    return report
