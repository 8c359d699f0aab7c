"""How far an archive's scores are from those of the films a release was evaluated on.

The population stability index compares shares per bin (Siddiqi, Credit Risk Scorecards, 2006):
below 0.1 little has moved, above 0.25 much. Of few hips the index is large by chance alone: it
counts only beyond the 95 % quantile of an archive that has not moved, chi-squared with one degree
less than there are bins, over the two numbers of hips (Yurdakul and Naranjo 2020). The bins are
the deciles of the release's own out-of-fold scores, which the release carries.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hipray.evaluation.release_result import MeasuredScores
from hipray.metrics import population_stability
from hipray.releases.release import Release
from hipray.scoring.rows import probability_column
from hipray.scoring.tally import HEADLINE, Histogram

MODERATE, LARGE = 0.1, 0.25


class DriftLevel(StrEnum):
    """What an index means."""

    LITTLE = "little"
    MODERATE = "moderate"
    LARGE = "large"


@dataclass(frozen=True)
class Drift:
    """The shift of one column of probabilities."""

    column: str
    index: float
    """Population stability index."""
    reference: int
    """Out-of-fold hips of the release."""
    scored: int
    """Hips of the archive."""
    chance: float
    """The index that only one in twenty archives exceeds which has not moved at all."""

    @property
    def level(self) -> DriftLevel:
        """The index in words."""
        if self.index < max(MODERATE, self.chance):
            return DriftLevel.LITTLE
        return DriftLevel.MODERATE if self.index < LARGE else DriftLevel.LARGE

    def as_dict(self) -> dict[str, Any]:
        """Return the drift as JSON values."""
        return {
            "population_stability_index": self.index,
            "level": self.level.value,
            "by_chance": self.chance,
            "reference_hips": self.reference,
            "scored_hips": self.scored,
        }


def reference_edges(release: Release) -> dict[str, tuple[float, ...]]:
    """Return the edges between which a column's probabilities must be counted to measure drift."""
    return {column: scores.distribution.edges for column, scores in _references(release)}


def measure_drift(release: Release, histograms: dict[str, Histogram]) -> list[Drift]:
    """Return the drift of each column whose distribution the release knows and hips were scored.

    Histograms have the release's `reference_edges`.
    """
    known = dict(_references(release))
    return [
        _measure_column(column, known[column], found)
        for column, found in histograms.items()
        if column in known and found.total
    ]


def _measure_column(column: str, known: MeasuredScores, found: Histogram) -> Drift:
    shares = known.distribution.shares
    return Drift(
        column,
        population_stability(shares, found.between),
        known.n_hips,
        found.total,
        _index_by_chance(len(shares), known.n_hips, found.total),
    )


def _index_by_chance(bins: int, reference: int, scored: int) -> float:
    from scipy.stats import chi2  # a second of CPU, for all who only count

    return float(chi2.ppf(0.95, bins - 1) * (1 / reference + 1 / scored))


def _references(release: Release) -> Iterator[tuple[str, MeasuredScores]]:
    """What was measured of each column on the hips that the release's members did not see."""
    if release.evaluation is None:
        return
    yield HEADLINE, release.evaluation
    for scores in release.evaluation.regions:
        yield probability_column(scores.label_type, scores.region), scores
