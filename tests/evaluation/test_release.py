"""A release end to end: worst site, own threshold, partial grids."""

import numpy as np
import pandas as pd
import pytest

from hipray import metrics
from hipray.config.evaluation import Combine, EvaluationConfig
from hipray.config.experiment import ThresholdRule
from hipray.errors import DataError
from hipray.evaluation.combining import combine_members
from hipray.evaluation.headline import choose_headline_threshold, score_headline
from hipray.evaluation.release import evaluate_release
from hipray.evaluation.release_result import ReleaseResult
from hipray.evaluation.results import read_predictions
from hipray.evaluation.statistics import Metric
from hipray.vocab import Backbone, Baseline, Cell, DataSource, LabelType, Region, Variant

from .conftest import build_manifest, predict_cell

CONFIG = EvaluationConfig(resamples=100)
NECK, HIP = (
    Cell(region, LabelType.T_SCORE, Backbone.VGG16, Variant.ORIGINAL)
    for region in (Region.FEMORAL_NECK, Region.TOTAL_HIP)
)


def evaluate(predictions, members, *, manifest, config):
    headline = score_headline(predictions, members, manifest=manifest, config=config)
    return evaluate_release(headline, predictions, members, manifest=manifest, config=config)


@pytest.fixture
def manifest():
    # The sites differ by noise and their T-scores are high enough for a third without any <= -2.5.
    frame = build_manifest(80)
    for region in Region:
        frame[f"t_{region}"] = (frame[f"t_{region}"] + 0.8).round(1)
        frame[f"label_t_score_{region}"] = (frame[f"t_{region}"] <= -2.5).astype("boolean")
    return frame


@pytest.fixture
def predictions(manifest):
    rows = [predict_cell(manifest, cell, seed=i) for i, cell in enumerate((NECK, HIP))]
    return read_predictions(pd.concat(rows, ignore_index=True))


def test_the_headline_is_the_higher_probability_against_the_lower_t_score(
    manifest, predictions
) -> None:
    found = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    lowest = manifest[["t_femoral_neck", "t_total_hip"]].min(axis=1) <= -2.5
    hips = found.hips.set_index("hip_id")
    expected = pd.Series(lowest.astype(int).to_numpy(), index=manifest["hip_id"])
    assert (hips["label"] == expected.loc[hips.index]).all()
    tests = predictions[predictions["part"] == "test"]
    worst = tests.groupby(["repeat", "hip_id"])["calibrated"].max().groupby("hip_id").mean()
    assert hips["score"].to_dict() == pytest.approx(worst.to_dict())


def test_the_headline_stands_beside_what_needs_no_film(manifest, predictions) -> None:
    found = evaluate(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    rivals = {rival.baseline: rival for rival in found.baselines}
    assert set(rivals) >= {Baseline.MAJORITY, Baseline.COVARIATES}
    constant = rivals[Baseline.MAJORITY]
    assert constant.metrics[Metric.AUROC].value == 0.5
    assert constant.gain.value == pytest.approx(found.metrics[Metric.AUROC].value - 0.5)
    assert rivals[Baseline.COVARIATES].gain.low is not None


def test_a_t_score_of_exactly_minus_two_and_a_half_is_positive(manifest, predictions) -> None:
    manifest.loc[0, ["t_femoral_neck", "t_total_hip"]] = [-2.5, 1.0]
    manifest.loc[1, ["t_femoral_neck", "t_total_hip"]] = [-2.4, -2.4]
    found = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    labels = found.hips.set_index("hip_id")["label"]
    assert (labels["h000"], labels["h001"]) == (1, 0)


def test_the_threshold_comes_from_the_inner_hips_of_the_same_fold(manifest, predictions) -> None:
    found = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    shifted = predictions.copy()
    inner = shifted["part"] == "inner"
    shifted.loc[inner, "probability"] = shifted.loc[inner, "probability"] * 0.01
    low = score_headline(shifted, [NECK, HIP], manifest=manifest, config=CONFIG)
    # Inner scores near zero pull the threshold below all test scores; those stay as they are.
    assert low.hips["positive"].all()
    assert not found.hips["positive"].all()
    assert low.hips["score"].tolist() == found.hips["score"].tolist()


def test_a_release_states_its_numbers_as_json(manifest, predictions, config) -> None:
    result = evaluate(predictions, [NECK, HIP], manifest=manifest, config=config)
    again = ReleaseResult.model_validate_json(result.model_dump_json())
    assert again == result
    assert again.source is DataSource.PHANTOM
    assert again.endpoint == "lowest T-score of femoral neck and total hip <= -2.5"
    assert (again.n_hips, again.n_patients, again.n_folds) == (88, 80, 10)
    auroc = again.metrics[Metric.AUROC]
    assert auroc.low < auroc.value < auroc.high
    assert [scores.region for scores in again.regions] == [NECK.region, HIP.region]


def test_only_folds_that_every_member_ran_on_count(manifest, predictions, config) -> None:
    hip_rows = predictions["region"] == "total_hip"
    finished = predictions["repeat"].eq(0) & predictions["fold"].isin([0, 1])
    partial = predictions[~hip_rows | finished]
    result = evaluate(partial, [NECK, HIP], manifest=manifest, config=config)
    assert result.n_folds == 2
    tested = predictions[hip_rows & finished & (predictions["part"] == "test")]["hip_id"].nunique()
    assert result.n_hips == tested < 88
    assert result.regions[0].region is NECK.region
    assert result.regions[0].n_hips == 88


def test_members_are_averaged_and_a_hip_without_one_of_them_is_left_out(manifest) -> None:
    other = Cell(NECK.region, NECK.label_type, Backbone.RESNET50, NECK.variant)
    first, second = (predict_cell(manifest, cell, seed=i) for i, cell in enumerate((NECK, other)))
    missing = first["hip_id"].iloc[0]
    frame = read_predictions(pd.concat([first, second[second["hip_id"] != missing]]))
    combined = combine_members(frame, [NECK, other], Combine.MEAN)
    assert missing not in set(combined["hip_id"])
    keys = ["repeat", "fold", "part", "hip_id"]
    expected = frame[frame["hip_id"] != missing].groupby(keys)["calibrated"].mean()
    assert np.allclose(combined.set_index(keys)["probability"].sort_index(), expected.sort_index())


def test_a_raw_member_is_used_where_it_has_no_calibration(manifest) -> None:
    rows = predict_cell(manifest, NECK).assign(calibrated=np.nan)
    found = score_headline(read_predictions(rows), [NECK], manifest=manifest, config=CONFIG)
    tests = rows[rows["part"] == "test"].groupby("hip_id")[["label", "score"]].mean()
    assert metrics.auroc(found.hips["label"], found.hips["score"]) == pytest.approx(
        metrics.auroc(tests["label"], tests["score"])
    )


def test_hips_without_a_figure_of_both_sites_are_counted_and_left_out(
    manifest, predictions
) -> None:
    manifest.loc[[2, 5], ["t_total_hip", "label_t_score_total_hip"]] = None
    manifest.loc[[2, 5], "t_femoral_neck"] = -1.0
    found = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    assert found.n_without_t == 2
    assert not {"h002", "h005"} & set(found.hips["hip_id"])


def test_one_abnormal_site_decides_where_the_other_has_no_figure(manifest, predictions) -> None:
    manifest.loc[2, ["t_total_hip", "label_t_score_total_hip"]] = None
    manifest.loc[2, "t_femoral_neck"] = -3.1
    found = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    assert found.n_without_t == 0
    assert found.hips.set_index("hip_id").loc["h002", "label"] == 1


def test_folds_whose_inner_hips_are_of_one_class_fall_back_and_say_so(
    manifest, predictions
) -> None:
    only = manifest.assign(t_femoral_neck=-3.0)
    found = score_headline(predictions, [NECK], manifest=only, config=CONFIG)
    assert found.n_folds_without_threshold == found.n_folds == 10


def test_a_release_without_a_headline_member_is_refused(manifest, predictions) -> None:
    trochanter = Cell(Region.GREATER_TROCHANTER, *(NECK.label_type, "vgg16", NECK.variant))
    with pytest.raises(DataError, match="t_score member for femoral neck or total hip"):
        score_headline(predictions, [trochanter], manifest=manifest, config=CONFIG)


def test_a_release_whose_members_never_ran_together_is_refused(manifest, predictions) -> None:
    folds = predictions["fold"].isin([0, 1])
    apart = predictions[folds ^ (predictions["region"] == "total_hip")]
    with pytest.raises(DataError, match="every member of the release ran on"):
        score_headline(apart, [NECK, HIP], manifest=manifest, config=CONFIG)


def test_the_released_threshold_follows_the_rule_that_the_result_was_measured_with(
    manifest, predictions
):
    def choose(rule):
        config = CONFIG.model_copy(update={"threshold": rule})
        threshold = choose_headline_threshold(
            predictions, [NECK, HIP], manifest=manifest, config=config
        )
        measured = evaluate(predictions, [NECK, HIP], manifest=manifest, config=config)
        assert measured.threshold_rule is rule
        return threshold, measured.metrics[Metric.SENSITIVITY].value

    half, _ = choose(ThresholdRule.HALF)
    youden, at_youden = choose(ThresholdRule.YOUDEN)
    screening, at_screening = choose(ThresholdRule.SENSITIVITY)
    assert half == 0.5
    assert screening != youden
    assert at_screening >= 0.75
    assert at_youden != at_screening


def test_labels_stand_in_where_no_t_score_is_reported(manifest, predictions) -> None:
    bare = manifest.assign(t_femoral_neck=np.nan, t_total_hip=np.nan)
    found = score_headline(predictions, [NECK, HIP], manifest=bare, config=CONFIG)
    before = score_headline(predictions, [NECK, HIP], manifest=manifest, config=CONFIG)
    assert list(found.hips["label"]) == list(before.hips["label"])
