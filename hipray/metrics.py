"""Compute the numbers that training, serving and reports decide by, with numpy alone.

What a report shows with an interval is in `hipray.evaluation.statistics`, for many resamples at
once.

Labels are 1 for abnormal; a hip is called positive where its score >= the threshold. A ratio whose
denominator is zero is NaN ("not defined here"), never a silent zero.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NEXT_TO_FLAT = 1e-6  # slope of a calibrator without information: all answers near the base rate
PROBABILITY_MARGIN = 1e-7  # probabilities are held this far from 0 and 1 before a logit
NEWTON_STEPS = 100  # Newton on two parameters needs about ten
NEWTON_TOLERANCE = 1e-10  # largest change of a standardised parameter that counts as arrived


@dataclass(frozen=True)
class Confusion:
    """Counts of hips by truth and decision (Table 2 of Feng et al. 2023)."""

    tp: int
    fp: int
    tn: int
    fn: int


def count_confusion(labels: ArrayLike, positives: ArrayLike) -> Confusion:
    """Count true and false positives and negatives of two binary vectors of shape (n,)."""
    truth, called = _binary(labels), _binary(positives)
    _require_same_length(truth, called)
    return Confusion(
        tp=int(np.sum(truth & called)),
        fp=int(np.sum(~truth & called)),
        tn=int(np.sum(~truth & ~called)),
        fn=int(np.sum(truth & ~called)),
    )


def accuracy(counts: Confusion) -> float:
    """Return (TP + TN) / (TP + FP + TN + FN)."""
    return _ratio(counts.tp + counts.tn, counts.tp + counts.fp + counts.tn + counts.fn)


def sensitivity(counts: Confusion) -> float:
    """Return TP / (TP + FN); NaN without abnormal hips."""
    return _ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Confusion) -> float:
    """Return TN / (TN + FP); NaN without normal hips."""
    return _ratio(counts.tn, counts.tn + counts.fp)


def f1(counts: Confusion) -> float:
    """Return 2 TP / (2 TP + FP + FN); NaN where nothing is or is called positive."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return P(score of an abnormal hip > that of a normal one) + P(equal) / 2, exactly.

    By midranks: (R - P(P+1)/2) / (P N), R the rank sum of the P positives (Mann-Whitney).
    NaN without both classes.
    """
    truth, values = _labelled(labels, scores)
    n_positive = int(truth.sum())
    n_negative = truth.size - n_positive
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    midranks = np.cumsum(counts) - (counts - 1) / 2
    wins = midranks[place][truth].sum() - n_positive * (n_positive + 1) / 2
    return _ratio(float(wins), n_positive * n_negative)


def ece(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error: sum over equal-width bins of n_b/n |rate - mean p|."""
    truth, values = _labelled(labels, probabilities)
    if not truth.size:
        return float("nan")
    place = np.clip((values * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(place, weights=truth - values, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def iou(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return |A and B| / |A or B| of two masks of one shape, for one image.

    Foreground only; for the background pass both masks inverted. Two empty masks agree: 1.0. One
    empty mask: 0.0.
    """
    drawn, true = _masks(prediction, truth)
    union = int(np.sum(drawn | true))
    return int(np.sum(drawn & true)) / union if union else 1.0


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return 2 |A and B| / (|A| + |B|) = 2 IoU / (1 + IoU); empty masks as in `iou`."""
    overlap = iou(prediction, truth)
    return 2 * overlap / (1 + overlap)


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the threshold of the largest sensitivity + specificity - 1 (Youden 1950).

    It lies halfway between neighbouring scores; of equal maxima the lowest is taken, which misses
    fewer abnormal hips. NaN without both classes.
    """
    truth, values = _labelled(labels, scores)
    n_positive = int(truth.sum())
    n_negative = truth.size - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    thresholds, tp, called = _sweep(truth, values)
    # Youden's J times P N stays in whole numbers, so equal maxima compare equal.
    scaled = tp * n_negative - (called - tp) * n_positive
    return float(thresholds[np.flatnonzero(scaled == scaled.max())[-1]])


def threshold_at_sensitivity(labels: ArrayLike, scores: ArrayLike, minimum: float) -> float:
    """Return the highest threshold whose sensitivity on these hips is at least `minimum`.

    `minimum` lies in (0, 1]. NaN without abnormal hips.
    """
    if not 0 < minimum <= 1:
        raise ValueError(f"expected a sensitivity in (0, 1], found {minimum}")
    truth, values = _labelled(labels, scores)
    if not truth.any():
        return float("nan")
    thresholds, tp, _ = _sweep(truth, values)
    return float(thresholds[int(np.argmax(tp / truth.sum() >= minimum))])


def logit(probabilities: ArrayLike) -> FloatArray:
    """Return log(p / (1 - p)), p held 1e-7 away from 0 and 1."""
    values = np.clip(_floats(probabilities), PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.asarray(np.log(values) - np.log1p(-values), dtype=np.float64)


def sigmoid(logits: ArrayLike) -> FloatArray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -_floats(logits))), dtype=np.float64)


@dataclass(frozen=True)
class PlattScaling:
    """A calibrator: probability = sigmoid(slope * logit(score) + intercept)."""

    slope: float
    intercept: float


def fit_platt(labels: ArrayLike, scores: ArrayLike) -> PlattScaling:
    """Fit Platt scaling to raw probabilities `scores` (n,); deterministic.

    The targets are Platt's (N+ + 1)/(N+ + 2) and 1/(N- + 2), which keep the fit finite where the
    classes separate (Platt 1999; Newton as in Lin, Lin and Weng 2007). Equal scores carry no
    order, and scores that order these hips the wrong way round none to be trusted: the base rate,
    by a slope that is next to flat. A few hips by chance must neither turn a network's answers
    round nor, with a slope of 0, take their order away, which is judged on other hips.
    """
    truth, values = _labelled(labels, scores)
    if not truth.size:
        raise ValueError("expected at least one hip to calibrate on, found none")
    n_positive = int(truth.sum())
    high = (n_positive + 1) / (n_positive + 2)
    low = 1 / (truth.size - n_positive + 2)
    targets = np.where(truth, high, low)
    slope, intercept = _fit_logistic(logit(values), targets)
    if slope <= 0:
        flat = NEXT_TO_FLAT if np.ptp(values) else 0.0
        return PlattScaling(flat, float(logit(targets.mean()) - flat * logit(values).mean()))
    return PlattScaling(slope, intercept)


def apply_platt(calibrator: PlattScaling, scores: ArrayLike) -> FloatArray:
    """Return calibrated probabilities of raw probabilities `scores`, same shape."""
    return sigmoid(calibrator.slope * logit(scores) + calibrator.intercept)


def calibration_line(labels: ArrayLike, probabilities: ArrayLike) -> tuple[float, float]:
    """Return slope and intercept of the logistic regression of label on logit(probability).

    A calibrated model has (1, 0); a slope below 1 is overconfidence (Cox 1958). (NaN, NaN)
    without both classes, for equal probabilities, and where the classes separate.
    """
    truth, values = _labelled(labels, probabilities)
    x = logit(values)
    if truth.all() or not truth.any() or np.ptp(x) == 0 or _separates(truth, x):
        return float("nan"), float("nan")
    return _fit_logistic(x, truth.astype(np.float64))


def calibration_in_the_large(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the intercept of that regression with its slope held at 1; NaN without both classes.

    Above 0 the probabilities are too low on the whole.
    """
    truth, values = _labelled(labels, probabilities)
    if truth.all() or not truth.any():
        return float("nan")
    offset, intercept = logit(values), 0.0
    for _ in range(NEWTON_STEPS):
        fitted = sigmoid(offset + intercept)
        # The step is held at 2: far from the root the curvature is too flat for Newton.
        step = float(np.clip((truth - fitted).sum() / (fitted * (1 - fitted)).sum(), -2, 2))
        intercept += step
        if abs(step) < NEWTON_TOLERANCE:
            break
    return intercept


def population_stability(shares: ArrayLike, counts: ArrayLike) -> float:
    """Return the population stability index of `counts` per bin against expected `shares`.

    Half a count is added to each bin, so that an empty one is not infinite. NaN without counts.
    """
    expected, found = _floats(shares), _floats(counts)
    _require_same_length(expected, found)
    total = found.sum()
    if not total:
        return float("nan")
    p = (expected * total + 0.5) / (total + 0.5 * len(found))
    q = (found + 0.5) / (total + 0.5 * len(found))
    return float(np.sum((q - p) * np.log(q / p)))


def _fit_logistic(x: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Fit targets ~ sigmoid(slope x + intercept) by Newton with step halving."""
    centre, scale = float(x.mean()), float(x.std())
    rate = float(logit(targets.mean()))
    if scale == 0:
        return 0.0, rate
    design = np.stack([(x - centre) / scale, np.ones_like(x)], axis=1)
    beta = np.array([0.0, rate])
    for _ in range(NEWTON_STEPS):
        step = _newton_step(design, targets, beta)
        beta = beta + step
        if np.abs(step).max() < NEWTON_TOLERANCE:
            break
    slope = float(beta[0]) / scale
    return slope, float(beta[1]) - slope * centre


def _separates(truth: BoolArray, x: FloatArray) -> bool:
    """Whether one cut splits the classes, touching allowed: then no finite slope is the best."""
    abnormal, normal = x[truth], x[~truth]
    return bool(abnormal.min() >= normal.max() or abnormal.max() <= normal.min())


def _newton_step(design: FloatArray, targets: FloatArray, beta: FloatArray) -> FloatArray:
    fitted = sigmoid(design @ beta)
    gradient = design.T @ (targets - fitted)
    curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design
    step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
    before, part = _log_loss(design @ beta, targets), 1.0
    while _log_loss(design @ (beta + part * step), targets) > before and part > 1e-12:
        part /= 2
    return np.asarray(part * step, dtype=np.float64)


def _log_loss(logits: FloatArray, targets: FloatArray) -> float:
    return float(np.sum(np.logaddexp(0.0, logits) - targets * logits))


def _sweep(truth: BoolArray, values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return thresholds from high to low with the TP and the called positives at each."""
    distinct, place = np.unique(values, return_inverse=True)
    called = np.cumsum(np.bincount(place)[::-1], dtype=np.float64)
    tp = np.cumsum(np.bincount(place, weights=truth)[::-1], dtype=np.float64)
    below = np.concatenate([distinct[:1], distinct[:-1]])
    middle = below + (distinct - below) / 2
    # Between neighbouring floats there is no middle: then the upper score itself is the threshold.
    thresholds: FloatArray = np.where(middle > below, middle, distinct)
    return thresholds[::-1], tp, called


def _labelled(labels: ArrayLike, scores: ArrayLike) -> tuple[BoolArray, FloatArray]:
    truth, values = _binary(labels), _floats(scores)
    _require_same_length(truth, values)
    if not np.isfinite(values).all():
        raise ValueError("expected finite scores, found NaN or infinity")
    return truth, values


def _binary(values: ArrayLike) -> BoolArray:
    array = np.asarray(values)
    if array.ndim != 1 or not np.isin(array, (0, 1)).all():
        raise ValueError("expected a vector of zeros and ones")
    return array.astype(np.bool_)


def _floats(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _masks(prediction: ArrayLike, truth: ArrayLike) -> tuple[BoolArray, BoolArray]:
    drawn, true = np.asarray(prediction).astype(np.bool_), np.asarray(truth).astype(np.bool_)
    if drawn.shape != true.shape:
        raise ValueError(f"expected masks of one shape, found {drawn.shape} and {true.shape}")
    return drawn, true


def _require_same_length(first: NDArray[np.generic], second: NDArray[np.generic]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"expected vectors of one length, found {first.shape} and {second.shape}")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
