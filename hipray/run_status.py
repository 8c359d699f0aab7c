"""Where a run stands, whatever it is: a grid, a search or a scoring of an archive."""

from hipray.config.jobs import StatusRun
from hipray.config.scoring import PlannedJob
from hipray.scoring import status as scoring_status
from hipray.scoring.outputs import open_output
from hipray.storage import open_store
from hipray.training import status as training_status


def describe_run_status(config: StatusRun) -> str:
    """Return counts, failures and the time left of a run, in lines; DataError without that run."""
    if config.output is not None or config.run == PlannedJob.SCORE:
        return scoring_status.describe_status(open_output(config))
    store = open_store(config.workspace, config.storage)
    return training_status.describe_status(store, config.run)
