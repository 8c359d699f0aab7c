"""Metrics against scikit-learn and against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from hipray import metrics

scores_with_ties = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])),
    min_size=2,
    max_size=40,
)
scores_of_any_size = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=2, max_size=40
)


def split_pairs(pairs):
    labels, scores = zip(*pairs, strict=True)
    return np.array(labels), np.array(scores)


@settings(max_examples=150, deadline=None)
@given(scores_with_ties | scores_of_any_size)
def test_auroc_equals_scikit_learn_with_and_without_ties(pairs) -> None:
    labels, scores = split_pairs(pairs)
    if labels.min() == labels.max():
        assert math.isnan(metrics.auroc(labels, scores))
    else:
        assert metrics.auroc(labels, scores) == pytest.approx(count_wins(labels, scores))
        assert metrics.auroc(labels, scores) == pytest.approx(
            reference.roc_auc_score(labels, scores), abs=1e-12
        )


def count_wins(labels, scores):
    gaps = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return (np.sum(gaps > 0) + np.sum(gaps == 0) / 2) / gaps.size


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_ratios_of_a_confusion_matrix_equal_scikit_learn(pairs) -> None:
    labels, called = split_pairs(pairs)
    counts = metrics.count_confusion(labels, called)
    nan = {"zero_division": np.nan}
    assert_allclose(metrics.accuracy(counts), reference.accuracy_score(labels, called))
    assert_allclose(metrics.sensitivity(counts), reference.recall_score(labels, called, **nan))
    assert_allclose(
        metrics.specificity(counts), reference.recall_score(1 - labels, 1 - called, **nan)
    )
    assert_allclose(metrics.f1(counts), reference.f1_score(labels, called, **nan))


@settings(max_examples=60, deadline=None)
@given(scores_of_any_size)
def test_calibration_error_follows_its_definition(pairs) -> None:
    labels, scores = split_pairs(pairs)
    place = np.minimum((scores * 10).astype(int), 9)
    expected = sum(
        np.mean(place == b) * abs(labels[place == b].mean() - scores[place == b].mean())
        for b in set(place)
    )
    assert metrics.ece(labels, scores) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(scores_with_ties | scores_of_any_size)
def test_youden_threshold_reaches_the_best_sensitivity_plus_specificity(pairs) -> None:
    labels, scores = split_pairs(pairs)
    threshold = metrics.youden_threshold(labels, scores)
    if labels.min() == labels.max():
        assert math.isnan(threshold)
        return
    reached = reference.balanced_accuracy_score(labels, (scores >= threshold))
    best = max(
        reference.balanced_accuracy_score(labels, (scores >= cut)) for cut in np.unique(scores)
    )
    assert reached == pytest.approx(best)


@settings(max_examples=150, deadline=None)
@given(scores_with_ties | scores_of_any_size, st.floats(0.01, 1))
def test_threshold_at_sensitivity_is_the_highest_that_keeps_it(pairs, minimum) -> None:
    labels, scores = split_pairs(pairs)
    threshold = metrics.threshold_at_sensitivity(labels, scores, minimum)
    if not labels.any():
        assert math.isnan(threshold)
        return
    kept = metrics.sensitivity(metrics.count_confusion(labels, scores >= threshold))
    assert kept >= minimum
    higher = scores[scores > threshold]
    for cut in np.unique(higher)[1:]:
        assert metrics.sensitivity(metrics.count_confusion(labels, scores >= cut)) < minimum


def test_a_threshold_lies_between_neighbouring_scores() -> None:
    assert metrics.youden_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8]) == pytest.approx(0.4)
    assert metrics.threshold_at_sensitivity([0, 1, 1], [0.1, 0.5, 0.9], 0.5) == pytest.approx(0.7)


def test_between_neighbouring_floats_the_upper_score_is_the_threshold() -> None:
    upper = np.nextafter(0.5, 1)
    assert metrics.youden_threshold([0, 1], [0.5, upper]) == upper


def test_of_two_equal_youden_maxima_the_lower_threshold_is_taken() -> None:
    # Cuts at .8 (sens .5, spec 1) and at .2 (sens 1, spec .5) both have J = .5.
    assert metrics.youden_threshold([1, 0, 1, 0], [0.8, 0.5, 0.4, 0.1]) < 0.4


@pytest.mark.parametrize("minimum", [0.0, -0.1, 1.1])
def test_a_sensitivity_outside_its_range_is_refused(minimum) -> None:
    with pytest.raises(ValueError, match="sensitivity"):
        metrics.threshold_at_sensitivity([0, 1], [0.1, 0.9], minimum)


def test_iou_and_dice_of_two_overlapping_squares() -> None:
    first, second = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    first[0:4, 0:4] = True
    second[2:6, 0:4] = True
    assert metrics.iou(first, second) == pytest.approx(8 / 24)
    assert metrics.dice(first, second) == pytest.approx(16 / 32)


@pytest.mark.parametrize("measure", [metrics.iou, metrics.dice])
def test_two_empty_masks_agree_and_one_empty_mask_does_not(measure) -> None:
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    assert measure(empty, empty) == 1.0
    assert measure(empty, full) == 0.0
    assert measure(full, empty) == 0.0


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        metrics.iou(np.zeros((4, 4)), np.zeros((4, 5)))


def test_calibration_line_equals_an_unpenalised_logistic_regression() -> None:
    random = np.random.default_rng(0)
    probabilities = random.uniform(0.02, 0.98, 500)
    labels = (random.uniform(size=500) < probabilities**1.5).astype(int)
    logits = np.log(probabilities / (1 - probabilities))
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    slope, intercept = metrics.calibration_line(labels, probabilities)
    assert slope == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert intercept == pytest.approx(model.intercept_[0], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([1, 1, 1], [0.2, 0.5, 0.9]),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]),
        ([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.8]),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.8]),
    ],
    ids=["one class", "one score", "separated", "separated but for a touching score"],
)
def test_a_calibration_line_without_a_finite_answer_is_nan(labels, probabilities) -> None:
    assert np.isnan(metrics.calibration_line(labels, probabilities)).all()


def test_calibration_in_the_large_makes_the_mean_probability_equal_the_rate() -> None:
    random = np.random.default_rng(1)
    probabilities = random.uniform(0, 1, 200) ** 8
    labels = (random.uniform(size=200) < 0.6).astype(int)
    shift = metrics.calibration_in_the_large(labels, probabilities)
    shifted = metrics.sigmoid(metrics.logit(probabilities) + shift)
    assert shifted.mean() == pytest.approx(labels.mean())


def test_platt_scaling_repairs_overconfident_scores_and_keeps_their_order() -> None:
    random = np.random.default_rng(2)
    logits = random.normal(0, 1.5, 4000)
    labels = (random.uniform(size=4000) < metrics.sigmoid(logits)).astype(int)
    overconfident = metrics.sigmoid(3 * logits + 1)
    calibrator = metrics.fit_platt(labels, overconfident)
    calibrated = metrics.apply_platt(calibrator, overconfident)
    assert metrics.calibration_line(labels, calibrated) == pytest.approx((1, 0), abs=0.02)
    assert metrics.auroc(labels, calibrated) == pytest.approx(metrics.auroc(labels, overconfident))


@settings(max_examples=80, deadline=None)
@given(scores_with_ties | scores_of_any_size)
def test_platt_scaling_is_finite_and_repeatable_for_any_scores(pairs) -> None:
    labels, scores = split_pairs(pairs)
    first, second = metrics.fit_platt(labels, scores), metrics.fit_platt(labels, scores)
    assert first == second
    assert np.isfinite([first.slope, first.intercept]).all()
    calibrated = metrics.apply_platt(first, scores)
    n, positives = len(labels), labels.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (n - positives + 2)
    # Platt's targets bound the answer, and the maximum of the likelihood keeps their mean.
    expected = np.mean(np.where(labels == 1, high, low))
    assert calibrated.mean() == pytest.approx(expected, abs=1e-6)


def test_platt_scaling_of_equal_scores_is_the_smoothed_base_rate() -> None:
    calibrator = metrics.fit_platt([1, 0, 0, 0], [0.9, 0.9, 0.9, 0.9])
    assert calibrator.slope == 0
    expected = (2 / 3 + 3 * 1 / 5) / 4
    assert metrics.apply_platt(calibrator, [0.1])[0] == pytest.approx(expected)


def test_scores_of_the_wrong_order_become_the_base_rate_and_keep_their_order() -> None:
    calibrator = metrics.fit_platt([1, 0, 0, 0], [0.1, 0.9, 0.8, 0.7])
    answers = metrics.apply_platt(calibrator, [0.001, 0.2, 0.999])
    assert answers == pytest.approx((2 / 3 + 3 * 1 / 5) / 4, abs=1e-5)
    assert answers[0] < answers[1] < answers[2]


def test_calibrating_on_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one hip"):
        metrics.fit_platt([], [])


@pytest.mark.parametrize(
    ("labels", "scores"), [([0, 2], [0.1, 0.2]), ([0, 1], [0.1]), ([0, 1], [0.1, math.nan])]
)
def test_labels_and_scores_that_do_not_fit_are_refused(labels, scores) -> None:
    with pytest.raises(ValueError, match="expected"):
        metrics.auroc(labels, scores)


def test_no_hips_have_no_metrics() -> None:
    counts = metrics.count_confusion([], [])
    assert math.isnan(metrics.accuracy(counts))
    assert math.isnan(metrics.ece([], []))
