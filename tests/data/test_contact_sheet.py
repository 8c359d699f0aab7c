"""The contact sheet shows every hip."""

from io import BytesIO

import numpy as np
from PIL import Image

from hipray.data.contact_sheet import COLUMNS, TILE_PX, Tile, build_contact_sheet


def decode(png):
    return np.asarray(Image.open(BytesIO(png)))


def test_the_sheet_has_a_tile_for_every_hip_in_reading_order() -> None:
    films = [np.full((50, 80), 40 + number, np.uint8) for number in range(COLUMNS + 1)]
    sheet = decode(build_contact_sheet([Tile(film, {}, "") for film in films]))
    assert sheet.shape == (2 * TILE_PX, COLUMNS * TILE_PX, 3)
    middles = sheet[TILE_PX // 2, TILE_PX // 2 :: TILE_PX, 0]
    assert list(middles) == [40 + number for number in range(COLUMNS)]
    assert sheet[TILE_PX + TILE_PX // 2, TILE_PX // 2, 0] == 40 + COLUMNS
    assert (sheet[TILE_PX:, TILE_PX:] == 0).all()


def test_an_empty_sheet_is_still_a_picture() -> None:
    assert decode(build_contact_sheet([])).shape == (TILE_PX, COLUMNS * TILE_PX, 3)
