"""Trackers show finished fits and can never lose one."""

import json
import logging

import pytest

from hipray.config.tracking import Tracking
from hipray.errors import ConfigError
from hipray.storage import open_store
from hipray.training.fit_files import HISTORY_FILE, MODEL_FILE, FitFiles
from hipray.training.tracking import check_tracking, track_fit

RESULT = FitFiles(
    {
        HISTORY_FILE: json.dumps({"train_loss": [0.7, 0.5], "inner_loss": [0.8, 0.6]}).encode(),
        MODEL_FILE: json.dumps({"settings": {"lr": 1e-3, "batch": 16}}).encode(),
    },
    {"epochs": 2, "iou": {"total_hip": 0.9}},
)


def test_nothing_is_tracked_unless_it_is_asked_for(tmp_path) -> None:
    store = open_store(str(tmp_path))
    track_fit(store, "run", "fit", RESULT, Tracking())
    assert list(store.list()) == []


def test_tensorboard_gets_the_curves_of_a_fit(tmp_path) -> None:
    store = open_store(str(tmp_path))
    track_fit(store, "run", "fit", RESULT, Tracking(tensorboard=True))
    [events] = [info.key for info in store.list("runs/run/tensorboard/fit/")]
    data = store.read(events)
    assert all(tag in data for tag in (b"train_loss", b"inner_loss", b"summary/iou/total_hip"))


def test_mlflow_gets_parameters_and_curves(tmp_path) -> None:
    mlflow = pytest.importorskip("mlflow")
    tracking = Tracking(mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    track_fit(open_store(str(tmp_path)), "run", "fit", RESULT, tracking)
    client = mlflow.MlflowClient(tracking_uri=tracking.mlflow_uri)
    experiment = client.get_experiment_by_name("hipray").experiment_id
    [run] = client.search_runs([experiment])
    assert run.data.params == {"lr": "0.001", "batch": "16"}
    assert run.data.metrics["inner_loss"] == 0.6
    assert [m.value for m in client.get_metric_history(run.info.run_id, "train_loss")] == [0.7, 0.5]


def test_a_tracker_that_fails_is_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING):
        track_fit(open_store(str(tmp_path)), "run", "fit", RESULT, Tracking(tensorboard=True))
    assert "TensorBoard has no fit" in caplog.text


def test_mlflow_without_its_package_is_refused_before_anything_runs(monkeypatch) -> None:
    monkeypatch.setattr("hipray.training.tracking.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"hipray\[mlflow\]"):
        check_tracking(Tracking(mlflow_uri="http://127.0.0.1:5000"))
    check_tracking(Tracking(tensorboard=True))
