import math

import pytest

from hipray.config.base import build_config
from hipray.config.labels import BmdRule, DxaSystem, LabelRules, ReferenceSex
from hipray.data.dxa import DxaRecord, RegionValues
from hipray.data.labels import (
    LabelSource,
    count_label_disagreements,
    describe_rules,
    label_record,
    label_values,
)
from hipray.errors import ConfigError
from hipray.vocab import REGIONS, LabelType, Region, Sex

FN, TH, GT = Region.FEMORAL_NECK, Region.TOTAL_HIP, Region.GREATER_TROCHANTER
T, BMD = LabelType.T_SCORE, LabelType.BMD


def label(kind, *, region=TH, sex=Sex.FEMALE, age=73.0, rules=None, system=None, **figures):
    return label_values(
        RegionValues(region, **figures),
        sex=sex,
        age=age,
        rules=rules or LabelRules(),
        system=system or DxaSystem.UNKNOWN,
    )[kind]


def test_t_of_exactly_minus_2_5_is_abnormal_and_the_next_number_above_is_not() -> None:
    assert label(T, t=-2.5).abnormal is True
    assert label(T, t=math.nextafter(-2.5, 0)).abnormal is False
    assert label(T, t=-2.4).abnormal is False


def test_z_of_exactly_minus_1_is_abnormal_and_minus_0_9_is_not() -> None:
    assert label(BMD, z=-1.0).abnormal is True
    assert label(BMD, z=-0.9).abnormal is False


def test_a_reported_score_is_the_source_computed() -> None:
    assert label(T, t=-1.0, bmd=0.3).source is LabelSource.COMPUTED


def test_a_given_label_wins_over_the_score() -> None:
    values = RegionValues(TH, t=-3.0, given={T: False})
    labels = label_values(values, sex=Sex.FEMALE, age=70, rules=LabelRules())
    assert labels[T].abnormal is False
    assert labels[T].source is LabelSource.GIVEN


def test_t_is_computed_from_bmd_where_the_maker_is_known() -> None:
    got = label(T, region=FN, bmd=0.558, system=DxaSystem.HOLOGIC)
    assert (got.abnormal, got.source) == (True, LabelSource.COMPUTED_T)


def test_bmd_of_an_unknown_densitometer_gives_no_label_but_a_reason() -> None:
    got = label(T, region=FN, bmd=0.3)
    assert got.abnormal is None
    assert got.source is LabelSource.NONE
    assert "unknown densitometer" in got.missing_reason


def test_the_configured_system_stands_in_for_an_unknown_one_only() -> None:
    rules = LabelRules(system=DxaSystem.GE_LUNAR)
    bmd = 0.70  # T -2.4 by GE Lunar's table, -1.3 by Hologic's
    assert label(T, region=FN, bmd=bmd, rules=rules).abnormal is False
    assert label(T, region=FN, bmd=0.69, rules=rules).abnormal is True
    hologic = label(T, region=FN, bmd=0.69, rules=rules, system=DxaSystem.HOLOGIC)
    assert hologic.abnormal is False


def test_z_is_computed_from_bmd_and_age_and_says_so() -> None:
    got = label(BMD, region=FN, bmd=0.50, age=70.0, system=DxaSystem.HOLOGIC)
    assert (got.abnormal, got.source) == (True, LabelSource.COMPUTED_Z)


def test_z_is_not_computed_without_an_age_or_for_men() -> None:
    hologic = DxaSystem.HOLOGIC
    without_age = label(BMD, region=FN, bmd=0.5, age=None, system=hologic)
    man = label(BMD, region=FN, bmd=0.5, sex=Sex.MALE, system=hologic)
    assert without_age.abnormal is None and "age" in without_age.missing_reason
    assert man.abnormal is None and "age curve" in man.missing_reason


def test_men_are_scored_against_women_unless_their_own_sex_is_asked_for() -> None:
    hologic, bmd = DxaSystem.HOLOGIC, 0.65  # T -2.4 of women, -2.7 of men at the total hip
    own = LabelRules(t_reference_sex=ReferenceSex.OWN)
    assert label(T, bmd=bmd, sex=Sex.MALE, system=hologic).abnormal is False
    assert label(T, bmd=bmd, sex=Sex.MALE, system=hologic, rules=own).abnormal is True


def test_an_unknown_sex_has_no_reference_of_its_own() -> None:
    own = LabelRules(t_reference_sex=ReferenceSex.OWN)
    got = label(T, bmd=0.6, sex=Sex.UNKNOWN, system=DxaSystem.HOLOGIC, rules=own)
    assert got.abnormal is None


def test_below_50_the_t_label_is_given_all_the_same() -> None:
    assert label(T, t=-3.0, age=49.9).abnormal is True


def test_the_z_threshold_is_set_per_region_and_stays_at_minus_1_elsewhere() -> None:
    rules = build_config(LabelRules, {"bmd_z": {"femoral_neck": -0.2}})
    assert label(BMD, region=FN, z=-0.5, rules=rules).abnormal is True
    assert label(BMD, region=TH, z=-0.5, rules=rules).abnormal is False


def test_the_t_rule_takes_low_bone_mass_of_who_where_minus_1_is_still_normal() -> None:
    rules = LabelRules(bmd_rule=BmdRule.T)
    assert label(BMD, t=-1.0, rules=rules).abnormal is False
    assert label(BMD, t=-1.1, rules=rules).abnormal is True


def test_the_percent_rule_takes_the_age_matched_percentage() -> None:
    rules = LabelRules(bmd_rule=BmdRule.AM_PERCENT)
    assert label(BMD, am_percent=85.0, rules=rules).abnormal is True
    assert label(BMD, am_percent=85.1, rules=rules).abnormal is False
    assert "percentage" in label(BMD, z=-3.0, rules=rules).missing_reason


def test_the_given_rule_computes_nothing() -> None:
    rules = LabelRules(bmd_rule=BmdRule.GIVEN)
    assert label(BMD, z=-3.0, rules=rules).abnormal is None
    assert label(BMD, z=-3.0, given={BMD: False}, rules=rules).abnormal is False


def test_an_unknown_region_in_the_thresholds_is_refused() -> None:
    with pytest.raises(ConfigError, match="bmd_z"):
        build_config(LabelRules, {"bmd_z": {"spine": -1.0}})


def test_a_region_without_figures_is_missing_with_its_reason() -> None:
    record = DxaRecord(values={TH: RegionValues(TH, t=-2.5, z=0.0)})
    labels = label_record(record, rules=LabelRules())
    assert set(labels) == set(REGIONS)
    assert labels[TH][T].abnormal is True
    assert labels[GT][T].abnormal is None
    assert "no figures" in labels[GT][T].missing_reason


def test_a_region_on_which_rows_contradict_each_other_is_missing_with_that_reason() -> None:
    record = DxaRecord(values={TH: RegionValues(TH, contradicted=True)})
    labels = label_record(record, rules=LabelRules())[TH]
    assert {label.abnormal for label in labels.values()} == {None}
    assert labels[LabelType.T_SCORE].missing_reason == "rows of the table contradict each other"


def test_an_invalid_hip_has_no_label_even_where_one_is_given() -> None:
    values = {TH: RegionValues(TH, t=-3.0, given={T: True})}
    record = DxaRecord(values=values, invalid_reason="implant")
    got = label_record(record, rules=LabelRules())[TH][T]
    assert got.abnormal is None and "implant" in got.missing_reason


def test_disagreements_of_given_and_computed_labels_are_counted_per_region():
    def record(t, given):
        return DxaRecord(values={TH: RegionValues(TH, t=t, given={T: given})})

    records = [record(-3.0, True), record(-3.0, False), record(-1.0, False), record(None, True)]
    counts = count_label_disagreements(records, LabelRules())
    assert counts[TH, T].compared == 3
    assert counts[TH, T].disagreeing == 1
    assert set(counts) == {(TH, T)}


def test_the_rules_are_said_in_words() -> None:
    usual = describe_rules(LabelRules())
    assert usual == {T: "T-score at or below -2.5", BMD: "Z-score at or below -1"}
    neck = build_config(LabelRules, {"bmd_z": {"femoral_neck": -0.2}})
    assert describe_rules(neck)[BMD] == "Z-score at or below -1, -0.2 of the Femoral neck"
    words = {rule: describe_rules(LabelRules(bmd_rule=rule))[BMD] for rule in BmdRule}
    assert words[BmdRule.T] == "T-score below -1"
    assert words[BmdRule.AM_PERCENT] == "BMD at or below 85 % of the age-matched mean"
    assert words[BmdRule.GIVEN] == "only as the archive gives it"
