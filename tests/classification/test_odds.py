"""Answers of networks become log odds of being abnormal."""

import numpy as np
import pytest

from hipray.classification.odds import OddsScale, ScoreScale, find_threshold, standardise
from hipray.metrics import sigmoid

SCALE = ScoreScale(centre=-2.0, spread=1.0, threshold=-2.5, error=0.5)


def test_logits_are_freed_of_class_weights() -> None:
    answers = np.float32([[0.0, 1.0]])
    plain = OddsScale().log_odds(answers)
    weighted = OddsScale((1.0, np.e)).log_odds(answers)
    assert plain[0] - weighted[0] == pytest.approx(1.0)


def test_a_score_at_its_threshold_is_even_odds_and_lower_scores_are_worse() -> None:
    odds = OddsScale(score=SCALE).log_odds(np.float32([[-0.5], [-1.5], [1.0]]))
    assert odds[0] == pytest.approx(0.0)
    assert odds[1] > odds[0] > odds[2]


def test_odds_follow_the_normal_error_of_a_score() -> None:
    odds = OddsScale(score=SCALE).log_odds(np.float32([[0.0]]))
    assert sigmoid(odds)[0] == pytest.approx(0.159, abs=0.02)  # one standard error above


def test_an_error_of_nothing_makes_no_certainty() -> None:
    sure = ScoreScale(centre=-2.0, spread=1.0, threshold=-2.5, error=0.0)
    assert np.isfinite(OddsScale(score=sure).log_odds(np.float32([[0.0]]))).all()


def test_scores_are_learned_at_zero_mean_and_unit_spread() -> None:
    scores = np.array([-4.0, -2.0, 0.0])
    unit = standardise(scores, threshold=-2.5)
    assert unit.scores((scores - unit.centre) / unit.spread) == pytest.approx(scores)
    assert standardise(np.array([-1.0, -1.0]), threshold=-2.5).spread == 1.0


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [([-3.0, -2.5, -2.4], -2.5), ([-3.0, -1.0, -0.6], -0.8), ([-3.0, -2.0, -2.4], None)],
)
def test_the_threshold_is_the_usual_one_or_lies_between_the_classes(scores, threshold) -> None:
    found = find_threshold(np.array(scores), np.array([1, 1, 0]), usual=-2.5)
    assert found == (threshold if threshold is None else pytest.approx(threshold))


def test_one_class_has_no_threshold() -> None:
    assert find_threshold(np.array([-3.0]), np.array([1]), usual=-2.5) is None
