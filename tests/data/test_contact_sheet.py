"""The contact sheet shows every hip with its outlines."""

from io import BytesIO

import numpy as np
from PIL import Image

from hipray.data.contact_sheet import (
    COLUMNS,
    CONTOUR_COLOURS,
    TILE_PX,
    Tile,
    build_contact_sheet,
    draw_contours,
    encode_png,
)
from hipray.vocab import Region


def decode(png):
    return np.asarray(Image.open(BytesIO(png)))


def square_mask(side=100):
    mask = np.zeros((side, side), bool)
    mask[30:60, 40:80] = True
    return mask


def test_outlines_have_their_regions_colour_and_the_inside_stays():
    film = np.full((100, 100), 77, np.uint8)
    picture = draw_contours(film, {Region.TOTAL_HIP: square_mask()})
    assert tuple(picture[30, 50]) == CONTOUR_COLOURS[Region.TOTAL_HIP]
    assert (picture[40:50, 50:70] == 77).all()
    assert (film == 77).all()


def test_a_png_keeps_grey_values_and_the_order_of_colours():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 200
    assert np.array_equal(decode(encode_png(grey)), grey)
    assert np.array_equal(decode(encode_png(colour)), colour)


def test_the_sheet_has_a_tile_for_every_hip_in_reading_order():
    films = [np.full((50, 80), 40 + number, np.uint8) for number in range(COLUMNS + 1)]
    sheet = decode(build_contact_sheet([Tile(film, {}, "") for film in films]))
    assert sheet.shape == (2 * TILE_PX, COLUMNS * TILE_PX, 3)
    middles = sheet[TILE_PX // 2, TILE_PX // 2 :: TILE_PX, 0]
    assert list(middles) == [40 + number for number in range(COLUMNS)]
    assert sheet[TILE_PX + TILE_PX // 2, TILE_PX // 2, 0] == 40 + COLUMNS
    assert (sheet[TILE_PX:, TILE_PX:] == 0).all()


def test_an_empty_sheet_is_still_a_picture():
    assert decode(build_contact_sheet([])).shape == (TILE_PX, COLUMNS * TILE_PX, 3)
