"""The search on a real Ray: trials, resume, killed processes and what a cluster cannot fit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle

from hipray.config.tuning import Axis, Halving, Searcher, SearchSpace, TrialResources, TuneRun
from hipray.data.dataset import load_arrays, load_films
from hipray.data.leakage import GUARD_PX
from hipray.data.manifest import read_table
from hipray.distributed.studies import RememberingAsha
from hipray.distributed.tune import (
    TuneResult,
    _can_resume,
    _read_row,
    _require_room,
    _run_sparing_memory,
    build_trainable,
    run_tune,
)
from hipray.errors import ConfigError, FitsFailedError, RunBusyError, StoreUnavailableError
from hipray.storage import Store, acquire
from hipray.training.context import FitContext
from hipray.training.device_errors import FitMemoryError
from hipray.training.preparation import read_inputs
from hipray.training.tuning import describe_as_grid, read_search
from tests.conftest import S3Server
from tests.processes import find_descendants
from tests.small_workspace import BACKBONE, EXPERIMENT, SmallArchive, ingest

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

SPACE = SearchSpace(
    size_px=(32,), lr=Axis(low=1e-4, high=1e-2, log=True), weight_decay=Axis(choices=(0,))
)


@pytest.fixture
def store(tmp_path: Path, small_archive: SmallArchive) -> Store:
    return ingest(tmp_path / "work", small_archive).store


def _config(store: Store, **changes: object) -> TuneRun:
    classifier = EXPERIMENT.classifier.model_copy(update={"size_px": 32})
    given: dict[str, object] = {
        "workspace": store.uri,
        "backbones": (BACKBONE,),
        "inner_folds": 2,
        "trials": 4,
        "halving": Halving(max_epochs=2, grace_epochs=1, reduction_factor=2),
        "space": SPACE,
        "experiment": EXPERIMENT.model_copy(update={"classifier": classifier}),
    }
    return TuneRun.model_validate(given | changes)


def test_a_search_chooses_settings_and_a_second_submission_trains_nothing(store: Store) -> None:
    config = _config(store)
    inputs = read_inputs(store, describe_as_grid(config))
    assert len(inputs.arrays.films), "decoded once, here, and for the leakage guard"
    load_films(store, inputs.manifest, side=GUARD_PX)
    shutil.rmtree(Path(store.uri) / "hips")  # from here on nobody can decode a film again
    result = run_tune(config)
    trials = read_table(store, "runs/tune/trials.parquet").to_pandas()
    assert (result.trials, result.failed, result.searched_now) == (4, 0, 1)
    assert len(trials) == 4 and trials["log_loss"].is_monotonic_increasing
    assert trials["own"].sum() == 1
    assert set(trials["status"]) <= {"finished", "stopped"}
    assert (trials["epochs"] >= 1).all() and (trials["epochs"] <= 2).all()
    assert trials["lr"].nunique() == 4
    assert result.choices[0].log_loss == trials["log_loss"].min()
    assert result.choices[0].chosen["lr"] == trials["lr"].iloc[0]
    assert not [i for i in store.list("runs/tune/trials") if "checkpoints" in i.key]
    written = {info.key: info.modified for info in store.list("runs/tune/trials")}
    again = run_tune(config)
    assert (again.trials, again.searched_now, again.choices) == (4, 0, result.choices)
    assert {info.key: info.modified for info in store.list("runs/tune/trials")} == written
    with pytest.raises(ConfigError, match="other values of trials"):
        run_tune(_config(store, trials=5))


def test_trials_get_addresses_and_no_arrays(store: Store) -> None:
    pickled = cloudpickle.dumps(build_trainable(_config(store), BACKBONE))
    assert len(pickled) < 20_000, "smaller than one film"
    inputs = read_inputs(store, describe_as_grid(_config(store)))
    films = load_arrays(store, inputs.manifest, side=EXPERIMENT.data.working_px).films
    assert isinstance(films, np.memmap)


DRIVER = """
import sys
from hipray.config.tuning import TuneRun
from hipray.distributed.tune import run_tune
run_tune(TuneRun.model_validate_json(sys.argv[1]))
"""


@pytest.mark.cluster
@pytest.mark.full
def test_a_killed_driver_is_resumed_without_running_ended_trials_again(store: Store) -> None:
    config = _config(store, trials=5, resources=TrialResources(max_concurrent=1, lease_s=5))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, config.model_dump_json()], env=environment
    )
    deadline = time.monotonic() + 200
    while len(_outcomes(store)) < 2 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(timeout=30) == -signal.SIGKILL, "the driver was killed while it worked"
    before = _outcomes(store)
    assert 2 <= len(before) < 5
    assert _can_resume(store, f"runs/tune/tune/{BACKBONE}")
    result = run_tune(config)
    after = _outcomes(store)
    assert (result.trials, result.failed) == (5, 0)
    trials = read_table(store, "runs/tune/trials.parquet").to_pandas()
    assert trials["lr"].nunique() == 5, "no proposal was lost or doubled"
    assert len(after) == 5
    assert {key: after[key] for key in before} == before


def _outcomes(store: Store) -> dict[str, bytes]:
    """What ended trials wrote, the seconds they took included: those would tell a second run."""
    found = [i.key for i in store.list("runs/tune/trials") if i.key.endswith("outcome.json")]
    return {key: store.read(key) for key in found}


@pytest.mark.cluster
@pytest.mark.full
def test_a_killed_trial_goes_on_from_its_last_epoch(store: Store) -> None:
    config = _config(
        store, trials=1, halving=Halving(max_epochs=12, grace_epochs=12), try_experiment=False,
        resources=TrialResources(checkpoint_s=0),
    )  # fmt: skip
    results: list[TuneResult] = []
    driver = threading.Thread(target=lambda: results.append(run_tune(config)))
    driver.start()
    while not any(key.endswith("00003.safetensors") for key in _checkpoints(store)):
        assert driver.is_alive()
        time.sleep(0.02)
    _kill_trial()
    driver.join(timeout=240)
    assert results and results[0].failed == 0
    lines = _read_reports(Path(store.uri) / f"runs/tune/tune/{BACKBONE}")
    assert len({line["pid"] for line in lines}) == 2, "another process went on"
    epochs = [line["epoch"] for line in lines]
    assert epochs.count(1) == 1, "the first epoch was not trained again"


def _checkpoints(store: Store) -> list[str]:
    return [info.key for info in store.list("runs/tune/trials") if "checkpoints" in info.key]


def _kill_trial() -> None:
    """SIGKILL the process of the one trial, a child of this test's own Ray."""
    (trial,) = find_descendants("ImplicitFunc", of=os.getpid())
    os.kill(trial, signal.SIGKILL)


def _read_reports(folder: Path) -> list[dict[str, Any]]:
    """What the one trial has reported so far."""
    texts = [path.read_text("utf-8") for path in folder.glob("*/result.json")]
    return [json.loads(line) for line in "".join(texts).splitlines()]


@pytest.mark.cluster
@pytest.mark.full
def test_a_search_lives_on_s3(
    store: Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = s3_server.new_store()
    for found in store.list():
        remote.write(found.key, store.read(found.key))
    changes = {"workspace": remote.uri, "storage": remote.settings, "trials": 2}
    result = run_tune(_config(store, **changes))
    assert (result.trials, result.failed) == (2, 0)
    assert remote.exists("runs/tune/tuned.toml")
    assert remote.exists(f"runs/tune/tune/{BACKBONE}/tuner.pkl")


def test_a_second_driver_of_a_live_search_is_told_who_works_on_it(store: Store) -> None:
    lease = acquire(store, "runs/tune/driver", ttl_s=60, owner_note="first")
    assert lease is not None
    with lease, pytest.raises(RunBusyError, match="first"):
        run_tune(_config(store))


@pytest.mark.parametrize(
    "resources",
    [
        TrialResources(max_concurrent=99),
        TrialResources(max_concurrent=1, gpus_per_trial=8),
        TrialResources(max_concurrent=2, cpus_per_trial=3),
    ],
)
def test_more_trials_than_the_cluster_can_fit_are_refused(resources: TrialResources) -> None:
    expected = rf"{resources.max_concurrent} trials.*a cluster of 4 CPU and 0 GPU that holds"
    with pytest.raises(ConfigError, match=expected):
        _require_room(resources)
    _require_room(TrialResources(max_concurrent=4, cpus_per_trial=1))


@ray.remote
def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [
        (StoreUnavailableError("a store", "silence", "wait"), False),
        (FitMemoryError("room", "too little", "raise its share"), False),
        (ValueError("loss is nan"), True),
    ],
)
def test_a_trial_that_store_or_memory_cut_off_is_no_failed_trial(
    store: Store, error: Exception, is_kept: bool
) -> None:
    with pytest.raises(type(error)) as seen:
        ray.get(_fail.remote(error))
    ended = SimpleNamespace(error=seen.value, config={"lr": 1e-3}, metrics=None)
    if is_kept:
        assert _read_row(ended, _config(store), BACKBONE)["error"].endswith("loss is nan")
    else:
        with pytest.raises(FitsFailedError, match="one that was cut off"):
            _read_row(ended, _config(store), BACKBONE)


def test_a_trial_twice_out_of_memory_says_what_to_raise(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def run_out(search: object, *_: object, **__: object) -> None:
        tries.append(search)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("hipray.distributed.tune.run_trial", run_out)
    search = read_search(store, _config(store), BACKBONE)
    with pytest.raises(FitMemoryError, match=r"2 networks .*raise resources\.gpus_per_trial"):
        _run_sparing_memory(search, {}, FitContext())
    assert len(tries) == 2


def test_a_driver_killed_in_its_first_moments_leaves_nothing_to_resume(store: Store) -> None:
    key = "runs/tune/tune/a"
    assert not _can_resume(store, key)
    store.write(f"{key}/tuner.pkl", b"state")
    assert not _can_resume(store, key)
    store.write(f"{key}/experiment_state-1.json", b'{"trial_data": []}')
    assert not _can_resume(store, key)
    store.write(f"{key}/experiment_state-2.json", b'{"trial_')
    assert not _can_resume(store, key)
    store.write(f"{key}/experiment_state-3.json", b'{"trial_data": [["a", "b"]]}')
    assert _can_resume(store, key)


class _Trial:
    """A restored trial as the scheduler sees it."""

    def __init__(self, name: str, curve: tuple[float, ...] = ()) -> None:
        self.trial_id = name
        self.last_result = {"curve": curve} if curve else {}


def test_restored_trials_are_rivals_again() -> None:
    asha = RememberingAsha(
        time_attr="epoch", metric="log_loss", mode="min", max_t=9, grace_period=1,
        reduction_factor=2,
    )  # fmt: skip
    for number, loss in enumerate((0.2, 0.3, 0.4)):
        asha.on_trial_add(None, _Trial(f"old-{number}", (loss,)))
    new = _Trial("new")
    asha.on_trial_add(None, new)
    assert asha.on_trial_result(None, new, {"epoch": 1, "log_loss": 0.9}) == "STOP"
    good = _Trial("good")
    asha.on_trial_add(None, good)
    assert asha.on_trial_result(None, good, {"epoch": 1, "log_loss": 0.1}) == "CONTINUE"


def test_optuna_that_is_not_installed_is_one_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'hipray\[optuna\]'"):
        run_tune(_config(store, search=Searcher.OPTUNA))


def test_optuna_proposes_settings(store: Store) -> None:
    pytest.importorskip("optuna")
    result = run_tune(_config(store, search=Searcher.OPTUNA, trials=3))
    assert (result.trials, result.failed) == (3, 0)
