"""What rebuilds a trained classifier beside its weights, as written in fits and bundles."""

from typing import Literal

from hipray.classification.odds import OddsScale
from hipray.config.base import Config
from hipray.config.experiment import ClassifierSettings, MattingSettings
from hipray.metrics import PlattScaling
from hipray.vocab import Cell, ModelKind


class ClassifierSpec(Config):
    """A classifier without its weights."""

    kind: Literal[ModelKind.CLASSIFIER] = ModelKind.CLASSIFIER
    """What it does."""
    cell: Cell
    """The experiment it was trained in."""
    settings: ClassifierSettings
    """How it was built and trained."""
    matting: MattingSettings
    """How its region was cut out."""
    odds: OddsScale
    """How its answers become log odds."""
    calibrator: PlattScaling
    """From scores to probabilities, fitted on inner validation."""
    threshold: float
    """Score at or above which a hip is abnormal, chosen on inner validation."""
    working_px: int
    """Side of the square frame its films are cut from."""
