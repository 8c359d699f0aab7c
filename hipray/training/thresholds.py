"""The decision threshold of a fit or a release, chosen on inner validation and never on test."""

from typing import assert_never

import numpy as np
import numpy.typing as npt

from hipray.config.experiment import ThresholdRule
from hipray.metrics import threshold_at_sensitivity, youden_threshold


def choose_threshold(
    labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    rule: ThresholdRule,
    *,
    sensitivity: float,
) -> float:
    """Return the threshold that `rule` gives on labels (n,) and scores (n,) of inner hips.

    NaN where the rule needs both classes and finds one; `sensitivity` is what
    ThresholdRule.SENSITIVITY keeps.
    """
    match rule:
        case ThresholdRule.YOUDEN:
            return youden_threshold(labels, scores)
        case ThresholdRule.SENSITIVITY:
            return threshold_at_sensitivity(labels, scores, sensitivity)
        case ThresholdRule.HALF:
            return 0.5
        case _:
            assert_never(rule)
