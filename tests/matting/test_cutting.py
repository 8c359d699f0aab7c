"""Views are cut whole, or as the pixels inside a mask, cropped to it."""

import numpy as np
import pytest

from hipray.config.experiment import MattingSettings
from hipray.data.framing import resize_square
from hipray.matting.cutting import cut_views
from hipray.vocab import MaskSource, View

FRAME = np.random.default_rng(0).integers(1, 256, (1, 100, 100)).astype(np.uint8)


def draw_mask(top=30, bottom=70, left=40, right=80):
    mask = np.zeros((1, 100, 100), bool)
    mask[0, top:bottom, left:right] = True
    return mask


def cut(drawn, *, size=40, **settings):
    settings = {"margin_fraction": 0.0} | settings
    return cut_views(
        FRAME, drawn, view=View.MATTED, settings=MattingSettings(**settings), size_px=size
    )


def test_a_whole_view_is_the_frame_at_the_asked_size_whatever_its_mask() -> None:
    whole = cut_views(FRAME, draw_mask(), view=View.WHOLE, settings=MattingSettings(), size_px=40)
    assert np.array_equal(whole.films, resize_square(FRAME, 40))
    assert whole.present.tolist() == [True]


def test_a_square_mask_is_cut_out_pixel_for_pixel() -> None:
    crops = cut(draw_mask())
    assert crops.present.tolist() == [True]
    assert np.array_equal(crops.films[0], FRAME[0, 30:70, 40:80])


def test_pixels_outside_the_mask_are_black() -> None:
    mask = draw_mask()
    mask[0, 30:50, 40:60] = False
    crop = cut(mask).films[0]
    assert (crop[:20, :20] == 0).all()
    assert np.array_equal(crop[20:], FRAME[0, 50:70, 40:80])


def test_a_box_keeps_what_the_mask_leaves_out() -> None:
    mask = draw_mask()
    mask[0, 40:50, 45:60] = False
    assert np.array_equal(cut(mask, mask=MaskSource.BOX).films[0], FRAME[0, 30:70, 40:80])


def test_a_box_keeps_the_whole_square_about_a_long_region() -> None:
    crop = cut(draw_mask(20, 80, 45, 55), mask=MaskSource.BOX, margin_fraction=0.05, size=70)
    assert np.array_equal(crop.films[0], FRAME[0, 15:85, 15:85])


def test_a_dilated_mask_adds_a_rim_of_the_wanted_width() -> None:
    crop = cut(draw_mask(), mask=MaskSource.DILATED, dilate_fraction=0.05, size=50).films[0]
    assert np.array_equal(crop[5:45, 5:45], FRAME[0, 30:70, 40:80])
    assert np.array_equal(crop[25, :5], FRAME[0, 50, 35:40])


@pytest.mark.parametrize("source", [MaskSource.PREDICTED, MaskSource.TRUE])
def test_predicted_and_true_masks_are_cut_alike(source) -> None:
    assert np.array_equal(cut(draw_mask(), mask=source).films[0], FRAME[0, 30:70, 40:80])


def test_a_margin_leaves_air_around_the_region() -> None:
    crop = cut(draw_mask(), margin_fraction=0.05, size=50).films[0]
    assert np.array_equal(crop[5:45, 5:45], FRAME[0, 30:70, 40:80])
    assert crop[:5].max() == crop[:, -5:].max() == 0


def test_a_long_region_keeps_its_proportions() -> None:
    crop = cut(draw_mask(20, 80, 45, 55), size=60).films[0]
    assert np.array_equal(crop[:, 25:35], FRAME[0, 20:80, 45:55])
    assert crop[:, :25].max() == crop[:, 35:].max() == 0


def test_a_region_at_the_border_is_cut_without_wrapping_round() -> None:
    crop = cut(draw_mask(0, 40, 90, 100), size=40).films[0]
    assert np.array_equal(crop[:, 15:25], FRAME[0, 0:40, 90:100])
    assert crop[:, 25:].max() == 0


@pytest.mark.parametrize("pixels", [0, 9])
def test_a_mask_too_small_to_be_the_region_gives_no_view(pixels) -> None:
    mask = np.zeros((1, 100, 100), bool)
    mask[0, 0, :pixels] = True
    crops = cut(mask)
    assert crops.present.tolist() == [False]
    assert crops.films.max() == 0


def test_crops_have_the_asked_size_whatever_the_region() -> None:
    assert cut(draw_mask(10, 95, 5, 60), size=33).films.shape == (1, 33, 33)


def test_frames_are_not_written_to() -> None:
    before = FRAME.copy()
    cut(draw_mask())
    assert np.array_equal(FRAME, before)
