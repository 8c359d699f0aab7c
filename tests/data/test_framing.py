"""The square frame keeps proportions, and masks find their way back."""

import numpy as np
import pytest

from hipray.data.framing import Frame, frame_hip, resize, resize_square


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (33, 97), (300, 120)])
def test_a_hip_lies_centred_in_its_frame_with_black_around_it(height, width) -> None:
    framed = frame_hip(np.full((height, width), 200, np.uint8), 64)
    top, left, inner_height, inner_width = Frame(height, width, 64).box
    assert framed.shape == (64, 64)
    assert max(inner_height, inner_width) == 64
    assert (framed[top : top + inner_height, left : left + inner_width] == 200).all()
    assert (framed == 0).sum() == 64 * 64 - inner_height * inner_width
    assert abs(inner_height / inner_width - height / width) < 0.06 * height / width
    assert abs(2 * top + inner_height - 64) <= 1
    assert abs(2 * left + inner_width - 64) <= 1


def test_a_square_hip_of_the_frames_size_is_not_touched() -> None:
    hip = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    assert np.array_equal(frame_hip(hip, 64), hip)


@pytest.mark.parametrize(("height", "width"), [(1, 500), (500, 1)])
def test_a_sliver_still_has_a_row_in_its_frame(height, width) -> None:
    assert frame_hip(np.full((height, width), 90, np.uint8), 64).max() == 90


@pytest.mark.parametrize(("height", "width"), [(128, 128), (200, 150), (90, 256)])
def test_a_mask_placed_in_the_frame_is_lifted_back_to_its_hip(height, width) -> None:
    y, x = np.mgrid[:height, :width]
    mask = (((y - height / 2) / (height / 3)) ** 2 + ((x - width / 2) / (width / 3)) ** 2) < 1
    frame = Frame(height, width, 128)
    lifted = frame.lift_mask(frame.place_mask(mask))
    assert (lifted & mask).sum() / (lifted | mask).sum() > 0.95


def test_shrinking_averages_areas_and_growing_interpolates() -> None:
    board = np.indices((8, 8)).sum(0) % 2 * np.uint8(200)
    assert (resize(board.astype(np.uint8), 4, 4) == 100).all()
    ramp = np.array([[0, 100], [0, 100]], np.uint8)
    assert (np.diff(resize(ramp, 2, 6)[0].astype(int)) >= 0).all()


def test_square_frames_of_the_wanted_side_are_passed_through_and_others_resized() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    assert resize_square(frames, 32) is frames
    assert np.array_equal(resize_square(frames, 16)[2], resize(frames[2], 16, 16))
