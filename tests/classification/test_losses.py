"""Class weights enter the loss and leave the logit."""

import numpy as np
import pytest
import torch

from hipray.classification.losses import class_weights, classification_loss
from hipray.classification.odds import unweight_logit
from hipray.config.experiment import ClassWeighting


def test_balanced_weights_are_n_over_twice_the_class() -> None:
    labels = np.array([0, 0, 0, 1])
    assert class_weights(labels, ClassWeighting.BALANCED) == pytest.approx((4 / 6, 4 / 2))


def test_without_weighting_both_classes_count_alike() -> None:
    assert class_weights(np.array([0, 0, 0, 1]), ClassWeighting.NONE) == (1.0, 1.0)


def test_balanced_classes_have_the_same_total_weight() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    normal, abnormal = class_weights(labels, ClassWeighting.BALANCED)
    assert normal * 9 == pytest.approx(abnormal * 3)


def test_the_loss_is_the_weighted_mean_cross_entropy() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    each = -torch.log_softmax(logits, 1)[torch.arange(3), labels]
    weights = torch.tensor([0.5, 2.0, 2.0])
    expected = (each * weights).sum() / weights.sum()
    assert torch.isclose(classification_loss(logits, labels, (0.5, 2.0)), expected)


def test_the_best_weighted_logit_comes_back_as_the_true_odds():
    """Minimise the weighted loss of a constant answer and compare with the prevalence."""
    labels = torch.tensor([0] * 80 + [1] * 20)
    weights = class_weights(labels.numpy(), ClassWeighting.BALANCED)
    odds = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([odds], max_iter=100)

    def close():
        optimizer.zero_grad()
        logits = torch.stack([torch.zeros(100), odds.expand(100)], 1)
        loss = classification_loss(logits, labels, weights)
        loss.backward()
        return loss

    optimizer.step(close)
    learned = odds.detach().numpy().astype(np.float64)
    assert learned[0] == pytest.approx(0, abs=1e-3)
    assert unweight_logit(learned, weights)[0] == pytest.approx(np.log(0.2 / 0.8), abs=1e-3)
