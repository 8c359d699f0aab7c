import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hipray.data import detectors
from hipray.data.images import read_hips
from hipray.data.refusals import Refusal
from hipray.data.thumbnail import build_thumbnail
from hipray.vocab import Finding, RefusalCode, Side
from tests.data.film_files import draw_hip, encode_dicom, encode_image, real_file

Grey = NDArray[np.uint8]


def judge(pixels: Grey) -> Refusal | None:
    grey = pixels.astype(np.float32)
    return detectors.check_is_radiograph(grey, build_thumbnail(grey))


def draw_page(lines: int, dark: bool = False) -> Grey:
    page = np.full((900, 700), 255, np.uint8)
    for line in range(lines):
        place = (40, 60 + line * 45)
        cv2.putText(page, "BMD 0.712 g/cm2  T -2.6  Neck", place, 0, 1.0, 0, 2, cv2.LINE_AA)
    return 255 - page if dark else page


def draw_stem(hip: Grey, value: int = 255) -> Grey:
    metal = hip.copy()
    cv2.circle(metal, (90, 90), 22, value, -1)
    cv2.line(metal, (90, 90), (150, 140), value, 12)
    cv2.line(metal, (150, 130), (145, 220), value, 22)
    return metal


@pytest.mark.parametrize(
    ("pixels", "detector"),
    [
        (np.full((300, 300), 128, np.uint8), "flat_field"),
        (np.random.default_rng(0).integers(0, 256, (512, 400)).astype(np.uint8), "noise"),
        (np.random.default_rng(1).normal(128, 9, (400, 400)).astype(np.uint8), "noise"),
        (draw_page(18), "text_page"),
        (draw_page(6), "text_page"),
        (draw_page(12, dark=True), "text_page"),
        ((draw_hip() > 120).astype(np.uint8) * 255, "line_art"),
        (draw_hip(1200, 120), "aspect"),
    ],
)
def test_what_is_no_film_is_refused(pixels: Grey, detector: str) -> None:
    refusal = judge(pixels)
    assert refusal is not None
    assert (refusal.code, refusal.detector) == (RefusalCode.NOT_A_RADIOGRAPH, detector)


@pytest.mark.parametrize("size", [(64, 64), (200, 300), (512, 512), (1500, 1200)])
@pytest.mark.parametrize("invert", [False, True])
def test_a_film_of_any_size_and_polarity_is_accepted(size: tuple[int, int], invert: bool) -> None:
    hip = draw_hip(*size)
    assert judge(255 - hip if invert else hip) is None


@pytest.mark.parametrize("ground", [0, 255])
def test_a_film_on_a_wide_even_ground_is_accepted(ground: int) -> None:
    film = np.full((600, 600), ground, np.uint8)
    film[150:450, 180:420] = draw_hip(300, 240)
    assert judge(film) is None


def test_smooth_grey_images_are_accepted() -> None:
    stream = np.random.default_rng(5)
    for _ in range(50):
        coarse = stream.random((stream.integers(2, 12), stream.integers(2, 12))).astype(np.float32)
        smooth = cv2.resize(coarse, (300, 260), interpolation=cv2.INTER_CUBIC)
        noisy = 200 * smooth + stream.normal(0, stream.uniform(0, 15), smooth.shape)
        assert judge(np.clip(noisy, 0, 255).astype(np.uint8)) is None


def test_a_burned_in_caption_does_not_make_a_page_of_a_film() -> None:
    hip = draw_hip(600, 600)
    cv2.putText(hip, "LEFT HIP AP 12:30", (20, 580), 0, 1.0, 255, 2)
    assert judge(hip) is None


def test_a_negative_with_bright_air_is_turned_round() -> None:
    hip = draw_hip(400, 400)
    y, x = np.mgrid[:400, :400]
    hip[x > 300 + 60 * np.sin(y / 120)] = 0
    straight = read_hips(encode_image(hip), name="f").hips[0]
    turned = read_hips(encode_image(255 - hip), name="f").hips[0]
    assert Finding.POLARITY_INVERTED in turned.findings
    assert Finding.POLARITY_INVERTED not in straight.findings
    assert np.abs(turned.pixels.astype(int) - straight.pixels).max() <= 1


def test_a_bright_collimator_border_is_not_taken_for_air() -> None:
    film = np.full((400, 400), 255, np.uint8)
    film[50:350, 60:340] = draw_hip(300, 280)[:, :280]
    film[:, 330:340] = 255
    assert not detectors.is_negative(build_thumbnail(film.astype(np.float32)))


def test_bright_corners_of_a_round_field_are_not_taken_for_air() -> None:
    y, x = np.mgrid[:300, :300] - 150
    film = np.clip(draw_hip(300, 300).astype(int) + 40, 0, 200)
    film[np.hypot(x, y) > 150] = 255
    assert not detectors.is_negative(build_thumbnail(film.astype(np.float32)))


def test_a_real_film_is_righted_from_either_polarity() -> None:
    from hipray.data.film import Film
    from hipray.data.images import read_film

    film = read_film(real_file("RG2_J2KR.dcm"), name="f")
    assert isinstance(film, Film)
    grey = np.clip(film.pixels / film.pixels.max() * 255, 0, 255).astype(np.uint8)
    for pixels, inverted in ((grey, False), (255 - grey, True)):
        hip = read_hips(encode_image(pixels), name="f").hips[0]
        assert (Finding.POLARITY_INVERTED in hip.findings) is inverted


def test_a_prosthesis_is_metal_and_bone_is_not() -> None:
    assert detectors.find_metal(draw_hip()) is None
    metal = detectors.find_metal(draw_stem(np.minimum(draw_hip(), 120)))
    assert metal is not None
    assert metal.is_hard_edged
    assert metal.area_share == pytest.approx(0.06, abs=0.02)


def test_bone_clipped_by_the_window_of_an_export_is_remarked_but_not_refused() -> None:
    bone = cv2.GaussianBlur(draw_stem(draw_hip() // 4).astype(np.float32), (0, 0), 5)
    clipped = np.clip(2 * bone, 0, 255).astype(np.uint8)
    metal = detectors.find_metal(clipped)
    assert metal is not None
    assert metal.is_plateau
    assert not metal.is_hard_edged
    assert read_hips(encode_image(clipped), name="f").refusal is None
    deep = read_hips(encode_dicom(clipped.astype(np.uint16) * 16), name="f").refusal
    assert deep is not None
    assert deep.code is RefusalCode.IMPLANT


def test_overexposed_bone_with_soft_edges_is_not_metal() -> None:
    stem = draw_stem(np.minimum(draw_hip(), 120))
    assert detectors.find_metal(cv2.GaussianBlur(stem, (0, 0), 6)) is None


def test_a_marker_at_the_edge_is_not_metal_in_the_hip() -> None:
    hip = np.minimum(draw_hip(), 120)
    cv2.rectangle(hip, (4, 4), (40, 40), 255, -1)
    assert detectors.find_metal(hip) is None


def test_text_near_the_border_is_remarked() -> None:
    hip = np.minimum(draw_hip(512, 512), 150)
    assert not detectors.has_border_text(hip)
    cv2.putText(hip, "L  12345", (20, 490), 0, 0.8, 255, 2)
    assert detectors.has_border_text(hip)


def test_a_film_without_a_thigh_below_ends_in_air() -> None:
    hip = draw_hip()
    assert not detectors.ends_in_air(hip)
    hip[200:] = 2
    assert detectors.ends_in_air(hip)


@pytest.mark.full
def test_no_phantom_is_refused_and_no_dense_bone_is_called_an_implant() -> None:
    from hipray.config.phantom import PhantomConfig
    from hipray.data.phantom.render import render_study
    from hipray.data.phantom.study import PhantomStudy, StudyKind

    config = PhantomConfig(image_px=256)
    refused = {StudyKind.HIP: 0, StudyKind.IMPLANT: 0}
    for number in range(250):
        kind = StudyKind.IMPLANT if number % 5 == 0 else StudyKind.HIP
        study = PhantomStudy(f"s{number}", f"p{number}", (Side.LEFT,), kind, seed=number)
        rendered = render_study(config, study)
        data = encode_dicom(rendered.film, BitsStored=rendered.bits, HighBit=rendered.bits - 1)
        refusal = read_hips(data, name="f").refusal
        assert refusal is None or refusal.code is RefusalCode.IMPLANT
        refused[kind] += refusal is not None
    assert refused[StudyKind.HIP] == 0
    assert refused[StudyKind.IMPLANT] >= 48
