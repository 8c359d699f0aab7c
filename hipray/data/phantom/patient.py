"""Sample phantom patients and the density of their hips.

The T-scores follow a Gaussian model fitted to the prevalences that the tables of Feng et al. 2023
imply; the hospital's age and sex mix is that of Hsieh et al. 2021 (a referral population).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

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
from hipray.vocab import REGIONS, Region, Sex, Side

PerRegion = tuple[float, ...]
"""One number per region, in the order of `REGIONS`."""

NO_SHIFT: PerRegion = (0.0,) * len(REGIONS)


@dataclass(frozen=True)
class TScores:
    """How the T-scores of one region lie in the hospital's hips."""

    prevalence: float
    """Share with T <= -2.5, solved from Tables 6 and 7 of Feng et al. 2023."""
    mean: float
    """At the mean age."""
    sd: float
    """Over all ages."""


T_SCORES = {
    Region.FEMORAL_NECK: TScores(0.445, -2.36, 1.10),
    Region.GREATER_TROCHANTER: TScores(0.397, -2.20, 1.20),
    Region.WARDS_TRIANGLE: TScores(0.663, -3.04, 1.30),
    Region.TOTAL_HIP: TScores(0.466, -2.39, 1.20),
}
CORRELATIONS = {
    (Region.FEMORAL_NECK, Region.GREATER_TROCHANTER): 0.80,
    (Region.FEMORAL_NECK, Region.WARDS_TRIANGLE): 0.90,
    (Region.FEMORAL_NECK, Region.TOTAL_HIP): 0.88,
    (Region.GREATER_TROCHANTER, Region.WARDS_TRIANGLE): 0.75,
    (Region.GREATER_TROCHANTER, Region.TOTAL_HIP): 0.93,
    (Region.WARDS_TRIANGLE, Region.TOTAL_HIP): 0.82,
}
"""Of the T-scores of two regions of one hip, in the order of `REGIONS`."""

_FEMALE_SHARE = 0.77
_MEAN_AGE, _SD_AGE = 73.0, 9.5  # years
_AGE_RANGE = (50.0, 95.0)  # years: ISCD gives T-scores to women after menopause, men from 50
_MEAN_WEIGHT = {Sex.FEMALE: 58.0, Sex.MALE: 66.0}  # kg
_MEAN_HEIGHT = {Sex.FEMALE: 153.0, Sex.MALE: 165.0}  # cm
_SD_WEIGHT, _SD_HEIGHT = 9.0, 6.0  # kg, cm
_HIP_TO_HIP = 0.92  # correlation of a patient's two hips
_T_PER_YEAR = -0.041


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

    bmd: PerRegion  # g/cm², rounded to 0.001
    t_score: PerRegion  # rounded to 0.1
    z_score: PerRegion  # rounded to 0.1
    bmd_shown: PerRegion  # g/cm², the density the film is drawn from
    t_shown: PerRegion  # the T-score the film is drawn from


def sample_patient(seed: int, patient_id: str) -> Patient:
    """Sample the record of patient `patient_id` in the archive with this seed."""
    stream = open_stream(seed, patient_id, "record")
    sex = Sex.FEMALE if stream.random() < _FEMALE_SHARE else Sex.MALE
    age = float(np.clip(stream.normal(_MEAN_AGE, _SD_AGE), *_AGE_RANGE))
    weight = max(35.0, stream.normal(_MEAN_WEIGHT[sex], _SD_WEIGHT))
    height = stream.normal(_MEAN_HEIGHT[sex], _SD_HEIGHT)
    return Patient(patient_id, sex, round(age), round(weight, 1), round(height, 1))


def sample_truth(
    config: PhantomConfig, patient: Patient, *, side: Side, t_shift: PerRegion = NO_SHIFT
) -> HipTruth:
    """Sample a hip's report and the density its film shows; they agree only as far as kappa."""
    measured, shown = _latent_t(config, patient, side)
    shift = np.array(t_shift)
    bmd = tuple(round(value, 3) for value in _densities(patient.sex, measured + shift))
    pairs = tuple(zip(REGIONS, bmd, strict=True))
    return HipTruth(
        bmd=bmd,
        t_score=tuple(report_t(region, patient.sex, value) for region, value in pairs),
        z_score=tuple(report_z(region, patient.sex, value, patient.age) for region, value in pairs),
        bmd_shown=_densities(patient.sex, shown + shift),
        t_shown=tuple(float(value) for value in shown + shift),
    )


def match_prevalence(
    config: PhantomConfig, hips: Sequence[tuple[Patient, Side, Densitometer]]
) -> PerRegion:
    """Return the T shift per region that gives exactly round(prevalence * n) positives."""
    latent = [_latent_t(config, patient, side)[0] for patient, side, _ in hips]
    shifts = []
    for index, region in enumerate(REGIONS):
        room = [
            osteoporosis_edge(region, patient.sex) - float(t[index])
            for t, (patient, _, device) in zip(latent, hips, strict=True)
            if region in device.regions
        ]
        shifts.append(_shift_for(np.array(room), T_SCORES[region].prevalence))
    return tuple(shifts)


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
    """Return the unrounded T-scores (R,) measured by DXA and shown by the film."""
    regions = len(REGIONS)
    both = open_stream(config.seed, patient.patient_id, "density").standard_normal(regions)
    stream = open_stream(config.seed, patient.patient_id, side, "density")
    own, unseen = stream.standard_normal((2, regions))
    z = _cholesky() @ (np.sqrt(_HIP_TO_HIP) * both + np.sqrt(1 - _HIP_TO_HIP) * own)
    z_shown = config.kappa * z + np.sqrt(1 - config.kappa**2) * (_cholesky() @ unseen)
    mean = np.array([T_SCORES[region].mean for region in REGIONS])
    sd = np.array([T_SCORES[region].sd for region in REGIONS])
    centre = mean + _T_PER_YEAR * (patient.age - _MEAN_AGE)
    spread = np.sqrt(sd**2 - (_T_PER_YEAR * _SD_AGE) ** 2)
    return centre + spread * z, centre + spread * z_shown


@cache
def _cholesky() -> NDArray[np.float64]:
    matrix = np.eye(len(REGIONS))
    for first, second in combinations(REGIONS, 2):
        row, column = REGIONS.index(first), REGIONS.index(second)
        matrix[row, column] = matrix[column, row] = CORRELATIONS[first, second]
    return np.asarray(np.linalg.cholesky(matrix), np.float64)


def _densities(sex: Sex, t_scores: NDArray[np.float64]) -> PerRegion:
    return tuple(
        density_of(region, sex, float(t)) for region, t in zip(REGIONS, t_scores, strict=True)
    )
