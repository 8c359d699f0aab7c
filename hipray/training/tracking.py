"""Finished fits shown in TensorBoard or MLflow, from the files the ledger already holds.

A tracker that fails is a warning: no fit is lost for the sake of a picture of it.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hipray.config.tracking import Tracking
from hipray.errors import ConfigError
from hipray.storage import Store
from hipray.training.fit_files import HISTORY_FILE, MODEL_FILE, FitFiles
from hipray.training.run_keys import RunKeys

logger = logging.getLogger(__name__)

CURVES = ("train_loss", "inner_loss")
"""Curves of history.json that are shown, one point per epoch."""


def check_tracking(tracking: Tracking) -> None:
    """Raise ConfigError where a tracker is asked for that is not installed."""
    if tracking.mlflow_uri is not None and find_spec("mlflow") is None:
        raise ConfigError(
            "MLflow for tracking.mlflow_uri", "no such package", "pip install 'hipray[mlflow]'"
        )


def track_fit(store: Store, run: str, name: str, result: FitFiles, tracking: Tracking) -> None:
    """Show one finished fit in the trackers that are asked for."""
    if tracking.tensorboard:
        with _never_fatal("TensorBoard", name):
            _write_events(store.child(RunKeys(run).tensorboard(name)), result)
    if tracking.mlflow_uri is not None:
        with _never_fatal("MLflow", name):
            _log_to_mlflow(run, name, result, tracking)


@contextmanager
def _never_fatal(tracker: str, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # trackers raise whatever their servers and disks do
        logger.warning("%s has no %s: %s", tracker, name, error)


def _write_events(folder: Store, result: FitFiles) -> None:
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory() as scratch:
        with SummaryWriter(logdir=scratch) as writer:
            for curve, values in _read_curves(result).items():
                for epoch, value in enumerate(values):
                    writer.add_scalar(curve, value, epoch)
            for key, value in _flatten(result.summary).items():
                writer.add_scalar(f"summary/{key}", value, 0)
        for path in Path(scratch).iterdir():
            folder.write(path.name, path.read_bytes())


def _log_to_mlflow(run: str, name: str, result: FitFiles, tracking: Tracking) -> None:
    mlflow: Any = import_module("mlflow")
    client = mlflow.MlflowClient(tracking_uri=tracking.mlflow_uri)
    known = client.get_experiment_by_name(tracking.mlflow_experiment)
    experiment = known.experiment_id if known else client.create_experiment(
        tracking.mlflow_experiment
    )  # fmt: skip
    shown = client.create_run(experiment, run_name=f"{run}/{name}").info.run_id
    settings = json.loads(result.files[MODEL_FILE])["settings"]
    for key, value in settings.items():
        client.log_param(shown, key, value)
    for curve, values in _read_curves(result).items():
        for epoch, value in enumerate(values):
            client.log_metric(shown, curve, value, step=epoch)
    for key, value in _flatten(result.summary).items():
        client.log_metric(shown, key, value)
    client.set_terminated(shown)


def _read_curves(result: FitFiles) -> dict[str, list[float]]:
    history = json.loads(result.files[HISTORY_FILE])
    return {curve: history[curve] for curve in CURVES}


def _flatten(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary; those of a table under it are named `table/entry`."""
    flat: dict[str, float] = {}
    for key, value in summary.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{inner}": number for inner, number in _flatten(value).items()}
        elif isinstance(value, int | float):
            flat[key] = float(value)
    return flat
