import logging
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files

from hipray.config.images import Preprocessing
from hipray.data.images import PREPROCESSING_VERSION, ReadResult, read_film, read_hips
from hipray.data.refusals import Refusal
from hipray.digests import digest_of
from hipray.vocab import Finding, RefusalCode, Side
from tests.data.film_files import (
    build_dicom,
    draw_hip,
    draw_pelvis,
    encode_dicom,
    encode_image,
    save_dicom,
)

SEEDS = (
    encode_dicom(draw_hip(80, 80).astype(np.uint16) * 12),
    encode_image(draw_hip(80, 80)),
    encode_image(draw_hip(80, 80), "JPEG"),
    encode_image(draw_hip(80, 80), "TIFF"),
)


def is_complete(result: ReadResult) -> bool:
    return bool(result.hips) != (result.refusal is not None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"II*\x00" + bytes(40),
        bytes(128) + b"DICM",
        bytes(132) + b"DICM",
    ],
)
def test_bytes_of_no_image_are_unreadable(data: bytes) -> None:
    result = read_hips(data, name="f")
    assert result.refusal is not None
    assert result.refusal.code is RefusalCode.UNREADABLE


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    assert is_complete(read_hips(data, name="f"))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    cuts=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), max_size=6
    ),
    length=st.floats(0, 1),
    whole=st.booleans(),
)
def test_any_damaged_film_gets_an_answer(
    seed: bytes, cuts: list[tuple[int, bytes]], length: float, whole: bool
) -> None:
    damaged = bytearray(seed)
    for place, patch in cuts:
        place %= len(damaged)
        damaged[place : place + len(patch)] = patch
    data = bytes(damaged if whole else damaged[: int(length * len(damaged))])
    assert is_complete(read_hips(data, name="f"))


def test_every_test_file_of_pydicom_gets_an_answer() -> None:
    outcomes: Counter[str] = Counter()
    for path in map(Path, get_testdata_files()):
        if path.is_file():
            result = read_hips(path.read_bytes(), name=path.name)
            assert is_complete(result), path.name
            outcomes[result.refusal.code if result.refusal else "accepted"] += 1
    # pydicom ships CT, MR, plans and colour captures, and spine films of 16 x 16 px: no hip.
    assert outcomes["accepted"] == 0
    assert outcomes[RefusalCode.WRONG_MODALITY] > 40


def test_reading_warns_and_logs_nothing_of_the_file(caplog: pytest.LogCaptureFixture) -> None:
    dataset = build_dicom()
    data = save_dicom(dataset).replace(b"073Y", b"Jane")
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        result = read_hips(data, name="f")
    assert result.refusal is None
    assert result.film_info is not None and result.film_info.age is None
    assert "Jane" not in caplog.text
    assert "Doe" not in caplog.text


def test_the_same_film_as_png_and_as_dicom_gives_the_same_hip() -> None:
    hip = draw_hip(300, 280)
    from_dicom = read_hips(encode_dicom(hip.astype(np.uint16) * 16), name="a").hips[0]
    from_png = read_hips(encode_image(hip), name="b", side=Side.LEFT).hips[0]
    assert np.abs(from_dicom.pixels.astype(int) - from_png.pixels).max() <= 1


def test_reading_twice_gives_the_same_hash_and_one_changed_pixel_another() -> None:
    hip = draw_hip()
    changed = hip.copy()
    changed[100, 100] += 40
    hashes = [
        read_hips(encode_image(h), name="f").hips[0].pixel_sha256 for h in (hip, hip, changed)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("stated", "given_side", "expected"),
    [
        ("L", None, Side.LEFT),
        ("", Side.RIGHT, Side.RIGHT),
        ("R", Side.RIGHT, Side.RIGHT),
        ("R", Side.LEFT, Side.UNKNOWN),
        ("R", Side.UNKNOWN, Side.RIGHT),
    ],
)
def test_the_callers_side_fills_in_and_never_overrules(
    stated: str, given_side: Side | None, expected: Side
) -> None:
    (hip,) = read_hips(encode_dicom(ImageLaterality=stated), name="f", side=given_side).hips
    assert hip.side is expected
    assert hip.flipped is (expected is Side.RIGHT)
    assert (Finding.SIDE_UNKNOWN in hip.findings) is (expected is Side.UNKNOWN)
    assert (Finding.SIDE_CONTRADICTED in hip.findings) is (expected is Side.UNKNOWN)


def test_a_bilateral_dicom_gives_two_hips_of_one_patient() -> None:
    pelvis = draw_pelvis().astype(np.uint16) * 12
    data = encode_dicom(pelvis, ImageLaterality="B", BodyPartExamined="PELVIS")
    result = read_hips(data, name="f", side=Side.LEFT)
    assert [hip.side for hip in result.hips] == [Side.RIGHT, Side.LEFT]
    assert result.film_info is not None and result.film_info.patient_key == "secret-4711"


def test_a_refusal_after_decoding_keeps_what_the_header_states() -> None:
    narrow = cv2.resize(draw_pelvis(), (90, 80)).astype(np.uint16) * 12
    result = read_hips(encode_dicom(narrow, ImageLaterality="B"), name="f")
    assert result.refusal is not None and result.refusal.code is RefusalCode.TOO_SMALL
    assert result.film_info is not None and result.film_info.both_sides


def test_a_misnamed_file_is_known_by_its_content() -> None:
    assert read_hips(encode_image(draw_hip()), name="film.dcm").refusal is None


def test_a_film_that_cannot_be_held_in_memory_is_a_decoder_crash() -> None:
    class Hungry(bytes):
        def startswith(self, *_: object) -> bool:  # type: ignore[override]
            raise MemoryError

    refusal = read_film(Hungry(b"x"), name="f")
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.DECODER_CRASH


def test_other_defaults_of_the_preprocessing_want_another_version_of_it() -> None:
    """Releases pin the version, not each default: whoever changes one raises the version, too."""
    assert (PREPROCESSING_VERSION, digest_of(Preprocessing())[:12]) == ("4", "86b288dd656b")


UNSIDED = {"Laterality": "", "ImageLaterality": "", "SeriesDescription": ""}


@pytest.mark.parametrize(
    "film",
    [
        encode_image(draw_pelvis()),
        encode_dicom(draw_pelvis().astype(np.uint16) * 12, BodyPartExamined="PELVIS", **UNSIDED),
        encode_dicom(
            draw_pelvis().astype(np.uint16) * 12, BodyPartExamined="AP PELVIS AND HIPS", **UNSIDED
        ),
    ],
)
def test_a_pelvis_is_cut_in_two_whichever_hip_the_records_are_about(film: bytes) -> None:
    result = read_hips(film, name="", side=Side.RIGHT)
    assert [hip.side for hip in result.hips] == [Side.RIGHT, Side.LEFT]


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colour_channels_are_kept(channels: int) -> None:
    grey = draw_hip(120, 100).astype(np.uint16) * 12
    image = np.dstack([grey] * 3 + [np.full_like(grey, 65535)] * (channels - 3))
    film = read_film(cv2.imencode(".png", image)[1].tobytes(), name="")
    assert not isinstance(film, Refusal)
    assert film.info.bits == 16
    assert len(np.unique(film.pixels)) == len(np.unique(grey))
