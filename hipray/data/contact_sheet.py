"""A contact sheet: the accepted hips with their contours, for a person to check by eye."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from hipray.data.framing import Frame, Mask, Pixels
from hipray.vocab import REGIONS, Region

TILE_PX = 192
COLUMNS = 8

CONTOUR_COLOURS: dict[Region, tuple[int, int, int]] = {
    Region.FEMORAL_NECK: (0, 114, 178),
    Region.GREATER_TROCHANTER: (230, 159, 0),
    Region.WARDS_TRIANGLE: (204, 121, 167),
    Region.TOTAL_HIP: (0, 158, 115),
}
"""RGB of each region's contour, told apart by colour-blind readers too (Okabe and Ito)."""


@dataclass(frozen=True)
class Tile:
    """One hip on the sheet."""

    pixels: Pixels
    masks: dict[Region, Mask]
    caption: str


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


def build_contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """Return the sheet as PNG; black where there is no tile."""
    rows = max(1, -(-len(tiles) // COLUMNS))
    sheet = np.zeros((rows * TILE_PX, COLUMNS * TILE_PX, 3), np.uint8)
    for number, tile in enumerate(tiles):
        y, x = (number // COLUMNS) * TILE_PX, (number % COLUMNS) * TILE_PX
        sheet[y : y + TILE_PX, x : x + TILE_PX] = _draw(tile)
    return encode_png(sheet)


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Return grey (H, W) or RGB (H, W, 3) pixels as PNG."""
    ordered = picture[:, :, ::-1] if picture.ndim == 3 else picture
    ok, data = cv2.imencode(".png", ordered)
    assert ok, "cv2 encodes any uint8 array as PNG"
    return bytes(data)


def _draw(tile: Tile) -> Pixels:
    frame = Frame.around(tile.pixels, TILE_PX)
    masks = {region: frame.place_mask(mask) for region, mask in tile.masks.items()}
    picture = draw_contours(frame.place(tile.pixels), masks)
    cv2.putText(
        picture, tile.caption, (4, TILE_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1
    )
    return picture
