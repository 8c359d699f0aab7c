"""The report of a run: gathers its results and writes report/ of the workspace."""

import json

import numpy as np
import pandas as pd

from hipray.config.jobs import ReportRun
from hipray.data.contact_sheet import draw_contours, encode_png
from hipray.data.framing import Mask
from hipray.data.ingest import FLOW_KEY
from hipray.data.leakage import LeakKind
from hipray.errors import DataError
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.evaluation.report import ReportInputs, build_report
from hipray.storage import Store, open_store
from hipray.training.fits import MASKS_FILE, FitInputs, load_masks
from hipray.training.preparation import read_inputs
from hipray.training.results import RunResults, open_reader, read_run
from hipray.vocab import REGIONS, Region

REPORT_FOLDER = "report"


def run_report(config: ReportRun) -> str:
    """Write the report and return the address of its page."""
    store = open_store(config.workspace, config.storage)
    results = read_run(store, config.run)
    if results.predictions.empty:
        raise DataError(
            f"finished classifier fits in run '{config.run}'", "none", "finish the grid first"
        )
    inputs = read_inputs(store, results.config)
    report = build_report(
        ReportInputs(
            predictions=results.predictions,
            fits=results.fits,
            manifest=inputs.manifest,
            flow=read_flow(store),
            leak=_leak_check(results),
            segmentation=results.mask_scores if len(results.mask_scores) else None,
            overlays=_draw_overlays(store, results, inputs, config.evaluation.max_overlays),
            protocol=_protocol(results),
            title=f"hipray: run {config.run}",
            config=config.evaluation,
        )
    )
    for name, data in report.items():
        store.write(f"{REPORT_FOLDER}/{name}", data)
    return store.uri_of(f"{REPORT_FOLDER}/index.html")


def read_flow(store: Store) -> FlowCounts:
    """Return the counts of ingest, reasons summed over labels."""
    flow = json.loads(store.read(FLOW_KEY))
    dropped = {
        region: dict(pd.DataFrame(labels).max(axis=1).astype(int)) if any(labels.values()) else {}
        for region, labels in flow["dropped"].items()
    }
    return FlowCounts.from_mapping(flow | {"dropped": dropped})


def _leak_check(results: RunResults) -> LeakCheck:
    leaks = results.plan["leaks"]
    return LeakCheck(
        patients_shared=leaks[LeakKind.SAME_PATIENT],
        duplicates=leaks[LeakKind.SAME_PIXELS] + leaks[LeakKind.AUGMENTED_SIBLING],
        near_duplicates=leaks[LeakKind.NEAR_DUPLICATE],
        overridden=results.plan["leaks_allowed"],
    )


def _protocol(results: RunResults) -> dict[str, str]:
    config, experiment = results.config, results.config.experiment
    tested = "all" if config.test_folds is None else ", ".join(map(str, config.test_folds))
    return {
        "Split": f"{experiment.split.folds} folds by {experiment.split.unit}, "
        f"{experiment.split.repeats} repeats, folds tested: {tested}",
        "Segmenter": f"{', '.join(experiment.segmenter.archs)} with "
        f"{experiment.segmenter.encoder}, {experiment.segmenter.size_px} px, "
        f"weights {experiment.segmenter.weights}",
        "Masks": f"{experiment.matting.mask}, each from a segmenter that never saw the patient",
        "Classifier": f"{experiment.classifier.size_px} px, lr {experiment.classifier.lr:g}, "
        f"at most {experiment.classifier.epochs} epochs, {experiment.classifier.budget}, "
        f"weights {experiment.classifier.weights}",
        "Chosen on inner validation": f"epoch, threshold ({experiment.classifier.threshold}), "
        "calibration",
        "Fits": f"{len(results.fits)} classifiers, {len(results.segmenters)} segmenters done, "
        f"{results.open_fits} open",
    }


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
