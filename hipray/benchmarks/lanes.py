"""Lanes against a script: the same cells trained by hipray's grid and by the sequential peer.

Both sides have the same cores, start from the same decoded films and train the same number of
steps on the same hips. Time counts once started: from a grid's first claim of a fit to its last
commit, both read from the ledger, and from the script's first cell to the end of its last. What
comes before, Ray's workers or the script's imports, is a measure of its own. Lanes that start
late cost the grid time, for the clock runs from the first.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hipray.benchmarks.measure import Measure, Pair, compare_durations, compare_rates
from hipray.config.benchmarks import GridBench
from hipray.config.experiment import ClassifierSettings, DataSettings, Experiment
from hipray.config.jobs import GridRun, Scaling
from hipray.distributed.grid import run_grid
from hipray.storage import Store
from hipray.training.fit_files import PREDICTIONS_FILE, load_frame
from hipray.training.inputs import FitInputs
from hipray.training.ledger import DoneFit
from hipray.training.preparation import prepare
from hipray.training.results import open_reader, read_run
from hipray.training.seeds import seed_fit
from hipray.vocab import Fit, LabelType, Part, Variant

LANES_TARGET = 1.10
"""Least cells per hour of the lanes over those of the script: two networks on a core each against
one network on two cores win 1.07 to 1.25 by themselves in training at 128 px."""
PEER = "hipray.benchmarks.peers.sequential"


@dataclass(frozen=True)
class Timing:
    """How long one side took for all cells."""

    cells: int
    start_up_s: float
    """From the call to the first cell."""
    seconds: float
    """From the first cell to the end of the last."""
    skew_s: float
    """Between the first and the last lane's first cell."""
    by_backbone: dict[str, float]
    """Seconds of all cells of a network added up."""

    @property
    def per_hour(self) -> float:
        """Cells per hour once started."""
        return self.cells / self.seconds * 3600


def count_lane_threads(bench: GridBench) -> int:
    """Return the cores, and torch threads, of one lane."""
    return max(1, bench.cores // bench.lanes)


def build_bench_grid(store: Store, bench: GridBench, *, seed: int = 1) -> GridRun:
    """Return the measured grid: one fold of each cell, no early stopping."""
    classifier = ClassifierSettings(
        size_px=bench.size_px, batch=bench.batch, epochs=bench.epochs, patience=bench.epochs,
        seed=seed,
    )  # fmt: skip
    return GridRun(
        workspace=store.uri,
        run=f"bench-{seed}",
        regions=bench.regions,
        label_types=(LabelType.T_SCORE,),
        backbones=bench.backbones,
        variants=bench.variants,
        test_folds=(0,),
        scaling=Scaling(
            lanes=bench.lanes,
            local_lanes=bench.local_lanes,
            cpus_per_lane=count_lane_threads(bench),
        ),
        experiment=Experiment(data=DataSettings(working_px=bench.working_px),
                              classifier=classifier),
    )  # fmt: skip


def compare_lanes(store: Store, bench: GridBench) -> Iterator[Measure]:
    """Train all cells with lanes and with the script, in turn; yield rate and start-up."""
    inputs = prepare(store, build_bench_grid(store, bench)).inputs
    timings = [_time_both(store, inputs, bench, seed=1 + k) for k in range(bench.repeats)]
    lanes, scripts = [ours for ours, _ in timings], [peer for _, peer in timings]
    yield compare_rates(
        "lanes_vs_script",
        [Pair(ours.per_hour, peer.per_hour) for ours, peer in timings],
        unit="cells/h",
        target=LANES_TARGET,
        cells=lanes[0].cells,
        lanes=bench.lanes,
        cores=bench.cores,
        seconds=[[ours.seconds, peer.seconds] for ours, peer in timings],
        lane_skew_s=[ours.skew_s for ours in lanes],
        core_seconds_by_backbone=_compare_backbones(lanes, scripts, bench.cores),
    )
    yield compare_durations(
        "lane_start_up",
        [Pair(ours.start_up_s, peer.start_up_s) for ours, peer in timings],
        unit="s",
        last_lane_s=[ours.start_up_s + ours.skew_s for ours in lanes],
    )


def _time_both(
    store: Store, inputs: FitInputs, bench: GridBench, *, seed: int
) -> tuple[Timing, Timing]:
    """Time the lanes, then the script on the very hips that their fits used."""
    config = build_bench_grid(store, bench, seed=seed)
    ours = _time_lanes(store, config)
    folder = Path(store.uri) / f"script-{seed}"
    job = write_script_job(store, config, inputs, folder=folder, threads=bench.cores)
    return ours, _time_script(job)


def _time_lanes(store: Store, config: GridRun) -> Timing:
    asked = time.time()
    run_grid(config)
    classifiers, ledger = read_run(store, config.run).classifiers, open_reader(store)
    done = [fit for _, fit in classifiers]
    committed = ledger.finished()
    first_claims: dict[str, float] = {}
    for fit in done:
        claimed = ledger.claimed_at(fit)
        first_claims[fit.lane] = min(claimed, first_claims.get(fit.lane, claimed))
    started = min(first_claims.values())
    return Timing(
        cells=len(done),
        start_up_s=started - asked,
        seconds=max(committed[fit.digest].timestamp() for fit in done) - started,
        skew_s=max(first_claims.values()) - started,
        by_backbone=_add_up((fit.cell.backbone, done.seconds) for fit, done in classifiers),
    )


def write_script_job(
    store: Store, config: GridRun, inputs: FitInputs, *, folder: Path, threads: int
) -> Path:
    """Write what the script trains: the cells of a finished run, on the hips its fits used."""
    folder.mkdir(parents=True)
    job = {
        "films": str(inputs.arrays.films.filename),  # type: ignore[attr-defined]  # a np.memmap
        "threads": threads,
        "out": str(folder),
        "recipe": config.experiment.classifier.model_dump(mode="json"),
        "cells": [
            _describe_cell(store, config, inputs, *p)
            for p in read_run(store, config.run).classifiers
        ],
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    return path


def _describe_cell(
    store: Store, config: GridRun, inputs: FitInputs, fit: Fit, done: DoneFit
) -> dict[str, Any]:
    places = {hip_id: row for row, hip_id in enumerate(inputs.manifest["hip_id"])}
    scores = load_frame(open_reader(store).read_file(done, PREDICTIONS_FILE))
    cell: dict[str, Any] = {
        "name": fit.name,
        "backbone": fit.cell.backbone,
        "augmented": fit.cell.variant is not Variant.ORIGINAL,
        "seed": seed_fit(config.experiment.classifier_of(fit.cell.backbone).seed, fit),
    }
    for part in Part:
        own = scores[scores["part"] == part]
        cell[part.value] = [places[hip_id] for hip_id in own["hip_id"]]
        cell[f"{part.value}_labels"] = own["label"].astype(int).tolist()
    return cell


def _time_script(job: Path) -> Timing:
    asked = time.time()
    subprocess.run([sys.executable, "-m", PEER, str(job)], check=True)
    result = json.loads((job.parent / "result.json").read_text())
    return Timing(
        cells=len(result["cells"]),
        start_up_s=result["started_s"] - asked,
        seconds=result["ended_s"] - result["started_s"],
        skew_s=0.0,
        by_backbone=_add_up((cell["backbone"], cell["seconds"]) for cell in result["cells"]),
    )


def _add_up(seconds: Iterator[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for backbone, value in seconds:
        total[backbone] += value
    return dict(total)


def _compare_backbones(
    lanes: Sequence[Timing], scripts: Sequence[Timing], cores: int
) -> dict[str, list[float]]:
    """Median core seconds of each network's cells: of the lanes, and of the script."""
    return {
        backbone: [
            float(np.median([timing.by_backbone[backbone] for timing in lanes])),
            float(np.median([timing.by_backbone[backbone] for timing in scripts])) * cores,
        ]
        for backbone in lanes[0].by_backbone
    }
