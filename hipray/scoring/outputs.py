"""Where a scoring run keeps its index, parts and summary."""

from hipray.config.jobs import PlanRun, ScoreRun, StatusRun
from hipray.storage import Store, open_store


def open_output(config: ScoreRun | StatusRun | PlanRun) -> Store:
    """Return the store of a run's output: the one it names, or scores/ of its workspace."""
    if config.output is not None:
        return open_store(config.output, config.storage)
    return open_store(config.workspace, config.storage).child("scores")
