"""Configuration of evaluation and the report."""

from enum import StrEnum

from pydantic import Field

from hipray.config.base import Config
from hipray.config.experiment import ThresholdRule


class Combine(StrEnum):
    """How the members of one region and label become one probability."""

    MEAN = "mean"
    MEDIAN = "median"
    WEIGHTED = "weighted"  # convex weights that minimise the log loss of inner-validation hips


class EvaluationConfig(Config):
    """How results are summarised: intervals, calibration bins, subgroups and figures."""

    resamples: int = Field(default=1000, ge=100, le=100_000)
    """Bootstrap resamples of patients behind every interval."""

    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Coverage of every interval; one minus it is the family-wise error of every comparison."""

    fold_widening: float = Field(default=1.5, ge=1, le=10)
    """Factor on the deviations behind every interval and p, since the networks of several folds
    share training patients and a bootstrap of their scores cannot see that. A report sets it by
    the run's split where it is not stated: 1.5 for five folds, all tested. 1 would state intervals
    that hold for these trained networks alone."""

    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap: the same predictions and seed give the same report, byte for byte."""

    combine: Combine = Combine.MEAN
    """How the members of a release are combined, in the report as in the release."""

    threshold: ThresholdRule = ThresholdRule.YOUDEN
    """Rule for the decision threshold of combined probabilities, on inner validation."""

    screening_sensitivity: float = Field(default=0.85, gt=0, le=1)
    """Sensitivity that threshold = 'sensitivity' keeps."""

    calibration_bins: int = Field(default=10, ge=2, le=50)
    """Equal-width bins of the expected calibration error and the calibration plot."""

    subgroup_minimum: int = Field(default=20, ge=2)
    """Patients a subgroup needs before its numbers are shown; of each class it needs half."""

    embed_figures: bool = True
    """Put the figures into the HTML page, so that the page alone can be passed on."""

    max_overlays: int = Field(default=12, ge=0, le=100)
    """Segmentation overlays shown at most."""

    @property
    def subgroup_class_minimum(self) -> float:
        """Patients of each class that a subgroup needs."""
        return self.subgroup_minimum / 2
