"""Decision thresholds follow the rule that the configuration names."""

import numpy as np
import pytest

from hipray.config.experiment import ThresholdRule
from hipray.training.thresholds import choose_threshold

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.2, 0.6, 0.3, 0.5, 0.55, 0.7, 0.8, 0.9, 0.95])


def choose(rule, sensitivity=0.85):
    return choose_threshold(LABELS, SCORES, rule, sensitivity=sensitivity)


def test_half_is_one_half_whatever_the_scores_are() -> None:
    assert choose(ThresholdRule.HALF) == 0.5


def test_youden_lies_where_sensitivity_and_specificity_add_up_highest() -> None:
    assert 0.2 < choose(ThresholdRule.YOUDEN) <= 0.3


@pytest.mark.parametrize("wanted", [0.5, 0.85, 1.0])
def test_a_screening_threshold_is_the_highest_that_keeps_the_sensitivity(wanted) -> None:
    threshold = choose(ThresholdRule.SENSITIVITY, wanted)
    abnormal = SCORES[LABELS == 1]
    kept = abnormal[abnormal >= threshold]
    assert len(kept) / len(abnormal) >= wanted
    assert (len(kept) - 1) / len(abnormal) < wanted


def test_every_rule_has_a_threshold() -> None:
    assert all(np.isfinite(choose(rule)) for rule in ThresholdRule)
