"""What a release reached out of fold, as its JSON states it; what is not defined is null there."""

from collections.abc import Mapping
from typing import Self

from hipray.config.base import Config
from hipray.config.evaluation import Combine
from hipray.config.experiment import ThresholdRule
from hipray.evaluation.intervals import Interval
from hipray.evaluation.statistics import Metric
from hipray.vocab import Baseline, DataSource, LabelType, Region

NAN = float("nan")


class StatedInterval(Config):
    """A value with its interval."""

    value: float | None
    low: float | None
    high: float | None
    n_resamples: int
    n_undefined: int
    """Resamples in which the statistic is not defined."""

    @classmethod
    def of(cls, interval: Interval) -> Self:
        """Return an interval as JSON can state it."""
        return cls(
            value=_or_none(interval.value), low=_or_none(interval.low),
            high=_or_none(interval.high),
            n_resamples=interval.n_resamples, n_undefined=interval.n_undefined,
        )  # fmt: skip

    @property
    def interval(self) -> Interval:
        """The interval again, NaN where nothing is defined."""
        value, low, high = (NAN if v is None else v for v in (self.value, self.low, self.high))
        return Interval(value, low, high, self.n_resamples, self.n_undefined)


class ScoreDistribution(Config):
    """Deciles of scores and the share between them: what drift is measured against.

    Equal scores make equal deciles, so a share may differ from a tenth.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]


class MeasuredScores(Config):
    """Scores of hips that no member saw, against their labels."""

    n_hips: int
    n_patients: int
    n_positives: int
    metrics: Mapping[Metric, StatedInterval]
    calibration_in_the_large: float | None
    ece: float
    distribution: ScoreDistribution


class RegionScores(MeasuredScores):
    """The combined result of one region and label."""

    region: Region
    label_type: LabelType


class RivalScores(Config):
    """What a baseline reaches on the release's hips."""

    baseline: Baseline
    title: str
    metrics: Mapping[Metric, StatedInterval]
    gain: StatedInterval | None = None
    """AUROC of the release less the baseline's, where both have one."""


class ReleaseResult(MeasuredScores):
    """The release end to end: its headline, its regions, and what needs no film."""

    endpoint: str
    source: DataSource
    members: tuple[str, ...]
    combine: Combine
    threshold_rule: ThresholdRule
    n_folds: int
    """(repeat, fold) pairs that every member ran on."""
    n_repeats: int
    n_folds_without_threshold: int
    n_without_t_score: int
    """Scored hips that lack the T-score that would decide."""
    baselines: tuple[RivalScores, ...]
    regions: tuple[RegionScores, ...]


def _or_none(value: float) -> float | None:
    return value if value == value else None
