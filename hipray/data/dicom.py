"""DICOM bytes -> Film: checks in the header first, then modality LUT, VOI, polarity.

Order of the grey-value steps after DICOM PS3.3 C.11 and PS3.4 N.2: modality LUT or rescale, VOI
where it is wanted, presentation. MONOCHROME1 is turned round last, so that a file with an
inverting Modality LUT Sequence comes out right.

Compressed pixels are decoded by pydicom's plugins: pyproject.toml names those that are installed
(pylibjpeg and its decoders), and pydicom finds them. A plugin for another code stream also wants
that stream's header read in `read_coded_size`, since decoders allocate by it.
"""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments, get_frame, parse_basic_offsets
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from hipray.config.images import ImageLimits, Preprocessing
from hipray.data.dicom_header import (
    PELVIS_WORDS,
    names_other_view,
    read_age,
    read_exposure_date,
    read_integer,
    read_sex,
    read_spacing,
    read_text,
    read_value,
    state_body_part,
    state_side,
    state_view,
)
from hipray.data.film import Film, FilmInfo, check_dimensions
from hipray.data.refusals import refuse
from hipray.vocab import Finding, RefusalCode

RADIOGRAPH_MODALITIES = ("CR", "DX", "RG")
"""Computed, digital and film radiography (DICOM PS3.3 C.7.3.1.1.1)."""
CAPTURE_MODALITIES = ("SC", "OT")
KNOWN_MODALITIES = (
    "CT", "MR", "US", "NM", "PT", "MG", "XA", "RF", "PX", "IO", "ES", "XC", "BMD", "SR", "SEG",
    "RTIMAGE", "RTDOSE", "RTSTRUCT", "RTPLAN", "ECG", "HD", "OP", "OPT", "SM", "GM", "DOC", "PR",
    "KO", "REG", "AU",
)  # fmt: skip
"""Modalities that evidence may name; any other is called unknown."""
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420",
          "PALETTE COLOR")  # fmt: skip
IDENTIFYING = ("PixelData", "SOPClassUID", "Modality", "DirectoryRecordSequence")
"""One of these is in every DICOM object; pydicom answers with none where a file breaks off."""
PIXEL_MODULE = ("PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored",
                "PixelRepresentation")  # fmt: skip
"""What an image must say of its pixels beside their number (PS3.3 C.7.6.3)."""
MAX_GREY_BITS = 16
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
MOST_BEYOND = 0.1
"""Share of pixels that overlays of which nothing is said may take; more are lying bits."""
JPEG_MARKERS_WITH_SIZE = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers of JPEG (ITU-T T.81 table B.1) and JPEG-LS (T.87: 0xFFF7)."""


def is_dicom(data: bytes) -> bool:
    """Return whether the bytes carry the DICOM prefix (PS3.10 section 7.1)."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, *, limits: ImageLimits, preprocessing: Preprocessing) -> Film:
    """Decode one DICOM file, with or without preamble, into a film with bone bright.

    Raises FilmRefused where the file states that it is no AP radiograph of a hip or exceeds a
    limit; decoders raise errors of their own.
    """
    with disable_value_validation():
        dataset = _parse(data, limits)
        _check_object(dataset, preprocessing)
        _complete_pixel_module(dataset)
        _drop_offsets(dataset)
        _check_size(dataset, limits)
        _check_length(dataset)
        findings = _check_anatomy(dataset, preprocessing)
        return _build_film(dataset, findings, preprocessing)


def _parse(data: bytes, limits: ImageLimits) -> Dataset:
    _check_inflated_size(data, limits)
    dataset = pydicom.dcmread(BytesIO(data), force=True)
    if not any(keyword in dataset for keyword in IDENTIFYING):
        evidence = "a data set that breaks off" if is_dicom(data) else "no known image format"
        raise refuse(RefusalCode.UNREADABLE, detector="format", evidence=evidence)
    _complete_transfer_syntax(dataset)
    return dataset


def _check_inflated_size(data: bytes, limits: ImageLimits) -> None:
    if DeflatedExplicitVRLittleEndian.encode() not in data:
        return
    stream = BytesIO(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if read_text(meta, "TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(stream.read(), limits.max_file_bytes)
    if inflater.unconsumed_tail:
        evidence = f"inflates beyond {limits.max_file_bytes} bytes"
        raise refuse(RefusalCode.TOO_LARGE, detector="deflated_size", evidence=evidence)


def _complete_transfer_syntax(dataset: Dataset) -> None:
    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    dataset.file_meta = meta


def _check_object(dataset: Dataset, preprocessing: Preprocessing) -> None:
    if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        evidence = f"modality {_modality_word(dataset)}, no pixel data"
        raise refuse(RefusalCode.NOT_AN_IMAGE, detector="dicom_object", evidence=evidence)
    _check_modality(dataset, preprocessing)
    if not read_value(dataset, "PixelData"):
        raise refuse(RefusalCode.UNREADABLE, detector="pixel_data", evidence="pixel data is empty")
    frames = read_integer(dataset, "NumberOfFrames", default=1)
    if frames > 1:
        evidence = f"{frames} frames"
        raise refuse(RefusalCode.MULTI_FRAME, detector="number_of_frames", evidence=evidence)
    _check_photometric(dataset, preprocessing)


def _check_modality(dataset: Dataset, preprocessing: Preprocessing) -> None:
    modality = _modality_word(dataset)
    if modality in (*RADIOGRAPH_MODALITIES, "unstated"):
        return
    if modality in CAPTURE_MODALITIES:
        if preprocessing.force_colour:
            return
        evidence = f"modality {modality}: a secondary capture"
        raise refuse(RefusalCode.NOT_A_RADIOGRAPH, detector="modality", evidence=evidence)
    raise refuse(RefusalCode.WRONG_MODALITY, detector="modality", evidence=f"modality {modality}")


def _modality_word(dataset: Dataset) -> str:
    stated = read_text(dataset, "Modality").strip().upper()
    known = (*RADIOGRAPH_MODALITIES, *CAPTURE_MODALITIES, *KNOWN_MODALITIES)
    return stated if stated in known else ("unknown" if stated else "unstated")


def _check_photometric(dataset: Dataset, preprocessing: Preprocessing) -> None:
    photometric = _photometric_word(dataset)
    samples = read_integer(dataset, "SamplesPerPixel", default=1)
    grey = photometric in (*GREY, "unstated") and samples == 1
    if not grey and not preprocessing.force_colour:
        evidence = f"PhotometricInterpretation {photometric}, {samples} samples per pixel"
        raise refuse(RefusalCode.NOT_A_RADIOGRAPH, detector="photometric", evidence=evidence)


def _photometric_word(dataset: Dataset) -> str:
    stated = read_text(dataset, "PhotometricInterpretation").strip().upper()
    return stated if stated in (*GREY, *COLOUR) else ("unknown" if stated else "unstated")


def _complete_pixel_module(dataset: Dataset) -> None:
    """Fill in what the standard leaves no choice about; refuse pixels of which more is unsaid.

    Grey images have one sample per pixel (PS3.3 C.7.6.3.1.2), and DX images are unsigned
    (C.8.11.3). Which of black and white is low no other attribute tells.
    """
    if read_value(dataset, "SamplesPerPixel") is None and _photometric_word(dataset) in GREY:
        dataset.SamplesPerPixel = 1
    digital = read_text(dataset, "Modality").strip().upper() == "DX"
    if read_value(dataset, "PixelRepresentation") is None and digital:
        dataset.PixelRepresentation = 0
    unsaid = [keyword for keyword in PIXEL_MODULE if read_value(dataset, keyword) is None]
    if unsaid:
        evidence = f"the header lacks {', '.join(unsaid)}"
        raise refuse(RefusalCode.UNREADABLE, detector="pixel_module", evidence=evidence)


def _check_size(dataset: Dataset, limits: ImageLimits) -> None:
    rows, columns = read_integer(dataset, "Rows"), read_integer(dataset, "Columns")
    check_dimensions(rows, columns, limits)
    coded = _coded_size(dataset)
    if coded is not None and coded != (rows, columns):
        evidence = f"{rows} x {columns} in the header, {coded[0]} x {coded[1]} in the code stream"
        raise refuse(RefusalCode.UNREADABLE, detector="code_stream_size", evidence=evidence)


def _check_length(dataset: Dataset) -> None:
    """Refuse native pixels that break off; more of them than needed are padding (PS3.5 8.1.1)."""
    if _is_encapsulated(dataset):
        return
    needed, found = get_expected_length(dataset), len(dataset.PixelData)
    if found < needed:
        evidence = f"{found} bytes of pixels where the header says {needed}"
        raise refuse(RefusalCode.UNREADABLE, detector="pixel_data", evidence=evidence)


def _drop_offsets(dataset: Dataset) -> None:
    """Leave out tables of where frames begin, right or wrong: the one frame is all there is."""
    if not _is_encapsulated(dataset):
        return
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    stream = BytesIO(dataset.PixelData)
    if not parse_basic_offsets(stream):
        return
    frame = b"".join(generate_fragments(stream))
    dataset.PixelData = encapsulate([frame], has_bot=False)
    dataset["PixelData"].is_undefined_length = True


def _is_encapsulated(dataset: Dataset) -> bool:
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    return bool(syntax.is_compressed) and syntax != DeflatedExplicitVRLittleEndian


def _coded_size(dataset: Dataset) -> tuple[int, int] | None:
    if not _is_encapsulated(dataset):
        return None
    return read_coded_size(get_frame(dataset.PixelData, 0, number_of_frames=1))


def read_coded_size(stream: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 code stream announces, or None.

    A decoder allocates by these and not by the DICOM header, so a small file could otherwise ask
    for 65535 x 65535 pixels. JPEG 2000: SIZ marker segment, ITU-T T.800 A.5.1.
    """
    if stream[:4] == b"\xff\x4f\xff\x51" and len(stream) >= 24:
        width, height, left, top = struct.unpack(">4I", stream[8:24])
        return height - top, width - left
    return _read_jpeg_size(stream) if stream[:2] == b"\xff\xd8" else None


def _read_jpeg_size(stream: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker in JPEG_MARKERS_WITH_SIZE:
            rows, columns = struct.unpack(">2H", stream[position + 5 : position + 9])
            return rows, columns
        padding = marker == 0xFF
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        position += 1 if padding else 2 + length
    return None


def _check_anatomy(dataset: Dataset, preprocessing: Preprocessing) -> tuple[Finding, ...]:
    part, findings = state_body_part(dataset), []
    if part is None:
        findings.append(Finding.BODY_PART_UNSTATED)
    elif not part.accepted:
        evidence = f"{part.tag} names {part.word}"
        raise refuse(RefusalCode.WRONG_BODY_PART, detector="body_part", evidence=evidence)
    return (*findings, *_check_view(dataset, preprocessing))


def _check_view(dataset: Dataset, preprocessing: Preprocessing) -> tuple[Finding, ...]:
    view = state_view(dataset)
    if preprocessing.assume_ap_view:
        return ()
    if view is not None and view.accepted:
        return (Finding.WRONG_VIEW_SUSPECTED,) if names_other_view(dataset) else ()
    if view is None:
        return (Finding.VIEW_UNSTATED,)
    if not preprocessing.refuse_wrong_view:
        return (Finding.WRONG_VIEW_SUSPECTED,)
    evidence = f"{view.tag} names {view.word}"
    raise refuse(RefusalCode.WRONG_VIEW, detector="view_position", evidence=evidence)


def _build_film(
    dataset: Dataset, findings: tuple[Finding, ...], preprocessing: Preprocessing
) -> Film:
    raw = _decode(dataset)
    padding = _find_padding(raw, dataset)
    stored = _read_bits(raw, padding, dataset)
    if padding is None:  # it may be stated as it is without the bits above
        padding = _find_padding(stored, dataset)
    grey = _apply_luts(stored, dataset, preprocessing)
    level = _measure_range(grey) / max(_measure_range(stored), 1.0) or 1.0
    if _is_inverted(dataset):
        grey = grey.max() - grey
        findings = (*findings, Finding.POLARITY_INVERTED)
    return Film(grey, _read_info(dataset, stored.shape, findings), padding, level)


def _decode(dataset: Dataset) -> NDArray[Any]:
    if read_integer(dataset, "PixelRepresentation", default=0) == 0:
        dataset.pixel_array_options(correct_unused_bits=False)  # it would wrap what is beyond
    stored = np.asarray(dataset.pixel_array)
    if stored.ndim == 3:
        return np.asarray(stored.mean(axis=2, dtype=np.float32))
    if stored.ndim != 2:
        evidence = f"{stored.ndim} dimensions"
        raise refuse(RefusalCode.UNREADABLE, detector="pixel_data", evidence=evidence)
    return stored


def _read_bits(
    stored: NDArray[Any], padding: NDArray[np.bool_] | None, dataset: Dataset
) -> NDArray[Any]:
    """Return grey values of BitsStored bits; refuse pixels that this many bits cannot hold.

    Old files keep overlay planes in the bits above them (retired PS3.3 C.9.2), and some hold the
    grey values in the upper bits of each word, which HighBit then says (PS3.5 8.1.1).
    """
    bits = read_integer(dataset, "BitsStored")
    if not np.issubdtype(stored.dtype, np.unsignedinteger) or not 0 < bits < MAX_GREY_BITS:
        return stored
    highest = (1 << bits) - 1
    if int(np.max(stored)) <= highest:
        return stored
    unused = read_integer(dataset, "HighBit", default=bits - 1) + 1 - bits
    aligned = stored >> unused if 0 < unused <= MAX_GREY_BITS - bits else stored
    exposed = aligned if padding is None else aligned[~padding]
    beyond = float(np.mean(exposed > highest))
    if beyond > MOST_BEYOND and not _has_overlay_bits(dataset):
        evidence = f"{beyond:.0%} of the pixels are above what {bits} bits hold"
        raise refuse(RefusalCode.UNREADABLE, detector="bits_stored", evidence=evidence)
    return np.asarray(aligned & highest)


def _has_overlay_bits(dataset: Dataset) -> bool:
    positions = (dataset.get((group, 0x0102)) for group in OVERLAY_GROUPS)
    return any(position is not None and position.value for position in positions)


def _find_padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    if read_value(dataset, "PixelPaddingValue") is None:
        return None
    value = read_integer(dataset, "PixelPaddingValue")
    limit = read_integer(dataset, "PixelPaddingRangeLimit", default=value)
    padding = (stored >= min(value, limit)) & (stored <= max(value, limit))
    some = bool(padding.any()) and not bool(padding.all())
    return np.asarray(padding, dtype=np.bool_) if some else None


def _apply_luts(
    stored: NDArray[Any], dataset: Dataset, preprocessing: Preprocessing
) -> NDArray[np.float32]:
    grey = stored
    if read_value(dataset, "ModalityLUTSequence") or _rescales(dataset):
        grey = apply_modality_lut(stored, dataset)
    if preprocessing.apply_voi and not _has_empty_window(dataset):
        grey = apply_voi_lut(grey, dataset)
    return np.ascontiguousarray(grey, dtype=np.float32)


def _measure_range(values: NDArray[Any]) -> float:
    return float(values.max()) - float(values.min())


def _rescales(dataset: Dataset) -> bool:
    """Whether slope and intercept have values: programs that blank headers leave empty ones."""
    names = ("RescaleSlope", "RescaleIntercept")
    return all(read_value(dataset, name) is not None for name in names)


def _has_empty_window(dataset: Dataset) -> bool:
    """Whether the header's window has no width, as consoles write where they set none."""
    width = read_value(dataset, "WindowWidth")
    first = width[0] if isinstance(width, MultiValue) else width
    return first is not None and not read_value(dataset, "VOILUTSequence") and float(first) <= 0


def _is_inverted(dataset: Dataset) -> bool:
    # For DX images INVERSE accompanies MONOCHROME1 (PS3.3 C.8.11.3): both say the same once.
    shape = read_text(dataset, "PresentationLUTShape").strip().upper()
    return _photometric_word(dataset) == "MONOCHROME1" or shape == "INVERSE"


def _read_info(dataset: Dataset, shape: tuple[int, ...], findings: tuple[Finding, ...]) -> FilmInfo:
    part, side = state_body_part(dataset), state_side(dataset)
    return FilmInfo(
        height=shape[0],
        width=shape[1],
        bits=read_integer(dataset, "BitsStored"),
        side=side.side,
        both_sides=side.both,
        names_pelvis=part is not None and part.word in PELVIS_WORDS,
        spacing_mm=read_spacing(dataset),
        patient_key=read_text(dataset, "PatientID").strip(),
        taken=read_exposure_date(dataset),
        sex=read_sex(dataset),
        age=read_age(dataset),
        findings=findings,
    )
