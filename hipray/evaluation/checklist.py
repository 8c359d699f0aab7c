"""The reporting items of CLAIM (2024) and TRIPOD+AI (2024), as topics that share one answer.

CLAIM: Tejani et al. 2024, doi 10.1148/ryai.240300, 44 items. TRIPOD+AI: Collins et al. 2024,
doi 10.1136/bmj-2023-078378, 27 items with their sub-items. The wording is hipray's own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    """What a model card states, in reading order; the value is what a person reads."""

    TITLE = "Title"
    SUMMARY = "Summary"
    BACKGROUND = "Background, intended use and population"
    INEQUALITIES = "Known health inequalities"
    OBJECTIVES = "Objectives"
    DESIGN = "Prospective or retrospective"
    GOAL = "Study goal"
    DATA_SOURCES = "Data sources"
    DATES = "Dates of the data"
    SETTING = "Setting and centres"
    ELIGIBILITY = "Inclusion and exclusion"
    TREATMENTS = "Treatments received"
    PREPROCESSING = "Data preparation"
    SUBSETS = "Selection of data subsets"
    DEIDENTIFICATION = "De-identification"
    MISSING_DATA = "Missing data"
    ACQUISITION = "Image acquisition"
    REFERENCE = "Reference standard and outcome"
    REFERENCE_RATIONALE = "Rationale of the reference standard"
    ASSESSORS = "Outcome assessors and blinding"
    ANNOTATIONS = "Source of annotations"
    TEST_ANNOTATION = "Annotation of the test set"
    VARIABILITY = "Variability between and within raters"
    PREDICTORS = "Predictors"
    PREDICTOR_ASSESSORS = "Predictor assessors"
    PARTITIONS = "Assignment to partitions"
    DISJOINT = "Level at which partitions are disjoint"
    SAMPLE_SIZE = "Intended sample size"
    MODEL = "Model"
    SOFTWARE = "Software"
    INITIALISATION = "Initial parameters"
    TRAINING = "Training"
    SELECTION = "Selection of the final model"
    ENSEMBLE = "Ensemble"
    PREDICTOR_HANDLING = "Handling of predictors"
    CLUSTERS = "Heterogeneity across clusters"
    METRICS = "Measures of performance"
    UNCERTAINTY = "Uncertainty and significance"
    ROBUSTNESS = "Robustness and sensitivity analysis"
    EXPLAINABILITY = "Explainability"
    RECALIBRATION = "Recalibration"
    PREDICTION = "How predictions are calculated"
    IMBALANCE = "Class imbalance"
    FAIRNESS = "Fairness"
    OUTPUT = "Model output and threshold"
    INTERNAL = "Evaluation on internal data"
    EXTERNAL = "Evaluation on external data"
    DIFFERENCES = "Differences between training and evaluation data"
    ETHICS = "Ethical approval"
    FUNDING = "Funding"
    CONFLICTS = "Conflicts of interest"
    PROTOCOL = "Study protocol"
    REGISTRATION = "Registration"
    DATA_SHARING = "Availability of data"
    CODE_SHARING = "Availability of code and model"
    INVOLVEMENT = "Patient and public involvement"
    FLOW = "Included and excluded"
    DEMOGRAPHICS = "Demographic characteristics"
    COMPARISON = "Development beside evaluation participants"
    EVENTS = "Participants and events per analysis"
    SPECIFICATION = "Full model specification"
    PERFORMANCE = "Performance"
    SUBGROUPS = "Performance in subgroups"
    FAILURES = "Failure analysis"
    UPDATING = "Results of model updating"
    INTERPRETATION = "Interpretation"
    LIMITATIONS = "Limitations"
    POOR_INPUT = "Handling of poor or missing input"
    USER_INTERACTION = "What a user must do and know"
    NEXT_STEPS = "Next steps, applicability and implications"


@dataclass(frozen=True)
class Items:
    """The items of both checklists that one topic answers."""

    claim: tuple[int, ...] = ()
    tripod: tuple[str, ...] = ()


CHECKLIST = {
    Topic.TITLE: Items((1,), ("1",)),
    Topic.SUMMARY: Items((2,), ("2",)),
    Topic.BACKGROUND: Items((3,), ("3a", "3b")),
    Topic.INEQUALITIES: Items((), ("3c",)),
    Topic.OBJECTIVES: Items((4,), ("4",)),
    Topic.DESIGN: Items((5,)),
    Topic.GOAL: Items((6,)),
    Topic.DATA_SOURCES: Items((7,), ("5a",)),
    Topic.DATES: Items((), ("5b",)),
    Topic.SETTING: Items((), ("6a",)),
    Topic.ELIGIBILITY: Items((8,), ("6b",)),
    Topic.TREATMENTS: Items((), ("6c",)),
    Topic.PREPROCESSING: Items((9,), ("7",)),
    Topic.SUBSETS: Items((10,)),
    Topic.DEIDENTIFICATION: Items((11,)),
    Topic.MISSING_DATA: Items((12,), ("11",)),
    Topic.ACQUISITION: Items((13,)),
    Topic.REFERENCE: Items((14,), ("8a",)),
    Topic.REFERENCE_RATIONALE: Items((15,)),
    Topic.ASSESSORS: Items((), ("8b", "8c")),
    Topic.ANNOTATIONS: Items((16,)),
    Topic.TEST_ANNOTATION: Items((17,)),
    Topic.VARIABILITY: Items((18,)),
    Topic.PREDICTORS: Items((), ("9a", "9b")),
    Topic.PREDICTOR_ASSESSORS: Items((), ("9c",)),
    Topic.PARTITIONS: Items((19,), ("12a",)),
    Topic.DISJOINT: Items((20,)),
    Topic.SAMPLE_SIZE: Items((21,), ("10",)),
    Topic.MODEL: Items((22,), ("12c",)),
    Topic.SOFTWARE: Items((23,)),
    Topic.INITIALISATION: Items((24,)),
    Topic.TRAINING: Items((25,)),
    Topic.SELECTION: Items((26,)),
    Topic.ENSEMBLE: Items((27,)),
    Topic.PREDICTOR_HANDLING: Items((), ("12b",)),
    Topic.CLUSTERS: Items((), ("12d",)),
    Topic.METRICS: Items((28,), ("12e",)),
    Topic.UNCERTAINTY: Items((29,)),
    Topic.ROBUSTNESS: Items((30,)),
    Topic.EXPLAINABILITY: Items((31,)),
    Topic.RECALIBRATION: Items((), ("12f",)),
    Topic.PREDICTION: Items((), ("12g",)),
    Topic.IMBALANCE: Items((), ("13",)),
    Topic.FAIRNESS: Items((), ("14",)),
    Topic.OUTPUT: Items((), ("15",)),
    Topic.INTERNAL: Items((32,)),
    Topic.EXTERNAL: Items((33,)),
    Topic.DIFFERENCES: Items((), ("16",)),
    Topic.ETHICS: Items((), ("17",)),
    Topic.FUNDING: Items((44,), ("18a",)),
    Topic.CONFLICTS: Items((), ("18b",)),
    Topic.PROTOCOL: Items((42,), ("18c",)),
    Topic.REGISTRATION: Items((34,), ("18d",)),
    Topic.DATA_SHARING: Items((43,), ("18e",)),
    Topic.CODE_SHARING: Items((43,), ("18f",)),
    Topic.INVOLVEMENT: Items((), ("19",)),
    Topic.FLOW: Items((35,), ("20a",)),
    Topic.DEMOGRAPHICS: Items((36,), ("20b",)),
    Topic.COMPARISON: Items((), ("20c",)),
    Topic.EVENTS: Items((), ("21",)),
    Topic.SPECIFICATION: Items((), ("22",)),
    Topic.PERFORMANCE: Items((37, 38), ("23a",)),
    Topic.SUBGROUPS: Items((), ("23b",)),
    Topic.FAILURES: Items((39,)),
    Topic.UPDATING: Items((), ("24",)),
    Topic.INTERPRETATION: Items((), ("25",)),
    Topic.LIMITATIONS: Items((40,), ("26",)),
    Topic.POOR_INPUT: Items((), ("27a",)),
    Topic.USER_INTERACTION: Items((), ("27b",)),
    Topic.NEXT_STEPS: Items((41,), ("27c",)),
}
