"""The trials of a search: what each leaves while it runs, and the finished study of a network."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any

import pandas as pd
import pyarrow as pa

from hipray.config.tuning import TuneRun, Value
from hipray.data.manifest import read_table, write_table
from hipray.digests import digest_of
from hipray.errors import FitsFailedError
from hipray.storage import Store
from hipray.training.checkpoints import CheckpointStore
from hipray.training.lockstep import Figures
from hipray.training.run_keys import RunKeys


class TrialStatus(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"  # all its epochs, or none better for `patience` of them
    STOPPED = "stopped"  # weaker than the others at a rung
    FAILED = "failed"


class TrialFolder:
    """What is kept of one trial: equal settings are the same trial, whoever runs it.

    A search whose own state is lost proposes the same settings again and finds them here.
    """

    def __init__(
        self, store: Store, config: TuneRun, backbone: str, chosen: Mapping[str, Value]
    ) -> None:
        name = digest_of(dict(chosen))[:16]
        self._store = store.child(RunKeys(config.run).trial(folder_of(backbone), name))

    def checkpoints(self) -> CheckpointStore:
        """Return the place of the trial's checkpoints."""
        return CheckpointStore(self._store.child("checkpoints"))

    def read_outcome(self) -> Figures | None:
        """Return the figures of an ended trial."""
        if not self._store.exists("outcome.json"):
            return None
        return read_figures(json.loads(self._store.read("outcome.json")))

    def conclude(self, figures: Figures) -> None:
        """Write how the trial ended, then delete its checkpoints."""
        self._store.write("outcome.json", json.dumps(asdict(figures)).encode())
        self.checkpoints().clear()


def read_figures(values: Mapping[str, Any]) -> Figures:
    """Return the figures among the values of a trial's report."""
    own = {field.name: values[field.name] for field in fields(Figures)}
    return Figures(**own | {"curve": tuple(own["curve"])})


def trial_row(
    chosen: Mapping[str, Value], figures: Figures | None, *, own: bool, max_epochs: int
) -> dict[str, Any]:
    """Return a trial as one row of the table; `figures` is None where it failed.

    `own` tells whether it had the experiment's own settings.
    """
    row: dict[str, Any] = {"status": TrialStatus.FAILED.value, "own": own, **chosen}
    if figures is None:
        return row | {
            "log_loss": math.nan, "auroc": math.nan, "epochs": 0, "best_epoch": 0, "seconds": 0.0,
        }  # fmt: skip
    whole = figures.ended or figures.epoch >= max_epochs
    return row | {
        "status": (TrialStatus.FINISHED if whole else TrialStatus.STOPPED).value,
        "log_loss": figures.log_loss,
        "auroc": figures.auroc,
        "epochs": figures.epoch,
        "best_epoch": figures.best_epoch,
        "seconds": figures.seconds,
    }


def write_study(
    store: Store, config: TuneRun, backbone: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the trials of one network's finished search, best first.

    Raises FitsFailedError where none has a figure; such a search is not finished.
    """
    trials = pd.DataFrame(rows)
    if trials["log_loss"].isna().all():
        raise FitsFailedError(
            f"a trial of {backbone} in run '{config.run}' to end with a figure",
            f"{len(trials)} failed, the first with: {trials['error'].iloc[0]}",
            "correct the cause and submit the same job again",
        )
    trials = trials.sort_values("log_loss", kind="stable", ignore_index=True)
    table = pa.Table.from_pandas(trials.assign(backbone=backbone), preserve_index=False)
    write_table(store, _study_key(config, backbone), table)


def read_study(store: Store, config: TuneRun, backbone: str) -> pd.DataFrame | None:
    """Return the trials of one network's search, best first, once it is finished."""
    key = _study_key(config, backbone)
    if not store.exists(key):
        return None
    trials: pd.DataFrame = read_table(store, key).to_pandas()
    return trials


def _study_key(config: TuneRun, backbone: str) -> str:
    return RunKeys(config.run).study(folder_of(backbone))


def folder_of(backbone: str) -> str:
    """Return a network's name as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", backbone)
