"""Synthetic films and the files that carry them, small enough to draw in milliseconds."""

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

REAL_FILES = Path(
    os.environ.get("HIPRAY_REAL_FILES", Path(__file__).parents[2].parent / "shared" / "real")
)


def real_file(name: str) -> bytes:
    path = REAL_FILES / name
    if not path.exists():
        pytest.skip(f"no real film {name}")
    return path.read_bytes()


def draw_hip(height: int = 256, width: int = 256, seed: int = 0) -> NDArray[np.uint8]:
    """A left hip, medial at the left: head, neck, shaft in soft tissue, air at the lateral edge."""
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    film = 70 + 30 * (1 - x) + 15 * np.sin(3 * y)
    film = film + 90 * np.exp(-(((x - 0.35) / 0.12) ** 4 + ((y - 0.35) / 0.12) ** 4))
    film = film + 70 * np.exp(-(((x - 0.55 - 0.05 * (1 - y)) / 0.07) ** 4)) * (y > 0.4)
    film = film * (1 / (1 + np.exp((x - 0.93 + 0.1 * (y - 0.5) ** 2) / 0.01)))
    film = film + np.random.default_rng(seed).normal(0, 2, film.shape)
    return np.asarray(np.clip(cv2.GaussianBlur(film, (0, 0), 0.8), 0, 255), np.uint8)


def draw_pelvis(height: int = 256) -> NDArray[np.uint8]:
    """A pelvis whose right hip, at the image's left, is not quite the left one's mirror image."""
    left, right = draw_hip(height, height, seed=1), draw_hip(height, height, seed=2)
    return np.concatenate([right[:, ::-1], left], axis=1)


def encode_image(pixels: NDArray[Any], image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def build_dicom(pixels: NDArray[np.uint16] | None = None, **attributes: Any) -> Dataset:
    """A DX film of a left hip, AP; attributes replace the defaults and None removes them."""
    if pixels is None:
        pixels = draw_hip().astype(np.uint16) * 12
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.1")
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-4711"
    dataset.PatientSex, dataset.PatientAge = "F", "073Y"
    dataset.Modality, dataset.BodyPartExamined = "DX", "HIP"
    dataset.ViewPosition, dataset.ImageLaterality = "AP", "L"
    dataset.PixelSpacing = [0.2, 0.2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def save_dicom(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encode_dicom(pixels: NDArray[np.uint16] | None = None, **attributes: Any) -> bytes:
    return save_dicom(build_dicom(pixels, **attributes))
