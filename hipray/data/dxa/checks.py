"""Plausibility of DXA figures: ranges, area times density, T-score against density."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from hipray.config.labels import DxaSystem
from hipray.data.dxa.columns import Field
from hipray.data.dxa.records import DxaRecord, RegionValues
from hipray.data.reference import convert_bmd, vendor_references
from hipray.vocab import Region, Sex

BMD_RANGES = {
    Region.FEMORAL_NECK: (0.14, 1.70),
    Region.GREATER_TROCHANTER: (0.21, 1.38),
    Region.WARDS_TRIANGLE: (0.08, 1.71),
    Region.TOTAL_HIP: (0.33, 1.72),
}
"""g/cm², Hologic scale: the extremes of NHANES 2007-2020, age 8 and over."""
AREA_RANGES = {
    Region.FEMORAL_NECK: (0.3, 8.3),
    Region.GREATER_TROCHANTER: (1.5, 39.0),
    Region.WARDS_TRIANGLE: (0.84, 3.0),  # NHANES ends at 1.35; GE Lunar draws about 2.2
    Region.TOTAL_HIP: (11.0, 62.0),
}
"""cm²: the extremes of NHANES 2007-2020, age 8 and over."""
SCORE_RANGE = (-8.0, 8.0)  # SD: the BMD extremes above lie within -6 and +8 of the references
AM_PERCENT_RANGE = (20.0, 250.0)  # percent of the age-matched mean, from the same extremes

T_TOLERANCE = 0.1  # SD, beyond what rounding explains
T_ROUNDING = 0.05  # SD: T-scores are printed with one decimal
BMD_ROUNDING = 0.0005  # g/cm²: BMD is printed with three decimals
IDENTITY_TOLERANCE = 0.02  # share of BMD by which BMC / area may differ, for rounded figures


@lru_cache(maxsize=256)
def plausible_range(field: Field, region: Region, system: DxaSystem) -> tuple[float, float]:
    """Return the lowest and highest believable figure of a quantity, in the maker's scale."""
    if field is Field.BMD:
        low, high = BMD_RANGES[region]
        ends = [
            convert_bmd(x, source=DxaSystem.HOLOGIC, target=system, region=region)
            for x in (low, high)
        ]
        return (min(low, ends[0] or low), max(high, ends[1] or high))
    if field is Field.AREA:
        return AREA_RANGES[region]
    if field is Field.BMC:
        return (BMD_RANGES[region][0] * AREA_RANGES[region][0], 110.0)
    return AM_PERCENT_RANGE if field is Field.AM_PERCENT else SCORE_RANGE


@dataclass(frozen=True)
class TScoreCheck:
    """How many reported T-scores follow from the reported BMD and a known reference."""

    checked: int
    disagreeing: int
    unchecked: int  # both figures given, but no reference of that maker and sex is known
    largest: float  # SD, the largest distance from the nearest reference


def check_t_scores(records: Sequence[DxaRecord]) -> TScoreCheck:
    """Recompute each T-score from its BMD and compare with the maker's nearest reference."""
    checked = disagreeing = unchecked = 0
    largest = 0.0
    for record in records:
        for values in record.values.values():
            if values.t is None or values.bmd is None:
                continue
            distance = _t_distance(values, record.system, record.sex)
            if distance is None:
                unchecked += 1
                continue
            checked += 1
            disagreeing += distance > T_TOLERANCE
            largest = max(largest, distance)
    return TScoreCheck(checked, disagreeing, unchecked, largest)


def find_identity_breaks(records: Sequence[DxaRecord]) -> int:
    """Return how many regions report a BMD that is not BMC / area (g/cm²)."""
    return sum(_breaks_identity(v) for record in records for v in record.values.values())


def _t_distance(values: RegionValues, system: DxaSystem, sex: Sex) -> float | None:
    """Return by how many SD, beyond rounding, T differs from what BMD gives."""
    assert values.t is not None and values.bmd is not None
    distances = [
        abs(normal.score(values.bmd) - values.t) - T_ROUNDING - BMD_ROUNDING / normal.sd
        for normal in vendor_references(system, sex, values.region)
    ]
    return max(0.0, min(distances)) if distances else None


def _breaks_identity(values: RegionValues) -> bool:
    if values.bmd is None or values.bmc_g is None or not values.area_cm2:
        return False
    gap = abs(values.bmc_g / values.area_cm2 - values.bmd)
    return gap > IDENTITY_TOLERANCE * values.bmd + BMD_ROUNDING
