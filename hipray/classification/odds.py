"""From what a network answers to the log odds of being abnormal.

A network that learned labels answers with logits that its class weights have shifted; one that
learned scores answers with a standardised T- or Z-score, which a threshold turns into odds.
Legend of shapes: B films, n training hips.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROBIT_TO_LOGIT = 1.702
"""log odds per standard error: the logistic curve closest to the normal one (Haley 1952)."""
LEAST_ERROR = 0.05
"""Standard error (T or Z) that is taken at least: below the precision of DXA itself."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreScale:
    """What a standardised score means: T or Z = centre + spread x answer."""

    centre: float
    spread: float
    threshold: float
    """Score at or below which a hip is abnormal."""
    error: float
    """Standard error of the scores on inner validation."""

    def scores(self, answers: Floats) -> Floats:
        """Return answers as T- or Z-scores."""
        return self.centre + self.spread * answers

    def log_odds(self, answers: Floats) -> Floats:
        """Return the log odds of a score at or below the threshold."""
        errors = max(self.error, LEAST_ERROR)
        return PROBIT_TO_LOGIT * (self.threshold - self.scores(answers)) / errors


@dataclass(frozen=True)
class OddsScale:
    """How the answers of one trained network become log odds."""

    class_weights: tuple[float, float] = (1.0, 1.0)
    """Weights of the loss, taken out of every logit."""
    score: ScoreScale | None = None
    """Set where the network answers with a score."""

    def log_odds(self, answers: npt.NDArray[np.float32]) -> Floats:
        """Return log odds (B,) of answers (B, 2) or (B, 1)."""
        values = answers.astype(np.float64)
        if self.score is not None:
            return self.score.log_odds(values[:, 0])
        return unweight_logit(values[:, 1] - values[:, 0], self.class_weights)


def standardise(train: Floats, *, threshold: float) -> ScoreScale:
    """Return the scale that training scores (n,) are learned on; its error is not known yet."""
    spread = float(np.std(train))
    return ScoreScale(float(np.mean(train)), spread or 1.0, threshold, 1.0)


def find_threshold(scores: Floats, labels: npt.NDArray[np.int64], *, usual: float) -> float | None:
    """Return the score at or below which hips are labelled abnormal, or None where none fits.

    `usual` where it separates the labels, else the middle of the gap between the classes.
    """
    if not (labels == 1).any() or not (labels == 0).any():
        return None
    highest_abnormal, lowest_normal = scores[labels == 1].max(), scores[labels == 0].min()
    if highest_abnormal >= lowest_normal:
        return None
    if highest_abnormal <= usual < lowest_normal:
        return usual
    return float((highest_abnormal + lowest_normal) / 2)


def unweight_logit(
    logit: npt.NDArray[np.float64], weights: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return the log odds a network would give without class weights in its loss.

    Weights w shift the optimal logit by log(w1 / w0) (Elkan 2001); left in, every probability
    would state the prevalence of a balanced archive.
    """
    return np.asarray(logit - np.log(weights[1] / weights[0]), np.float64)
