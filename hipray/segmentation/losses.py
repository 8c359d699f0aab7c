"""Losses of the segmenters: a pixel term plus soft Dice, over annotated channels only.

Legend of shapes: B films, R regions, S side in pixels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

from hipray.config.experiment import SegmentationLoss

FOCAL_GAMMA = 2.0
"""Focusing exponent of the focal term (Lin et al. 2017)."""


def segmentation_loss(
    logits: torch.Tensor, masks: torch.Tensor, annotated: torch.Tensor, *, kind: SegmentationLoss
) -> torch.Tensor:
    """Return the mean loss of logits and masks (B, R, S, S); `annotated` (B, R) weighs channels."""
    per_channel = PIXEL_TERMS[kind](logits, masks) + _soft_dice_loss(logits, masks)
    weight = annotated.to(per_channel)
    return (per_channel * weight).sum() / weight.sum().clamp(min=1)


def _bce(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((2, 3))


def _focal(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return (bce * (1 - torch.exp(-bce)) ** FOCAL_GAMMA).mean((2, 3))


def _soft_dice_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 - (2 Σpm + 1) / (Σp + Σm + 1) for each film and region (Milletari et al. 2016)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * masks).sum((2, 3))
    total = probability.sum((2, 3)) + masks.sum((2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


PIXEL_TERMS: dict[SegmentationLoss, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    SegmentationLoss.BCE_DICE: _bce,
    SegmentationLoss.FOCAL_DICE: _focal,
}
