"""Test many differences at once without calling chance a finding.

Max-T over the same resamples (Westfall and Young 1993; Romano and Wolf 2005), not Holm: the cells
of a run share their hips and one baseline, so their differences move together, and only the joint
resamples know that. Holm would treat them as if they did not, and with 1000 resamples no p below
1/1001 can be stated, which times 72 cells is never below .05: Holm could find nothing.

Shapes: h differences, B resamples. A resample in which a difference is not defined is NaN.
"""

import numpy as np

from hipray.metrics import FloatArray


def adjust_step_down(values: FloatArray, drawn: FloatArray) -> FloatArray:
    """Return the adjusted one-sided p (h,) of `values` (h,) > 0, given `drawn` (B, h).

    Step-down max-T: the largest studentised difference is held against the maximum over all, the
    next against the maximum over the rest.
    """
    observed, chance = _studentise(values, drawn)
    order = np.argsort(-observed, kind="stable")
    rest = np.maximum.accumulate(chance[:, order][:, ::-1], axis=1)[:, ::-1]
    p = np.maximum.accumulate(_exceed(rest, observed[order]))
    return np.asarray(p[np.argsort(order, kind="stable")], dtype=np.float64)


def adjust_two_sided(values: FloatArray, drawn: FloatArray) -> FloatArray:
    """Return the adjusted two-sided p (h,) of `values` (h,) != 0, given `drawn` (B, h).

    Single-step max-T: for all pairs of a group, the analogue of Tukey's range test.
    """
    observed, chance = _studentise(values, drawn)
    widest = np.where(np.isfinite(chance), np.abs(chance), 0.0).max(axis=1, keepdims=True)
    return _exceed(np.broadcast_to(widest, chance.shape), np.abs(observed))


def _studentise(values: FloatArray, drawn: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return values and their deviations in the resamples, both in standard errors."""
    with np.errstate(all="ignore"):
        error = np.nanstd(drawn, axis=0, ddof=1)
        chance = (drawn - values) / error
        # Without spread a difference is beyond chance unless it is zero.
        observed = np.where(values == 0, 0.0, values / error)
    return observed, np.where(np.isnan(chance), -np.inf, chance)


def _exceed(chance: FloatArray, observed: FloatArray) -> FloatArray:
    beyond = np.sum(chance >= observed, axis=0)
    return np.asarray((1 + beyond) / (1 + len(chance)), dtype=np.float64)
