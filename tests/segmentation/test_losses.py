"""The segmenters' loss counts annotated channels alone."""

import pytest
import torch

from hipray.config.experiment import SegmentationLoss
from hipray.segmentation.losses import segmentation_loss


def make_masks():
    masks = torch.zeros(2, 4, 16, 16)
    masks[:, :, 4:12, 4:12] = 1
    return masks


def loss(logits, masks, annotated=None, kind=SegmentationLoss.BCE_DICE):
    annotated = torch.ones(2, 4) if annotated is None else annotated
    return float(segmentation_loss(logits, masks, annotated, kind=kind))


@pytest.mark.parametrize("kind", SegmentationLoss)
def test_right_masks_cost_nothing_and_wrong_ones_much(kind) -> None:
    masks = make_masks()
    right, wrong = (sign * (masks * 40 - 20) for sign in (1, -1))
    assert loss(right, masks, kind=kind) == pytest.approx(0, abs=1e-3)
    assert loss(wrong, masks, kind=kind) > 10


def test_an_undecided_network_pays_the_known_amount() -> None:
    masks = make_masks()
    dice = 1 - (2 * 32 + 1) / (128 + 64 + 1)
    expected = torch.log(torch.tensor(2.0)).item() + dice
    assert loss(torch.zeros(2, 4, 16, 16), masks) == pytest.approx(expected, abs=1e-5)


def test_focal_loss_counts_easy_pixels_less() -> None:
    masks = make_masks()
    easy = masks * 4 - 2
    plain, focal = (loss(easy, masks, kind=kind) for kind in SegmentationLoss)
    assert focal < plain


def test_channels_without_an_annotation_teach_nothing() -> None:
    masks, logits = make_masks(), torch.randn(2, 4, 16, 16, requires_grad=True)
    annotated = torch.ones(2, 4)
    annotated[0, 1] = annotated[1] = 0
    segmentation_loss(logits, masks, annotated, kind=SegmentationLoss.BCE_DICE).backward()
    moved = logits.grad.abs().sum((2, 3)) > 0
    assert torch.equal(moved, annotated.bool())


def test_a_batch_without_any_annotation_has_no_loss() -> None:
    assert loss(torch.randn(2, 4, 16, 16), make_masks(), torch.zeros(2, 4)) == 0


def test_an_empty_mask_found_empty_costs_nothing() -> None:
    assert loss(torch.full((2, 4, 16, 16), -30.0), torch.zeros(2, 4, 16, 16)) == pytest.approx(
        0, abs=1e-5
    )
