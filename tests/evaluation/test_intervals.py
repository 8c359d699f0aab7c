"""The bootstrap: equal to its metrics, over patients, repeatable, and covering."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn import metrics as reference

from hipray import metrics
from hipray.config.evaluation import EvaluationConfig
from hipray.evaluation.intervals import (
    MIN_PER_CLASS,
    bootstrap_patients,
    build_sample,
    exact_interval,
    widen_for_folds,
)
from hipray.evaluation.statistics import (
    STATISTICS,
    Metric,
    choose_statistics,
    compute_statistics,
)

AUROC = choose_statistics((Metric.AUROC,))


def alone(resamples: int, seed: int) -> EvaluationConfig:
    """Intervals of scores that no network was trained for: nothing to widen them for."""
    return EvaluationConfig(resamples=resamples, seed=seed, fold_widening=1)


def make_hips(n: int, seed: int, gap: float = 1.0, hips_per_patient: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    labels = np.repeat(random.integers(0, 2, n // hips_per_patient), hips_per_patient)
    shared = np.repeat(random.normal(size=n // hips_per_patient), hips_per_patient)
    scores = np.round(metrics.sigmoid(gap * (labels - 0.5) + shared), 2)
    return pd.DataFrame(
        {
            "hip_id": [f"h{i:04d}" for i in range(n)],
            "patient_id": [f"p{i // hips_per_patient:04d}" for i in range(n)],
            "label": labels,
            "score": scores,
            "positive": scores >= 0.5,
        }
    )


def test_every_statistic_equals_that_of_scikit_learn() -> None:
    hips = make_hips(150, seed=0)
    found = compute_statistics(build_sample(hips), STATISTICS)
    truth, called, score = hips["label"], hips["positive"].astype(int), hips["score"]
    expected = {
        Metric.SENSITIVITY: reference.recall_score(truth, called),
        Metric.SPECIFICITY: reference.recall_score(1 - truth, 1 - called),
        Metric.F1: reference.f1_score(truth, called),
        Metric.ACCURACY: reference.accuracy_score(truth, called),
        Metric.BALANCED_ACCURACY: reference.balanced_accuracy_score(truth, called),
        Metric.PPV: reference.precision_score(truth, called),
        Metric.NPV: reference.precision_score(1 - truth, 1 - called),
        Metric.AUROC: reference.roc_auc_score(truth, score),
        Metric.AUPRC: reference.average_precision_score(truth, score),
        Metric.BRIER: reference.brier_score_loss(truth, score),
        Metric.CALIBRATION_SLOPE: metrics.calibration_line(truth, score)[0],
    }
    assert set(expected) == set(Metric)
    assert found == pytest.approx(expected, abs=1e-9)


def test_weights_count_like_repeated_hips() -> None:
    hips = make_hips(40, seed=1)
    weights = np.random.default_rng(5).integers(0, 4, len(hips))
    repeated = hips.loc[hips.index.repeat(weights)]
    row = weights[None, :].astype(float)
    weighted = {m: STATISTICS[m](build_sample(hips), row)[0] for m in Metric}
    assert weighted == pytest.approx(
        compute_statistics(build_sample(repeated), STATISTICS), abs=1e-6
    )
    assert weighted[Metric.AUROC] == pytest.approx(
        reference.roc_auc_score(hips["label"], hips["score"], sample_weight=weights)
    )


def test_the_interval_does_not_depend_on_row_order_and_repeats_with_its_seed() -> None:
    hips = make_hips(60, seed=2, hips_per_patient=2)
    shuffled = hips.sample(frac=1, random_state=1)
    first = bootstrap_patients(hips, AUROC, alone(300, 7))[Metric.AUROC]
    second = bootstrap_patients(shuffled, AUROC, alone(300, 7))[Metric.AUROC]
    other = bootstrap_patients(hips, AUROC, alone(300, 8))[Metric.AUROC]
    assert (first.low, first.high) == pytest.approx((second.low, second.high))
    assert (first.low, first.high) != (other.low, other.high)
    assert first.low < first.value < first.high


def test_two_equal_hips_of_a_patient_do_not_narrow_the_interval() -> None:
    single = make_hips(80, seed=3)
    doubled = pd.concat([single, single.assign(hip_id=single["hip_id"] + "b")])
    narrow = doubled.assign(patient_id=doubled["hip_id"])
    width = {}
    for name, hips in (("single", single), ("patients", doubled), ("hips", narrow)):
        bounds = bootstrap_patients(hips, AUROC, alone(1000, 0))[Metric.AUROC]
        width[name] = bounds.high - bounds.low
    assert width["patients"] == pytest.approx(width["single"])
    assert width["hips"] < 0.8 * width["patients"]


def test_resamples_of_one_class_are_counted_and_many_leave_no_interval() -> None:
    hips = make_hips(8, seed=0).assign(label=[1, 0, 0, 0, 0, 0, 0, 0])
    bounds = bootstrap_patients(hips, AUROC, alone(1000, 0))[Metric.AUROC]
    # A patient is missing from a resample of 8 with probability (7/8)^8 = .34.
    assert 280 < bounds.n_undefined < 410
    assert bounds.n_resamples == 1000
    assert math.isnan(bounds.low)
    assert math.isfinite(bounds.value)


def test_a_share_that_every_resample_finds_whole_has_the_exact_interval_of_its_patients() -> None:
    hips = make_hips(40, seed=0, hips_per_patient=2).assign(positive=lambda h: h["label"] == 1)
    found = bootstrap_patients(hips, choose_statistics((Metric.SENSITIVITY,)), alone(200, 0))
    n = hips.loc[hips["label"] == 1, "patient_id"].nunique()
    bounds = found[Metric.SENSITIVITY]
    assert (bounds.low, bounds.high) == pytest.approx(exact_interval(n, n))
    assert bounds.low < bounds.value == 1


def test_the_exact_interval_is_widened_for_folds_as_the_others_are() -> None:
    hips = make_hips(40, seed=0).assign(positive=lambda h: h["label"] == 1)
    wide = alone(200, 0).model_copy(update={"fold_widening": 1.5})
    found = [
        bootstrap_patients(hips, choose_statistics((Metric.SENSITIVITY,)), config)
        for config in (alone(200, 0), wide)
    ]
    n = int(hips["label"].sum())
    lows = [bounds[Metric.SENSITIVITY].low for bounds in found]
    assert lows == pytest.approx([exact_interval(n, n)[0], exact_interval(n / 2.25, n / 2.25)[0]])


def test_repeats_test_more_hips_than_one_fold_and_widen_accordingly() -> None:
    config = widen_for_folds(EvaluationConfig(), folds=5, tested=1, repeats=5)
    covered = 5 * (1 - 0.8**5)
    assert config.fold_widening == pytest.approx(math.sqrt(1 + covered / 4))


def test_an_auroc_of_a_handful_of_patients_of_a_class_has_no_interval() -> None:
    hips = make_hips(40, seed=0)
    few = hips.assign(label=[1] * (MIN_PER_CLASS - 1) + [0] * (len(hips) - MIN_PER_CLASS + 1))
    bounds = bootstrap_patients(few, AUROC, alone(200, 0))[Metric.AUROC]
    assert math.isfinite(bounds.value)
    assert math.isnan(bounds.low)


def test_perfect_ranking_by_chance_has_no_interval_of_no_width() -> None:
    hips = make_hips(40, seed=0).assign(score=lambda h: h["label"] * 0.9)
    assert math.isnan(bootstrap_patients(hips, AUROC, alone(200, 0))[Metric.AUROC].low)


def test_folds_that_share_training_patients_widen_the_interval_and_never_past_its_limits() -> None:
    hips = make_hips(60, seed=2)
    narrow = bootstrap_patients(hips, AUROC, alone(300, 0))[Metric.AUROC]
    config = widen_for_folds(EvaluationConfig(resamples=300), folds=5, tested=5, repeats=1)
    wide = bootstrap_patients(hips, AUROC, config)[Metric.AUROC]
    assert config.fold_widening == pytest.approx(1.5)
    assert wide.value - wide.low == pytest.approx(1.5 * (narrow.value - narrow.low))
    assert wide.high <= 1
    assert widen_for_folds(
        EvaluationConfig(), folds=5, tested=1, repeats=1
    ).fold_widening == pytest.approx(math.sqrt(1.25))
    assert widen_for_folds(alone(300, 0), folds=5, tested=5, repeats=1) == alone(300, 0)


def test_one_class_alone_has_no_auroc_and_no_interval() -> None:
    hips = make_hips(10, seed=0).assign(label=1)
    bounds = bootstrap_patients(hips, AUROC, alone(100, 0))[Metric.AUROC]
    assert math.isnan(bounds.value)
    assert math.isnan(bounds.low)
    assert bounds.n_undefined == 100


@pytest.mark.parametrize(
    ("successes", "n", "expected"), [(21, 28, (0.55, 0.89)), (11, 15, (0.45, 0.92))]
)
def test_exact_intervals_of_the_papers_test_sizes(successes, n, expected) -> None:
    assert exact_interval(successes, n) == pytest.approx(expected, abs=0.006)


def test_exact_intervals_reach_the_ends() -> None:
    assert exact_interval(0, 10)[0] == 0
    assert exact_interval(10, 10)[1] == 1
    with pytest.raises(ValueError, match="successes"):
        exact_interval(3, 2)


@pytest.mark.full
def test_the_bootstrap_covers_the_true_auroc_at_the_papers_size() -> None:
    gap, covered, trials = 1.0, 0, 400
    truth = norm.cdf(gap / math.sqrt(2))
    for trial in range(trials):
        random = np.random.default_rng(1000 + trial)
        labels = random.integers(0, 2, 134)
        hips = pd.DataFrame(
            {
                "patient_id": np.arange(134),
                "label": labels,
                "score": random.normal(size=134) + gap * labels,
                "positive": False,
            }
        )
        bounds = bootstrap_patients(hips, AUROC, alone(1000, trial))[Metric.AUROC]
        covered += bounds.low <= truth <= bounds.high
    # 95 % within three binomial standard errors of 1.1 %, less the percentile interval's bias.
    assert 0.91 <= covered / trials <= 0.985
