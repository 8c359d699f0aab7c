"""Ensemble weights: on the simplex, optimal, fitted on inner hips only."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from hipray import metrics
from hipray.config.evaluation import Combine, EvaluationConfig
from hipray.evaluation.combining import combine_members
from hipray.evaluation.member_weights import fit_weights
from hipray.evaluation.results import read_predictions
from hipray.vocab import Backbone, Cell, LabelType, Region, Variant

from .conftest import build_manifest, predict_cell

MEMBERS = [
    Cell(Region.TOTAL_HIP, LabelType.T_SCORE, backbone, Variant.ORIGINAL) for backbone in Backbone
]


def make_members(n: int = 200, strengths=(3.0, 1.0, 0.0)):
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, n)
    scores = [metrics.sigmoid(s * (labels - 0.5) + random.normal(0, 1, n)) for s in strengths]
    return np.stack(scores), labels


def mean_log_loss(weights, scores, labels):
    mixed = weights @ scores
    return -np.mean(np.log(np.where(labels, mixed, 1 - mixed)))


def test_weights_lie_on_the_simplex_and_no_others_have_a_lower_log_loss() -> None:
    scores, labels = make_members()
    weights = fit_weights(scores, labels)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    best = minimize(
        mean_log_loss,
        np.full(3, 1 / 3),
        args=(scores, labels),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert mean_log_loss(weights, scores, labels) <= best.fun + 1e-6
    assert mean_log_loss(weights, scores, labels) < mean_log_loss(np.full(3, 1 / 3), scores, labels)


def test_the_better_member_weighs_more_and_equal_members_weigh_the_same() -> None:
    scores, labels = make_members()
    assert fit_weights(scores, labels).argmax() == 0
    assert fit_weights(np.stack([scores[0]] * 4), labels) == pytest.approx(np.full(4, 0.25))


def test_too_few_hips_or_one_class_give_equal_weights() -> None:
    scores, labels = make_members()
    assert fit_weights(scores[:, :19], labels[:19]) == pytest.approx(np.full(3, 1 / 3))
    assert fit_weights(scores, np.ones_like(labels)) == pytest.approx(np.full(3, 1 / 3))


def test_certain_and_wrong_members_leave_finite_weights() -> None:
    labels = np.arange(40) % 2
    weights = fit_weights(np.stack([1.0 - labels, np.full(40, 0.5)]), labels)
    assert weights == pytest.approx([0, 1], abs=1e-3)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(m, n\) and \(n,\)"):
        fit_weights(np.ones((3, 4)), np.ones(5))


@pytest.fixture(scope="module")
def predictions():
    manifest = build_manifest(120)
    rows = [
        predict_cell(manifest, cell, seed=i, strength=strength)
        for i, (cell, strength) in enumerate(zip(MEMBERS, (3.0, 1.0, 0.0), strict=True))
    ]
    return read_predictions(pd.concat(rows, ignore_index=True))


def test_a_weighted_release_is_the_members_by_the_weights_of_each_folds_inner_hips(
    predictions,
) -> None:
    combined = combine_members(predictions, MEMBERS, Combine.WEIGHTED)
    fold = predictions[(predictions["repeat"] == 1) & (predictions["fold"] == 2)]
    wide = fold.pivot_table(index=["part", "hip_id"], columns="backbone", values="probability")
    wide = wide[[m.backbone for m in MEMBERS]]
    labels = fold.groupby(["part", "hip_id"])["label"].first()
    weights = fit_weights(wide.loc["inner"].to_numpy().T, labels.loc["inner"].to_numpy())
    rows = combined[(combined["repeat"] == 1) & (combined["fold"] == 2)]
    found = rows.set_index(["part", "hip_id"])["probability"].loc[wide.index]
    assert found.to_numpy() == pytest.approx(wide.to_numpy() @ weights)
    assert not np.allclose(weights, 1 / 3)


def test_no_test_label_moves_a_weighted_probability(predictions) -> None:
    tests = predictions["part"] == "test"
    turned = predictions.assign(label=predictions["label"].where(~tests, 1 - predictions["label"]))
    columns = ["repeat", "fold", "part", "hip_id", "probability"]
    before, after = (
        combine_members(frame, MEMBERS, Combine.WEIGHTED)[columns]
        for frame in (predictions, turned)
    )
    pd.testing.assert_frame_equal(before, after)


def test_the_median_is_the_middle_member(predictions) -> None:
    combined = combine_members(predictions, MEMBERS, Combine.MEDIAN)
    keys = ["repeat", "fold", "part", "hip_id"]
    expected = predictions.groupby(keys)["probability"].median()
    found = combined.set_index(keys)["probability"].loc[expected.index]
    assert found.to_numpy() == pytest.approx(expected.to_numpy())


def test_the_rule_is_a_configuration_key() -> None:
    assert EvaluationConfig(combine="weighted").combine is Combine.WEIGHTED
    assert EvaluationConfig().combine is Combine.MEAN
