"""Files that a hospital's export holds beside hip films, each to be refused for its own reason."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import BasicTextSRStorage

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom.anatomy import FIELD_OF_VIEW_MM, Field
from hipray.data.phantom.dicom import (
    FilmHeader,
    build_dataset,
    encode_dataset,
    encode_film,
    new_dataset,
)
from hipray.data.phantom.patient import sample_patient
from hipray.data.phantom.streams import open_stream
from hipray.data.phantom.study import DecoyKind, PhantomStudy
from hipray.data.phantom.xray import develop, expose, sample_exposure, sample_look
from hipray.data.png import encode_png
from hipray.errors import DataError

_BITS = 12
_THUMBNAIL_PX = 24
_GIANT_PX = 65_535  # rows and columns that a 16-bit header can state: 8 GB of pixels
_NOISE_BYTES = 4096
_FRAMES = 3
_TISSUE_MM = 45.0
_FILL = -1


def encode_decoy(config: PhantomConfig, study: PhantomStudy) -> bytes:
    """Return the bytes of a decoy whose picture is not a hip; raises DataError for others."""
    if study.decoy not in _ENCODERS:
        raise DataError("a decoy without a hip", f"'{study.name}'", "render the study")
    return _ENCODERS[study.decoy](config, study)


def _header(
    config: PhantomConfig,
    study: PhantomStudy,
    *,
    body_part: str = "HIP",
    view: str = "AP",
    modality: str = "DX",
) -> FilmHeader:
    patient = sample_patient(config.seed, study.patient_id)
    letter = study.laterality.value[0].upper()
    return FilmHeader(patient, letter, body_part=body_part, view=view, modality=modality)


def _film_of(
    config: PhantomConfig, study: PhantomStudy, picture: NDArray[np.uint16], header: FilmHeader
) -> bytes:
    spacing = FIELD_OF_VIEW_MM / config.image_px
    return encode_film(
        picture, bits=_BITS, spacing_mm=spacing, header=header, name=f"{study.seed}/{study.name}"
    )


def _hand(config: PhantomConfig, study: PhantomStudy) -> bytes:
    picture = _photograph(config, study, _draw_hand(config.image_px))
    return _film_of(config, study, picture, _header(config, study, body_part="HAND", view="PA"))


def _unnamed_hand(config: PhantomConfig, study: PhantomStudy) -> bytes:
    picture = _photograph(config, study, _draw_hand(config.image_px))
    return _film_of(config, study, picture, _header(config, study, body_part=""))


def _chest(config: PhantomConfig, study: PhantomStudy) -> bytes:
    picture = _photograph(config, study, _draw_chest(config.image_px))
    return _film_of(config, study, picture, _header(config, study, body_part="CHEST", view="PA"))


def _ct_slice(config: PhantomConfig, study: PhantomStudy) -> bytes:
    picture = _photograph(config, study, _draw_slice(config.image_px))
    return _film_of(config, study, picture, _header(config, study, view="", modality="CT"))


def _cine(config: PhantomConfig, study: PhantomStudy) -> bytes:
    frame = _photograph(config, study, _draw_hand(config.image_px))
    return _film_of(config, study, np.stack([frame] * _FRAMES), _header(config, study))


def _flat_field(config: PhantomConfig, study: PhantomStudy) -> bytes:
    size = config.image_px
    picture = np.full((size, size), 2 ** (_BITS - 1), np.uint16)
    return _film_of(config, study, picture, _header(config, study))


def _giant(config: PhantomConfig, study: PhantomStudy) -> bytes:
    """State far more pixels than the file holds: to be refused before decoding."""
    dataset = build_dataset(_header(config, study), f"{study.seed}/{study.name}")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = _GIANT_PX
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, _BITS, _BITS - 1
    dataset.PixelData = b"\0" * 1024
    return encode_dataset(dataset)


def _report(config: PhantomConfig, study: PhantomStudy) -> bytes:
    """Write a structured report: a DICOM object without pixels."""
    dataset = new_dataset(BasicTextSRStorage, f"{study.seed}/{study.name}")
    dataset.PatientID, dataset.Modality = study.patient_id, "SR"
    dataset.ValueType, dataset.CompletionFlag = "CONTAINER", "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    return encode_dataset(dataset)


def _noise_bytes(config: PhantomConfig, study: PhantomStudy) -> bytes:
    return open_stream(study.seed, "bytes").bytes(_NOISE_BYTES)


def _thumbnail(config: PhantomConfig, study: PhantomStudy) -> bytes:
    picture = _photograph(config, study, _draw_hand(config.image_px))
    side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    return encode_png(
        cv2.resize((picture >> 4).astype(np.uint8), side, interpolation=cv2.INTER_AREA)
    )


def _text_page(config: PhantomConfig, study: PhantomStudy) -> bytes:
    """Draw a page of dark writing on white paper."""
    size = max(config.image_px, 512)
    page = np.full((size, size), 255, np.uint8)
    for line in range(size // 32 - 1):
        words = f"{line:02d} bone density report, page {study.seed % 97}"
        place = (size // 16, 32 * (line + 1))
        cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return encode_png(page)


def _photo(config: PhantomConfig, study: PhantomStudy) -> bytes:
    """Draw a colour picture: sky, meadow and a sun."""
    size = config.image_px
    picture = np.empty((size, size, 3), np.uint8)
    picture[: size // 2], picture[size // 2 :] = (90, 170, 235), (70, 160, 60)
    stream = open_stream(study.seed, "photo")
    sun = (int(stream.integers(size // 8, size)), size // 5)
    cv2.circle(picture, sun, size // 10, (250, 220, 60), _FILL)
    noise = stream.normal(0, 6, picture.shape)
    return encode_png(np.clip(picture + noise, 0, 255).astype(np.uint8))


def _photograph(config: PhantomConfig, study: PhantomStudy, bone: Field) -> NDArray[np.uint16]:
    """Expose areal density (H, W) in g/cm² as a hip would be, and return 12 bits."""
    stream = open_stream(study.seed, "decoy")
    spacing = FIELD_OF_VIEW_MM / config.image_px
    soft = np.where(cv2.GaussianBlur(bone, (0, 0), 12 / spacing) > 0.02, _TISSUE_MM, 0)
    soft = cv2.GaussianBlur(soft.astype(np.float32), (0, 0), 4 / spacing)
    exposure, look = sample_exposure(stream), sample_look(stream)
    raw = expose(stream, exposure, bone=bone, soft=soft, spacing_mm=spacing)
    film = np.rint(develop(raw, look, bone=bone, spacing_mm=spacing) * (2**_BITS - 1))
    return np.asarray(film, dtype=np.uint16)


def _draw_hand(size: int) -> Field:
    """Return five rays of four bones each and a wrist, in g/cm²."""
    hand = np.zeros((size, size), np.float32)
    wrist = np.array([0.5, 0.80])
    for finger in range(5):
        angle = np.radians(-122 + 16 * finger)
        reach = 0.46 if finger else 0.38
        joints = [wrist + reach * part * _unit(angle) for part in (0.18, 0.52, 0.74, 0.88, 1.0)]
        for start, end in pairwise(joints):
            _draw_bone(hand, start + 0.06 * (end - start), end - 0.06 * (end - start), size)
    cv2.ellipse(hand, (size // 2, int(0.8 * size)), (size // 11, size // 18), 0, 0, 360, 0.5, _FILL)
    return np.asarray(cv2.GaussianBlur(hand, (0, 0), size / 256))


def _unit(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


def _draw_bone(
    picture: Field, start: NDArray[np.float64], end: NDArray[np.float64], size: int
) -> None:
    first, last = (tuple(int(c) for c in point * size) for point in (start, end))
    cv2.line(picture, first, last, 0.6, max(2, size // 28), cv2.LINE_AA)
    cv2.line(picture, first, last, 0.35, max(1, size // 64), cv2.LINE_AA)


def _draw_chest(size: int) -> Field:
    """Return a spine, a heart and twelve pairs of ribs, in g/cm²."""
    chest = np.full((size, size), 0.05, np.float32)
    cv2.line(chest, (size // 2, 0), (size // 2, size), 0.8, size // 12)
    for rib in range(12):
        row = int((0.08 + 0.07 * rib) * size)
        for column, start in ((int(0.28 * size), 150), (int(0.72 * size), 210)):
            axes = (int(0.24 * size), int(0.10 * size))
            cv2.ellipse(chest, (column, row), axes, 0, start, start + 180, 0.35, size // 50)
    heart = (int(0.56 * size), int(0.62 * size))
    cv2.ellipse(chest, heart, (size // 6, size // 5), 20, 0, 360, 0.6, _FILL)
    return np.asarray(cv2.GaussianBlur(chest, (0, 0), size / 200))


def _draw_slice(size: int) -> Field:
    """Return a cross-section: a body with two femurs in it, in g/cm²."""
    body = np.zeros((size, size), np.float32)
    middle = size // 2
    cv2.ellipse(body, (middle, middle), (int(0.45 * size), int(0.3 * size)), 0, 0, 360, 0.3, _FILL)
    for column in (0.25, 0.75):
        cv2.circle(body, (int(column * size), middle), size // 12, 0.9, size // 40)
    return body


_ENCODERS: dict[DecoyKind | None, Callable[[PhantomConfig, PhantomStudy], bytes]] = {
    DecoyKind.HAND: _hand,
    DecoyKind.CHEST: _chest,
    DecoyKind.CT_SLICE: _ct_slice,
    DecoyKind.PHOTO: _photo,
    DecoyKind.TEXT_PAGE: _text_page,
    DecoyKind.FLAT_FIELD: _flat_field,
    DecoyKind.NOISE_BYTES: _noise_bytes,
    DecoyKind.REPORT: _report,
    DecoyKind.CINE: _cine,
    DecoyKind.THUMBNAIL: _thumbnail,
    DecoyKind.GIANT: _giant,
    DecoyKind.UNNAMED_HAND: _unnamed_hand,
}
