"""Put intervals around statistics by resampling patients, since two hips of one are not two.

One row of a frame is one hip after averaging over repeats: `patient_id`, `label`, `score`,
`positive`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.stats import beta

from hipray.evaluation.statistics import Sample, WeightedStatistic
from hipray.metrics import FloatArray

NameT = TypeVar("NameT", bound=str)

WEIGHTS_PER_BLOCK = 4_000_000  # weights held at once, in elements: 32 MB of float64


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval; NaN ends where fewer than two resamples define it."""

    value: float
    low: float
    high: float
    n_resamples: int
    n_undefined: int  # resamples in which the statistic is not defined, for AUROC: one class only


def bootstrap_patients(
    frame: pd.DataFrame,
    statistics: Mapping[NameT, WeightedStatistic],
    *,
    n_resamples: int = 1000,
    seed: int,
    level: float = 0.95,
) -> dict[NameT, Interval]:
    """Return each statistic with its percentile interval over resampled patients.

    Patients are drawn with replacement and bring all their hips (cluster bootstrap, Davison and
    Hinkley 1997, section 3.8). All statistics see the same resamples.
    """
    sample = build_sample(frame)
    once = np.ones((1, len(frame)))
    drawn: dict[NameT, list[FloatArray]] = {name: [] for name in statistics}
    for weights in draw_weights(frame, n_resamples, seed):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(sample, weights))
    return {
        name: build_interval(float(statistic(sample, once)[0]), np.concatenate(drawn[name]), level)
        for name, statistic in statistics.items()
    }


def build_sample(frame: pd.DataFrame) -> Sample:
    """Return the arrays of a frame with `label`, `score` and `positive`."""
    return Sample(
        labels=frame["label"].to_numpy(dtype=np.bool_),
        scores=frame["score"].to_numpy(dtype=np.float64),
        positives=frame["positive"].to_numpy(dtype=np.bool_),
    )


def exact_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval of successes/n (Clopper and Pearson 1934)."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"expected 0 <= successes <= n and n > 0, found {successes} of {n}")
    tail = (1 - level) / 2
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


def build_interval(value: float, drawn: FloatArray, level: float) -> Interval:
    """Return `value` with the percentile interval of its resampled values (B,)."""
    defined = drawn[np.isfinite(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size > 1 else (np.nan, np.nan)
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        n_resamples=drawn.size,
        n_undefined=drawn.size - defined.size,
    )
