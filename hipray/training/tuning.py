"""Trying classifier settings on one outer training side; what proposes them is not known here.

A trial trains one network per inner fold. The test hips of the outer fold play no part in it: not
in training, not in early stopping, not in the figure that chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from hipray.config.base import build_config
from hipray.config.experiment import ClassifierSettings, Experiment, SplitUnit
from hipray.config.jobs import GridRun
from hipray.config.tuning import TuneRun, Value, change_settings
from hipray.data.dataset import DataIdentity, identify_data
from hipray.data.framing import Mask
from hipray.data.manifest import label_column
from hipray.data.splits import FoldIndices, Indices, deal_split, hold_back
from hipray.errors import ConfigError, DataError
from hipray.storage import Store
from hipray.training.checkpoints import Tensors
from hipray.training.classifier import ClassifierTask, require_both_classes, scale_odds
from hipray.training.context import EpochReport, FitContext
from hipray.training.fit_files import MASKS_FILE
from hipray.training.fits import out_of_fold_masks
from hipray.training.inputs import FitInputs
from hipray.training.lockstep import Figures, InnerFold, LockstepTask
from hipray.training.loop import run_epochs
from hipray.training.preparation import plan_grid, prepare, read_inputs
from hipray.training.results import open_reader
from hipray.training.run_plan import read_run_plan
from hipray.training.starts import read_start_weights
from hipray.training.views import LabelledViews, build_views, labelled_rows
from hipray.vocab import Cell, Fit


@dataclass(frozen=True)
class Search:
    """The data of one network's search; only rows in `folds` are ever trained or validated on."""

    config: TuneRun
    fit: Fit
    inputs: FitInputs
    masks: Mask | None
    folds: tuple[FoldIndices, ...]
    """Manifest rows of the outer training side: `test` validates, `train` trains."""


def resolve_config(store: Store, config: TuneRun) -> TuneRun:
    """Return `config` with the experiment of the run it names; raises DataError without that run.

    Settings that were tuned on other hips would hide what they saw: then a ConfigError.
    """
    if config.grid is not None:
        experiment = read_run_plan(store, config.grid).config.experiment
        given = config.model_dump(mode="json", exclude={"grid", "experiment"})
        config = build_config(TuneRun, given | {"experiment": experiment.model_dump(mode="json")})
    origin = config.experiment.tuning
    if origin and (origin.repeat, origin.fold) != (config.repeat, config.fold):
        raise ConfigError(
            f"an experiment that was never tuned, or on repeat {config.repeat} and fold "
            f"{config.fold} as here",
            f"one tuned in '{origin.run}' on repeat {origin.repeat} and fold {origin.fold}",
            "tune on that fold again or leave out experiment.tuning and the tuned backbones",
        )
    return config


def describe_as_grid(config: TuneRun) -> GridRun:
    """Return the grid that will test the chosen settings: its preparation is this one's too."""
    return GridRun(
        workspace=config.workspace,
        storage=config.storage,
        manifest=config.manifest,
        regions=(config.region,),
        label_types=(config.label_type,),
        backbones=config.backbones,
        variants=(config.variant,),
        test_folds=(config.fold,),
        experiment=config.experiment,
    )


def prepare_search(store: Store, config: TuneRun) -> DataIdentity:
    """Check everything that could stop a trial later and return what is searched on.

    Raises ConfigError, DataError or LeakageError: the outer fold's test hips must be no
    patient, film or near-duplicate of the training side.
    """
    preparation = prepare(store, describe_as_grid(config))
    origin = config.experiment.tuning
    if origin and origin.split != preparation.data.split:
        raise ConfigError(
            "an experiment that was never tuned, or tuned on this split",
            f"one tuned in '{origin.run}' on another, whose training hips are tested here",
            "tune on that split again or leave out experiment.tuning and the tuned backbones",
        )
    for backbone in config.backbones:
        search = read_search(store, config, backbone, inputs=preparation.inputs)
        for number, fold in enumerate(search.folds):
            _require_both_classes(search, number, fold)
    return preparation.data


def read_search(
    store: Store, config: TuneRun, backbone: str, *, inputs: FitInputs | None = None
) -> Search:
    """Return the data of one network's search; films come decoded from the node's shared file."""
    grid = describe_as_grid(config)
    inputs = inputs or read_inputs(store, grid)
    cell = Cell(config.region, config.label_type, backbone, config.variant)
    fit = Fit(cell, config.repeat, config.fold)
    folds = deal_inner_folds(inputs.manifest, inputs.fold(fit).train, config)
    return Search(config, fit, inputs, _read_masks(store, grid, fit, inputs), folds)


def deal_inner_folds(
    manifest: pd.DataFrame, rows: Indices, config: TuneRun
) -> tuple[FoldIndices, ...]:
    """Divide the outer training `rows` by patient, stratified like the split; k folds, or one.

    Raises DataError where there are fewer patients than folds.
    """
    split, count = config.experiment.split, config.inner_folds
    if count == 1:
        fraction = config.experiment.classifier.inner_fraction
        kept, held = hold_back(manifest, rows, stratify=split, fraction=fraction, seed=config.seed)
        return (FoldIndices(kept, held),)
    side = manifest.iloc[rows]
    if side["patient_id"].nunique() < count:
        raise DataError(
            f"at least {count} patients for inner_folds = {count}",
            f"{side['patient_id'].nunique()} on the training side of fold {config.fold}",
            "lower inner_folds or add films",
        )
    update = {"folds": count, "repeats": 1, "unit": SplitUnit.PATIENT, "seed": config.seed}
    fold = deal_split(side, split.model_copy(update=update))["fold"].to_numpy()
    return tuple(FoldIndices(rows[fold != k], rows[fold == k]) for k in range(count))


def settings_of_trial(
    experiment: Experiment, backbone: str, chosen: dict[str, Value]
) -> ClassifierSettings:
    """Return the classifier settings of a trial: the experiment's with the chosen values."""
    base = experiment.classifier_of(backbone)
    return build_config(ClassifierSettings, base.model_dump() | change_settings(base, chosen))


def run_trial(
    search: Search,
    chosen: dict[str, Value],
    *,
    context: FitContext,
    report: Callable[[Figures], None],
) -> Figures:
    """Train one network per inner fold with the chosen values; `report` hears of every epoch.

    `report` may raise to stop the trial. With checkpoints in `context` a killed trial goes on
    after its last saved epoch and ends with the same figures.
    """
    epochs = search.config.halving.max_epochs
    settings = settings_of_trial(
        search.config.experiment, search.fit.cell.backbone, chosen
    ).model_copy(update={"epochs": epochs})  # what a decaying learning rate ends with
    task = LockstepTask(_build_parts(search, settings, context), settings=settings, epochs=epochs)
    reported: list[Figures] = []

    def hear(epoch: EpochReport) -> None:
        reported.append(task.figures(epoch.epoch))
        report(reported[-1])

    history = run_epochs(
        task, epochs=epochs, patience=settings.patience, seed=settings.seed,
        context=replace(context, report=hear),
    )  # fmt: skip
    # killed between its last checkpoint and its last word, a trial has nothing left to train
    last = reported[-1] if reported else task.figures(history.best_epoch + 1)
    return replace(last, epoch=history.epochs, ended=True)


def _build_parts(
    search: Search, settings: ClassifierSettings, context: FitContext
) -> list[InnerFold]:
    inputs = search.inputs
    views = build_views(
        search.fit.cell,
        inputs.manifest,
        inputs.arrays,
        masks=search.masks,
        classifier=settings,
        matting=inputs.experiment.matting,
    )
    start = read_start_weights(inputs.store, settings.weights)
    return [
        _build_part(search, number, views, settings=settings, start=start, context=context)
        for number in range(len(search.folds))
    ]


def _build_part(
    search: Search,
    number: int,
    views: LabelledViews,
    *,
    settings: ClassifierSettings,
    start: Tensors | None,
    context: FitContext,
) -> InnerFold:
    fold = search.folds[number]
    train, inner = (views.take(views.places_of(rows)) for rows in (fold.train, fold.test))
    for part, name in ((train, "training"), (inner, "validation")):
        require_both_classes(search.fit, part.labels, f"{name} part of inner fold {number}")
    task = ClassifierTask(
        search.fit, train, inner,
        settings=settings, odds=scale_odds(search.fit, train, settings),
        start=start, context=context,
    )  # fmt: skip
    return InnerFold(task, inner)


def _require_both_classes(search: Search, number: int, fold: FoldIndices) -> None:
    cell, manifest = search.fit.cell, search.inputs.manifest
    known = labelled_rows(manifest, cell)
    column = manifest[label_column(cell.label_type, cell.region)]
    for rows, part in ((fold.train, "training"), (fold.test, "validation")):
        labels = column.iloc[np.intersect1d(rows, known)].astype(int)
        positives = labels.to_numpy().astype(np.int64)
        require_both_classes(search.fit, positives, f"{part} part of inner fold {number}")


def _read_masks(store: Store, grid: GridRun, fit: Fit, inputs: FitInputs) -> Mask | None:
    """Out-of-fold masks of the experiment's finished segmenters; None where none are needed."""
    data = identify_data(inputs.manifest, inputs.split)
    needs = next(p.needs for p in plan_grid(grid, inputs, data) if p.fit == fit)
    files = open_reader(store).read_by_fold(needs, MASKS_FILE)
    if files is None:
        raise DataError(
            f"the {len(needs)} segmenter fits of this experiment done for variant "
            f"'{fit.cell.variant}'",
            "at least one open",
            "run `hipray grid` with the same data, split and segmenter settings first",
        )
    return out_of_fold_masks(fit, inputs, files)
