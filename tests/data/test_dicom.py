import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.dicom import read_coded_size
from hipray.data.film import Film
from hipray.data.images import read_film, read_hips
from hipray.data.refusals import Refusal
from hipray.vocab import Finding, RefusalCode, Sex, Side
from tests.data.film_files import build_dicom, draw_hip, encode_dicom, real_file, save_dicom

STORED = draw_hip().astype(np.uint16) * 12


def read(data: bytes, **settings: Any) -> Film:
    film = read_film(data, name="film", preprocessing=Preprocessing(**settings))
    assert isinstance(film, Film), film
    return film


def refusal_of(data: bytes, limits: ImageLimits | None = None, **settings: Any) -> Refusal:
    refusal = read_film(data, name="f", limits=limits, preprocessing=Preprocessing(**settings))
    assert isinstance(refusal, Refusal), refusal
    return refusal


def test_a_plain_film_keeps_its_values_and_its_header() -> None:
    film = read(encode_dicom())
    assert np.array_equal(film.pixels, STORED)
    info = film.info
    assert (info.side, info.sex, info.age, info.bits) == (Side.LEFT, Sex.FEMALE, 73.0, 12)
    assert (info.spacing_mm, info.names_pelvis) == (0.2, False)
    assert info.patient_key == "secret-4711"
    assert info.findings == ()


def test_the_patient_appears_in_no_representation() -> None:
    result = read_hips(encode_dicom(), name="f")
    assert "4711" not in repr(result)
    assert "Doe" not in repr(result)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compression_changes_no_pixel(syntax: str) -> None:
    dataset = build_dicom()
    dataset.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read(save_dicom(dataset)).pixels, STORED)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small.dcm",  # explicit little endian, signed
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_RLE.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_jp2klossless.dcm",
        "JPGExtended.dcm",
        "JPEG2000.dcm",
        "693_J2KI.dcm",
        "CT_small.dcm",  # with a rescale intercept
        "image_dfl.dcm",  # deflated
    ],
)
def test_every_transfer_syntax_is_decoded_as_pydicom_does(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(str(get_testdata_file(name, download=False)))
        expected = dataset.pixel_array.astype(np.float32)
        for keyword in ("BodyPartExamined", "StudyDescription", "SeriesDescription"):
            if keyword in dataset:
                delattr(dataset, keyword)
        dataset.Modality = "DX"
        buffer = io.BytesIO()
        dataset.save_as(buffer)
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    film = read(buffer.getvalue())
    assert np.allclose(film.pixels, expected * slope + intercept)


@pytest.mark.parametrize("blanked", [("RescaleSlope",), ("RescaleSlope", "RescaleIntercept")])
def test_a_rescaling_that_was_blanked_is_none(blanked: tuple[str, ...]) -> None:
    values = {"RescaleSlope": "2", "RescaleIntercept": "5"} | dict.fromkeys(blanked, "")
    assert np.array_equal(read(encode_dicom(**values)).pixels, STORED)
    values |= {"ModalityLUTSequence": Sequence()}
    assert np.array_equal(read(encode_dicom(**values)).pixels, STORED)


def test_a_file_without_preamble_and_meta_header_is_read() -> None:
    buffer = io.BytesIO()
    dataset = build_dicom()
    del dataset.file_meta
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    assert np.array_equal(read(buffer.getvalue()).pixels, STORED)


def test_monochrome1_is_turned_round() -> None:
    film = read(encode_dicom(PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(film.pixels, STORED.max() - STORED.astype(np.float32))
    assert Finding.POLARITY_INVERTED in film.info.findings


def test_inverse_presentation_beside_monochrome1_is_one_statement_and_inverts_once() -> None:
    both = encode_dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    one = encode_dicom(PresentationLUTShape="INVERSE")
    assert np.array_equal(read(both).pixels, read(one).pixels)
    assert np.array_equal(read(both).pixels, STORED.max() - STORED.astype(np.float32))


def test_an_inverting_modality_table_and_monochrome1_cancel() -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "US"
    table.LUTData = (4095 - np.arange(4096)).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    data = encode_dicom(PhotometricInterpretation="MONOCHROME1", ModalityLUTSequence=[table])
    film = read(data)
    assert np.corrcoef(film.pixels.ravel(), STORED.ravel())[0, 1] > 0.999


def test_a_window_is_applied_only_on_request() -> None:
    data = encode_dicom(WindowCenter=[1200, 900], WindowWidth=[400, 300])
    assert np.array_equal(read(data).pixels, STORED)
    assert len(np.unique(read(data, apply_voi=True).pixels)) < len(np.unique(STORED))


def test_a_window_without_width_is_none() -> None:
    data = encode_dicom(WindowCenter="0", WindowWidth="0")
    assert np.array_equal(read(data, apply_voi=True).pixels, STORED)


@pytest.mark.parametrize("slope", ["0.001", "1", "8"])
def test_contrast_is_counted_in_stored_levels_whatever_they_are_rescaled_to(slope: str) -> None:
    rescaled = {"RescaleSlope": slope, "RescaleIntercept": "-0.5"}
    (rich,) = read_hips(encode_dicom(**rescaled), name="f").hips
    assert Finding.LOW_CONTRAST not in rich.findings
    (poor,) = read_hips(encode_dicom(STORED // 96, **rescaled), name="f").hips
    assert Finding.LOW_CONTRAST in poor.findings
    flat = refusal_of(encode_dicom(np.full_like(STORED, 700) + (STORED > 1500), **rescaled))
    assert (flat.detector, flat.evidence) == ("flat_field", "1.0 grey levels")


def test_padding_is_marked_and_does_not_move_the_normalisation() -> None:
    padded = STORED.copy()
    padded[:, :40] = 4095
    clean = read_hips(
        encode_dicom(STORED), name="f", preprocessing=Preprocessing(crop_to_exposure=False)
    )
    film = read(encode_dicom(padded, PixelPaddingValue=4095))
    assert film.padding is not None and film.padding.mean() == 40 / 256
    result = read_hips(
        encode_dicom(padded, PixelPaddingValue=4095),
        name="f",
        preprocessing=Preprocessing(crop_to_exposure=False),
    )
    difference = result.hips[0].pixels[:, 40:].astype(int) - clean.hips[0].pixels[:, 40:]
    assert abs(difference).max() <= 12  # 84 % of the pixels give nearly the same percentiles


def test_padding_beyond_the_bits_of_grey_values_is_padding() -> None:
    padded = STORED.copy()
    padded[:, :40] = 0xFFFF
    film = read(encode_dicom(padded, PixelPaddingValue=0xFFFF))
    assert film.padding is not None
    assert np.array_equal(film.padding, padded == 0xFFFF)
    assert np.array_equal(film.pixels[:, 40:], STORED[:, 40:])


def test_padding_below_an_overlay_is_padding() -> None:
    padded = STORED.copy()
    padded[:, :40] = 4095
    dataset = build_dicom(padded | np.uint16(1 << 15), PixelPaddingValue=4095)
    dataset.add_new(0x60000102, "US", 15)  # overlay bit position
    film = read(save_dicom(dataset))
    assert film.padding is not None and np.array_equal(film.padding, padded == 4095)


def test_an_overlay_in_the_bits_above_is_ignored_where_it_is_declared_or_small() -> None:
    rows = np.indices(STORED.shape)[0]
    dataset = build_dicom(STORED | (1 << 15) * (rows > 128).astype(np.uint16))
    dataset.add_new(0x60000102, "US", 15)  # overlay bit position
    declared = save_dicom(dataset)
    small = encode_dicom(STORED | (1 << 15) * (rows < 10).astype(np.uint16))
    for film in (declared, small):
        assert np.array_equal(read(film).pixels, STORED)


def test_grey_values_in_the_upper_bits_are_read_from_there() -> None:
    bits = build_dicom(STORED).BitsStored
    film = encode_dicom(STORED << (16 - bits), HighBit=15)
    assert np.array_equal(read(film).pixels, STORED)


def test_pixels_that_bits_stored_cannot_hold_are_refused_and_never_wrapped() -> None:
    bits = build_dicom(STORED).BitsStored
    refusal = refusal_of(encode_dicom(STORED, BitsStored=bits - 2, HighBit=bits - 3))
    assert (refusal.code, refusal.detector) == (RefusalCode.UNREADABLE, "bits_stored")


@pytest.mark.parametrize("table", [(8,), (0, 4_000_000)])
def test_a_wrong_table_of_offsets_costs_no_film_of_one_frame(table: tuple[int, ...]) -> None:
    dataset = build_dicom()
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    offsets = struct.pack(f"<HHL{len(table)}L", 0xFFFE, 0xE000, 4 * len(table), *table)
    dataset.PixelData = offsets + encapsulate([frame], has_bot=False)[8:]
    assert np.array_equal(read(save_dicom(dataset)).pixels, STORED)


@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "PixelRepresentation"])
def test_what_the_standard_fixes_of_a_digital_film_need_not_be_said(keyword: str) -> None:
    assert np.array_equal(read(encode_dicom(**{keyword: None})).pixels, STORED)


@pytest.mark.parametrize(
    ("keyword", "modality"),
    [("PhotometricInterpretation", "DX"), ("BitsStored", "DX"), ("PixelRepresentation", "CR")],
)
def test_a_header_that_leaves_the_pixels_open_is_refused_by_what_it_lacks(
    keyword: str, modality: str
) -> None:
    refusal = refusal_of(encode_dicom(Modality=modality, **{keyword: None}))
    assert (refusal.code, refusal.evidence) == (
        RefusalCode.UNREADABLE, f"the header lacks {keyword}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "CT"}, RefusalCode.WRONG_MODALITY),
        ({"Modality": "US"}, RefusalCode.WRONG_MODALITY),
        ({"Modality": "OT"}, RefusalCode.NOT_A_RADIOGRAPH),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, RefusalCode.NOT_A_RADIOGRAPH),
        ({"NumberOfFrames": 3}, RefusalCode.MULTI_FRAME),
        ({"PixelData": None}, RefusalCode.NOT_AN_IMAGE),
        ({"PixelData": b""}, RefusalCode.UNREADABLE),
        ({"PixelData": STORED.tobytes()[:-5000]}, RefusalCode.UNREADABLE),
        ({"Rows": 0}, RefusalCode.UNREADABLE),
        ({"Rows": 65535, "Columns": 65535}, RefusalCode.TOO_LARGE),
        ({"Rows": 60, "Columns": 60}, RefusalCode.TOO_SMALL),
        ({"BodyPartExamined": "CHEST"}, RefusalCode.WRONG_BODY_PART),
        ({"BodyPartExamined": "CSPINE"}, RefusalCode.WRONG_BODY_PART),
        ({"BodyPartExamined": "EXTREMITY", "SeriesDescription": "R Knie ap"},
         RefusalCode.WRONG_BODY_PART),
        ({"ViewPosition": "LL"}, RefusalCode.WRONG_VIEW),
        ({"ViewPosition": "", "SeriesDescription": "Hip frog-leg left"}, RefusalCode.WRONG_VIEW),
    ],
)  # fmt: skip
def test_a_film_that_says_what_it_is_not_is_refused(
    attributes: dict[str, Any], code: RefusalCode
) -> None:
    assert refusal_of(encode_dicom(**attributes)).code is code


@pytest.mark.parametrize(
    ("attributes", "findings"),
    [
        ({"BodyPartExamined": "PELVIS"}, ()),
        ({"BodyPartExamined": "FEMUR"}, ()),
        ({"BodyPartExamined": "EXTREMITY", "ProtocolName": "Hüfte ap"}, ()),
        ({"BodyPartExamined": "ABDOMEN", "SeriesDescription": "PELVIS AP"}, ()),
        ({"BodyPartExamined": "EXTREMITY"}, (Finding.BODY_PART_UNSTATED,)),
        ({"BodyPartExamined": None}, (Finding.BODY_PART_UNSTATED,)),
        ({"ViewPosition": None}, (Finding.VIEW_UNSTATED,)),
        ({"ViewPosition": None, "SeriesDescription": "AP and LAT"}, (Finding.VIEW_UNSTATED,)),
    ],
)
def test_a_film_that_may_be_a_hip_is_accepted(
    attributes: dict[str, Any], findings: tuple[Finding, ...]
) -> None:
    assert read(encode_dicom(**attributes)).info.findings == findings


def test_a_wrong_view_is_a_remark_where_the_settings_say_so() -> None:
    data = encode_dicom(ViewPosition="LATERAL")
    assert read(data, refuse_wrong_view=False).info.findings == (Finding.WRONG_VIEW_SUSPECTED,)
    assert read(data, assume_ap_view=True).info.findings == ()


@pytest.mark.parametrize(
    "attributes",
    [
        {"SeriesDescription": "FROG LEG LAT"},
        {"ProtocolName": "Hip lateral"},
        {"SeriesDescription": "Lauenstein"},
        {"AcquisitionDeviceProcessingDescription": "CROSS TABLE LAT"},
    ],
)
def test_an_ap_view_that_another_text_denies_is_remarked(attributes: dict[str, str]) -> None:
    assert read(encode_dicom(**attributes)).info.findings == (Finding.WRONG_VIEW_SUSPECTED,)


def test_a_secondary_capture_is_read_when_forced() -> None:
    assert np.array_equal(read(encode_dicom(Modality="OT"), force_colour=True).pixels, STORED)


@pytest.mark.parametrize(
    ("attributes", "side", "both"),
    [
        ({"ImageLaterality": "R"}, Side.RIGHT, False),
        ({"ImageLaterality": "U", "Laterality": "L"}, Side.LEFT, False),
        ({"ImageLaterality": None, "SeriesDescription": "HIP RT AP"}, Side.RIGHT, False),
        ({"ImageLaterality": None, "SpecificCharacterSet": "ISO_IR 192",
          "SeriesDescription": "左髖"}, Side.LEFT, False),
        ({"ImageLaterality": None, "SeriesDescription": "hips bilateral"}, Side.UNKNOWN, True),
        ({"ImageLaterality": None, "StudyDescription": "LEFT HIP"}, Side.UNKNOWN, False),
        ({"ImageLaterality": "B"}, Side.UNKNOWN, True),
    ],
)  # fmt: skip
def test_the_side_is_what_the_image_states(
    attributes: dict[str, Any], side: Side, both: bool
) -> None:
    info = read(encode_dicom(**attributes)).info
    assert (info.side, info.both_sides) == (side, both)


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.0, 0.0]}, None),
        ({"PixelSpacing": [1.0, 1.0]}, None),
        ({"PixelSpacing": [0.1, 0.2]}, None),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.143, 0.143]}, 0.143),
    ],
)
def test_only_a_plausible_spacing_is_believed(
    attributes: dict[str, Any], spacing: float | None
) -> None:
    info = read(encode_dicom(**attributes)).info
    assert info.spacing_mm == (None if spacing is None else pytest.approx(spacing))


def test_age_comes_from_the_dates_where_it_is_not_stated() -> None:
    data = encode_dicom(PatientAge=None, PatientBirthDate="19500701", StudyDate="20230701")
    assert read(data).info.age == pytest.approx(73.0, abs=0.01)


def test_an_age_of_nought_is_unknown() -> None:
    assert read(encode_dicom(PatientAge="000Y")).info.age is None
    dated = encode_dicom(PatientAge="000Y", PatientBirthDate="19500701", StudyDate="20230701")
    assert read(dated).info.age == pytest.approx(73.0, abs=0.01)


def test_a_truncated_file_is_refused_as_unreadable() -> None:
    data = encode_dicom()
    for length in (len(data) - 2, len(data) // 2, 700):
        refusal = refusal_of(data[:length])
        assert refusal.code is RefusalCode.UNREADABLE
        assert "Error" not in refusal.evidence


def test_pixels_that_are_fewer_than_the_header_says_are_refused_with_both_numbers() -> None:
    dataset = build_dicom()
    needed = len(dataset.PixelData)
    dataset.PixelData = dataset.PixelData[:1000]
    refusal = refusal_of(save_dicom(dataset))
    assert (refusal.code, refusal.detector) == (RefusalCode.UNREADABLE, "pixel_data")
    assert refusal.evidence == f"1000 bytes of pixels where the header says {needed}"


def test_a_deflate_bomb_is_refused_before_it_is_inflated() -> None:
    dataset = build_dicom()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = save_dicom(dataset)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(30_000_000)) + packer.flush()
    meta_length = 128 + 4 + 12 + struct.unpack("<I", head[140:144])[0]
    refusal = refusal_of(head[:meta_length] + bomb, ImageLimits(max_file_bytes=1_000_000))
    assert (refusal.code, refusal.detector) == (RefusalCode.TOO_LARGE, "deflated_size")


def test_a_code_stream_larger_than_its_header_is_refused_before_decoding() -> None:
    dataset = build_dicom()
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    siz = dataset.PixelData.index(b"\xff\x4f\xff\x51")
    pixel_data = bytearray(dataset.PixelData)
    pixel_data[siz + 8 : siz + 16] = struct.pack(">2I", 60000, 60000)
    dataset.PixelData = bytes(pixel_data)
    refusal = refusal_of(save_dicom(dataset))
    assert (refusal.code, refusal.detector) == (RefusalCode.UNREADABLE, "code_stream_size")


def test_the_coded_size_of_jpeg_is_found_behind_other_segments() -> None:
    stream = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc3\x00\x11\x0c\x01\x00\x02\x00\x01"
    assert read_coded_size(stream) == (256, 512)
    assert read_coded_size(b"\xff\xd8\xff\xd9") is None
    assert read_coded_size(b"RLE") is None


def test_evidence_never_quotes_free_text() -> None:
    data = encode_dicom(
        BodyPartExamined="KNEE DOE", SeriesDescription="Jane Doe knee", Modality="DX"
    )
    assert "DOE" not in refusal_of(data).evidence.upper()
    modality = refusal_of(encode_dicom(Modality="JANEDOE"))
    assert modality.evidence == "modality unknown"


def test_jpeg_data_under_a_wrong_syntax_is_unreadable() -> None:
    dataset = build_dicom()
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert refusal_of(save_dicom(dataset)).code is RefusalCode.UNREADABLE


def test_a_real_frog_leg_film_is_decoded_cropped_and_flagged() -> None:
    result = read_hips(real_file("RG2_J2KR.dcm"), name="f")
    assert result.refusal is None
    (hip,) = result.hips
    assert Finding.VIEW_UNSTATED in hip.findings
    assert Finding.WRONG_VIEW_SUSPECTED in hip.findings
    assert (hip.geometry.box.left, hip.geometry.box.right) == (
        pytest.approx(185, abs=35), pytest.approx(1440, abs=35),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RG3_JPLL.dcm", RefusalCode.WRONG_BODY_PART),
        ("GH1376.dcm", RefusalCode.WRONG_MODALITY),
        ("MR_truncated.dcm", RefusalCode.WRONG_MODALITY),
        ("rtstruct.dcm", RefusalCode.NOT_AN_IMAGE),
    ],
)
def test_real_files_that_are_no_hips_are_refused_with_a_reason(
    name: str, code: RefusalCode
) -> None:
    assert refusal_of(real_file(name)).code is code
