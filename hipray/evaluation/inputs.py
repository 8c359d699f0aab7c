"""What a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.checklist import Topic
from hipray.evaluation.flow import FlowCounts, LeakCheck
from hipray.vocab import Cell, Covariate, LabelType

PAPER_CELLS = 72
"""Cells of the paper's full grid: 4 regions, 2 labels, 3 networks, 3 ways to prepare the data."""


class ProtocolItem(StrEnum):
    """What a caller can state of how the results came about; any other name may stand beside."""

    SPLIT = "Split"
    SEGMENTER = "Segmenter"
    MASKS = "Masks"
    CLASSIFIER = "Classifier"
    CLASS_WEIGHTS = "Class weights"
    START_WEIGHTS = "Start weights"
    COVARIATES = "Covariates"
    SELECTION = "Chosen on inner validation"
    FITS = "Fits"


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made of; the frames have one row per prediction, fit, score and hip."""

    predictions: pd.DataFrame
    fits: pd.DataFrame
    manifest: pd.DataFrame
    flow: FlowCounts
    leak: LeakCheck
    segmentation: pd.DataFrame | None = None
    overlays: Sequence[bytes] = ()  # PNG
    protocol: Mapping[str, str] = field(default_factory=dict)  # ProtocolItem or other name to value
    labels: Mapping[LabelType, str] = field(default_factory=dict)  # when each is abnormal, and why
    split: pd.DataFrame | None = None  # repeat, fold and hip_id of all hips that were dealt
    told: Sequence[Covariate] = ()  # what any network of the run is told beside the film
    members: Sequence[Cell] = ()  # of a release to evaluate end to end
    planned_cells: int = PAPER_CELLS
    statements: Mapping[Topic, str] = field(default_factory=dict)  # what only people can tell
    optimistic: str | None = None  # a sentence: why the results are better than the truth
    title: str = "Hip radiograph classification report"
    config: EvaluationConfig = field(default_factory=EvaluationConfig)
