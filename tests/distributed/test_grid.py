"""The grid on a real Ray: lanes, resume, failing fits, killed processes and second drivers."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import safetensors.torch
import torch

from hipray.config.jobs import GridRun, Scaling
from hipray.distributed import lanes
from hipray.distributed.grid import GridResult, run_grid
from hipray.distributed.grid_metrics import GridMetrics
from hipray.errors import ConfigError, DataError, FitsFailedError, RunBusyError
from hipray.storage import Store, acquire, holder
from hipray.training.ledger import DoneFit
from hipray.training.plan import PlannedFit
from hipray.training.results import read_run
from hipray.training.run_keys import RunKeys
from hipray.training.run_plan import read_run_plan
from hipray.training.status import describe_status
from hipray.training.tally import tally_fits
from hipray.vocab import Cell, Fit, LabelType, Region, Variant
from tests.small_workspace import SmallArchive, SmallGrid, grid_config, ingest, write_archive

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

CELL = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, "resnet10t", Variant.ORIGINAL)
LOCAL_LANES = Scaling(lanes=2, local_lanes=True, lease_s=6, cpus_per_lane=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SmallArchive:
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def store(tmp_path: Path, archive: SmallArchive) -> Store:
    return ingest(tmp_path / "work", archive).store


def _config(store: Store, **changes: object) -> GridRun:
    config = grid_config(store, variants=(Variant.ORIGINAL,))
    return config.model_copy(update={"scaling": LOCAL_LANES, **changes})


def _kill_a_busy_lane(store: Store, plan: list[str]) -> int:
    """SIGKILL the process that holds a fit; returns its id."""
    while True:
        for digest in plan:
            info = holder(store.child("fits"), f"claims/{digest}")
            if info is not None and info.process.pid != os.getpid():
                os.kill(info.process.pid, signal.SIGKILL)
                return info.process.pid
        time.sleep(0.01)


def test_lanes_finish_every_fit_and_a_second_submission_trains_nothing(store: Store) -> None:
    config = _config(store)
    first = run_grid(config)
    assert first.fits == first.trained_now
    plan = read_run_plan(store, config.run).fits
    assert len(list(store.list("fits/done/"))) == len(plan)
    second = run_grid(config)
    assert (second.fits, second.trained_now) == (first.fits, 0)
    assert "0 failed" in describe_status(store, config.run)


def test_a_lane_killed_in_the_middle_loses_no_fit_and_doubles_none(store: Store) -> None:
    config = _config(store, test_folds=(0, 1))
    results: list[GridResult] = []
    driver = threading.Thread(target=lambda: results.append(run_grid(config)))
    driver.start()
    while not store.exists(f"runs/{config.run}/plan.json"):
        time.sleep(0.05)
    plan = [planned.digest for planned in read_run_plan(store, config.run).fits]
    killed = _kill_a_busy_lane(store, plan)
    driver.join(timeout=240)
    assert results, "the driver ended with an error"
    assert results[0].fits == len(plan)
    done = [info.key for info in store.list("fits/done/")]
    assert sorted(done) == sorted(f"fits/done/{digest}.json" for digest in plan)
    results_of_run = read_run(store, config.run)
    assert not results_of_run.fits["fit"].duplicated().any()
    retried = [
        done.attempt for _, done in [*results_of_run.segmenters, *results_of_run.classifiers]
    ]
    assert max(retried) > 1, f"the fit of process {killed} was handed out again"


def test_a_failing_fit_stops_no_other_and_is_named_with_its_reason(store: Store) -> None:
    regions = (Region.TOTAL_HIP, Region.FEMORAL_NECK)
    config = _config(store, regions=regions, test_folds=(0,), backbones=("resnet10t",))
    broken = config.experiment.model_copy(
        update={"classifier": config.experiment.classifier.model_copy(update={"lr": 1e30})}
    )
    with pytest.raises(FitsFailedError, match=r"a finite loss on inner validation"):
        run_grid(config.model_copy(update={"experiment": broken}))
    done = list(store.list("fits/done/"))
    assert len(done) == config.experiment.split.folds, "the segmenters were finished"
    assert "2 failed" in describe_status(store, config.run)
    repaired = run_grid(config)
    assert repaired.trained_now == 2, "only what had failed was trained"


def test_weights_of_another_network_stop_a_grid_before_anything_is_trained(store: Store) -> None:
    store.write("weights/other.safetensors", safetensors.torch.save({"a": torch.zeros(1)}))
    classifier = _config(store).experiment.classifier
    other = classifier.model_copy(update={"weights": "weights/other.safetensors"})
    experiment = _config(store).experiment.model_copy(update={"classifier": other})
    with pytest.raises(ConfigError, match=r"tensors of \w+ in weights/other.safetensors"):
        run_grid(_config(store).model_copy(update={"experiment": experiment}))
    assert not list(store.list("fits"))
    assert not store.exists(RunKeys(_config(store).run).plan), "no run of waiting fits is left"


def test_a_second_driver_of_a_live_run_is_told_who_works_on_it(store: Store) -> None:
    config = _config(store)
    lease = acquire(store, f"runs/{config.run}/driver", ttl_s=60, owner_note="first")
    assert lease is not None
    with lease, pytest.raises(RunBusyError, match="process"):
        run_grid(config)


@pytest.mark.full
def test_a_lane_without_room_is_cancelled_when_no_fit_is_left_for_it(store: Store) -> None:
    scaling = LOCAL_LANES.model_copy(update={"cpus_per_lane": 3})  # of four CPUs
    result = run_grid(_config(store, test_folds=(0,), scaling=scaling))
    assert result.fits
    run = read_run(store, "small")
    assert len({done.lane for _, done in [*run.segmenters, *run.classifiers]}) == 1
    until = time.monotonic() + 20  # Ray tells of freed CPUs a moment later
    while ray.available_resources().get("CPU") != 4:
        assert time.monotonic() < until, "a lane still runs or waits"
        time.sleep(0.2)


def test_a_grid_too_large_for_its_lanes_is_refused_before_anything_is_trained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(store, scaling=Scaling(gpus_per_lane=1))
    with pytest.raises(ConfigError, match="0 GPU"):
        run_grid(config)
    assert not list(store.list("fits"))


def test_the_numbers_of_a_grid_are_ray_metrics(store: Store) -> None:
    metrics = GridMetrics("small")
    plan = [PlannedFit(Fit(CELL, 0, fold), f"d{fold}") for fold in range(400)]
    tally = tally_fits(plan, done={"d0"}, failed=(), running={"d1"})
    done = DoneFit("d0", "n", plan[0].fit, "", {}, {}, 3.0, 1, "lane")
    started = time.perf_counter()
    metrics.show(tally, lanes=2)
    metrics.observe([(plan[0], done)])
    assert time.perf_counter() - started < 0.1, "one look of the driver stays cheap"


def test_a_lane_runs_as_a_ray_train_worker(store: Store) -> None:
    scaling = Scaling(lanes=1, local_lanes=False, cpus_per_lane=1)
    result = run_grid(_config(store, test_folds=(0,), scaling=scaling))
    assert result.fits
    lanes = {done.lane for _, done in read_run(store, "small").classifiers}
    assert len(lanes) == 1


@pytest.mark.cluster
@pytest.mark.full
def test_two_workers_of_a_lane_train_each_fit_together(store: Store) -> None:
    scaling = Scaling(lanes=1, workers_per_fit=2, cpus_per_lane=1)
    result = run_grid(_config(store, test_folds=(0,), scaling=scaling))
    assert result.fits
    run = read_run(store, "small")
    assert {done.attempt for _, done in run.classifiers} == {1}
    assert run.predictions["score"].between(0, 1).all()


def test_a_lane_refuses_an_archive_that_was_ingested_again_since_the_plan(
    small_grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_run_plan(small_grid.store, "small")
    of_others = plan.model_copy(update={"data": replace(plan.data, films="others")})
    monkeypatch.setattr(lanes, "read_run_plan", lambda *_: of_others)
    with pytest.raises(DataError, match="the archive was ingested again since"):
        lanes._read_own_plan(small_grid.store, small_grid.config)
