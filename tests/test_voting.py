"""One rule for what is evaluated and what is served."""

import numpy as np
import pytest

from hipray.config.evaluation import Combine
from hipray.voting import combine_votes

VOTES = np.array([[0.1, 0.8], [0.2, 0.2], [0.9, 0.5]])


@pytest.mark.parametrize(
    ("combine", "weights", "expected"),
    [
        (Combine.MEAN, [1, 1, 1], [0.4, 0.5]),
        (Combine.MEDIAN, [1, 1, 1], [0.2, 0.5]),
        (Combine.WEIGHTED, [0.5, 0.5, 0.0], [0.15, 0.5]),
        (Combine.WEIGHTED, [2, 2, 0], [0.15, 0.5]),
    ],
)
def test_members_become_one_probability_by_the_releases_rule(combine, weights, expected) -> None:
    assert combine_votes(VOTES, weights, combine) == pytest.approx(expected)


def test_every_rule_combines() -> None:
    for combine in Combine:
        assert combine_votes(VOTES, [1, 1, 1], combine).shape == (2,)
