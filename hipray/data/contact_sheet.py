"""A contact sheet: the accepted hips with their contours, for a person to check by eye."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hipray.data.contours import draw_contours
from hipray.data.framing import Frame, Mask, Pixels
from hipray.data.png import encode_png
from hipray.vocab import Region

TILE_PX = 192
COLUMNS = 8


@dataclass(frozen=True)
class Tile:
    """One hip on the sheet."""

    pixels: Pixels
    masks: dict[Region, Mask]
    caption: str


def build_contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """Return the sheet as PNG; black where there is no tile."""
    rows = max(1, -(-len(tiles) // COLUMNS))
    sheet = np.zeros((rows * TILE_PX, COLUMNS * TILE_PX, 3), np.uint8)
    for number, tile in enumerate(tiles):
        y, x = (number // COLUMNS) * TILE_PX, (number % COLUMNS) * TILE_PX
        sheet[y : y + TILE_PX, x : x + TILE_PX] = _draw(tile)
    return encode_png(sheet)


def _draw(tile: Tile) -> Pixels:
    frame = Frame.around(tile.pixels, TILE_PX)
    masks = {region: frame.place_mask(mask) for region, mask in tile.masks.items()}
    picture = draw_contours(frame.place(tile.pixels), masks)
    cv2.putText(
        picture, tile.caption, (4, TILE_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1
    )
    return picture
