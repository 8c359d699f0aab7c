"""The phantom's densitometers: which regions they report, and T and Z from BMD.

Both are on the Hologic scale; young normals and age curves come from `hipray.data.reference`.
"""

import math
from enum import StrEnum

from hipray.config.labels import OSTEOPOROSIS_T, DxaSystem
from hipray.data.dxa.checks import BMD_RANGES
from hipray.data.reference import (
    MAX_REFERENCE_AGE,
    YOUNG_NORMALS,
    YoungNormal,
    mean_for_age,
)
from hipray.vocab import HEADLINE_REGIONS, REGIONS, Region, Sex


class Densitometer(StrEnum):
    """The densitometer that measured a hip; it decides which regions the report holds."""

    A = "Hologic A"
    B = "Hologic B"

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions this device reports."""
        return REGIONS if self is Densitometer.A else HEADLINE_REGIONS


_KNEE = 0.14  # g/cm² above the floor: from here down the density levels off
_WARDS_LOSS = (
    1.25  # Ward's triangle loses faster than the neck: 42 % at Z <= -1, as the tables imply
)
_MALE_LOSS = 0.6  # NHANES III: men aged 70-79 are 1.1 SD below young men, women 1.8 SD


def young_normal(region: Region, sex: Sex) -> YoungNormal:
    """Return the young-normal reference of the patient's own sex."""
    return YOUNG_NORMALS[(DxaSystem.HOLOGIC, sex, region)][0]


def expected_t(region: Region, sex: Sex, age: float) -> float:
    """Return the mean T-score of people of this age and sex.

    The charts know women's neck and total hip; Ward's triangle and men follow by a factor.
    """
    neck = region in (Region.FEMORAL_NECK, Region.WARDS_TRIANGLE)
    charted = Region.FEMORAL_NECK if neck else Region.TOTAL_HIP
    mean = mean_for_age(
        system=DxaSystem.HOLOGIC,
        sex=Sex.FEMALE,
        region=charted,
        age=min(age, MAX_REFERENCE_AGE),
    )
    assert mean is not None
    faster = _WARDS_LOSS if region is Region.WARDS_TRIANGLE else 1.0
    slower = _MALE_LOSS if sex is Sex.MALE else 1.0
    return young_normal(charted, Sex.FEMALE).score(mean) * faster * slower


def density_of(region: Region, sex: Sex, t_score: float) -> float:
    """Return BMD = YN + SD * T in g/cm², bent smoothly where T is extreme: people end there."""
    young, floor = young_normal(region, sex), BMD_RANGES[region][0]
    bmd, knee = young.mean + young.sd * t_score, floor + _KNEE
    return bmd if bmd >= knee else floor + _KNEE * math.exp((bmd - knee) / _KNEE)


def report_t(region: Region, sex: Sex, bmd: float) -> float:
    """Return the T-score printed beside a BMD, rounded to 0.1."""
    return round(young_normal(region, sex).score(bmd), 1) + 0.0


def report_z(region: Region, sex: Sex, bmd: float, age: float) -> float:
    """Return the Z-score printed beside a BMD, rounded to 0.1."""
    return round(young_normal(region, sex).score(bmd) - expected_t(region, sex, age), 1) + 0.0


def osteoporosis_edge(region: Region, sex: Sex) -> float:
    """Return the unrounded T-score below which the report prints -2.5 or less."""
    young = young_normal(region, sex)
    milli = math.ceil((young.mean + (OSTEOPOROSIS_T + 0.2) * young.sd) * 1000)
    while report_t(region, sex, milli / 1000) > OSTEOPOROSIS_T:
        milli -= 1
    return young.score((milli + 0.5) / 1000)
