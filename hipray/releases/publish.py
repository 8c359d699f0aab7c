"""Publishing: the chosen fits of a run become bundles, and one release that pins them."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd

from hipray import __version__
from hipray.bundles.assembly import publish_model
from hipray.bundles.bundle import WEIGHTS_FILE, BundleDescription
from hipray.classification.spec import ClassifierSpec
from hipray.config.base import ConfigT, build_config
from hipray.config.evaluation import Combine
from hipray.config.jobs import GridRun, ReleaseRun
from hipray.data.images import PREPROCESSING_VERSION
from hipray.data.ingest import read_preprocessing
from hipray.errors import DataError
from hipray.evaluation.baselines import list_told
from hipray.evaluation.combining import weigh_members
from hipray.evaluation.headline import choose_headline_threshold, score_headline
from hipray.evaluation.intervals import widen_for_folds
from hipray.evaluation.members import choose_variant
from hipray.evaluation.release import evaluate_release
from hipray.evaluation.release_result import ReleaseResult
from hipray.evaluation.results import read_predictions, read_source
from hipray.releases.release import Member, Release, write_release
from hipray.segmentation.spec import SegmenterSpec
from hipray.storage import Store, open_store
from hipray.training.fit_files import MODEL_FILE
from hipray.training.ledger import DoneFit, Ledger
from hipray.training.preparation import check_version, read_inputs, require_same_data
from hipray.training.results import RunResults, open_reader, read_run
from hipray.vocab import (
    HEADLINE_REGIONS,
    Cell,
    Covariate,
    DataSource,
    Fit,
    LabelType,
    MaskSource,
    Region,
    SegmenterFit,
    Variant,
    View,
)

LIBRARIES = (
    "torch",
    "onnx",
    "onnxruntime",
    "timm",
    "segmentation-models-pytorch",
    "pydicom",
    "numpy",
)


def run_release(config: ReleaseRun) -> Release:
    """Publish the release of `config` and return it.

    Raises DataError naming fits that the run has not finished.
    """
    store = open_store(config.workspace, config.storage)
    results = read_run(store, config.run)
    inputs = read_inputs(store, results.config)
    require_same_data(inputs, results.plan.data)
    check_version(inputs.manifest)
    folds = results.config.experiment.split.folds
    tested, repeats = len(set(config.folds)), len(set(config.repeats))
    evaluation = widen_for_folds(config.evaluation, folds=folds, tested=tested, repeats=repeats)
    config = config.model_copy(update={"evaluation": evaluation})
    release = _build_release(store, config, results, inputs.manifest)
    write_release(store, release)
    return release


def _build_release(
    store: Store, config: ReleaseRun, results: RunResults, manifest: pd.DataFrame
) -> Release:
    """Publish the bundles of a release and describe it."""
    wanted = _name_wanted(config, results.config)
    chosen = _choose_fits(config, wanted, results)
    segmenters = _choose_segmenters(config, wanted.variant, results)
    predictions = read_predictions(_rows_of(results.predictions, chosen))
    cells = list(dict.fromkeys(fit.cell for fit, _ in chosen))
    weights = _weigh_cells(config, predictions, cells)
    source = read_source(manifest)
    publisher = _Publisher(store, open_reader(store), results, source)
    return Release(
        name=config.name,
        run=config.run,
        data_source=source,
        leaks_allowed=results.plan.leaks_allowed,
        optimistic=_explain_optimism(wanted, results),
        preprocessing_version=PREPROCESSING_VERSION,
        preprocessing=read_preprocessing(store),
        working_px=results.config.experiment.data.working_px,
        segmenters=tuple(publisher.segmenter(done) for _, done in segmenters),
        view=wanted.variant.view,
        matting=results.config.experiment.matting,
        members=tuple(
            publisher.member(fit, done, weight=weights[fit.cell]) for fit, done in chosen
        ),
        combine=config.evaluation.combine,
        headline_threshold=choose_headline_threshold(
            predictions, cells, manifest=manifest, config=config.evaluation
        ),
        evaluation=_evaluate(config, predictions, cells, manifest, list_told(results.config)),
    )


@dataclass(frozen=True)
class Wanted:
    """Which cells of a run become members."""

    regions: tuple[Region, ...]
    label_types: tuple[LabelType, ...]
    backbones: tuple[str, ...]
    variant: Variant


class _Publisher:
    """Publishes fits of one run as bundles."""

    def __init__(
        self, store: Store, ledger: Ledger, results: RunResults, source: DataSource
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._plan = results.plan
        self._source = source

    def segmenter(self, done: DoneFit) -> str:
        """Publish a segmenter fit and return its bundle's digest."""
        return self._publish(done, self._read_spec(SegmenterSpec, done))

    def member(self, fit: Fit, done: DoneFit, *, weight: float) -> Member:
        """Publish a classifier fit and return it as a member."""
        spec = self._read_spec(ClassifierSpec, done)
        bundle = self._publish(done, spec)
        return Member.of(bundle, spec, repeat=fit.repeat, fold=fit.fold, weight=weight)

    def _read_spec(self, kind: type[ConfigT], done: DoneFit) -> ConfigT:
        return build_config(kind, json.loads(self._ledger.read_file(done, MODEL_FILE)))

    def _publish(self, done: DoneFit, spec: ClassifierSpec | SegmenterSpec) -> str:
        description = BundleDescription(
            name=done.name,
            model=spec,
            summary=done.summary,
            preprocessing_version=PREPROCESSING_VERSION,
            data_source=self._source,
            leaks_allowed=self._plan.leaks_allowed,
            optimistic=self._plan.optimistic,
            software=name_software(),
        )
        return publish_model(self._store, description, self._ledger.read_file(done, WEIGHTS_FILE))


def name_software() -> dict[str, str]:
    """Return the versions that a bundle is made with, by the name of each package."""
    own = {"python": platform.python_version(), "hipray": __version__}
    return own | {name: version(name) for name in LIBRARIES}


def _name_wanted(config: ReleaseRun, run: GridRun) -> Wanted:
    """What the configuration names, else what the run has."""
    headline = tuple(region for region in HEADLINE_REGIONS if region in run.regions)
    has_t_score = LabelType.T_SCORE in run.label_types
    return Wanted(
        config.regions or headline or run.regions,
        config.label_types or ((LabelType.T_SCORE,) if has_t_score else run.label_types),
        config.backbones or run.backbones,
        config.variant or choose_variant(run.variants),
    )


def _choose_fits(
    config: ReleaseRun, wanted: Wanted, results: RunResults
) -> list[tuple[Fit, DoneFit]]:
    done = dict(results.classifiers)
    fits = [
        Fit(Cell(region, label_type, backbone, wanted.variant), repeat, fold)
        for region in wanted.regions
        for label_type in wanted.label_types
        for backbone in wanted.backbones
        for repeat in config.repeats
        for fold in config.folds
    ]
    missing = [fit.name for fit in fits if fit not in done]
    if missing:
        raise DataError(
            f"{len(fits)} finished fits in run '{config.run}'",
            f"{len(missing)} missing, such as {missing[0]}",
            "finish the grid, or choose regions, backbones, variant and folds that it has",
        )
    return [(fit, done[fit]) for fit in fits]


def _choose_segmenters(
    config: ReleaseRun, variant: Variant, results: RunResults
) -> list[tuple[SegmenterFit, DoneFit]]:
    """Segmenters of the members' own folds: what scored out of fold is what is served."""
    matted = variant.view is View.MATTED
    if matted and results.config.experiment.matting.mask is MaskSource.TRUE:
        raise DataError(
            "a run whose masks were predicted (matting.mask), as those of films will be",
            "one that was trained and tested on annotated masks",
            "train a grid with matting.mask = 'predicted', or publish another variant",
        )
    arch = results.config.experiment.segmenter.archs[0]
    found = [
        (fit, done)
        for fit, done in results.segmenters
        if fit.arch is arch and fit.repeat in config.repeats and fit.fold in config.folds
    ]
    if matted and not found:
        raise DataError(
            f"finished segmenters of run '{config.run}' to cut regions out with",
            "none",
            "train a grid whose masks are predicted (matting.mask), or publish another variant",
        )
    return found


def _explain_optimism(wanted: Wanted, results: RunResults) -> str | None:
    """Why the release's evaluation is better than the truth, or None.

    All networks in the variant that the report itself evaluates are a rule, not a choice.
    """
    run = results.config
    of_all = {*wanted.backbones} == {*run.backbones}
    by_rule = of_all and wanted.variant is choose_variant(run.variants)
    kinds = len(run.backbones) * len(run.variants)
    reasons = [
        results.plan.optimistic,
        None if by_rule
        else f"its members may have been chosen among {kinds} kinds of cells by their results on "
        "these hips",
    ]  # fmt: skip
    return "; ".join(reason for reason in reasons if reason) or None


def _rows_of(predictions: pd.DataFrame, chosen: list[tuple[Fit, DoneFit]]) -> pd.DataFrame:
    keys = ["region", "label_type", "backbone", "variant", "repeat", "fold"]
    fits = pd.DataFrame(
        [
            {
                **{k: str(v) for k, v in vars(fit.cell).items()},
                "repeat": fit.repeat,
                "fold": fit.fold,
            }
            for fit, _ in chosen
        ]
    )
    return predictions.merge(fits, on=keys)


def _weigh_cells(
    config: ReleaseRun, predictions: pd.DataFrame, cells: list[Cell]
) -> dict[Cell, float]:
    """Each cell's weight among those of its region and label; its fits share it equally."""
    if config.evaluation.combine is not Combine.WEIGHTED:
        return dict.fromkeys(cells, 1.0)
    questions = dict.fromkeys((cell.region, cell.label_type) for cell in cells)
    return {
        cell: weight
        for question in questions
        for cell, weight in weigh_members(
            predictions, [c for c in cells if (c.region, c.label_type) == question]
        ).items()
    }


def _evaluate(
    config: ReleaseRun,
    predictions: pd.DataFrame,
    cells: list[Cell],
    manifest: pd.DataFrame,
    told: Sequence[Covariate],
) -> ReleaseResult | None:
    if not any(c.region in HEADLINE_REGIONS and c.label_type is LabelType.T_SCORE for c in cells):
        return None
    shared: dict[str, Any] = {"manifest": manifest, "config": config.evaluation}
    headline = score_headline(predictions, cells, **shared)
    return evaluate_release(headline, predictions, cells, told=told, **shared)
