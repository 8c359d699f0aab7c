"""Training a classifier: nothing of a test hip reaches weights, threshold or calibration."""

import dataclasses

import numpy as np
import pytest
import torch

from hipray.classification.odds import OddsScale
from hipray.config.experiment import (
    Budget,
    ClassifierSettings,
    MattingSettings,
    Target,
    ThresholdRule,
)
from hipray.errors import DataError
from hipray.metrics import apply_platt, youden_threshold
from hipray.training.classifier import ClassifierTask, train_classifier
from hipray.training.context import FitContext
from hipray.training.views import build_views
from hipray.vocab import Cell, Covariate, Fit, LabelType, Region, Variant
from tests.small_workspace import BACKBONE, EXPERIMENT

SETTINGS = EXPERIMENT.classifier
FIT = Fit(Cell(Region.TOTAL_HIP, LabelType.T_SCORE, BACKBONE, Variant.AUGMENTED), 0, 1)


@pytest.fixture(scope="module")
def views(inputs):
    return build_views(
        FIT.cell, inputs.manifest, inputs.arrays, masks=None,
        classifier=SETTINGS, matting=MattingSettings(),
    )  # fmt: skip


def train(inputs, views, settings=SETTINGS, **changes):
    return train_classifier(
        FIT, inputs.manifest, views, fold=inputs.fold(FIT),
        settings=settings, split=EXPERIMENT.split, context=FitContext(), **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def outcome(inputs, views):
    return train(inputs, views)


def same_weights(first, second):
    states = first.module.state_dict(), second.module.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_train_inner_and_test_share_no_patient_and_cover_every_hip(inputs, outcome) -> None:
    parts = dict(tuple(outcome.predictions.groupby("part")))
    patients = [set(parts[part]["patient_id"]) for part in ("train", "inner", "test")]
    assert all(patients)
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert sorted(outcome.predictions["hip_id"]) == sorted(inputs.manifest["hip_id"])
    tested = inputs.manifest["hip_id"].iloc[inputs.fold(FIT).test]
    assert set(parts["test"]["hip_id"]) == set(tested)


def test_the_same_seed_gives_the_same_scores_and_weights(inputs, views, outcome) -> None:
    again = train(inputs, views)
    assert again.predictions.equals(outcome.predictions)
    assert same_weights(again, outcome)


def test_another_seed_gives_other_scores(inputs, views, outcome) -> None:
    other = train(inputs, views, SETTINGS.model_copy(update={"seed": 2}))
    assert not np.allclose(other.predictions["score"].mean(), outcome.predictions["score"].mean())


def test_test_hips_influence_neither_weights_nor_threshold_nor_calibration(
    inputs, views, outcome
) -> None:
    test = np.isin(views.rows, inputs.fold(FIT).test)
    films, labels = views.films.copy(), views.labels.copy()
    films[test] = 255 - films[test]
    labels[test] = 1 - labels[test]
    changed = train(inputs, dataclasses.replace(views, films=films, labels=labels))
    assert same_weights(changed, outcome)
    assert changed.threshold == outcome.threshold
    assert changed.calibrator == outcome.calibrator
    before, after = (o.predictions.query("part == 'test'")["score"] for o in (outcome, changed))
    assert not np.allclose(before, after)


def test_threshold_and_calibration_are_those_of_the_inner_hips(outcome) -> None:
    inner = outcome.predictions.query("part == 'inner'")
    assert outcome.threshold == youden_threshold(inner["label"], inner["score"])
    assert (outcome.predictions["threshold"] == outcome.threshold).all()
    expected = apply_platt(outcome.calibrator, outcome.predictions["score"])
    assert np.allclose(outcome.predictions["calibrated"], expected)


def test_class_weights_are_taken_out_of_every_score(inputs, views, outcome) -> None:
    train_part = outcome.predictions.query("part == 'train'")
    prevalence = train_part["label"].mean()
    weights = outcome.odds.class_weights
    assert weights == pytest.approx((0.5 / (1 - prevalence), 0.5 / prevalence))
    films = torch.from_numpy(views.films[:4])[:, None].float() / 255
    with torch.inference_mode():
        logits = outcome.module(films, torch.from_numpy(views.people[:4])).double()
    raw = (logits[:, 1] - logits[:, 0]).numpy()
    odds = raw - np.log(weights[1] / weights[0])
    ids = inputs.manifest["hip_id"].iloc[views.rows[:4]]
    scores = outcome.predictions.set_index("hip_id").loc[ids]["score"]
    assert np.allclose(scores, 1 / (1 + np.exp(-odds)), atol=1e-5)


@pytest.mark.parametrize("label", [0, 1])
def test_a_training_set_of_one_class_is_refused_naming_the_fit(inputs, views, label) -> None:
    one = dataclasses.replace(views, labels=np.full_like(views.labels, label))
    with pytest.raises(DataError, match=rf"normal and abnormal .* training set of {FIT.name}"):
        train(inputs, one)


def test_inner_validation_of_one_class_is_refused(inputs, views, outcome) -> None:
    inner = outcome.predictions.query("part == 'inner'")["hip_id"]
    labels = views.labels.copy()
    labels[np.isin(inputs.manifest["hip_id"].iloc[views.rows], inner)] = 1
    with pytest.raises(DataError, match=r"in the inner validation set"):
        train(inputs, dataclasses.replace(views, labels=labels))


def test_start_weights_are_where_training_starts(inputs, views) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "lr": 1e-12, "weights": "start"})
    first = train(inputs, views)
    start = {name: t.clone() for name, t in first.module.state_dict().items()}
    moved = train(inputs, views, settings, start=start)
    for name, tensor in first.module.named_parameters():
        assert torch.allclose(dict(moved.module.named_parameters())[name], tensor, atol=1e-6)


def count_steps(views, variant, **changes):
    settings = ClassifierSettings(size_px=32, batch=4, epochs=2, **changes)
    known = dataclasses.replace(views.take(np.arange(10)), labels=np.arange(10) % 2)
    fit = Fit(dataclasses.replace(FIT.cell, variant=variant), 0, 0)
    task = ClassifierTask(
        fit, known, known,
        settings=settings, odds=OddsScale(), start=None, context=FitContext(),
    )  # fmt: skip
    task.module.train()
    task.train_epoch(0, torch.Generator().manual_seed(0))
    return int(task.optimizer.state_dict()["state"][0]["step"])


def test_an_epoch_waits_for_its_device_once(views, watch_host) -> None:
    settings = ClassifierSettings(size_px=32, batch=4, covariates=(Covariate.AGE,))
    known = dataclasses.replace(views.take(np.arange(10)), labels=np.arange(10) % 2)
    fit = Fit(dataclasses.replace(FIT.cell, variant=Variant.ORIGINAL), 0, 0)
    task = ClassifierTask(
        fit, known, known,
        settings=settings, odds=OddsScale((0.5, 2.0)), start=None, context=FitContext(),
    )  # fmt: skip
    assert watch_host(task) == ["lift_fresh", "_local_scalar_dense"], "rows there, the loss back"


def test_original_and_augmented_take_the_same_steps_by_default(views) -> None:
    assert count_steps(views, Variant.ORIGINAL) == count_steps(views, Variant.AUGMENTED) == 3


def test_equal_epochs_train_the_augmented_arm_seven_times_longer(views) -> None:
    assert count_steps(views, Variant.AUGMENTED, budget=Budget.EQUAL_EPOCHS) == 18


def test_scores_are_learned_by_regression_and_cut_at_the_labels_threshold(inputs, views) -> None:
    settings = SETTINGS.model_copy(update={"target": Target.SCORE, "threshold": ThresholdRule.HALF})
    outcome = train(inputs, views, settings)
    known = outcome.predictions
    measured = inputs.manifest.set_index("hip_id")["t_total_hip"].loc[known["hip_id"]]
    assert np.allclose(known["measured"], measured)
    assert outcome.odds.score.threshold == -2.5
    assert ((known["predicted"] <= -2.5) == (known["score"] >= outcome.threshold)).all()
    assert ((known["measured"] <= -2.5) == (known["label"] == 1)).all()


def test_labels_that_no_score_explains_cannot_be_learned_by_regression(inputs, views) -> None:
    settings = SETTINGS.model_copy(update={"target": Target.SCORE})
    given = dataclasses.replace(views, labels=1 - views.labels)
    with pytest.raises(DataError, match="follow from a threshold on the score"):
        train(inputs, given, settings)


def test_covariates_reach_the_network(inputs, views) -> None:
    told = train(inputs, views, SETTINGS.model_copy(update={"covariates": (Covariate.AGE,)}))
    people = torch.zeros(1, views.people.shape[1])
    film = torch.zeros(1, 1, 64, 64)
    older = people.clone()
    older[0, 0] = 1.0
    with torch.inference_mode():
        assert not torch.equal(told.module(film, people), told.module(film, older))


def test_predictions_of_labels_state_what_was_measured_and_no_score(outcome) -> None:
    assert outcome.predictions["measured"].notna().all()
    assert outcome.predictions["predicted"].isna().all()
