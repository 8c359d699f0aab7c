"""The segmenter: framed hips in, one mask per region out.

Legend of shapes: N hips, S side of the frame in pixels, R all regions in `vocab.REGIONS` order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from hipray.data.framing import Mask, Pixels, resize_square
from hipray.data.intensity import centre
from hipray.vocab import REGIONS, Region


@dataclass(frozen=True)
class SegmenterNetwork:
    """One trained network and the regions its output channels mean."""

    module: nn.Module
    regions: tuple[Region, ...]
    size_px: int


@dataclass(frozen=True)
class Segmentation:
    """The masks of N hips and how sure the networks were of them."""

    masks: Mask
    """(N, R, S, S), the largest connected piece of each region."""
    confidence: npt.NDArray[np.float32]
    """(N, R) mean probability inside the mask, 0 where the mask is empty."""


class Segmenter:
    """Averages its networks' probabilities for each region and cuts at one half."""

    def __init__(
        self,
        networks: Sequence[SegmenterNetwork],
        *,
        device: torch.device | None = None,
        batch: int = 16,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._batch = batch
        self._networks = [
            SegmenterNetwork(n.module.eval().to(self._device), n.regions, n.size_px)
            for n in networks
        ]

    @torch.inference_mode()
    def __call__(self, frames: Pixels) -> Segmentation:
        """Return the masks of framed hips (N, S, S) uint8, at the frames' own resolution."""
        parts = [self._segment(chunk) for chunk in _chunks(frames, self._batch)]
        if not parts:
            side = frames.shape[1]
            empty = np.zeros((0, len(REGIONS), side, side), np.bool_)
            return Segmentation(empty, np.zeros((0, len(REGIONS)), np.float32))
        return Segmentation(
            np.concatenate([part.masks for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )

    def _segment(self, frames: Pixels) -> Segmentation:
        probability = self._probabilities(frames)
        masks = np.zeros(probability.shape, np.bool_)
        confidence = np.zeros(probability.shape[:2], np.float32)
        for hip, region in np.ndindex(*confidence.shape):
            mask = keep_largest_piece(probability[hip, region] >= 0.5)
            masks[hip, region] = mask
            if mask.any():
                confidence[hip, region] = probability[hip, region][mask].mean()
        return Segmentation(masks, confidence)

    def _probabilities(self, frames: Pixels) -> npt.NDArray[np.float32]:
        side = frames.shape[1]
        total = torch.zeros(len(frames), len(REGIONS), side, side, device=self._device)
        votes = torch.zeros(len(REGIONS), device=self._device)
        for network in self._networks:
            small = torch.from_numpy(resize_square(frames, network.size_px)).to(self._device)
            logits = network.module(centre(small[:, None].float() / 255))
            grown = F.interpolate(
                torch.sigmoid(logits.float()), (side, side), mode="bilinear", align_corners=False
            )
            channels = [REGIONS.index(region) for region in network.regions]
            total[:, channels] += grown
            votes[channels] += 1
        mean: npt.NDArray[np.float32] = (
            (total / votes.clamp(min=1)[None, :, None, None]).cpu().numpy()
        )
        return mean


def keep_largest_piece(mask: Mask) -> Mask:
    """Return the largest 8-connected piece of a mask (S, S); an empty mask stays empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), None, None, None, 8
    )
    if count <= 2:  # background and at most one piece
        return mask
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(labels == largest)


def _chunks(frames: Pixels, size: int) -> Iterator[Pixels]:
    for start in range(0, len(frames), size):
        yield np.ascontiguousarray(frames[start : start + size])
