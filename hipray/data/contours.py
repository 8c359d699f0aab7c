"""The outlines of regions, drawn on a film."""

import cv2
import numpy as np

from hipray.data.framing import Mask, Pixels
from hipray.vocab import REGIONS, Region

CONTOUR_COLOURS: dict[Region, tuple[int, int, int]] = {
    Region.FEMORAL_NECK: (0, 114, 178),
    Region.GREATER_TROCHANTER: (230, 159, 0),
    Region.WARDS_TRIANGLE: (204, 121, 167),
    Region.TOTAL_HIP: (0, 158, 115),
}
"""RGB of each region's contour, told apart by colour-blind readers too (Okabe and Ito)."""


def draw_contours(pixels: Pixels, masks: dict[Region, Mask], *, thickness: int = 1) -> Pixels:
    """Return an RGB picture (H, W, 3) of `pixels` (H, W) with the outline of each mask (H, W)."""
    picture = np.repeat(pixels[:, :, None], 3, axis=2).copy()
    for region in REGIONS:
        if region in masks:
            outline, _ = cv2.findContours(
                masks[region].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(picture, outline, -1, CONTOUR_COLOURS[region], thickness)
    return picture
