"""The classifiers' loss: cross entropy, with class weights where the classes are unequal."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from hipray.config.experiment import ClassWeighting


def class_weights(labels: npt.NDArray[np.int64], weighting: ClassWeighting) -> tuple[float, float]:
    """Return the loss weights of normal and abnormal: n / (2 n_class), or 1 and 1."""
    if weighting is ClassWeighting.NONE:
        return 1.0, 1.0
    positive = float(np.mean(labels))
    return 0.5 / (1 - positive), 0.5 / positive


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: tuple[float, float]
) -> torch.Tensor:
    """Return the weighted mean cross entropy of logits (B, 2) and labels (B,) in 0, 1."""
    # filled on the device: a tensor made of numbers is copied there, and the host waits
    each = torch.stack([logits.new_full((), weight) for weight in weights])
    return F.cross_entropy(logits, labels, weight=each)


def score_loss(answers: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the mean smooth absolute error of answers (B, 1) and standardised scores (B,)."""
    return F.smooth_l1_loss(answers[:, 0], scores)
