"""Where the curves of a run are shown beside its own files, which are always written first."""

from hipray.config.base import Config


class Tracking(Config):
    """Trackers of finished fits; none by default."""

    tensorboard: bool = False
    """Write event files to runs/<run>/tensorboard/, one folder per fit."""
    mlflow_uri: str | None = None
    """Tracking server or folder of MLflow (needs the extra `mlflow`); one MLflow run per fit."""
    mlflow_experiment: str = "hipray"
    """Experiment that those runs belong to."""
