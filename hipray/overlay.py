"""Pictures for a person to check an answer by eye: contours on hips, heat on views."""

import cv2
import numpy as np

from hipray.data.contours import draw_contours
from hipray.data.framing import Mask, Pixels
from hipray.data.images import ReadResult
from hipray.data.png import encode_png
from hipray.pipeline import lift_masks

CONTOUR_PX = 2
"""Thickness of a contour on a canonical hip, whose longer side has some 512 pixels."""

MOST_HEAT = 0.6
"""Share of the colour where the heat is greatest; the bone stays visible below it."""


def draw_overlay(result: ReadResult, masks: Mask | None, working_px: int) -> bytes | None:
    """Return the canonical hips side by side with the contours of masks (N, R, S, S), as PNG.

    None for a film without hips.
    """
    if not result.hips:
        return None
    height = max(hip.pixels.shape[0] for hip in result.hips)
    pictures = []
    for index, hip in enumerate(result.hips):
        drawn = {} if masks is None else lift_masks(hip, masks[index], working_px)
        picture = draw_contours(hip.pixels, drawn, thickness=CONTOUR_PX)
        padding = ((0, height - picture.shape[0]), (0, 0), (0, 0))
        pictures.append(np.pad(picture, padding))
    return encode_png(np.concatenate(pictures, axis=1))


def draw_heat(view: Pixels, heat: Pixels) -> bytes:
    """Return a view (P, P) with heat (P, P) uint8 laid over it, as PNG."""
    grey = np.repeat(view[:, :, None], 3, axis=2).astype(np.float32)
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[:, :, ::-1].astype(np.float32)
    share = MOST_HEAT * heat[:, :, None].astype(np.float32) / 255
    return encode_png(np.rint(grey * (1 - share) + colours * share).astype(np.uint8))
