"""Trace decision curves: what acting on a probability is worth (Vickers and Elkin 2006)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import Interval, build_interval, build_sample, draw_weights
from hipray.metrics import BoolArray, FloatArray

THRESHOLDS: FloatArray = np.round(np.arange(2, 91) / 100, 2)
"""Threshold probabilities t: a false alarm costs t/(1 - t) of what a hit is worth."""


@dataclass(frozen=True)
class DecisionPoint:
    """Net benefit per hip at one threshold probability; treating none has 0."""

    threshold: float
    model: Interval
    treat_all: Interval
    gain: Interval  # model - the better of treating all and none


@dataclass(frozen=True)
class DecisionCurve:
    """The decision curve of one model on its pooled out-of-fold hips."""

    name: str
    n_hips: int
    n_patients: int
    points: tuple[DecisionPoint, ...]


def trace_decision_curve(name: str, hips: pd.DataFrame, config: EvaluationConfig) -> DecisionCurve:
    """Trace net benefit over `THRESHOLDS` with intervals over patients.

    `hips` carry `patient_id`, `label`, `score` (a calibrated probability) and `positive`.
    """
    sample = build_sample(hips)
    once = np.ones((1, len(hips)))
    blocks = list(draw_weights(hips, config.resamples, config.seed))
    model, everyone = (
        (
            measure_net_benefit(sample.labels, scores, once)[0],
            np.concatenate([measure_net_benefit(sample.labels, scores, w) for w in blocks]),
        )
        for scores in (sample.scores, np.ones_like(sample.scores))
    )
    return DecisionCurve(
        name=name,
        n_hips=len(hips),
        n_patients=hips["patient_id"].nunique(),
        points=tuple(_build_points(model, everyone, config)),
    )


def measure_net_benefit(labels: BoolArray, scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return TP/n - FP/n x t/(1 - t) at each of `THRESHOLDS`, shape (B, T), for weights (B, n)."""
    called = scores[:, None] >= THRESHOLDS[None, :]
    total = weights.sum(axis=1, keepdims=True)
    hits = weights @ (called & labels[:, None]) / total
    alarms = weights @ (called & ~labels[:, None]) / total
    return np.asarray(hits - alarms * THRESHOLDS / (1 - THRESHOLDS), dtype=np.float64)


def _build_points(
    model: tuple[FloatArray, FloatArray],
    everyone: tuple[FloatArray, FloatArray],
    config: EvaluationConfig,
) -> Iterator[DecisionPoint]:
    gain = tuple(m - np.maximum(e, 0) for m, e in zip(model, everyone, strict=True))
    for place, threshold in enumerate(THRESHOLDS):
        bounds = [
            build_interval(float(value[place]), drawn[:, place], config)
            for value, drawn in (model, everyone, gain)
        ]
        yield DecisionPoint(float(threshold), *bounds)
