"""How image files are read: what a decoder may use, and how a film becomes a canonical hip."""

from typing import Self

from pydantic import Field, model_validator

from hipray.config.base import Config


class ImageLimits(Config):
    """What one file may cost; each bound is checked before the step that would exceed it."""

    max_file_bytes: int = Field(default=200_000_000, gt=0)
    """Bytes of the file, and of its data set once inflated."""

    max_pixels: int = Field(default=60_000_000, gt=0)
    """Rows x columns that the header may announce (the largest detectors have about 20 Mpx)."""

    min_side_px: int = Field(default=64, ge=16)
    """Pixels of the shorter side below which no trabecula can show."""

    decode_seconds: float = Field(default=20.0, gt=0)
    """Seconds of wall time for one try at a file in the isolated reader, which tries twice."""

    decode_memory_mb: int = Field(default=3072, ge=256)
    """Mebibytes that decoding may add to the isolated reader's address space."""


class Preprocessing(Config):
    """How a film becomes canonical hips, and which are refused; part of what a bundle pins.

    Releases of before get the default of a new switch: one that changes an answer by default wants
    another PREPROCESSING_VERSION.
    """

    canonical_px: int = Field(default=512, ge=128, le=2048)
    """Pixels of the longer side of a canonical hip; a smaller film is never enlarged."""

    percentiles: tuple[float, float] = (0.5, 99.5)
    """Per cent of the exposed pixels that become black and white."""

    crop_to_exposure: bool = True
    """Whether the collimator's border is cut away."""

    apply_voi: bool = False
    """Whether the DICOM window or VOI table is applied before scaling by percentiles."""

    correct_polarity: bool = True
    """Whether a PNG, JPEG or TIFF whose open air is clearly bright is turned round."""

    pelvis_aspect: float = Field(default=1.5, ge=1.0)
    """Width / height from which a symmetrical film without a stated side is a whole pelvis."""

    stated_pelvis_aspect: float = Field(default=1.1, ge=0.8)
    """The same where the header names the pelvis (a 43 x 35 cm cassette has 1.23), and the width
    from which a film that is left whole is looked at for a remark."""

    refuse_wrong_view: bool = True
    """Whether a stated lateral, frog-leg or oblique view is refused; otherwise it is a remark."""

    refuse_implant: bool = True
    """Whether clear metal of an implant's size is refused; otherwise it is a remark."""

    assume_ap_view: bool = False
    """Whether every film is taken as anteroposterior whatever its header says."""

    force_colour: bool = False
    """Whether colour images and DICOM secondary captures are read as grey films."""

    @model_validator(mode="after")
    def _check_percentiles(self) -> Self:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("percentiles must rise within 0 and 100")
        return self
