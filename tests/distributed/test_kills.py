"""A driver killed at any moment: the same job again ends with the same numbers, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hipray.config.jobs import GridRun
from hipray.storage import Store, open_store
from hipray.training.fit_files import PREDICTIONS_FILE
from hipray.training.results import read_run
from tests.small_workspace import SmallGrid, grid_config, ingest, write_archive

pytestmark = pytest.mark.full

LANES = ("scaling.lanes=2", "scaling.local_lanes=true", "scaling.lease_s=6")
TIMEOUT_S = 400


def _start_driver(config: GridRun) -> "subprocess.Popen[bytes]":
    path = Path(config.workspace) / "grid.toml"
    path.write_text(_as_toml(config))
    overrides = [part for lane in LANES for part in ("--set", lane)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "hipray.cli", "grid", "--config", str(path), *overrides],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _as_toml(config: GridRun) -> str:
    segmenter, classifier = config.experiment.segmenter, config.experiment.classifier
    return f"""
workspace = "{config.workspace}"
run = "{config.run}"
regions = ["total_hip"]
label_types = ["t_score"]
backbones = {list(config.backbones)}
variants = ["original", "segmented"]
[experiment.data]
working_px = {config.experiment.data.working_px}
[experiment.split]
folds = {config.experiment.split.folds}
[experiment.segmenter]
size_px = {segmenter.size_px}
encoder = "{segmenter.encoder}"
decoder_channels = {list(segmenter.decoder_channels)}
epochs = {segmenter.epochs}
patience = {segmenter.patience}
batch = {segmenter.batch}
lr = {segmenter.lr}
[experiment.classifier]
size_px = {classifier.size_px}
epochs = {classifier.epochs}
batch = {classifier.batch}
lr = {classifier.lr}
"""


def _wait_until(reached: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + TIMEOUT_S
    while not reached():
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < until, "the moment never came"
        time.sleep(0.01)


def _kill(driver: "subprocess.Popen[bytes]") -> None:
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def _done(store: Store) -> dict[str, tuple[bytes, object]]:
    return {info.key: (store.read(info.key), info.modified) for info in store.list("fits/done")}


def _predictions(store: Store, run: str) -> dict[str, str]:
    """sha256 of every classifier's predictions file, by fit."""
    return {done.name: done.files[PREDICTIONS_FILE] for _, done in read_run(store, run).classifiers}


@pytest.mark.timeout(1200)
def test_a_driver_killed_three_times_loses_no_finished_fit_and_changes_no_number(
    tmp_path: Path, small_grid: SmallGrid
) -> None:
    # the same ingested hips: another ingest would draw other pseudonyms
    undisturbed = Path(small_grid.store.uri)
    shutil.copytree(undisturbed, tmp_path / "work", ignore=shutil.ignore_patterns("fits", "runs"))
    store = open_store(str(tmp_path / "work"))
    config = grid_config(store)

    def count() -> int:
        return sum(1 for _ in store.list("fits/done"))

    def claimed() -> bool:
        return any(True for _ in store.list("fits/claims"))

    moments = (
        lambda: claimed() and count() >= 1,  # segmenters run
        lambda: count() >= 5,  # classifiers run
        lambda: count() == 9,  # the last commit was made, the driver has not seen it
    )
    kept: dict[str, tuple[bytes, object]] = {}
    for moment in moments:
        driver = _start_driver(config)
        _wait_until(moment, driver)
        _kill(driver)
        now = _done(store)
        assert kept.items() <= now.items(), "a finished fit was written again"
        kept = now
    last = _start_driver(config)
    assert last.wait(TIMEOUT_S) == 0
    assert _done(store) == kept, "nothing was left to train"
    assert _predictions(store, config.run) == _predictions(small_grid.store, "small")


@pytest.mark.timeout(600)
def test_of_two_drivers_at_once_one_works_and_the_other_says_who(tmp_path: Path) -> None:
    store = ingest(tmp_path / "work", write_archive(tmp_path / "archive")).store
    config = grid_config(store)
    drivers = [_start_driver(config) for _ in range(2)]
    codes = sorted(driver.wait(TIMEOUT_S) for driver in drivers)
    assert codes == [0, 7]
    assert len(list(store.list("fits/done"))) == 9
