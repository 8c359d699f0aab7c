"""The phantom archive: how many synthetic hips there are and how hard they are to read."""

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from hipray.config.base import Config


class FilmFormat(StrEnum):
    """The file format in which a phantom film is written."""

    DICOM = "dicom"
    PNG = "png"


class PhantomConfig(Config):
    """A synthetic archive shaped like the one of Feng et al. 2023: 134 patients, 139 hips."""

    seed: int = 2023
    """Seed of the archive; a film's own seed is a hash of it, the patient and the side."""

    n_patients: int = Field(default=134, ge=1)
    """Patients with a DXA report (paper, section 3.1: 134)."""

    n_second_hips: int = Field(default=5, ge=0)
    """Patients of whom both hips were filmed; 134 + 5 = the paper's 139 radiographs."""

    n_device_a: int = Field(default=72, ge=0)
    """Hips measured on device A, which reports all four regions; the others report two."""

    image_px: int = Field(default=256, ge=64, le=4096)
    """Side of a hip film in pixels; it always shows 170 mm. A pelvis film is twice as wide."""

    kappa: float = Field(default=0.8, ge=0, le=1)
    """How much of a hip's bone density its film shows; 0 makes the labels unreadable."""

    exact_prevalence: bool = True
    """Shift each region's T-scores so that the paper's share of hips has T <= -2.5, exactly."""

    shortcut: float = Field(default=0, ge=0, le=1)
    """Probability that marker and ruler tell the label: a trap for shortcut learning."""

    edge_contrast: float = Field(default=1, gt=0, le=1)
    """Sharpness of bone edges; below 1 they fade into soft tissue and segmentation gets harder."""

    annotator_noise_mm: float = Field(default=1, ge=0, le=5)
    """Standard deviation of a polygon vertex around the true outline, in mm."""

    pelvis_films: int = Field(default=0, ge=0)
    """Extra films that show both hips of a patient."""

    implants: int = Field(default=0, ge=0)
    """Extra hips with a prosthesis; they have no DXA report and must be refused."""

    blurred: int = Field(default=0, ge=0)
    """Extra hips blurred by motion; they have a DXA report."""

    decoys: int = Field(default=0, ge=0)
    """Extra files that are no hip film; they cycle through the ways a file can be refused."""

    clones: int = Field(default=0, ge=0)
    """Cheap copies of hip films with other identifiers, for archives of many thousand files."""

    film_format: FilmFormat = FilmFormat.DICOM
    """How films are written."""

    write_truth: bool = False
    """Whether each region's true mask is written as an 8-bit PNG (0 or 255) as well."""

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        if self.n_second_hips > self.n_patients:
            raise ValueError("n_second_hips must not exceed n_patients")
        if self.n_device_a > self.n_patients + self.n_second_hips:
            raise ValueError("n_device_a must not exceed n_patients + n_second_hips")
        if self.clones and self.film_format is not FilmFormat.DICOM:
            raise ValueError("clones need film_format = 'dicom'")
        return self
