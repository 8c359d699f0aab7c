"""A new word of the vocabulary must enter every table that is keyed by it."""

from importlib import resources
from itertools import combinations

import pytest

from hipray.bundles.assembly import PROBE_PEOPLE
from hipray.bundles.golden import GOLDEN_PERSON
from hipray.config.experiment import ClassifierSettings
from hipray.config.labels import DxaSystem, LabelRules
from hipray.data.annotations.masks import ENCLOSED_BY
from hipray.data.augment import paper_moves
from hipray.data.contours import CONTOUR_COLOURS
from hipray.data.dxa import RegionValues
from hipray.data.dxa.checks import AREA_RANGES, BMD_RANGES
from hipray.data.dxa.columns import RowKind, parse_region_cell
from hipray.data.dxa.results import LABEL_TYPES
from hipray.data.labels import label_values
from hipray.data.manifest import QUANTITIES
from hipray.data.person import encode_people
from hipray.data.phantom.mineral import MATCHING_ORDER
from hipray.data.phantom.patient import CORRELATIONS, T_SCORES
from hipray.data.reference import YOUNG_NORMALS
from hipray.dicom_objects import MEANINGS
from hipray.evaluation.baselines import BASELINE_TITLES, COVARIATE_TITLES
from hipray.evaluation.calibration import CalibrationStage
from hipray.evaluation.checklist import CHECKLIST, Topic
from hipray.evaluation.comparison_tables import STAGE_TITLES
from hipray.evaluation.extra_tables import REGRESSION_TITLES
from hipray.evaluation.layout import LABEL_TITLES, VARIANT_TITLES
from hipray.evaluation.regression import RegressionMetric
from hipray.evaluation.statistics import LIMITS, METRIC_TITLES, STATISTICS, Metric
from hipray.scoring.faults import FAULT_OF, Fault
from hipray.serving.body import STATED_WORDS
from hipray.serving.films import Stated
from hipray.serving.page import FINDINGS, LABELS, REFUSALS
from hipray.skill import IOU_TARGETS
from hipray.training.costs import PAPER_COPIES
from hipray.training.views import MEASURED
from hipray.vocab import (
    Baseline,
    Covariate,
    DxaQuantity,
    Finding,
    LabelType,
    RefusalCode,
    Region,
    Runtime,
    RuntimeChoice,
    Sex,
    Variant,
)

TABLES = {
    "data.annotations.masks.ENCLOSED_BY": (ENCLOSED_BY, Region),
    "data.contours.CONTOUR_COLOURS": (CONTOUR_COLOURS, Region),
    "data.dxa.checks.AREA_RANGES": (AREA_RANGES, Region),
    "data.dxa.checks.BMD_RANGES": (BMD_RANGES, Region),
    "data.dxa.results.LABEL_TYPES": (LABEL_TYPES.values(), LabelType),
    "data.phantom.mineral.MATCHING_ORDER": (MATCHING_ORDER, Region),
    "data.phantom.patient.T_SCORES": (T_SCORES, Region),
    "data.manifest.QUANTITIES": (QUANTITIES, DxaQuantity),
    "training.views.MEASURED": (MEASURED, LabelType),
    "dicom_objects.MEANINGS": (MEANINGS, LabelType),
    "skill.IOU_TARGETS": (IOU_TARGETS, Region),
    "evaluation.layout.LABEL_TITLES": (LABEL_TITLES, LabelType),
    "evaluation.layout.VARIANT_TITLES": (VARIANT_TITLES, Variant),
    "evaluation.baselines.BASELINE_TITLES": (BASELINE_TITLES, Baseline),
    "evaluation.baselines.COVARIATE_TITLES": (COVARIATE_TITLES, Covariate),
    "evaluation.statistics.LIMITS": (LIMITS, Metric),
    "evaluation.statistics.METRIC_TITLES": (METRIC_TITLES, Metric),
    "evaluation.statistics.STATISTICS": (STATISTICS, Metric),
    "evaluation.comparison_tables.STAGE_TITLES": (STAGE_TITLES, CalibrationStage),
    "evaluation.extra_tables.REGRESSION_TITLES": (REGRESSION_TITLES, RegressionMetric),
    "evaluation.checklist.CHECKLIST": (CHECKLIST, Topic),
    "serving.page.FINDINGS": (FINDINGS, Finding),
    "serving.page.LABELS": (LABELS, LabelType),
    "serving.page.REFUSALS": (REFUSALS, RefusalCode),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_has_an_entry_for_every_word(name) -> None:
    table, words = TABLES[name]
    missing = sorted(str(word) for word in set(words) - set(table))
    assert not missing, f"hipray.{name} has no entry for {', '.join(missing)}"


def test_every_label_has_a_rule() -> None:
    labels = label_values(
        RegionValues(Region.TOTAL_HIP), sex=Sex.FEMALE, age=70.0, rules=LabelRules()
    )
    assert set(labels) == set(LabelType)


def test_the_name_of_every_region_is_read_in_reports() -> None:
    for region in Region:
        found = parse_region_cell(region.display_name)
        assert (found.kind, found.region) == (RowKind.HIP, region)


def test_the_phantoms_reports_have_young_normals_of_every_region_for_women_and_men() -> None:
    wanted = {
        (DxaSystem.HOLOGIC, sex, region) for sex in (Sex.FEMALE, Sex.MALE) for region in Region
    }
    assert not wanted - set(YOUNG_NORMALS)


def test_the_phantoms_regions_are_correlated_in_pairs() -> None:
    assert set(CORRELATIONS) == set(combinations(Region, 2))


def test_the_people_of_export_and_golden_checks_tell_every_covariate() -> None:
    known = slice(1, None, 2)
    assert encode_people([GOLDEN_PERSON])[:, known].all()
    assert encode_people(PROBE_PEOPLE)[:, known].any(axis=0).all()


def test_whatever_a_caller_may_state_is_said_in_refusals_and_asked_for_on_the_page() -> None:
    page = resources.files("hipray.serving").joinpath("page.html").read_text("utf-8")
    for name in Stated.model_fields:
        assert f"'{name}'" in STATED_WORDS
        assert f'id="{name}"' in page


def test_every_fault_of_a_store_has_its_error_and_each_kind_comes_before_what_it_is_a_kind_of() -> (
    None
):
    assert set(FAULT_OF.values()) == set(Fault) - {Fault.OTHER}
    kinds = list(FAULT_OF)
    assert not any(
        issubclass(later, kind) for n, kind in enumerate(kinds) for later in kinds[n + 1 :]
    )


def test_every_runtime_can_be_asked_for() -> None:
    assert set(RuntimeChoice) - {RuntimeChoice.AUTO} == {RuntimeChoice(r.value) for r in Runtime}


def test_the_copies_that_costs_count_are_those_that_are_made() -> None:
    assert len(paper_moves(ClassifierSettings())) == PAPER_COPIES
