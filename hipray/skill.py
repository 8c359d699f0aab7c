"""The skill measurement: what the models learn on phantoms, beside what they must not learn.

Writes OUT/skill.json: segmentation by region, the cell's AUROC over folds with the interval of its
pooled hips, the same cell on permuted labels, the mean-intensity baseline, and each network's
training accuracy on a few films learned by heart. Each figure stands beside its target.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from hipray import RESEARCH_NOTICE
from hipray.commands import tell
from hipray.config.evaluation import EvaluationConfig
from hipray.config.jobs import GridRun, IngestRun, SkillRun
from hipray.data.framing import Frame, Mask
from hipray.data.images import read_hips
from hipray.data.ingest import FILES_KEY, run_ingest
from hipray.data.manifest import (
    MANIFEST_KEY,
    MANIFEST_SCHEMA,
    read_manifest,
    read_table,
    write_table,
)
from hipray.data.phantom import film_path, plan_archive, render_study
from hipray.distributed.grid import run_grid
from hipray.distributed.phantom import run_phantom
from hipray.evaluation.intervals import bootstrap_patients
from hipray.evaluation.results import CELL_COLUMNS, pool_repeats, read_predictions
from hipray.evaluation.run_report import config_of_run
from hipray.evaluation.statistics import Metric, choose_statistics
from hipray.metrics import auroc, iou
from hipray.storage import Store, open_store
from hipray.training.controls import mean_intensity_auroc, overfit_accuracy, permute_labels
from hipray.training.fit_files import MASKS_FILE, load_masks
from hipray.training.preparation import read_inputs
from hipray.training.results import RunResults, open_reader, read_run
from hipray.vocab import REGIONS, Backbone, Cell, LabelType, Part, Region

PERMUTED_KEY = "manifest-permuted.parquet"
PERMUTATION_SEED = 7
IOU_TARGETS = {
    Region.TOTAL_HIP: 0.90,
    Region.FEMORAL_NECK: 0.85,
    Region.GREATER_TROCHANTER: 0.85,
    Region.WARDS_TRIANGLE: 0.70,
}
"""Least mean foreground IoU on default phantoms."""
AUROC_TARGET = 0.80
PERMUTED_RANGE = (0.40, 0.60)
INTENSITY_LIMIT = 0.62
OVERFIT_TARGET = 0.95


def run_skill(config: SkillRun) -> None:
    """Measure everything below `config.out` and print it; finished fits are reused."""
    started = time.monotonic()
    store = open_store(config.out)
    archive = f"{config.out}/archive"
    run_phantom(config.phantom.model_copy(update={"archive": archive}))
    run_ingest(IngestRun(workspace=config.out, images=archive))
    _write_permuted(store)
    measured: dict[str, Any] = {"data": "phantom", "notice": RESEARCH_NOTICE}
    true = config.grid.model_copy(update={"workspace": config.out})
    run_grid(true)
    results = read_run(store, true.run)
    truth = _draw_truth(store, config)
    measured["segmentation"] = _measure_segmentation(store, results, truth)
    measured["classification"] = _measure_cells(results, "AUROC", AUROC_TARGET)
    permuted = true.model_copy(update={"run": f"{true.run}-permuted", "manifest": PERMUTED_KEY})
    run_grid(permuted)
    measured["permuted"] = _measure_permuted(read_run(store, permuted.run))
    measured["mean_intensity"] = _measure_intensity(store, true)
    measured["overfit"] = _measure_overfit(store, config, true)
    measured["seconds"] = round(time.monotonic() - started)
    store.write("skill.json", json.dumps(measured, indent=1).encode())
    _tell_all(measured, Path(config.out) / "skill.json")


def _write_permuted(store: Store) -> None:
    permuted = permute_labels(read_manifest(store, MANIFEST_KEY), PERMUTATION_SEED)
    table = pa.Table.from_pandas(permuted, schema=MANIFEST_SCHEMA, preserve_index=False)
    write_table(store, PERMUTED_KEY, table)


def _draw_truth(store: Store, config: SkillRun) -> dict[str, Mask]:
    """The true masks (R, S, S) of every hip by its id, on the frame that segmenters answer in."""
    phantom = config.phantom.phantom
    side = config.grid.experiment.data.working_px
    hip_ids = {
        row["file"]: row["hip_ids"][0]
        for row in read_table(store, FILES_KEY).to_pylist()
        if row["hip_ids"]
    }
    truth = {}
    for study in plan_archive(phantom):
        path = film_path(phantom, study)
        if path not in hip_ids:  # refused: of no figure's hips
            continue
        film = open_store(f"{config.out}/archive").read(path)
        hip = read_hips(film, name=path, side=study.sides[0]).hips[0]
        frame = Frame.around(hip.pixels, side)
        masks = render_study(phantom, study).masks
        truth[hip_ids[path]] = np.stack(
            [frame.place_mask(hip.geometry.warp_mask(mask)) for mask in masks]
        )
    return truth


def _measure_segmentation(
    store: Store, results: RunResults, truth: dict[str, Mask]
) -> list[dict[str, Any]]:
    """Out-of-fold IoU against the true outlines; beside it, against the noisy annotations."""
    found: dict[Region, list[float]] = {region: [] for region in Region}
    ledger = open_reader(store)
    for fit, done in results.segmenters:
        hip_ids, masks = load_masks(ledger.read_file(done, MASKS_FILE))
        for hip_id, drawn in zip(hip_ids, masks, strict=True):
            for region in fit.regions:
                channel = REGIONS.index(region)
                found[region].append(iou(drawn[channel], truth[hip_id][channel]))
    annotated = results.mask_scores.groupby("region")["iou"].mean()
    return [
        _judge_iou(region, np.array(values), float(annotated[region]))
        for region, values in found.items()
    ]


def _judge_iou(
    region: Region, values: npt.NDArray[np.float64], against_annotation: float
) -> dict[str, Any]:
    mean, target = float(values.mean()), IOU_TARGETS[region]
    half_width = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values))
    return {
        "name": f"{region.display_name} foreground IoU",
        "value": round(mean, 4),
        "interval": [round(mean - half_width, 4), round(mean + half_width, 4)],
        "against_noisy_annotation": round(against_annotation, 4),
        "n": len(values),
        "target": f">= {target}",
        "met": mean >= target,
    }


def _measure_cells(results: RunResults, what: str, target: float) -> list[dict[str, Any]]:
    config = config_of_run(EvaluationConfig(), results.config)
    predictions = read_predictions(results.predictions)
    tests = predictions[predictions["part"] == Part.TEST]
    rows = []
    for key, own in tests.groupby(CELL_COLUMNS):
        folds = [auroc(f["label"], f["score"]) for _, f in own.groupby(["repeat", "fold"])]
        values, hips = np.array(folds), pool_repeats(own)
        pooled = bootstrap_patients(hips, choose_statistics((Metric.AUROC,)), config)[Metric.AUROC]
        rows.append(
            {
                "name": f"{'-'.join(map(str, key))} {what}, mean over folds",
                "value": round(float(values.mean()), 4),
                "sd": round(float(values.std(ddof=1)), 4) if len(values) > 1 else None,
                "folds": [round(float(v), 4) for v in values],
                "pooled": round(pooled.value, 4),
                "pooled_interval": [round(pooled.low, 4), round(pooled.high, 4)],
                "n": len(hips),
                "target": f">= {target}",
                "met": float(values.mean()) >= target,
            }
        )
    return rows


def _measure_permuted(results: RunResults) -> list[dict[str, Any]]:
    low, high = PERMUTED_RANGE
    rows = _measure_cells(results, "AUROC on permuted labels", 0.0)
    return [row | {"target": f"{low}-{high}", "met": low <= row["value"] <= high} for row in rows]


def _measure_intensity(store: Store, grid: GridRun) -> list[dict[str, Any]]:
    inputs = read_inputs(store, grid)
    cell = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "mean-intensity", grid.variants[0])
    value = mean_intensity_auroc(inputs.arrays.films, inputs.manifest, inputs.split, cell)
    return [
        {
            "name": "mean-intensity baseline AUROC",
            "value": round(value, 4),
            "n": len(inputs.manifest),
            "target": f"< {INTENSITY_LIMIT}",
            "met": value < INTENSITY_LIMIT,
        }
    ]


def _measure_overfit(store: Store, config: SkillRun, grid: GridRun) -> list[dict[str, Any]]:
    inputs = read_inputs(store, grid)
    rows = []
    for backbone in Backbone:
        value = overfit_accuracy(
            backbone, inputs.arrays, inputs.manifest,
            hips=config.overfit_hips, epochs=config.overfit_epochs,
        )  # fmt: skip
        rows.append(
            {
                "name": f"{backbone} training accuracy on {config.overfit_hips} films",
                "value": value,
                "n": config.overfit_hips,
                "target": f">= {OVERFIT_TARGET}",
                "met": value >= OVERFIT_TARGET,
            }
        )
    return rows


def _tell_all(measured: dict[str, Any], path: Path) -> None:
    rows = [row for value in measured.values() if isinstance(value, list) for row in value]
    for row in pd.DataFrame(rows).to_dict("records"):
        verdict = "met" if row["met"] else "MISSED"
        tell(f"{verdict:6} {row['value']:.3f} (target {row['target']}, n {row['n']}) {row['name']}")
    tell(f"{measured['seconds']} s; all figures: {path}. Phantoms only. {RESEARCH_NOTICE}")
