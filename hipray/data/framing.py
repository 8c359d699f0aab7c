"""The square frame: the one way a canonical hip of any size reaches a network.

Legend of shapes: N hips, S side of the frame in pixels, R regions in `vocab.REGIONS` order.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Frame:
    """Where a hip of `height` x `width` pixels lies inside a square of `side` pixels."""

    height: int
    width: int
    side: int

    @classmethod
    def around(cls, pixels: Pixels, side: int) -> "Frame":
        """Return the frame of `side` pixels that holds `pixels` (H, W)."""
        return cls(pixels.shape[0], pixels.shape[1], side)

    @property
    def scale(self) -> float:
        """Frame pixels per hip pixel."""
        return self.side / max(self.height, self.width)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the hip inside the frame, in frame pixels."""
        height = min(self.side, max(1, round(self.height * self.scale)))
        width = min(self.side, max(1, round(self.width * self.scale)))
        return (self.side - height) // 2, (self.side - width) // 2, height, width

    def place(self, pixels: Pixels) -> Pixels:
        """Return `pixels` (H, W) centred in the frame (S, S), black around it."""
        top, left, height, width = self.box
        framed = np.zeros((self.side, self.side), np.uint8)
        framed[top : top + height, left : left + width] = resize(pixels, height, width)
        return framed

    def place_mask(self, mask: Mask) -> Mask:
        """Return a hip's mask (H, W) in the frame (S, S)."""
        return self.place(mask.astype(np.uint8) * 255) >= 128

    def lift_mask(self, mask: Mask) -> Mask:
        """Return a frame's mask (S, S) on the hip's own pixels (H, W)."""
        top, left, height, width = self.box
        inner = mask[top : top + height, left : left + width].astype(np.uint8) * 255
        return resize(inner, self.height, self.width) >= 128


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return `pixels` at another size: area average when shrinking, bilinear when growing."""
    if pixels.shape == (height, width):
        return pixels
    shrinking = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def frame_hip(pixels: Pixels, side: int) -> Pixels:
    """Return a canonical hip (H, W) as a square (S, S)."""
    return Frame.around(pixels, side).place(pixels)


def resize_square(frames: Pixels, side: int) -> Pixels:
    """Return square frames (N, S, S) at another side."""
    if frames.shape[1] == side:
        return frames
    return np.stack([resize(frame, side, side) for frame in frames])
