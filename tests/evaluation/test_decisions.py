"""Decision curves: the formula, treating all, intervals."""

import numpy as np
import pandas as pd
import pytest

from hipray.evaluation.decisions import THRESHOLDS, measure_net_benefit, trace_decision_curve


def make_hips(labels, scores):
    n = len(labels)
    ids = [f"h{i}" for i in range(n)]
    return pd.DataFrame(
        {"hip_id": ids, "patient_id": ids, "label": labels, "score": scores, "positive": False}
    )


def test_net_benefit_is_hits_less_weighted_alarms() -> None:
    labels, scores = np.array([1, 1, 0, 0], bool), np.array([0.9, 0.3, 0.6, 0.1])
    found = measure_net_benefit(labels, scores, np.ones((1, 4)))[0]
    at = {t: found[t == THRESHOLDS][0] for t in (0.2, 0.5, 0.7)}
    expected = {0.2: 2 / 4 - 1 / 4 * 0.25, 0.5: 1 / 4 - 1 / 4, 0.7: 1 / 4}
    assert at == pytest.approx(expected)


def test_weights_count_hips_as_often_as_they_were_drawn() -> None:
    labels, scores = np.array([1, 0], bool), np.array([0.9, 0.6])
    twice = np.array([0, 0, 1])
    weighted = measure_net_benefit(labels, scores, np.array([[2.0, 1.0]]))
    repeated = measure_net_benefit(labels[twice], scores[twice], np.ones((1, 3)))
    assert weighted == pytest.approx(repeated)


def test_calling_all_abnormal_is_the_prevalence_less_the_alarms(config) -> None:
    random = np.random.default_rng(0)
    labels = (random.random(200) < 0.3).astype(int)
    curve = trace_decision_curve("any", make_hips(labels, random.random(200)), config)
    for point in curve.points:
        p, t = labels.mean(), point.threshold
        assert point.treat_all.value == pytest.approx(p - (1 - p) * t / (1 - t))
        better = max(point.treat_all.value, 0)
        assert point.gain.value == pytest.approx(point.model.value - better)
        assert point.model.low <= point.model.high
    assert curve.n_hips == 200


def test_an_oracle_gains_at_every_threshold_and_a_coin_at_none(config) -> None:
    labels = np.arange(200) % 2
    coin = np.random.default_rng(1).random(200)
    oracle = trace_decision_curve("oracle", make_hips(labels, 0.95 * labels), config)
    chance = trace_decision_curve("coin", make_hips(labels, coin), config)
    assert all(p.gain.low > 0 for p in oracle.points)
    assert not any(p.gain.low > 0 for p in chance.points)
