"""Sample phantom patients and the density of their hips.

The T-scores follow a Gaussian model fitted to the prevalences that the tables of Feng et al. 2023
imply; the hospital's age and sex mix is that of Hsieh et al. 2021 (a referral population).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hipray.config.phantom import PhantomConfig
from hipray.data.phantom.scanner import (
    Densitometer,
    density_of,
    osteoporosis_edge,
    report_t,
    report_z,
)
from hipray.data.phantom.streams import open_stream
from hipray.vocab import REGIONS, Sex, Side

Quad = tuple[float, float, float, float]
"""One number per region, in the order of `REGIONS`."""

NO_SHIFT: Quad = (0.0, 0.0, 0.0, 0.0)

PREVALENCE: Quad = (0.445, 0.397, 0.663, 0.466)
"""Share of hips with T <= -2.5 per region, solved from Tables 6 and 7 of Feng et al. 2023."""

_FEMALE_SHARE = 0.77
_MEAN_AGE, _SD_AGE = 73.0, 9.5  # years
_AGE_RANGE = (50.0, 95.0)  # years: ISCD gives T-scores to women after menopause, men from 50
_MEAN_WEIGHT = {Sex.FEMALE: 58.0, Sex.MALE: 66.0}  # kg
_MEAN_HEIGHT = {Sex.FEMALE: 153.0, Sex.MALE: 165.0}  # cm
_SD_WEIGHT, _SD_HEIGHT = 9.0, 6.0  # kg, cm
_HIP_TO_HIP = 0.92  # correlation of a patient's two hips
_T_MEAN = np.array([-2.36, -2.20, -3.04, -2.39])  # at the mean age
_T_SD = np.array([1.10, 1.20, 1.30, 1.20])  # over all ages
_T_PER_YEAR = -0.041
_CORRELATION = np.array(  # of the four regions of one hip
    [
        [1.00, 0.80, 0.90, 0.88],
        [0.80, 1.00, 0.75, 0.93],
        [0.90, 0.75, 1.00, 0.82],
        [0.88, 0.93, 0.82, 1.00],
    ]
)


@dataclass(frozen=True)
class Patient:
    """A phantom patient as the record states them."""

    patient_id: str
    sex: Sex
    age: int  # years
    weight_kg: float
    height_cm: float


@dataclass(frozen=True)
class HipTruth:
    """The density of one hip: what DXA reports, and what the film shows."""

    bmd: Quad  # g/cm², rounded to 0.001
    t_score: Quad  # rounded to 0.1
    z_score: Quad  # rounded to 0.1
    bmd_shown: Quad  # g/cm², the density the film is drawn from
    t_shown: Quad  # the T-score the film is drawn from


def sample_patient(seed: int, patient_id: str) -> Patient:
    """Sample the record of patient `patient_id` in the archive with this seed."""
    stream = open_stream(seed, patient_id, "record")
    sex = Sex.FEMALE if stream.random() < _FEMALE_SHARE else Sex.MALE
    age = float(np.clip(stream.normal(_MEAN_AGE, _SD_AGE), *_AGE_RANGE))
    weight = max(35.0, stream.normal(_MEAN_WEIGHT[sex], _SD_WEIGHT))
    height = stream.normal(_MEAN_HEIGHT[sex], _SD_HEIGHT)
    return Patient(patient_id, sex, round(age), round(weight, 1), round(height, 1))


def sample_truth(
    config: PhantomConfig, patient: Patient, *, side: Side, t_shift: Quad = NO_SHIFT
) -> HipTruth:
    """Sample a hip's report and the density its film shows; they agree only as far as kappa."""
    measured, shown = _latent_t(config, patient, side)
    shift = np.array(t_shift)
    bmd = _quad(round(value, 3) for value in _densities(patient.sex, measured + shift))
    pairs = tuple(zip(REGIONS, bmd, strict=True))
    return HipTruth(
        bmd=bmd,
        t_score=_quad(report_t(region, patient.sex, value) for region, value in pairs),
        z_score=_quad(report_z(region, patient.sex, value, patient.age) for region, value in pairs),
        bmd_shown=_densities(patient.sex, shown + shift),
        t_shown=_quad(float(value) for value in shown + shift),
    )


def match_prevalence(
    config: PhantomConfig, hips: Sequence[tuple[Patient, Side, Densitometer]]
) -> Quad:
    """Return the T shift per region that gives exactly round(prevalence * n) positives."""
    latent = [_latent_t(config, patient, side)[0] for patient, side, _ in hips]
    shifts = []
    for index, region in enumerate(REGIONS):
        room = [
            osteoporosis_edge(region, patient.sex) - float(t[index])
            for t, (patient, _, device) in zip(latent, hips, strict=True)
            if region in device.regions
        ]
        shifts.append(_shift_for(np.array(room), PREVALENCE[index]))
    return _quad(shifts)


def _shift_for(room: NDArray[np.float64], prevalence: float) -> float:
    """Return the shift that leaves round(prevalence * n) hips with room below the threshold."""
    if room.size == 0:
        return 0.0
    ordered = np.sort(room)[::-1]
    wanted = round(prevalence * room.size)
    above = ordered[wanted - 1] if wanted > 0 else ordered[0] + 1
    below = ordered[wanted] if wanted < room.size else ordered[-1] - 1
    return float((above + below) / 2)


def _latent_t(
    config: PhantomConfig, patient: Patient, side: Side
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unrounded T-scores (4,) measured by DXA and shown by the film."""
    both = open_stream(config.seed, patient.patient_id, "density").standard_normal(4)
    stream = open_stream(config.seed, patient.patient_id, side, "density")
    own, unseen = stream.standard_normal((2, 4))
    z = _cholesky() @ (np.sqrt(_HIP_TO_HIP) * both + np.sqrt(1 - _HIP_TO_HIP) * own)
    z_shown = config.kappa * z + np.sqrt(1 - config.kappa**2) * (_cholesky() @ unseen)
    centre = _T_MEAN + _T_PER_YEAR * (patient.age - _MEAN_AGE)
    spread = np.sqrt(_T_SD**2 - (_T_PER_YEAR * _SD_AGE) ** 2)
    return centre + spread * z, centre + spread * z_shown


@cache
def _cholesky() -> NDArray[np.float64]:
    return np.linalg.cholesky(_CORRELATION)


def _densities(sex: Sex, t_scores: NDArray[np.float64]) -> Quad:
    return _quad(
        density_of(region, sex, float(t)) for region, t in zip(REGIONS, t_scores, strict=True)
    )


def _quad(values: Iterable[float]) -> Quad:
    neck, trochanter, wards, total = values
    return (neck, trochanter, wards, total)
