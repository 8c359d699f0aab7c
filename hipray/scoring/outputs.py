"""Where a scoring run keeps its index, parts and summary."""

from hipray.config.jobs import PlanRun, ScoreRun, StatusRun
from hipray.storage import Store, open_store
from hipray.storage.retrying import RetryingStore


def open_output(config: ScoreRun | StatusRun | PlanRun) -> Store:
    """Return the store of a run's output: the one it names, or scores/ of its workspace."""
    if config.output is not None:
        return open_store(config.output, config.storage)
    return open_store(config.workspace, config.storage).child("scores")


def open_patient_output(config: ScoreRun) -> Store:
    """Return the same store for who waits out its outages: driver, listing and model actors."""
    return RetryingStore(open_output(config), patience_s=config.store_wait_s)
