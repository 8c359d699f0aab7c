"""Cutting: what a classifier sees of framed hips, whole or matted.

Matting keeps the pixels inside a region's mask and crops to it (section 3.3.3 of the paper).
Training and the pipeline both cut here, so that a network meets the views that it learned from. A
step that shapes views belongs here; one in another room also wants its module in
`CLASSIFIER_SOURCE` of `hipray.training.plan`, or fits of before the change would count as done.

Legend of shapes: N hips, S side of the frame in pixels, P side of the view in pixels.
"""

from dataclasses import dataclass
from typing import assert_never

import cv2
import numpy as np
import numpy.typing as npt

from hipray.config.experiment import MattingSettings
from hipray.data.framing import Mask, Pixels, resize, resize_square
from hipray.vocab import MaskSource, View


@dataclass(frozen=True)
class CutViews:
    """One view of each hip."""

    films: Pixels
    """(N, P, P) uint8; black where the region is missing."""
    present: npt.NDArray[np.bool_]
    """(N,) whether there is anything to see: a matted region's mask was large enough to cut."""


def cut_views(
    frames: Pixels, masks: Mask | None, *, view: View, settings: MattingSettings, size_px: int
) -> CutViews:
    """Return the views (N, `size_px`, `size_px`) of frames (N, S, S).

    Matted views need the masks (N, S, S) of their region.
    """
    match view:
        case View.WHOLE:
            return CutViews(resize_square(frames, size_px), np.ones(len(frames), np.bool_))
        case View.MATTED:
            assert masks is not None, "matted views need masks"
            return _matte(frames, masks, settings, size_px)
        case _:
            assert_never(view)


def _matte(frames: Pixels, masks: Mask, settings: MattingSettings, size_px: int) -> CutViews:
    films = np.zeros((len(frames), size_px, size_px), np.uint8)
    present = np.zeros(len(frames), np.bool_)
    for row, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        if mask.mean() >= settings.min_area_fraction:
            films[row] = _cut_region(frame, mask, settings, size_px)
            present[row] = True
    return CutViews(films, present)


def _cut_region(frame: Pixels, mask: Mask, settings: MattingSettings, size_px: int) -> Pixels:
    """One region on black, or in its box: bone beside it and soft tissue give a network the
    region's surroundings, and no black edge drowns its texture.
    """
    region = _outline(mask, settings)
    kept = True if settings.mask is MaskSource.BOX else region
    matted = np.where(kept, frame, 0).astype(np.uint8)
    margin = round(settings.margin_fraction * frame.shape[0])
    top, left, side = _square_around(region, margin)
    return resize(_window(matted, top, left, side), size_px, size_px)


def _outline(mask: Mask, settings: MattingSettings) -> Mask:
    """The region that a mask stands for; who drew it makes no difference."""
    match settings.mask:
        case MaskSource.DILATED:
            return _dilate(mask, round(settings.dilate_fraction * mask.shape[0]))
        case MaskSource.PREDICTED | MaskSource.TRUE | MaskSource.BOX:
            return mask
        case _:
            assert_never(settings.mask)


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
