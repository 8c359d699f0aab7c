"""What Ray Tune's driver loop does beside comparing trials: remember, show and write down."""

from contextlib import ExitStack
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler

from hipray.config.tuning import TuneRun
from hipray.progress import Tracker, track
from hipray.storage import open_store
from hipray.training.trials import TrialFolder, read_figures

EPOCH, LOG_LOSS = "epoch", "log_loss"
"""What trials are compared after, and by; fields of Figures."""


class RememberingAsha(ASHAScheduler):  # type: ignore[misc]
    """ASHA that fills its rungs again after a restart from what the trials reported before.

    Tune restores trials but not the scheduler's rungs: without it the first trials after a
    restart would meet no rivals.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial together with its curve so far."""
        super().on_trial_add(tune_controller, trial)
        curve = (trial.last_result or {}).get("curve", ())
        for epoch, log_loss in enumerate(curve, start=1):
            self.on_trial_result(tune_controller, trial, {EPOCH: epoch, LOG_LOSS: log_loss})


class StudyJournal(Callback):  # type: ignore[misc]
    """Shows progress in the driver and writes down each trial as soon as it ends.

    Tune saves its state now and then: a trial that ended since is known by its outcome.
    """

    def __init__(self, config: TuneRun, backbone: str) -> None:
        self._config = config
        self._backbone = backbone
        self._open = ExitStack()
        self._update: Tracker | None = None

    def __reduce__(self) -> tuple[type, tuple[TuneRun, str]]:
        return type(self), (self._config, self._backbone)

    def setup(self, **info: Any) -> None:
        """Open the progress display."""
        title = f"{self._config.run} {self._backbone}"
        self._update = self._open.enter_context(track(title, self._config.trials))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the lowest log loss so far."""
        known = [t.last_result[LOG_LOSS] for t in trials if LOG_LOSS in (t.last_result or {})]
        note = f"lowest inner log loss {min(known):.4f}" if known else ""
        if self._update is not None:
            self._update(sum(t.is_finished() for t in trials), note)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Write the outcome of a trial and delete its checkpoints."""
        if LOG_LOSS in trial.last_result:
            store = open_store(self._config.workspace, self._config.storage)
            folder = TrialFolder(store, self._config, self._backbone, trial.config)
            folder.conclude(read_figures(trial.last_result))

    def on_experiment_end(self, trials: Any, **_: Any) -> None:
        """Close the progress display."""
        self._open.close()
