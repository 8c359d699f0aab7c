"""What is written as PNG reads back as it was."""

from io import BytesIO

import numpy as np
from PIL import Image

from hipray.data.png import encode_mask, encode_png


def test_a_png_keeps_grey_values_and_the_order_of_colours() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 200
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode_png(grey)))), grey)
    assert np.array_equal(np.asarray(Image.open(BytesIO(encode_png(colour)))), colour)


def test_a_mask_is_8_bit_with_0_outside_and_255_inside() -> None:
    mask = np.eye(9, dtype=bool)
    picture = Image.open(BytesIO(encode_mask(mask)))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), np.where(mask, 255, 0))
