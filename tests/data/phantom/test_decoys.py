"""Each decoy carries the one defect it stands for, as any DICOM or image reader finds it."""

import io

import cv2
import numpy as np
import pydicom
import pytest

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom import DecoyKind, StudyKind, plan_archive, render_study, write_study
from hipray.errors import DataError
from hipray.vocab import RefusalCode

CONFIG = PhantomConfig(
    n_patients=1, n_second_hips=0, n_device_a=0, image_px=128, decoys=len(DecoyKind)
)


@pytest.fixture(scope="module")
def decoys() -> dict[DecoyKind, list[bytes]]:
    studies = [study for study in plan_archive(CONFIG) if study.kind is StudyKind.DECOY]
    return {study.decoy: list(write_study(CONFIG, study).values()) for study in studies}


def header(data: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)


def test_every_decoy_says_with_which_code_it_must_be_refused() -> None:
    assert {decoy.refusal for decoy in DecoyKind} == set(RefusalCode) - {
        RefusalCode.IMPLANT,  # the implant films
        RefusalCode.IMPLAUSIBLE_GEOMETRY,
        RefusalCode.DECODER_CRASH,
        RefusalCode.MISSING_OBJECT,
        RefusalCode.CHANGED_OBJECT,
    }


@pytest.mark.parametrize(
    ("decoy", "keyword", "stated"),
    [
        (DecoyKind.HAND, "BodyPartExamined", "HAND"),
        (DecoyKind.CHEST, "BodyPartExamined", "CHEST"),
        (DecoyKind.LATERAL_VIEW, "ViewPosition", "LL"),
        (DecoyKind.CT_SLICE, "Modality", "CT"),
        (DecoyKind.CINE, "NumberOfFrames", 3),
        (DecoyKind.GIANT, "Rows", 65535),
    ],
)
def test_the_header_states_what_is_wrong(decoys, decoy, keyword, stated) -> None:
    assert header(decoys[decoy][0])[keyword].value == stated


def test_an_unnamed_hand_states_no_body_part(decoys) -> None:
    assert "BodyPartExamined" not in header(decoys[DecoyKind.UNNAMED_HAND][0])


def test_a_truncated_film_has_a_whole_header_and_half_its_pixels(decoys) -> None:
    (data,) = decoys[DecoyKind.TRUNCATED]
    assert header(data).Rows == 128
    with pytest.raises(Exception, match=r"(?i)pixel data|bytes|eof|length"):
        _ = pydicom.dcmread(io.BytesIO(data)).pixel_array


def test_a_report_is_valid_dicom_without_pixels(decoys) -> None:
    dataset = pydicom.dcmread(io.BytesIO(decoys[DecoyKind.REPORT][0]))
    assert dataset.Modality == "SR"
    assert "PixelData" not in dataset


def test_noise_is_neither_dicom_nor_an_image(decoys) -> None:
    (data,) = decoys[DecoyKind.NOISE_BYTES]
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None
    with pytest.raises(pydicom.errors.InvalidDicomError):
        pydicom.dcmread(io.BytesIO(data))


def test_a_copy_has_the_pixels_of_its_film_under_another_identifier(decoys) -> None:
    first, second = (pydicom.dcmread(io.BytesIO(data)) for data in decoys[DecoyKind.COPY])
    assert first.PixelData == second.PixelData
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize(
    ("decoy", "shape"),
    [
        (DecoyKind.PHOTO, (128, 128, 3)),
        (DecoyKind.TEXT_PAGE, (512, 512)),
        (DecoyKind.THUMBNAIL, (24, 24)),
    ],
)
def test_picture_decoys_are_readable_images(decoys, decoy, shape) -> None:
    image = cv2.imdecode(np.frombuffer(decoys[decoy][0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == shape


def test_a_decoy_without_a_hip_cannot_be_rendered_as_one() -> None:
    study = next(s for s in plan_archive(CONFIG) if s.decoy is DecoyKind.HAND)
    with pytest.raises(DataError, match="hand"):
        render_study(CONFIG, study)
