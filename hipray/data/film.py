"""A decoded film: grey values with bone bright, and the little its header may tell."""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hipray.data.thumbnail import build_thumbnail
from hipray.vocab import Finding, Sex, Side


class SpacingSource(StrEnum):
    """The DICOM attribute that a pixel spacing comes from."""

    PIXEL_SPACING = "pixel_spacing"
    IMAGER_PIXEL_SPACING = "imager_pixel_spacing"  # at the detector: hips appear 1.1-1.2 x larger
    NOMINAL_SCANNED = "nominal_scanned_pixel_spacing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class FilmInfo:
    """What a file states about its film, through an allow-list: no free text is kept."""

    file_format: str
    height: int  # px
    width: int  # px
    bits: int
    side: Side = Side.UNKNOWN
    both_sides: bool = False
    spacing_mm: float | None = None
    spacing_source: SpacingSource = SpacingSource.UNKNOWN
    modality: str = ""
    body_part: str = ""
    view: str = ""
    patient_key: str = field(default="", repr=False)  # the raw PatientID; for memory only
    taken: str = field(default="", repr=False)  # ISO date of the exposure; for memory only
    sex: Sex = Sex.UNKNOWN
    age: float | None = None  # years
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Film:
    """A film as float32 grey values of shape (height, width), bone bright.

    `padding` is True where the file marks pixels as no part of the exposure (DICOM Pixel Padding
    Value, transparency), or None where it marks none.
    """

    pixels: NDArray[np.float32]
    info: FilmInfo
    padding: NDArray[np.bool_] | None = None

    @cached_property
    def thumbnail(self) -> NDArray[np.float32]:
        """The film as detectors look at it, made once."""
        return build_thumbnail(self.pixels)
