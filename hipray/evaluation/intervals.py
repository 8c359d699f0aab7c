"""Put intervals around statistics by resampling patients, since two hips of one are not two.

One row of a frame is one hip after averaging over repeats: `patient_id`, `label`, `score`,
`positive`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.statistics import (
    DENOMINATORS,
    LIMITS,
    NO_LIMITS,
    SHARE,
    Metric,
    Sample,
    WeightedStatistic,
)
from hipray.metrics import FloatArray

NameT = TypeVar("NameT", bound=str)

MOST_UNDEFINED = 0.05
"""Largest share of resamples in which a statistic may be undefined and still get an interval."""

MIN_PER_CLASS = 10
"""Patients of each class below which a bootstrap of the AUROC is not to be trusted."""
OF_BOTH_CLASSES = frozenset({Metric.AUROC, Metric.AUPRC})
"""Metrics of the order of two classes; with few of one their resamples are all alike."""

WEIGHTS_PER_BLOCK = 4_000_000  # weights held at once, in elements: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """A value with its interval; NaN ends where the resamples say too little for one."""

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int  # resamples in which the statistic is not defined, for AUROC: one class only


def bootstrap_patients(
    frame: pd.DataFrame,
    statistics: Mapping[NameT, WeightedStatistic],
    config: EvaluationConfig,
    *,
    limits: tuple[float, float] = NO_LIMITS,
) -> dict[NameT, Interval]:
    """Return each statistic with its interval over resampled patients.

    Patients are drawn with replacement and bring all their hips (cluster bootstrap, Davison and
    Hinkley 1997, section 3.8). All statistics see the same resamples. `limits` are the least and
    largest value of statistics that are no Metric. A share of 0 or 1, whose
    resamples all agree, gets the exact binomial interval of its patients, and an AUROC or AUPRC of
    fewer than MIN_PER_CLASS patients of a class none.
    """
    sample = build_sample(frame)
    once = np.ones((1, len(frame)))
    drawn: dict[NameT, list[FloatArray]] = {name: [] for name in statistics}
    for weights in draw_weights(frame, config.resamples, config.seed):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(sample, weights))
    found = {
        name: build_interval(
            float(statistic(sample, once)[0]), np.concatenate(drawn[name]), config,
            limits=LIMITS.get(name, limits),
        )
        for name, statistic in statistics.items()
    }  # fmt: skip
    return {name: _mend_certainty(name, own, frame, config) for name, own in found.items()}


def widen_for_folds(
    config: EvaluationConfig, *, folds: int, tested: int, repeats: int
) -> EvaluationConfig:
    """Return `config` with the widening that a split asks for, unless it states one.

    sqrt(1 + J n_test / n_train) with J tested folds of k and n_test / n_train = 1 / (k - 1): the
    corrected variance of Nadeau and Bengio (2003), as a factor on a standard error. Repeats deal
    the folds anew: of R of them the tested folds hold a share 1 - (1 - J / k)^R of the hips.
    """
    if "fold_widening" in config.model_fields_set:
        return config
    covered = folds * (1 - (1 - tested / folds) ** repeats)
    return config.model_copy(update={"fold_widening": math.sqrt(1 + covered / (folds - 1))})


def count_least(hips: pd.DataFrame) -> int:
    """Return the patients with a hip of the rarer class; of two classes, 0 where one is absent."""
    abnormal = hips["label"].astype(bool)
    return min(hips.loc[of_class, "patient_id"].nunique() for of_class in (abnormal, ~abnormal))


def _mend_certainty(
    name: str, interval: Interval, frame: pd.DataFrame, config: EvaluationConfig
) -> Interval:
    """Two of two found is not certainty, however often it is resampled."""
    if name in OF_BOTH_CLASSES and count_least(frame) < MIN_PER_CLASS:
        return replace(interval, low=math.nan, high=math.nan)
    if interval.low != interval.high or interval.value not in LIMITS.get(name, SHARE):
        return interval
    if name not in DENOMINATORS:
        return replace(interval, low=math.nan, high=math.nan)
    asked = DENOMINATORS[Metric(name)](build_sample(frame))
    n = frame.loc[asked, "patient_id"].nunique()
    # folds that share training patients are worth fewer patients than they test
    worth = n / config.fold_widening**2
    low, high = exact_interval(interval.value * worth, worth, level=config.level)
    return replace(interval, low=low, high=high)


def build_sample(frame: pd.DataFrame) -> Sample:
    """Return the arrays of a frame with `label`, `score` and `positive`."""
    return Sample(
        labels=frame["label"].to_numpy(dtype=np.bool_),
        scores=frame["score"].to_numpy(dtype=np.float64),
        positives=frame["positive"].to_numpy(dtype=np.bool_),
    )


def exact_interval(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval of successes/n (Clopper and Pearson 1934).

    An effective number need not be whole: the interval is continuous in both.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    tail = (1 - level) / 2
    from scipy.stats import beta  # a second of CPU, for all who only read intervals

    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def draw_weights(frame: pd.DataFrame, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks of weights (B, n): how often each hip's patient was drawn."""
    owner, patients = pd.factorize(frame["patient_id"], sort=True)
    n_patients = len(patients)
    if n_patients == 0:
        raise ValueError("expected at least one patient to resample, found none")
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(n_patients, np.full(n_patients, 1 / n_patients), n_resamples)
    n_blocks = -(-n_resamples * len(frame) // WEIGHTS_PER_BLOCK)
    for block in np.array_split(counts, n_blocks):
        yield block[:, owner].astype(np.float64)


def build_interval(
    value: float,
    drawn: FloatArray,
    config: EvaluationConfig,
    *,
    limits: tuple[float, float] = NO_LIMITS,
) -> Interval:
    """Return `value` with the percentile interval of its resampled values (B,), widened for folds.

    `limits` are the least and largest value there can be. More than a few undefined resamples
    leave no interval: the rest are those that chance made kind.
    """
    defined = drawn[np.isfinite(drawn)]
    undefined = drawn.size - defined.size
    low = high = math.nan
    if defined.size > 1 and undefined <= MOST_UNDEFINED * drawn.size:
        tail = (1 - config.level) / 2
        ends = np.quantile(widen(value, defined, config), [tail, 1 - tail])
        low, high = (float(end) for end in np.clip(ends, *limits))
    return Interval(value, low, high, n_resamples=drawn.size, n_undefined=undefined)


def widen(value: float, drawn: FloatArray, config: EvaluationConfig) -> FloatArray:
    """Return resampled values (B,) with their deviations from `value` widened for folds."""
    return np.asarray(value + config.fold_widening * (drawn - value), dtype=np.float64)
