"""Outlines are drawn beside the film's own pixels."""

import numpy as np

from hipray.data.contours import CONTOUR_COLOURS, draw_contours
from hipray.vocab import Region


def test_outlines_have_their_regions_colour_and_the_inside_stays() -> None:
    film = np.full((100, 100), 77, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[30:60, 40:80] = True
    picture = draw_contours(film, {Region.TOTAL_HIP: mask})
    assert tuple(picture[30, 50]) == CONTOUR_COLOURS[Region.TOTAL_HIP]
    assert (picture[40:50, 50:70] == 77).all()
    assert (film == 77).all()
