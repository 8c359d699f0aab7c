"""A new word of the vocabulary must enter every table that is keyed by it."""

from itertools import product

import pytest

from hipray.data.annotations.masks import ENCLOSED_BY
from hipray.data.contact_sheet import CONTOUR_COLOURS
from hipray.data.dxa.checks import AREA_RANGES, BMD_RANGES
from hipray.data.dxa.results import LABEL_TYPES
from hipray.dicom_objects import MEANINGS
from hipray.evaluation.baselines import BASELINE_TITLES, Baseline
from hipray.evaluation.calibration import CalibrationStage
from hipray.evaluation.checklist import CHECKLIST, Topic
from hipray.evaluation.comparison_tables import STAGE_TITLES
from hipray.evaluation.extra_tables import REGRESSION_TITLES
from hipray.evaluation.layout import LABEL_TITLES, VARIANT_TITLES
from hipray.evaluation.paper import CLASSIFIER_TABLES, PAPER_LABELS, TEST_HIPS
from hipray.evaluation.regression import RegressionMetric
from hipray.evaluation.statistics import LIMITS, METRIC_TITLES, STATISTICS, Metric
from hipray.skill import IOU_TARGETS
from hipray.training.views import MEASURED
from hipray.vocab import LabelType, Region, Variant

TABLES = {
    "data.annotations.masks.ENCLOSED_BY": (ENCLOSED_BY, Region),
    "data.contact_sheet.CONTOUR_COLOURS": (CONTOUR_COLOURS, Region),
    "data.dxa.checks.AREA_RANGES": (AREA_RANGES, Region),
    "data.dxa.checks.BMD_RANGES": (BMD_RANGES, Region),
    "data.dxa.results.LABEL_TYPES": (LABEL_TYPES.values(), LabelType),
    "training.views.MEASURED": (MEASURED, LabelType),
    "dicom_objects.MEANINGS": (MEANINGS, LabelType),
    "skill.IOU_TARGETS": (IOU_TARGETS, Region),
    "evaluation.paper.TEST_HIPS": (TEST_HIPS, Region),
    "evaluation.paper.CLASSIFIER_TABLES": (CLASSIFIER_TABLES, product(Variant, LabelType)),
    "evaluation.paper.PAPER_LABELS": (
        {label for label in PAPER_LABELS.values() if label is not None},
        LabelType,
    ),
    "evaluation.layout.LABEL_TITLES": (LABEL_TITLES, LabelType),
    "evaluation.layout.VARIANT_TITLES": (VARIANT_TITLES, Variant),
    "evaluation.baselines.BASELINE_TITLES": (BASELINE_TITLES, Baseline),
    "evaluation.statistics.LIMITS": (LIMITS, Metric),
    "evaluation.statistics.METRIC_TITLES": (METRIC_TITLES, Metric),
    "evaluation.statistics.STATISTICS": (STATISTICS, Metric),
    "evaluation.comparison_tables.STAGE_TITLES": (STAGE_TITLES, CalibrationStage),
    "evaluation.extra_tables.REGRESSION_TITLES": (REGRESSION_TITLES, RegressionMetric),
    "evaluation.checklist.CHECKLIST": (CHECKLIST, Topic),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_table_has_an_entry_for_every_word(name):
    table, words = TABLES[name]
    missing = sorted(str(word) for word in set(words) - set(table))
    assert not missing, f"hipray.{name} has no entry for {', '.join(missing)}"
