"""Matting: keep the pixels inside a region's mask and crop to it (section 3.3.3 of the paper).

Legend of shapes: N hips, S side of the frame in pixels, P side of the crop in pixels.
"""

from dataclasses import dataclass
from typing import assert_never

import cv2
import numpy as np
import numpy.typing as npt

from hipray.config.experiment import MattingSettings
from hipray.data.framing import Mask, Pixels, resize
from hipray.vocab import MaskSource


@dataclass(frozen=True)
class Crops:
    """The matted crops of one region."""

    films: Pixels
    """(N, P, P) uint8; black where the region is missing."""
    present: npt.NDArray[np.bool_]
    """(N,) whether the region's mask was large enough to cut."""


class Matter:
    """Cuts one region out of framed hips.

    A box keeps the whole square about the region: bone beside it and soft tissue give a network
    the region's surroundings, and no black edge drowns its texture.
    """

    def __init__(self, settings: MattingSettings) -> None:
        self._settings = settings

    def __call__(self, frames: Pixels, masks: Mask, *, size_px: int) -> Crops:
        """Return crops (N, `size_px`, `size_px`) of frames and one region's masks (N, S, S)."""
        films = np.zeros((len(frames), size_px, size_px), np.uint8)
        present = np.zeros(len(frames), np.bool_)
        for row, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            if mask.mean() >= self._settings.min_area_fraction:
                films[row] = self._cut(frame, mask, size_px)
                present[row] = True
        return Crops(films, present)

    def _cut(self, frame: Pixels, mask: Mask, size_px: int) -> Pixels:
        region = self._outline(mask)
        kept = True if self._settings.mask is MaskSource.BOX else region
        matted = np.where(kept, frame, 0).astype(np.uint8)
        margin = round(self._settings.margin_fraction * frame.shape[0])
        top, left, side = _square_around(region, margin)
        return resize(_window(matted, top, left, side), size_px, size_px)

    def _outline(self, mask: Mask) -> Mask:
        """The region that a mask stands for; who drew it makes no difference."""
        match self._settings.mask:
            case MaskSource.DILATED:
                return _dilate(mask, round(self._settings.dilate_fraction * mask.shape[0]))
            case MaskSource.PREDICTED | MaskSource.TRUE | MaskSource.BOX:
                return mask
            case _:
                assert_never(self._settings.mask)


def _dilate(mask: Mask, radius: int) -> Mask:
    side = 2 * max(1, radius) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _square_around(mask: Mask, margin: int) -> tuple[int, int, int]:
    """Top, left and side of the square about the mask's bounding box; may leave the frame."""
    top, bottom, left, right = _bounds(mask)
    side = max(bottom - top, right - left) + 2 * margin
    return (top + bottom - side) // 2, (left + right - side) // 2, side


def _window(film: Pixels, top: int, left: int, side: int) -> Pixels:
    """A square window of a film (S, S), black beyond its border."""
    window = np.zeros((side, side), np.uint8)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + side, film.shape[0]), min(left + side, film.shape[1])
    window[y0 - top : y1 - top, x0 - left : x1 - left] = film[y0:y1, x0:x1]
    return window
