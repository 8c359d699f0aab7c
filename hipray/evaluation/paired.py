"""Draw the AUROC differences of models on their common hips, every pair on the same resamples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import WEIGHTS_PER_BLOCK, build_sample
from hipray.evaluation.statistics import STATISTICS, Metric
from hipray.metrics import FloatArray

MIN_PER_CLASS = (
    10  # patients of each class below which a bootstrap of the AUROC is not to be trusted
)

Draw = tuple[float, FloatArray]  # the AUROC and its value in each resample (B,)


class Contestant:
    """A model with its pooled hips: `hip_id`, `patient_id`, `label`, `score`, `positive`."""

    def __init__(self, name: str, hips: pd.DataFrame) -> None:
        self.name = name
        self.hips = hips.sort_values("hip_id")
        self.ids = frozenset(hips["hip_id"])


@dataclass(frozen=True)
class Difference:
    """The AUROC of one model less that of another on their common hips."""

    value: float
    drawn: FloatArray  # (B,)
    n_least: int  # patients with a hip of the rarer class

    @property
    def testable(self) -> bool:
        """Whether there are enough patients of both classes for a test."""
        return self.n_least >= MIN_PER_CLASS


class PairedAurocs:
    """Compares models; each AUROC is drawn once per set of hips, patients alike for all."""

    def __init__(self, contestants: Sequence[Contestant], config: EvaluationConfig) -> None:
        patients = pd.concat([contestant.hips["patient_id"] for contestant in contestants])
        self._patients = pd.Index(sorted(set(patients)))
        n = len(self._patients)
        generator = np.random.default_rng(config.seed)
        self._counts = generator.multinomial(n, np.full(n, 1 / n), config.resamples)
        self._drawn: dict[tuple[str, frozenset[str]], Draw] = {}

    def compare(self, first: Contestant, second: Contestant) -> Difference | None:
        """Return the AUROC of `first` less that of `second`; None where they share no hip."""
        common = first.ids & second.ids
        if not common:
            return None
        shared = first.hips[first.hips["hip_id"].isin(common)]
        left, right = self._draw(first, common), self._draw(second, common)
        return Difference(left[0] - right[0], left[1] - right[1], _count_least(shared))

    def _draw(self, contestant: Contestant, common: frozenset[str]) -> Draw:
        key = (contestant.name, common)
        if key not in self._drawn:
            hips = contestant.hips[contestant.hips["hip_id"].isin(common)]
            self._drawn[key] = self._draw_auroc(hips)
        return self._drawn[key]

    def _draw_auroc(self, hips: pd.DataFrame) -> Draw:
        statistic, sample = STATISTICS[Metric.AUROC], build_sample(hips)
        owner = self._patients.get_indexer(hips["patient_id"])
        n_blocks = -(-len(self._counts) * len(hips) // WEIGHTS_PER_BLOCK)
        drawn = [
            statistic(sample, block[:, owner].astype(np.float64))
            for block in np.array_split(self._counts, n_blocks)
        ]
        once = np.ones((1, len(hips)))
        return float(statistic(sample, once)[0]), np.concatenate(drawn)


def _count_least(hips: pd.DataFrame) -> int:
    abnormal = hips["label"].astype(bool)
    return min(hips.loc[of_class, "patient_id"].nunique() for of_class in (abnormal, ~abnormal))
