"""From a DXA result to the labels normal and abnormal (section 3.4.2 and Table 4 of the paper).

The t_score label follows WHO: T <= -2.5. Below ISCD_AGE, at which ISCD judges by Z-score instead,
it is still given; ingest tells how many there are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from hipray.config.labels import BmdRule, DxaSystem, LabelRules, ReferenceSex
from hipray.data.dxa.records import DxaRecord, RegionValues
from hipray.data.reference import compute_t, compute_z
from hipray.vocab import REGIONS, LabelType, Region, Sex

ISCD_AGE = 50.0
"""Years from which ISCD 2019 uses T-scores (men; women from menopause, which no record states)."""


class LabelSource(StrEnum):
    """What a label rests on."""

    GIVEN = "given"  # the archive states it
    COMPUTED = "computed"  # from a reported T-score, Z-score or percentage
    COMPUTED_T = "computed_t"  # from a T-score that was itself computed from BMD
    COMPUTED_Z = "computed_z"  # from a Z-score that was itself computed from BMD
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RegionLabel:
    """One label of one region; `missing_reason` says why `abnormal` is None."""

    abnormal: bool | None
    source: LabelSource
    missing_reason: str | None = None


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How often given and computed labels of one region and type can be compared, and differ."""

    compared: int
    disagreeing: int


@dataclass(frozen=True, slots=True)
class _Score:
    """A figure to hold against a threshold, or why there is none."""

    value: float | None
    source: LabelSource = LabelSource.NONE
    missing_reason: str | None = None


def describe_rules(rules: LabelRules) -> dict[LabelType, str]:
    """Return in words when a hip counts as abnormal, where the archive gives no label itself."""
    return {
        LabelType.T_SCORE: f"T-score at or below {rules.t_threshold:g}",
        LabelType.BMD: _describe_bmd_rule(rules),
    }


def _describe_bmd_rule(rules: LabelRules) -> str:
    match rules.bmd_rule:
        case BmdRule.Z:
            limits = Counter(rules.bmd_z.values())
            usual, _ = limits.most_common(1)[0]
            others = [
                f"{limit:g} of the {region.display_name}"
                for region, limit in rules.bmd_z.items() if limit != usual
            ]  # fmt: skip
            return ", ".join([f"Z-score at or below {usual:g}", *others])
        case BmdRule.T:
            return f"T-score below {rules.bmd_t:g}"
        case BmdRule.AM_PERCENT:
            return f"BMD at or below {rules.bmd_am_percent:g} % of the age-matched mean"
        case BmdRule.GIVEN:
            return "only as the archive gives it"


def label_values(
    values: RegionValues,
    *,
    sex: Sex,
    age: float | None,
    rules: LabelRules,
    system: DxaSystem = DxaSystem.UNKNOWN,
) -> dict[LabelType, RegionLabel]:
    """Return the labels of one region; a given label wins over a computed one.

    `age` in years. `system` is the densitometer's maker; `rules.system` stands in where unknown.
    """
    computed = _compute_labels(values, sex=sex, age=age, rules=rules, system=system)
    given = {
        kind: RegionLabel(abnormal, LabelSource.GIVEN) for kind, abnormal in values.given.items()
    }
    return computed | given


def label_record(
    record: DxaRecord, *, rules: LabelRules
) -> dict[Region, dict[LabelType, RegionLabel]]:
    """Return the labels of all regions; an invalid hip has none, with its reason."""
    return {region: _label_region(record, region, rules) for region in REGIONS}


def count_label_disagreements(
    records: Iterable[DxaRecord], rules: LabelRules
) -> dict[tuple[Region, LabelType], LabelAgreement]:
    """Count, per region and label, how often a given label differs from the computed one."""
    compared: dict[tuple[Region, LabelType], int] = defaultdict(int)
    disagreeing: dict[tuple[Region, LabelType], int] = defaultdict(int)
    for record in records:
        for region, values in record.values.items():
            computed = _compute_labels(
                values, sex=record.sex, age=record.age, rules=rules, system=record.system
            )
            for kind, given in values.given.items():
                if computed[kind].abnormal is not None:
                    compared[region, kind] += 1
                    disagreeing[region, kind] += given is not computed[kind].abnormal
    return {key: LabelAgreement(compared[key], disagreeing[key]) for key in compared}


def _label_region(
    record: DxaRecord, region: Region, rules: LabelRules
) -> dict[LabelType, RegionLabel]:
    values = record.values.get(region)
    reason = None
    if record.invalid_reason is not None:
        reason = f"the hip is marked invalid: {record.invalid_reason}"
    elif values is None:
        reason = "the report has no figures of this region"
    elif values.contradicted:
        reason = "rows of the table contradict each other"
    if reason is not None or values is None:
        return {kind: RegionLabel(None, LabelSource.NONE, reason) for kind in LabelType}
    return label_values(values, sex=record.sex, age=record.age, rules=rules, system=record.system)


def _compute_labels(
    values: RegionValues, *, sex: Sex, age: float | None, rules: LabelRules, system: DxaSystem
) -> dict[LabelType, RegionLabel]:
    """Return the labels that the figures give, whatever labels the archive states."""
    maker = rules.system if system is DxaSystem.UNKNOWN else system
    t = _t_score(values, sex, rules, maker)
    return {
        LabelType.T_SCORE: _apply(t, lambda value: value <= rules.t_threshold),
        LabelType.BMD: _bmd_label(values, t, sex, age, rules, maker),
    }


def _bmd_label(
    values: RegionValues,
    t: _Score,
    sex: Sex,
    age: float | None,
    rules: LabelRules,
    system: DxaSystem,
) -> RegionLabel:
    match rules.bmd_rule:
        case BmdRule.Z:
            limit = rules.bmd_z[values.region]
            return _apply(_z_score(values, sex, age, system), lambda value: value <= limit)
        case BmdRule.T:
            return _apply(t, lambda value: value < rules.bmd_t)
        case BmdRule.AM_PERCENT:
            percent = _reported(values.am_percent, "no percentage of the age-matched mean")
            return _apply(percent, lambda value: value <= rules.bmd_am_percent)
        case BmdRule.GIVEN:
            return RegionLabel(None, LabelSource.NONE, "no bmd label is given")


def _apply(score: _Score, is_abnormal: Callable[[float], bool]) -> RegionLabel:
    abnormal = None if score.value is None else is_abnormal(score.value)
    return RegionLabel(abnormal, score.source, score.missing_reason)


def _reported(value: float | None, missing_reason: str) -> _Score:
    if value is None:
        return _Score(None, missing_reason=missing_reason)
    return _Score(value, LabelSource.COMPUTED)


def _t_score(values: RegionValues, sex: Sex, rules: LabelRules, system: DxaSystem) -> _Score:
    if values.t is not None or values.bmd is None:
        return _reported(values.t, "neither T-score nor BMD is reported")
    if system is DxaSystem.UNKNOWN:
        return _Score(None, missing_reason="no T-score, and BMD of an unknown densitometer")
    own = rules.t_reference_sex is ReferenceSex.OWN
    reference_sex = sex if own else Sex.FEMALE
    t = compute_t(values.bmd, system=system, sex=reference_sex, region=values.region)
    if t is None:
        reason = f"no T-score, and no {reference_sex} reference for {system} at this region"
        return _Score(None, missing_reason=reason)
    return _Score(t, LabelSource.COMPUTED_T)


def _z_score(values: RegionValues, sex: Sex, age: float | None, system: DxaSystem) -> _Score:
    if values.z is not None or values.bmd is None:
        return _reported(values.z, "neither Z-score nor BMD is reported")
    if system is DxaSystem.UNKNOWN:
        return _Score(None, missing_reason="no Z-score, and BMD of an unknown densitometer")
    if age is None:
        return _Score(None, missing_reason="no Z-score, and the age is unknown")
    z = compute_z(values.bmd, system=system, sex=sex, region=values.region, age=age)
    if z is None:
        reason = "no Z-score, and no age curve for this sex, age and region"
        return _Score(None, missing_reason=reason)
    return _Score(z, LabelSource.COMPUTED_Z)
