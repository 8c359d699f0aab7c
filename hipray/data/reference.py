"""Reference bone density: young-normal values, decline with age, conversion between makers.

All BMD in g/cm². `verified` says that a figure was read off vendor reports or agrees with those
through the sBMD equations; the others are figures in common use, to be checked before they are
quoted.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from hipray.config.labels import DxaSystem
from hipray.vocab import Region, Sex

MIN_REFERENCE_AGE = 30.0  # years: first point of the age curves below
MAX_REFERENCE_AGE = 85.0  # years: last point of the age curves below


@dataclass(frozen=True)
class YoungNormal:
    """Mean and SD (g/cm²) of young healthy adults, and where they come from."""

    mean: float
    sd: float
    source: str
    verified: bool

    def score(self, bmd: float) -> float:
        """Return the T-score (SD) of `bmd` (g/cm²): (BMD - mean) / SD."""
        return (bmd - self.mean) / self.sd


LOOKER = "NHANES III, non-Hispanic white, 20-29 years (Looker et al. 1998, Osteoporos Int 8:468)"
SMOOTH = "Hologic report chart, smoothed white female curve"
LUNAR = "GE Lunar reports, USA (NHANES 20-30 / Lunar 20-40 years), female"

_FN, _GT = Region.FEMORAL_NECK, Region.GREATER_TROCHANTER
_WT, _TH = Region.WARDS_TRIANGLE, Region.TOTAL_HIP
_HOLOGIC, _LUNAR = DxaSystem.HOLOGIC, DxaSystem.GE_LUNAR

YOUNG_NORMALS: dict[tuple[DxaSystem, Sex, Region], tuple[YoungNormal, ...]] = {
    (_HOLOGIC, Sex.FEMALE, _FN): (
        YoungNormal(0.858, 0.120, LOOKER, True),
        YoungNormal(0.849, 0.111, SMOOTH, False),
    ),
    (_HOLOGIC, Sex.FEMALE, _TH): (YoungNormal(0.942, 0.122, LOOKER, True),),
    (_HOLOGIC, Sex.FEMALE, _GT): (YoungNormal(0.708, 0.099, LOOKER, True),),
    (_HOLOGIC, Sex.FEMALE, _WT): (YoungNormal(0.749, 0.127, LOOKER, False),),
    (_HOLOGIC, Sex.MALE, _FN): (YoungNormal(0.934, 0.137, LOOKER, False),),
    (_HOLOGIC, Sex.MALE, _TH): (YoungNormal(1.041, 0.144, LOOKER, False),),
    (_HOLOGIC, Sex.MALE, _GT): (YoungNormal(0.778, 0.118, LOOKER, False),),
    (_HOLOGIC, Sex.MALE, _WT): (YoungNormal(0.760, 0.145, LOOKER, False),),
    (_LUNAR, Sex.FEMALE, _FN): (YoungNormal(1.038, 0.139, LUNAR, True),),
    (_LUNAR, Sex.FEMALE, _TH): (YoungNormal(1.008, 0.126, LUNAR, True),),
    (_LUNAR, Sex.FEMALE, _GT): (YoungNormal(0.851, 0.114, LUNAR, True),),
    (_LUNAR, Sex.FEMALE, _WT): (YoungNormal(0.910, 0.130, LUNAR, True),),
}
"""Per maker, sex and region; the first entry is the one scores are computed from."""

STANDARDISED: dict[tuple[DxaSystem, Region], tuple[float, float]] = {
    (_HOLOGIC, _FN): (0.019, 1.087),
    (_HOLOGIC, _GT): (-0.017, 1.105),
    (_HOLOGIC, _TH): (0.006, 1.008),
    (_LUNAR, _FN): (-0.023, 0.939),
    (_LUNAR, _GT): (-0.042, 0.949),
    (_LUNAR, _TH): (-0.031, 0.979),
    (DxaSystem.NORLAND, _FN): (0.006, 0.985),
    (DxaSystem.NORLAND, _GT): (0.057, 0.961),
    (DxaSystem.NORLAND, _TH): (0.026, 1.012),
}
"""sBMD = a + b * BMD as (a, b) (Hui et al. 1997; Lu et al. 2001, doi 10.1007/s001980170087); the
error for one person is about 3.5 %. Ward's triangle has no equation here."""


@dataclass(frozen=True)
class AgeCurve:
    """Mean BMD (g/cm²) at each age (years) of one maker, sex and region, linear in between."""

    system: DxaSystem
    sex: Sex
    points: tuple[tuple[float, float], ...]
    source: str

    def mean_at(self, age: float) -> float | None:
        """Return the mean at `age` (years), or None outside the curve's 30 to 85 years."""
        ages = [point[0] for point in self.points]
        if not ages[0] <= age <= ages[-1]:
            return None
        upper = min(bisect_right(ages, age), len(ages) - 1)
        (x0, y0), (x1, y1) = self.points[upper - 1 : upper + 1]
        return y0 + (y1 - y0) * (age - x0) / (x1 - x0)


_AGES = (MIN_REFERENCE_AGE, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, MAX_REFERENCE_AGE)
_NECK_BY_AGE = (0.842, 0.821, 0.772, 0.711, 0.654, 0.624, 0.597, 0.575)  # +-.01
_TOTAL_BY_AGE = (1.012, 1.000, 0.970, 0.915, 0.845, 0.81, 0.77, 0.735)  # +-.015, weight-matched

AGE_CURVES: dict[Region, AgeCurve] = {
    _FN: AgeCurve(
        _HOLOGIC,
        Sex.FEMALE,
        tuple(zip(_AGES, _NECK_BY_AGE, strict=True)),
        "Hologic report chart, white female",
    ),
    _TH: AgeCurve(
        _LUNAR,
        Sex.FEMALE,
        tuple(zip(_AGES, _TOTAL_BY_AGE, strict=True)),
        "GE Lunar report chart, white female",
    ),
}
"""Decline with age, read off printed charts: women, femoral neck and total hip only."""


def to_standardised(bmd: float, *, system: DxaSystem, region: Region) -> float | None:
    """Return the standardised BMD (g/cm²) of a maker's `bmd`, or None without an equation."""
    line = STANDARDISED.get((system, region))
    return None if line is None else line[0] + line[1] * bmd


def from_standardised(sbmd: float, *, system: DxaSystem, region: Region) -> float | None:
    """Return a maker's BMD (g/cm²) from the standardised one, or None without an equation."""
    line = STANDARDISED.get((system, region))
    return None if line is None else (sbmd - line[0]) / line[1]


def convert_bmd(
    bmd: float, *, source: DxaSystem, target: DxaSystem, region: Region
) -> float | None:
    """Return `bmd` (g/cm²) on another maker's scale through sBMD, or None without equations."""
    if source is target:
        return bmd
    sbmd = to_standardised(bmd, system=source, region=region)
    return None if sbmd is None else from_standardised(sbmd, system=target, region=region)


def compute_t(bmd: float, *, system: DxaSystem, sex: Sex, region: Region) -> float | None:
    """Return the T-score (SD, one decimal as reports print it), or None without a reference.

    `sex` is the sex of the reference. A maker without a table of its own is read on the Hologic
    scale through sBMD, for which the NHANES III values were measured.
    """
    normals = YOUNG_NORMALS.get((system, sex, region))
    value: float | None = bmd
    if normals is None and system is DxaSystem.NORLAND:
        normals = YOUNG_NORMALS.get((_HOLOGIC, sex, region))
        value = convert_bmd(bmd, source=system, target=_HOLOGIC, region=region)
    if normals is None or value is None:
        return None
    return round(normals[0].score(value), 1)


def mean_for_age(*, system: DxaSystem, sex: Sex, region: Region, age: float) -> float | None:
    """Return the age-matched mean BMD (g/cm²) on the maker's scale, or None without a curve."""
    curve = AGE_CURVES.get(region)
    if curve is None or curve.sex is not sex:
        return None
    mean = curve.mean_at(age)
    if mean is None:
        return None
    return convert_bmd(mean, source=curve.system, target=system, region=region)


def compute_z(
    bmd: float, *, system: DxaSystem, sex: Sex, region: Region, age: float
) -> float | None:
    """Return the Z-score (SD, one decimal) of `bmd` (g/cm²), or None without a reference.

    The young-adult SD stands for the SD at that age, which the charts do not print; a maker's own
    Z may also be matched for weight and ethnicity, so the two can differ by some tenths.
    """
    mean = mean_for_age(system=system, sex=sex, region=region, age=age)
    sd = _reference_sd(system, sex, region)
    return None if mean is None or sd is None else round((bmd - mean) / sd, 1)


def _reference_sd(system: DxaSystem, sex: Sex, region: Region) -> float | None:
    normals = YOUNG_NORMALS.get((system, sex, region))
    if normals is not None:
        return normals[0].sd
    hologic = YOUNG_NORMALS.get((_HOLOGIC, sex, region))
    own, base = STANDARDISED.get((system, region)), STANDARDISED.get((_HOLOGIC, region))
    if hologic is None or own is None or base is None:
        return None
    return hologic[0].sd * base[1] / own[1]


@lru_cache(maxsize=64)
def vendor_references(system: DxaSystem, sex: Sex, region: Region) -> tuple[YoungNormal, ...]:
    """Return every reference a report's T-score may stem from; empty where one is not known.

    Men may be scored against women (WHO) or men (many makers), so both are needed to judge.
    """
    systems = (_HOLOGIC, _LUNAR) if system is DxaSystem.UNKNOWN else (system,)
    sexes = (Sex.FEMALE,) if sex is Sex.FEMALE else (Sex.FEMALE, Sex.MALE)
    tables = [YOUNG_NORMALS.get((own, of, region)) for own in systems for of in sexes]
    if any(table is None for table in tables):
        return ()
    return tuple(normal for table in tables if table is not None for normal in table)
