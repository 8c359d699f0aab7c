"""Search whether one confusion matrix can give a printed row of a table."""

from functools import cache

import numpy as np

from hipray.metrics import BoolArray, FloatArray

PRINTED_STEP = 0.01  # the tables print two decimals
ROUNDING_SLACK = 1e-9  # for halves that binary fractions cannot hold

Printed = tuple[float, float, float, float]
"""Sensitivity, specificity, F1 and accuracy as printed."""


def fits_single_run(printed: Printed, n: int) -> bool:
    """Return whether any confusion matrix of n hips gives all four numbers.

    Every count of abnormal hips, hits and correct rejections is tried, and a number may have been
    rounded or cut off.
    """
    found = _enumerate_runs(n)
    return bool(np.all([_prints_as(found[i], printed[i]) for i in range(4)], axis=0).any())


@cache
def _enumerate_runs(n: int) -> FloatArray:
    """Return the four numbers of every confusion matrix of n hips, shape (4, k)."""
    abnormal, tp, tn = (grid.ravel() for grid in np.indices((n + 1, n + 1, n + 1)))
    real = (tp <= abnormal) & (tn <= n - abnormal) & (abnormal > 0) & (abnormal < n)
    p, tp, tn = abnormal[real], tp[real], tn[real]
    fn, fp = p - tp, n - p - tn
    return np.stack([tp / p, tn / (n - p), 2 * tp / (2 * tp + fp + fn), (tp + tn) / n])


def _prints_as(values: FloatArray, printed: float) -> BoolArray:
    rounded = np.abs(values - printed) <= PRINTED_STEP / 2 + ROUNDING_SLACK
    cut = (values >= printed - ROUNDING_SLACK) & (values < printed + PRINTED_STEP)
    return np.asarray(rounded | cut, dtype=np.bool_)
