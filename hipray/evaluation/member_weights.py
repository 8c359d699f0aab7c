"""Fit the weights of an ensemble's members: convex, by log loss, without a random number."""

import numpy as np
from numpy.typing import ArrayLike

from hipray.metrics import PROBABILITY_MARGIN, FloatArray

MIN_HIPS = 20  # below it equal weights: three free weights would follow single hips
MAX_STEPS = 5000  # multiplicative steps; a small ensemble arrives within a few hundred
OPTIMALITY_GAP = 1e-7  # of the mean log loss, at which the weights have arrived


def fit_weights(probabilities: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Return the weights (m,) of m members that minimise the log loss of their weighted mean.

    `probabilities` (m, n) in [0, 1] and `labels` (n,) of 0 and 1 come from inner-validation hips.
    The weights are non-negative and sum to one. The weighted mean of probabilities is a mixture,
    so expectation maximisation climbs to the global optimum (Dempster, Laird and Rubin 1977).
    Equal weights for fewer than 20 hips or hips of one class.
    """
    scores, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape[1:] != truth.shape or not len(scores):
        raise ValueError(f"expected shapes (m, n) and (n,), found {scores.shape}, {truth.shape}")
    weights = np.full(len(scores), 1 / len(scores))
    if truth.size < MIN_HIPS or truth.all() or not truth.any():
        return weights
    held = np.clip(scores, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    likelihoods = np.where(truth, held, 1 - held)
    for _ in range(MAX_STEPS):
        gains = np.mean(likelihoods / (weights @ likelihoods), axis=1)
        # The largest gain bounds what the log loss can still lose (Cover 1984, theorem 1).
        if np.log(gains.max()) < OPTIMALITY_GAP:
            break
        weights = weights * gains
    return np.asarray(weights / weights.sum(), dtype=np.float64)
