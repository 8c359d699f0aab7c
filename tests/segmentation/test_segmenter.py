"""The segmenter averages its networks, cuts at one half and keeps the largest piece."""

import numpy as np
import pytest
from torch import nn

from hipray.runtime.network import TorchNetwork
from hipray.segmentation.segmenter import (
    MaskNetwork,
    Segmenter,
    SegmenterNetwork,
    keep_largest_piece,
)
from hipray.vocab import REGIONS, Region


class Brightness(nn.Module):
    """Calls a pixel part of every region by how bright it is."""

    def __init__(self, outputs, *, gain=10.0, level=0.0):
        super().__init__()
        self._outputs, self._gain, self._level = outputs, gain, level

    def forward(self, films):
        return (self._gain * (films - self._level)).repeat(1, self._outputs, 1, 1)


def make_frames(count=3, side=64):
    frames = np.zeros((count, side, side), np.uint8)
    for number in range(count):
        frames[number, 10 : 30 + number, 20:40] = 255
    return frames


def network(regions=REGIONS, **changes):
    module = MaskNetwork(Brightness(len(regions), **changes))
    return SegmenterNetwork(TorchNetwork(module), regions, 64)


def test_masks_lie_where_the_network_sees_them_and_confidence_is_their_probability() -> None:
    frames = make_frames()
    segmentation = Segmenter([network()])(frames)
    assert segmentation.masks.shape == (3, 4, 64, 64)
    assert np.array_equal(segmentation.masks[:, 2], frames > 0)
    bright = 1 / (1 + np.exp(-10 * (1 - 0.449) / 0.226))
    assert np.allclose(segmentation.confidence, bright, atol=1e-4)


def test_a_network_of_one_region_answers_for_that_region_only() -> None:
    segmentation = Segmenter([network((Region.TOTAL_HIP,))])(make_frames())
    assert segmentation.masks[:, REGIONS.index(Region.TOTAL_HIP)].any()
    assert segmentation.masks.any((0, 2, 3)).sum() == 1
    assert (segmentation.confidence[:, REGIONS.index(Region.FEMORAL_NECK)] == 0).all()


def test_networks_vote_by_their_mean_probability() -> None:
    sure, unsure = network(gain=10.0), network(gain=-1.0)
    both = Segmenter([sure, unsure])(make_frames())
    alone = Segmenter([sure])(make_frames())
    assert both.masks.any()
    assert (both.confidence < alone.confidence).all()
    assert not Segmenter([unsure, network(gain=-10.0)])(make_frames()).masks[:, :, 15, 30].any()


def test_the_batch_size_changes_no_answer() -> None:
    frames = make_frames(5)
    parts = [Segmenter([network()], batch=size)(frames) for size in (1, 2, 16)]
    for part in parts[1:]:
        assert np.array_equal(part.masks, parts[0].masks)
        assert np.allclose(part.confidence, parts[0].confidence)


def test_masks_come_back_at_the_frames_own_size() -> None:
    frames = make_frames(1, side=128)
    masks = Segmenter([network()])(frames).masks
    assert masks.shape == (1, 4, 128, 128)
    overlap = (masks[0, 0] & (frames[0] > 0)).sum() / (masks[0, 0] | (frames[0] > 0)).sum()
    assert overlap > 0.8


def test_no_frames_give_no_masks() -> None:
    segmentation = Segmenter([network()])(np.zeros((0, 64, 64), np.uint8))
    assert segmentation.masks.shape == (0, 4, 64, 64)
    assert segmentation.confidence.shape == (0, 4)


def test_a_segmenter_leaves_no_gradients() -> None:
    module = nn.Conv2d(1, 4, 1)
    segmenter = Segmenter([SegmenterNetwork(TorchNetwork(MaskNetwork(module)), REGIONS, 64)])
    segmenter(make_frames(1))
    assert not module.training
    assert module.weight.grad is None


def test_only_the_largest_piece_of_a_mask_is_kept() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:8, 2:8] = mask[12:15, 12:15] = True
    kept = keep_largest_piece(mask)
    assert kept[2:8, 2:8].all()
    assert kept.sum() == 36


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    mask = np.eye(10, dtype=bool)
    assert np.array_equal(keep_largest_piece(mask), mask)


@pytest.mark.parametrize("value", [False, True])
def test_an_empty_or_full_mask_stays_as_it_is(value) -> None:
    mask = np.full((8, 8), value)
    assert np.array_equal(keep_largest_piece(mask), mask)


def test_frames_are_not_written_to() -> None:
    frames = make_frames(2)
    before = frames.copy()
    Segmenter([network()])(frames)
    assert np.array_equal(frames, before)
