"""A decoded film: grey values with bone bright, and the little its header may tell."""

from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hipray.config.images import ImageLimits
from hipray.data.refusals import refuse
from hipray.data.thumbnail import build_thumbnail
from hipray.vocab import Finding, RefusalCode, Sex, Side


@dataclass(frozen=True)
class FilmInfo:
    """What a file states about its film, through an allow-list: no free text is kept."""

    height: int  # px
    width: int  # px
    bits: int
    side: Side = Side.UNKNOWN
    both_sides: bool = False
    names_pelvis: bool = False  # the body part that it states
    spacing_mm: float | None = None
    patient_key: str = field(default="", repr=False)  # the raw PatientID; for memory only
    taken: date | None = field(default=None, repr=False)  # day of the exposure; for memory only
    sex: Sex = Sex.UNKNOWN
    age: float | None = None  # years of the person at the film
    findings: tuple[Finding, ...] = ()


def check_dimensions(rows: int, columns: int, limits: ImageLimits) -> None:
    """Refuse a raster of this announced size where it is too large, too small or absent."""
    size = f"{rows} x {columns} px"
    if rows <= 0 or columns <= 0:
        raise refuse(RefusalCode.UNREADABLE, detector="dimensions", evidence=size)
    if rows * columns > limits.max_pixels:
        evidence = f"{size}, at most {limits.max_pixels}"
        raise refuse(RefusalCode.TOO_LARGE, detector="dimensions", evidence=evidence)
    if min(rows, columns) < limits.min_side_px:
        evidence = f"{size}, at least {limits.min_side_px} on each side"
        raise refuse(RefusalCode.TOO_SMALL, detector="dimensions", evidence=evidence)


@dataclass(frozen=True)
class Film:
    """A film as float32 grey values of shape (height, width), bone bright.

    `padding` is True where the file marks pixels as no part of the exposure (DICOM Pixel Padding
    Value, transparency), or None where it marks none. `level` is the step of `pixels` from one
    stored grey level to the next: a file may rescale 4096 levels to an optical density of 0 to 4.
    """

    pixels: NDArray[np.float32]
    info: FilmInfo
    padding: NDArray[np.bool_] | None = None
    level: float = 1.0

    def with_info(self, info: FilmInfo) -> "Film":
        """Return the same pixels under another header; what was made of them stays made."""
        film = replace(self, info=info)
        vars(film).update(thumbnail=self.thumbnail)
        return film

    @cached_property
    def thumbnail(self) -> NDArray[np.float32]:
        """The film as detectors look at it, made once."""
        return build_thumbnail(self.pixels)
