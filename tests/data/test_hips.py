from dataclasses import replace

import cv2
import numpy as np
import pytest

from hipray.config.images import Preprocessing
from hipray.data.exposed_area import Box, find_exposed_box, find_midline
from hipray.data.film import Film, FilmInfo
from hipray.data.hips import Hip, HipGeometry, extract_hips
from hipray.data.refusals import Refusal
from hipray.data.thumbnail import build_thumbnail
from hipray.vocab import Finding, RefusalCode, Side
from tests.data.film_files import draw_hip, draw_pelvis

UNCROPPED = Preprocessing(crop_to_exposure=False)


def build_film(pixels: np.ndarray, **info: object) -> Film:
    height, width = pixels.shape
    facts = FilmInfo(height, width, bits=12)
    return Film(pixels.astype(np.float32), replace(facts, **info))  # type: ignore[arg-type]


def hips_of(film: Film, preprocessing: Preprocessing = UNCROPPED) -> tuple[Hip, ...]:
    hips = extract_hips(film, preprocessing)
    assert not isinstance(hips, Refusal), hips
    return hips


def test_a_right_hip_becomes_the_left_hip_it_mirrors() -> None:
    hip = draw_hip()
    (left,) = hips_of(build_film(hip, side=Side.LEFT))
    (right,) = hips_of(build_film(hip[:, ::-1], side=Side.RIGHT))
    assert (left.flipped, right.flipped) == (False, True)
    assert np.array_equal(left.pixels, right.pixels)
    assert left.pixel_sha256 == right.pixel_sha256


def test_an_unknown_side_is_not_flipped_and_is_remarked() -> None:
    (hip,) = hips_of(build_film(draw_hip()))
    assert not hip.flipped
    assert Finding.SIDE_UNKNOWN in hip.findings


def test_the_grey_scale_does_not_depend_on_the_stored_range() -> None:
    film = draw_hip().astype(np.float32)
    (plain,) = hips_of(build_film(film))
    (offset,) = hips_of(build_film(film * 128 + 32744))
    assert np.abs(plain.pixels.astype(int) - offset.pixels).max() <= 1
    assert plain.pixels.min() == 0 and plain.pixels.max() == 255


def test_the_longer_side_is_bounded_and_small_films_are_not_enlarged() -> None:
    (large,) = hips_of(build_film(draw_hip(1500, 1000), spacing_mm=0.1, side=Side.LEFT))
    assert large.pixels.shape == (512, 341)
    assert large.spacing_mm == pytest.approx(0.1 * 1500 / 512)
    (small,) = hips_of(build_film(draw_hip(200, 300), spacing_mm=0.5, side=Side.LEFT))
    assert small.pixels.shape == (200, 300)
    assert small.spacing_mm == 0.5


def test_a_pelvis_is_cut_at_its_midline_into_right_and_left() -> None:
    pelvis = draw_pelvis()
    right, left = hips_of(build_film(pelvis, both_sides=True))
    assert (right.side, left.side) == (Side.RIGHT, Side.LEFT)
    assert (right.flipped, left.flipped) == (True, False)
    assert abs(right.geometry.box.right - 256) <= 6
    height, width = 256, min(right.pixels.shape[1], left.pixels.shape[1])
    pair = [hip.pixels[:height, :width].ravel() for hip in (right, left)]
    assert np.corrcoef(pair)[0, 1] > 0.9


def test_an_off_centre_pelvis_is_cut_at_its_own_midline() -> None:
    pelvis = draw_pelvis()[:, 60:]
    midline = find_midline(pelvis.astype(np.float32))
    assert midline.is_symmetrical
    assert abs(midline.column - 196) <= 6


@pytest.mark.parametrize(
    ("info", "count"),
    [({}, 2), ({"side": Side.LEFT}, 1), ({"names_pelvis": True}, 2)],
)
def test_a_wide_film_is_a_pelvis_unless_one_side_is_stated(
    info: dict[str, object], count: int
) -> None:
    assert len(hips_of(build_film(draw_pelvis(), **info))) == count


def test_a_cassette_stated_as_pelvis_is_cut_and_an_unstated_one_is_not() -> None:
    cassette = cv2.resize(draw_pelvis(400), (430, 350))
    assert len(hips_of(build_film(cassette, names_pelvis=True))) == 2
    (whole,) = hips_of(build_film(cassette))
    assert Finding.PELVIS_SUSPECTED in whole.findings


@pytest.mark.parametrize("aspect", [0.8, 1.0, 1.2, 1.4])
def test_a_film_of_the_shape_of_one_hip_is_not_suspected_of_two(aspect: float) -> None:
    (hip,) = hips_of(build_film(draw_hip(256, round(256 * aspect)), side=Side.LEFT))
    assert Finding.PELVIS_SUSPECTED not in hip.findings


def test_a_side_on_a_film_of_a_stated_pelvis_is_the_consoles() -> None:
    cassette = cv2.resize(draw_pelvis(400), (430, 350))
    right, left = hips_of(build_film(cassette, names_pelvis=True, side=Side.RIGHT))
    assert (right.side, left.side) == (Side.RIGHT, Side.LEFT)


def test_a_wide_film_of_a_stated_side_is_one_hip_that_may_be_two() -> None:
    (hip,) = hips_of(build_film(draw_pelvis(), side=Side.LEFT))
    assert Finding.PELVIS_SUSPECTED in hip.findings


def test_a_narrow_film_that_is_not_symmetrical_is_one_hip_whatever_its_series_holds() -> None:
    (hip,) = hips_of(build_film(draw_hip(320, 260), both_sides=True))
    assert (hip.side, hip.flipped) == (Side.UNKNOWN, False)
    assert Finding.PELVIS_SUSPECTED in hip.findings


def box_of(pixels: np.ndarray) -> Box:
    height, width = pixels.shape
    return find_exposed_box(build_thumbnail(pixels), height=height, width=width)


@pytest.mark.parametrize("border", [0, 255])
def test_a_collimator_border_is_cut_away(border: int) -> None:
    film = np.full((400, 420), border, np.float32)
    film[30:380, 50:390] = draw_hip(350, 340)[:, :340].clip(40, 215)
    box = box_of(film)
    for found, true in zip(
        (box.top, box.left, box.bottom, box.right), (30, 50, 380, 390), strict=True
    ):
        assert abs(found - true) <= 6
    assert box.top >= 30 and box.left >= 50 and box.bottom <= 380 and box.right <= 390


def test_a_film_without_border_is_not_cropped() -> None:
    for seed in range(5):
        film = draw_hip(300, 280, seed).astype(np.float32)
        assert box_of(film[:, :240]) == Box(0, 0, 300, 240)


def test_masks_follow_the_hip_and_come_back() -> None:
    film = np.zeros((500, 600), bool)
    film[120:300, 200:420] = True
    geometry = HipGeometry(500, 600, Box(50, 100, 450, 600), flipped=True, height=200, width=250)
    mask = geometry.warp_mask(film)
    expected = np.zeros((200, 250), bool)
    expected[35:125, 90:200] = True
    assert np.array_equal(mask, expected)
    assert np.array_equal(geometry.unwarp_mask(mask), film)


def test_a_mask_warps_as_the_pixels_do() -> None:
    pixels = np.full((700, 640), 50.0)
    pixels[200:500, 100:350] = 200
    keep_metal = Preprocessing(crop_to_exposure=False, refuse_implant=False)
    (hip,) = hips_of(build_film(pixels, side=Side.RIGHT), keep_metal)
    assert np.array_equal(hip.geometry.warp_mask(pixels > 100), hip.pixels >= 128)


def test_a_mask_of_another_film_is_an_error() -> None:
    geometry = HipGeometry(50, 60, Box(0, 0, 50, 60), flipped=False, height=50, width=60)
    with pytest.raises(ValueError, match="shape"):
        geometry.warp_mask(np.zeros((60, 50), bool))


def test_metal_is_refused_by_default_and_otherwise_remarked() -> None:
    hip = np.minimum(draw_hip(), 120)
    cv2.line(hip, (150, 90), (140, 220), 255, 24)
    film = build_film(hip, side=Side.LEFT)
    refusal = extract_hips(film, Preprocessing())
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.IMPLANT
    assert "of the left hip" in refusal.evidence
    (remarked,) = hips_of(film, Preprocessing(refuse_implant=False))
    assert Finding.METAL_SUSPECTED in remarked.findings


def test_a_film_of_few_grey_levels_is_remarked() -> None:
    (hip,) = hips_of(build_film(draw_hip() // 8, side=Side.LEFT))
    assert Finding.LOW_CONTRAST in hip.findings
    (rich,) = hips_of(build_film(draw_hip(), side=Side.LEFT))
    assert Finding.LOW_CONTRAST not in rich.findings


def test_halves_of_a_narrow_pelvis_are_too_small() -> None:
    narrow = cv2.resize(draw_pelvis(), (90, 80))
    refusal = extract_hips(build_film(narrow, both_sides=True), UNCROPPED)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.TOO_SMALL
