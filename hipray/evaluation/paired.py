"""Draw the AUROC differences of models on their common tests, every pair on the same resamples.

A test is a hip in a repeat. A model that was tested in more repeats than another averages more
networks: what both compare by is what both have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import (
    MIN_PER_CLASS,
    WEIGHTS_PER_BLOCK,
    build_sample,
    count_least,
)
from hipray.evaluation.results import average_repeats
from hipray.evaluation.statistics import STATISTICS, Metric
from hipray.metrics import FloatArray

Draw = tuple[float, FloatArray]  # the AUROC and its value in each resample (B,)


Tests = frozenset[tuple[int, str]]
"""Pairs of repeat and hip_id."""


class Contestant:
    """A model with its tests: `repeat`, `hip_id`, `patient_id`, `label`, `probability`."""

    def __init__(self, name: str, tests: pd.DataFrame) -> None:
        self.name = name
        self.tests: Tests = frozenset(zip(tests["repeat"], tests["hip_id"], strict=True))
        self._rows = tests.set_index(["repeat", "hip_id"], drop=False).rename_axis([None, None])

    def pool(self, chosen: Tests) -> pd.DataFrame:
        """Return one row per hip of the chosen tests, its probability averaged over repeats."""
        return average_repeats(self._rows[self._rows.index.isin(chosen)])


def share_tests(contestants: Sequence[Contestant]) -> Tests:
    """Return the tests that all contestants have."""
    return frozenset.intersection(*(contestant.tests for contestant in contestants))


@dataclass(frozen=True)
class Difference:
    """The AUROC of one model less that of another on their common tests."""

    value: float
    drawn: FloatArray  # (B,)
    n_least: int  # patients with a hip of the rarer class

    @property
    def testable(self) -> bool:
        """Whether there are enough patients of both classes for a test."""
        return self.n_least >= MIN_PER_CLASS


class PairedAurocs:
    """Compares models; each AUROC is drawn once per set of tests, patients alike for all."""

    def __init__(self, contestants: Sequence[Contestant], config: EvaluationConfig) -> None:
        patients = [contestant.pool(contestant.tests)["patient_id"] for contestant in contestants]
        self._patients = pd.Index(sorted(set(pd.concat(patients))))
        n = len(self._patients)
        generator = np.random.default_rng(config.seed)
        self._counts = generator.multinomial(n, np.full(n, 1 / n), config.resamples)
        self._drawn: dict[tuple[str, Tests], Draw] = {}

    def compare(
        self, first: Contestant, second: Contestant, *, on: Tests | None = None
    ) -> Difference | None:
        """Return the AUROC of `first` less that of `second` on tests that both have.

        `on` all of these, or some of them; None where there is none.
        """
        common = share_tests([first, second]) if on is None else on
        if not common:
            return None
        left, right = self._draw(first, common), self._draw(second, common)
        return Difference(left[0] - right[0], left[1] - right[1], count_least(first.pool(common)))

    def measure(self, contestant: Contestant, on: Tests) -> float:
        """Return the AUROC of a contestant on some of its tests; NaN where it is not defined."""
        return self._draw(contestant, on)[0] if on else math.nan

    def _draw(self, contestant: Contestant, common: Tests) -> Draw:
        key = (contestant.name, common)
        if key not in self._drawn:
            self._drawn[key] = self._draw_auroc(contestant.pool(common))
        return self._drawn[key]

    def _draw_auroc(self, hips: pd.DataFrame) -> Draw:
        statistic, sample = STATISTICS[Metric.AUROC], build_sample(hips.assign(positive=False))
        owner = self._patients.get_indexer(hips["patient_id"])
        n_blocks = -(-len(self._counts) * len(hips) // WEIGHTS_PER_BLOCK)
        drawn = [
            statistic(sample, block[:, owner].astype(np.float64))
            for block in np.array_split(self._counts, n_blocks)
        ]
        once = np.ones((1, len(hips)))
        return float(statistic(sample, once)[0]), np.concatenate(drawn)
