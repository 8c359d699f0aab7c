"""What one DXA report says about one hip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

from hipray.config.labels import DxaSystem
from hipray.vocab import LabelType, Region, Sex, Side

NO_LABELS: Mapping[LabelType, bool] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RegionValues:
    """The reported figures of one region; None where the report has none."""

    region: Region
    bmd: float | None = None  # g/cm², on the maker's own scale
    t: float | None = None  # SD from the young-normal mean
    z: float | None = None  # SD from the age-matched mean
    am_percent: float | None = None  # percent of the age-matched mean
    area_cm2: float | None = None
    bmc_g: float | None = None
    given: Mapping[LabelType, bool] = field(default_factory=lambda: NO_LABELS)
    """Labels that the archive states itself; True is abnormal."""
    contradicted: bool = False
    """Whether rows of the file state different figures, none of which is kept."""


@dataclass(frozen=True, slots=True)
class DxaRecord:
    """One hip of one examination, as the file states it."""

    image: str | None = None  # file name or id that the row names
    patient_id: str | None = None
    side: Side = Side.UNKNOWN
    sex: Sex = Sex.UNKNOWN
    age: float | None = None  # years
    weight_kg: float | None = None
    height_cm: float | None = None
    device: str | None = None
    system: DxaSystem = DxaSystem.UNKNOWN
    exam_date: date | None = None
    values: Mapping[Region, RegionValues] = field(default_factory=dict)
    invalid_reason: str | None = None  # why the whole hip does not count (implant, motion)


@dataclass(frozen=True, slots=True)
class DxaTable:
    """The records of one file and, in words without patient names, what was wrong with it."""

    records: tuple[DxaRecord, ...]
    problems: tuple[str, ...]
