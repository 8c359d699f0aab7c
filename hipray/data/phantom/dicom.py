"""Write phantom films as DICOM: Digital X-Ray images for presentation (PS3.3, A.26).

Everything is fixed or hashed from names, so the same film gives the same bytes.
"""

import hashlib
import io
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from hipray.data.phantom.patient import Patient
from hipray.data.phantom.streams import derive_seed
from hipray.errors import DataError
from hipray.vocab import Sex

UID_PREFIX = "2.25."  # a UUID as a decimal number (PS3.5, B.2)
FILM_DATE = "20230615"  # every phantom was filmed on this day
FILM_TIME = "120000"

_IMPLEMENTATION_UID = "2.25.7311284021"
_UID_DIGITS = 38
_MAGNIFICATION = 1.15  # of a hip on a detector 15 cm below it, tube at 115 cm
_SEX = {Sex.FEMALE: "F", Sex.MALE: "M"}
_UID = re.compile(rb"2\.25\.[0-9]{38}")
_PIXEL_DATA = b"\xe0\x7f\x10\x00OW\x00\x00"  # tag, VR and reserved bytes
_PATIENT_ID = b"\x10\x00\x20\x00LO"
_CLONE_ID = "C{:07d}"
_SIGNED_PIXELS = 64  # pixels whose lowest bits spell a clone's number


@dataclass(frozen=True)
class FilmHeader:
    """What the header of a phantom film states."""

    patient: Patient
    laterality: str  # L, R, B (both) or empty (unpaired or unstated)
    body_part: str = "HIP"
    view: str = "AP"
    modality: str = "DX"
    inverted: bool = False  # MONOCHROME1


def make_uid(*names: object) -> str:
    """Return a UID of constant length that depends on `names` alone."""
    text = "\x1f".join(str(name) for name in names)
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    lowest = 10 ** (_UID_DIGITS - 1)
    return f"{UID_PREFIX}{lowest + digest % (9 * lowest)}"


def encode_film(
    pixels: NDArray[np.uint16], *, bits: int, spacing_mm: float, header: FilmHeader, name: str
) -> bytes:
    """Return `pixels` (H, W, bone bright) as a DICOM file with `bits` bits stored.

    An inverted film is stored as MONOCHROME1 with its grey values turned round.
    """
    dataset = build_dataset(header, name)
    stored = (2**bits - 1) - pixels if header.inverted else pixels
    dataset.PhotometricInterpretation = "MONOCHROME1" if header.inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if header.inverted else "IDENTITY"
    dataset.PixelIntensityRelationshipSign = 1 if header.inverted else -1
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    dataset.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    dataset.ImagerPixelSpacing = [f"{spacing_mm * _MAGNIFICATION:.6f}"] * 2
    if stored.ndim == 3:
        dataset.NumberOfFrames = stored.shape[0]
    dataset.PixelData = stored.astype("<u2").tobytes()
    return encode_dataset(dataset)


def build_dataset(header: FilmHeader, name: str) -> FileDataset:
    """Return a film's data set with every module but the pixels."""
    sop_class = CTImageStorage if header.modality == "CT" else _FILM_CLASS
    dataset = new_dataset(sop_class, name)
    _state_patient(dataset, header.patient)
    _state_examination(dataset, header, name)
    _state_image(dataset, header)
    return dataset


_FILM_CLASS = DigitalXRayImageStorageForPresentation


def new_dataset(sop_class: str, name: str) -> FileDataset:
    """Return an empty data set of the class whose UIDs hash `name`."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = make_uid(name, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = "HIPRAY"
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    return dataset


def encode_dataset(dataset: Dataset) -> bytes:
    """Return the data set as the bytes of a DICOM file."""
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _state_patient(dataset: Dataset, patient: Patient) -> None:
    dataset.PatientName = f"PHANTOM^{patient.patient_id}"
    dataset.PatientID = patient.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = _SEX[patient.sex]
    dataset.PatientAge = f"{patient.age:03d}Y"
    dataset.PatientSize = f"{patient.height_cm / 100:.3f}"
    dataset.PatientWeight = f"{patient.weight_kg:.1f}"


def _state_examination(dataset: Dataset, header: FilmHeader, name: str) -> None:
    dataset.StudyInstanceUID = make_uid(name, "study")
    dataset.SeriesInstanceUID = make_uid(name, "series")
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = FILM_DATE
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = FILM_TIME
    dataset.AcquisitionDate, dataset.AcquisitionTime = FILM_DATE, FILM_TIME
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.Modality = header.modality
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.Manufacturer, dataset.ManufacturerModelName = "hipray", "phantom"
    dataset.AcquisitionContextSequence = []


def _state_image(dataset: Dataset, header: FilmHeader) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PatientOrientation = ["L", "F"]
    if header.body_part:
        dataset.BodyPartExamined = header.body_part
    if header.view:
        dataset.ViewPosition = header.view
    dataset.ImageLaterality = header.laterality or "U"
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PixelIntensityRelationship = "LOG"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.DetectorType, dataset.PositionerType = "SCINTILLATOR", "NONE"
    dataset.PixelSpacingCalibrationType = "GEOMETRY"
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"


def clone_film(data: bytes, index: int) -> bytes:
    """Return a copy of a film's DICOM bytes with its own identifiers and pixels.

    Patient, study, series and image get new identifiers of the same length, and the lowest bits
    of 64 pixels in the film's middle spell a hash of `index`, so no two clones are equal.
    Raises DataError where `data` is not a film of this package.
    """
    start = data.find(_PIXEL_DATA) + len(_PIXEL_DATA) + 4
    header = data[:start]
    patient = _find_patient_id(header)
    clone = bytearray(_rename(header, patient, index))
    pixels = np.frombuffer(data, np.uint8, offset=start).copy()
    bits = np.unpackbits(np.frombuffer(derive_seed(index).to_bytes(8, "little"), np.uint8))
    first = pixels.size // 4 * 2  # an even place: the low byte of a pixel
    signed = pixels[first : first + 2 * _SIGNED_PIXELS : 2]
    signed[:] = (signed & 0xFE) | bits
    return bytes(clone) + pixels.tobytes()


def _find_patient_id(header: bytes) -> bytes:
    place = header.find(_PATIENT_ID)
    if place < 0 or header[128:132] != b"DICM":
        raise DataError("the DICOM bytes of a phantom film", "other bytes", "pass encode_film's")
    length = int.from_bytes(header[place + 6 : place + 8], "little")
    return header[place + 8 : place + 8 + length]


def _rename(header: bytes, patient: bytes, index: int) -> bytes:
    """Replace patient and UIDs everywhere; lengths stay, so no offset changes."""
    new_id = _CLONE_ID.format(index).encode()
    if len(new_id) != len(patient):
        raise DataError("fewer than 10 million clones", f"clone {index}", "use lower numbers")
    renamed = header.replace(patient, new_id)
    return _UID.sub(lambda found: make_uid(found.group().decode(), index).encode(), renamed)
