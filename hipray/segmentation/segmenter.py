"""The segmenter: framed hips in, one mask per region out.

Legend of shapes: N hips, S side of the frame in pixels, R all regions in `vocab.REGIONS` order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hipray.data.framing import Mask, Pixels, resize_square
from hipray.data.intensity import centre
from hipray.runtime.network import Answers, Network
from hipray.vocab import REGIONS, Region


class MaskNetwork(nn.Module):
    """A network of logits as one of grey values in 0..1 that answers with probabilities."""

    def __init__(self, logits: nn.Module) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Return the probability (B, R, S, S) of each region, of films (B, 1, S, S)."""
        return torch.sigmoid(self.logits(centre(films)).float())


@dataclass(frozen=True)
class SegmenterNetwork:
    """One trained network and the regions its output channels mean."""

    network: Network
    """Answers with probabilities (B, R, S, S), as a `MaskNetwork` does."""
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
        batch: int = 16,
    ) -> None:
        self._batch = batch
        self._networks = tuple(networks)

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

    def _probabilities(self, frames: Pixels) -> Answers:
        side = frames.shape[1]
        total = np.zeros((len(frames), len(REGIONS), side, side), np.float32)
        votes = np.zeros(len(REGIONS), np.float32)
        for network in self._networks:
            answers = network.network(resize_square(frames, network.size_px))
            channels = [REGIONS.index(region) for region in network.regions]
            for own, channel in enumerate(channels):
                total[:, channel] += [_grow(answer, side) for answer in answers[:, own]]
            votes[channels] += 1
        total /= np.maximum(votes, 1)[None, :, None, None]
        return total


def _grow(probability: Answers, side: int) -> Answers:
    """A probability map (S, S) at another side, by the pixels' centres."""
    if len(probability) == side:
        return probability
    grown = cv2.resize(probability, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown, np.float32)


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
