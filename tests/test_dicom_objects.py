"""An answer as DICOM objects, read back by pydicom and highdicom."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from hipray.data.images import read_hips
from hipray.dicom_objects import read_header, write_report, write_segmentation
from hipray.pipeline import Pipeline, lift_masks, load_stages
from hipray.storage import open_store
from hipray.vocab import REGIONS
from tests.data.film_files import build_dicom, encode_dicom, encode_image, save_dicom
from tests.small_release import WORKING_PX, draw_phantoms, publish_small_release

hd = pytest.importorskip("highdicom")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    store = open_store(str(tmp_path_factory.mktemp("release")))
    return Pipeline(load_stages(store, publish_small_release(store)))


@pytest.mark.parametrize("pelvis", [0, 1])
def test_an_answer_is_filed_beside_its_film(pipeline: Pipeline, pelvis: int) -> None:
    film = next(iter(draw_phantoms(1, seed=11, n_patients=1, pelvis_films=pelvis).values()))
    header = read_header(film)
    assert header is not None
    result = read_hips(film, name="film")
    (answer,), masks = pipeline.answer_with_masks([result])
    assert masks is not None

    written = write_report(header, answer)
    assert written is not None
    report = pydicom.dcmread(io.BytesIO(written))
    assert (report.Modality, report.StudyInstanceUID) == ("SR", header.StudyInstanceUID)
    assert (report.CompletionFlag, report.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    groups = hd.sr.EnhancedSR.from_dataset(report).content.get_image_measurement_groups()
    told = sorted(float(group.get_measurements()[0].value) for group in groups)
    wanted = sorted(region.probability for hip in answer.hips for region in hip.regions)
    assert told == pytest.approx(wanted, rel=1e-5)

    written = write_segmentation(header, result, masks, WORKING_PX)
    assert written is not None
    drawn = hd.seg.segread(io.BytesIO(written))
    assert drawn.number_of_segments == len(result.hips) * len(REGIONS)
    assert (drawn.Rows, drawn.Columns) == (header.Rows, header.Columns)
    pixels = drawn.get_pixels_by_source_instance([header.SOPInstanceUID])[0]
    hip = result.hips[0]
    lifted = lift_masks(hip, masks[0], WORKING_PX)
    for number, region in enumerate(REGIONS):
        assert np.array_equal(pixels[..., number] > 0, hip.geometry.unwarp_mask(lifted[region]))


def test_a_film_that_is_no_dicom_has_no_study_to_file_in() -> None:
    assert read_header(encode_image(np.zeros((80, 80), np.uint8))) is None


def test_a_header_without_a_study_gets_the_same_one_each_time() -> None:
    first, second = read_header(encode_dicom()), read_header(encode_dicom())
    assert first is not None
    assert second is not None
    assert first.StudyInstanceUID == second.StudyInstanceUID


def test_a_film_without_an_id_of_its_own_cannot_be_referred_to() -> None:
    film = build_dicom()
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    del film.SOPInstanceUID
    assert read_header(save_dicom(film)) is None


def test_odd_values_of_a_header_are_quoted_in_no_log(caplog, recwarn) -> None:
    header = read_header(encode_dicom())
    assert header is not None
    header.PatientBirthDate = "born in May"
    told = [str(warning.message) for warning in recwarn] + caplog.messages
    assert not [text for text in told if "born" in text]


@pytest.mark.parametrize(
    "odd",
    [
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"SpecificCharacterSet": "NO_SUCH"},
        {"PatientSex": "female"},
        {"StudyDate": "2020-05-12", "StudyTime": "noon", "PatientBirthDate": "born in May"},
        {"PatientName": ["Doe^Jane", "Roe^Jane"], "StudyInstanceUID": ["1.2.3", "1.2.4"]},
        {"StudyInstanceUID": ""},
        {"PixelSpacing": []},
        {"FrameOfReferenceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
    ],
)
def test_an_odd_header_still_gets_its_report_and_only_valid_values(
    pipeline: Pipeline, odd: dict[str, object]
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(next(iter(draw_phantoms(1, seed=11).values()))))
    for name, value in odd.items():
        setattr(dataset, name, value)
    film = save_dicom(dataset)
    header = read_header(film)
    assert header is not None
    (answer,), _ = pipeline.answer_with_masks([read_hips(film, name="film")])
    written = write_report(header, answer)
    assert written is not None
    report = pydicom.dcmread(io.BytesIO(written))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.StudyInstanceUID.is_valid
    assert report.PatientSex in ("F", "M", "O", "")


def test_a_header_too_long_to_be_read_in_this_process_gets_no_objects() -> None:
    film = build_dicom()
    film.ImageComments = "x" * 300_000
    assert read_header(save_dicom(film)) is None


def test_a_deflated_film_which_would_be_inflated_in_this_process_gets_no_objects() -> None:
    film = build_dicom()
    film.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert read_header(save_dicom(film)) is None
