"""The report of a run: gathers its results and writes them as pages, tables and plots."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hipray.config.base import build_config
from hipray.config.evaluation import EvaluationConfig
from hipray.config.experiment import Experiment, SplitUnit, ThresholdRule
from hipray.config.jobs import GridRun, ReportRun
from hipray.config.labels import LabelRules
from hipray.data.contours import draw_contours
from hipray.data.flow import FROM_BMD, Flow, read_flow
from hipray.data.framing import Mask
from hipray.data.labels import LabelSource, describe_rules
from hipray.data.leakage import LeakKind
from hipray.data.png import encode_png
from hipray.errors import ConfigError, DataError
from hipray.evaluation.baselines import list_told
from hipray.evaluation.checklist import Topic
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.evaluation.inputs import ProtocolItem, ReportInputs
from hipray.evaluation.intervals import widen_for_folds
from hipray.evaluation.members import choose_members
from hipray.evaluation.report import build_report
from hipray.storage import Store, open_store
from hipray.training.fit_files import MASKS_FILE, load_masks
from hipray.training.inputs import FitInputs
from hipray.training.preparation import read_inputs, require_same_data
from hipray.training.results import RunResults, open_reader, read_run
from hipray.vocab import REGIONS, Cell, Fit, LabelType, MaskSource, Region, Variant


def run_report(config: ReportRun) -> str:
    """Write the report and return the address of its page."""
    store = open_store(config.workspace, config.storage)
    results = read_run(store, config.run)
    if results.predictions.empty:
        raise DataError(
            f"finished classifier fits in run '{config.run}'", "none", "finish the grid first"
        )
    inputs = read_inputs(store, results.config)
    require_same_data(inputs, results.plan.data)
    flow = read_flow(store)
    report = build_report(
        ReportInputs(
            predictions=results.predictions,
            fits=results.fits,
            manifest=inputs.manifest,
            flow=FlowCounts.of(flow),
            leak=_leak_check(results),
            segmentation=results.mask_scores if len(results.mask_scores) else None,
            overlays=_draw_overlays(store, results, inputs, config.evaluation.max_overlays),
            protocol=_protocol(results),
            labels=_describe_labels(flow, results.config),
            members=_choose_members(results),
            told=list_told(results.config),
            split=inputs.split,
            planned_cells=len(_plan_cells(results)),
            statements=read_statements(config.statements),
            optimistic=results.plan.optimistic,
            title=f"hipray: run {config.run}",
            config=config_of_run(config.evaluation, results.config),
        )
    )
    for name, data in report.items():
        store.write(f"{config.folder}/{name}", data)
    return store.uri_of(f"{config.folder}/index.html")


def read_statements(stated: Mapping[str, str]) -> dict[Topic, str]:
    """Return what people state, by topic; raise ConfigError for a topic that no card has."""
    topics = {topic.name.lower(): topic for topic in Topic}
    strange = [name for name in stated if name not in topics]
    if strange:
        raise ConfigError(
            f"topics of the model card in report.statements: {', '.join(topics)}",
            ", ".join(f"'{name}'" for name in strange), "correct these names",
        )  # fmt: skip
    return {topics[name]: text for name, text in stated.items()}


def config_of_run(config: EvaluationConfig, run: GridRun) -> EvaluationConfig:
    """Return `config` with its intervals widened as the run's split asks for."""
    folds = run.experiment.split.folds
    tested = folds if run.test_folds is None else len(set(run.test_folds))
    repeats = run.experiment.split.repeats
    return widen_for_folds(config, folds=folds, tested=tested, repeats=repeats)


def _leak_check(results: RunResults) -> LeakCheck:
    leaks = results.plan.leaks
    return LeakCheck(
        patients_shared=leaks[LeakKind.SAME_PATIENT],
        duplicates=leaks[LeakKind.SAME_PIXELS] + leaks[LeakKind.AUGMENTED_SIBLING],
        near_duplicates=leaks[LeakKind.NEAR_DUPLICATE],
        overridden=results.plan.leaks_allowed,
    )


def _plan_cells(results: RunResults) -> set[Cell]:
    return {fit.cell for fit in _planned_fits(results)}


def _planned_fits(results: RunResults) -> list[Fit]:
    return [planned.fit for planned in results.plan.fits if isinstance(planned.fit, Fit)]


def _choose_members(results: RunResults) -> tuple[Cell, ...]:
    """Members of the release that this run would publish: cells whose every fit is done."""
    done = {fit for fit, _ in results.classifiers}
    waiting = {fit.cell for fit in _planned_fits(results) if fit not in done}
    return choose_members(
        {fit.cell for fit in done} - waiting,
        backbones=results.config.backbones,
        variants=results.config.variants,
    )


def _describe_labels(flow: Flow, run: GridRun) -> dict[LabelType, str]:
    """Return how each label of a run was made, and how many of its regions rest on what."""
    rules = describe_rules(build_config(LabelRules, flow.rules))
    return {
        label: f"{rules[label]}; {_count_bases(flow, label, run.regions)}"
        for label in run.label_types
    }


def _count_bases(flow: Flow, label: LabelType, regions: Sequence[Region]) -> str:
    counts = Counter[str]()
    for region in regions:
        counts.update(flow.bases.get(region, {}).get(label, {}))
    computed = sum(counts[source] for source in FROM_BMD)
    return (
        f"in the ingested archive {counts[LabelSource.GIVEN]} labels as it gives them, "
        f"{counts[LabelSource.COMPUTED]} from reported figures, {computed} from a score that was "
        "computed from BMD"
    )


def _protocol(results: RunResults) -> dict[str, str]:
    config, experiment = results.config, results.config.experiment
    tested = "all" if config.test_folds is None else ", ".join(map(str, config.test_folds))
    return {
        ProtocolItem.SPLIT: f"{experiment.split.folds} folds by {experiment.split.unit}, "
        f"{experiment.split.repeats} repeats, folds tested: {tested}",
        **(_describe_matting(experiment) if Variant.SEGMENTED in config.variants else {}),
        ProtocolItem.CLASSIFIER: f"{experiment.classifier.size_px} px, lr "
        f"{experiment.classifier.lr:g}, at most {experiment.classifier.epochs} epochs, "
        f"{experiment.classifier.budget}",
        **{
            f"{ProtocolItem.CLASSIFIER}, {backbone}": _list_settings(own)
            for backbone, own in experiment.backbones.items()
        },
        ProtocolItem.CLASS_WEIGHTS: f"{experiment.classifier.class_weighting}",
        ProtocolItem.START_WEIGHTS: f"{experiment.classifier.weights}",
        ProtocolItem.COVARIATES: ", ".join(experiment.classifier.covariates) or "none",
        ProtocolItem.SELECTION: _describe_selection(experiment),
        ProtocolItem.FITS: f"{len(results.fits)} classifiers, {len(results.segmenters)} segmenters "
        f"done, {results.open_fits} open",
    }


def _describe_matting(experiment: Experiment) -> dict[str, str]:
    settings = experiment.segmenter
    return {
        ProtocolItem.SEGMENTER: f"{', '.join(settings.archs)} with {settings.encoder}, "
        f"{settings.size_px} px, weights {settings.weights}",
        ProtocolItem.MASKS: _describe_masks(experiment),
    }


def _describe_masks(experiment: Experiment) -> str:
    if experiment.matting.mask is MaskSource.TRUE:
        return "annotated masks, in training and in test"
    unseen = (
        "patient" if experiment.split.unit is SplitUnit.PATIENT and not experiment.leakage.allow
        else "film; another film of the patient may have trained it"
    )  # fmt: skip
    return f"{experiment.matting.mask}, each from a segmenter that never saw the {unseen}"


def _describe_selection(experiment: Experiment) -> str:
    rule = experiment.classifier.threshold
    if rule is ThresholdRule.HALF:
        return "epoch, calibration; the threshold is fixed at one half"
    return f"epoch, threshold ({rule}), calibration"


def _list_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in sorted(settings.items()))


def _draw_overlays(store: Store, results: RunResults, inputs: FitInputs, most: int) -> list[bytes]:
    """Films with out-of-fold contours, taken evenly over the first segmenter fit's test hips."""
    if not results.segmenters:
        return []
    _, done = results.segmenters[0]
    hip_ids, masks = load_masks(open_reader(store).read_file(done, MASKS_FILE))
    rows = {hip_id: row for row, hip_id in enumerate(inputs.manifest["hip_id"])}
    chosen = np.unique(np.linspace(0, len(hip_ids) - 1, num=min(most, len(hip_ids))).astype(int))
    return [
        encode_png(draw_contours(np.array(inputs.arrays.films[rows[hip_ids[i]]]), _named(masks[i])))
        for i in chosen
    ]


def _named(masks: Mask) -> dict[Region, Mask]:
    return dict(zip(REGIONS, masks, strict=True))
