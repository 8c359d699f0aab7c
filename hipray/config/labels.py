"""How a DXA result becomes a label: thresholds, the rule of the BMD label, the reference."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, field_validator

from hipray.config.base import Config
from hipray.vocab import REGIONS, Region

OSTEOPOROSIS_T = -2.5
"""WHO 1994: osteoporosis is a T-score (SD) at or below this."""
DEFAULT_BMD_Z = -1.0
"""Z-score (SD) at or below which bone is abnormal for its age: the lower edge of the age-matched
mean +-1 SD band that GE Lunar reports draw."""


class DxaSystem(StrEnum):
    """The maker of a densitometer: BMD of one maker must not be read on the scale of another."""

    GE_LUNAR = "ge_lunar"
    HOLOGIC = "hologic"
    NORLAND = "norland"
    UNKNOWN = "unknown"


class BmdRule(StrEnum):
    """What makes the BMD label abnormal; the paper says only "according to age" (3.4.2)."""

    Z = "z"  # Z-score at or below a threshold per region
    T = "t"  # T-score below a threshold (WHO "low bone mass" by default)
    AM_PERCENT = "am_percent"  # BMD in percent of the age-matched mean
    GIVEN = "given"  # only labels that the archive itself gives


class ReferenceSex(StrEnum):
    """Whose young-normal mean a T-score is computed from where a report gives none."""

    FEMALE = "female"  # WHO and ISCD: white women for both sexes
    OWN = "own"  # the patient's own sex, as many makers report it


class LabelRules(Config):
    """Turn BMD, T- and Z-scores into normal or abnormal; given labels always win."""

    t_threshold: float = Field(OSTEOPOROSIS_T, ge=-6.0, le=0.0)
    """T-score (SD) at or below which the t_score label is abnormal (Table 4 of the paper, WHO)."""

    bmd_rule: BmdRule = BmdRule.Z
    """z | t | am_percent | given: which quantity decides the bmd label."""

    bmd_z: Mapping[Region, float] = Field(default_factory=dict, validate_default=True)
    """Z-score (SD) at or below which the bmd label is abnormal, per region; -1.0 where unnamed."""

    bmd_t: float = Field(-1.0, ge=-6.0, le=0.0)
    """Rule t: T-score (SD) below which the bmd label is abnormal (WHO: -1.0 itself is normal)."""

    bmd_am_percent: float = Field(85.0, gt=0.0, le=100.0)
    """Rule am_percent: percent of the age-matched mean at or below which the label is abnormal."""

    t_reference_sex: ReferenceSex = ReferenceSex.FEMALE
    """female (WHO) | own: the reference for T-scores computed from BMD."""

    system: DxaSystem = DxaSystem.UNKNOWN
    """The densitometer where a record names none; unknown computes no score from BMD."""

    @field_validator("bmd_z")
    @classmethod
    def _complete(cls, given: Mapping[Region, float]) -> Mapping[Region, float]:
        return {region: given.get(region, DEFAULT_BMD_Z) for region in REGIONS}
