"""The paper's numbers and the doubts about them, both recomputed here from the tables."""

import pytest

from hipray.evaluation.paper import PAPER_NOTES, Split, build_caveats, get_note, read_paper_tables
from hipray.evaluation.statistics import PAPER_METRICS, Metric
from hipray.vocab import Backbone, Cell, LabelType, Region, SegmenterArch, Variant

PAPER = read_paper_tables()
ALL_CELLS = [Cell(r, t, b, v) for r in Region for t in LabelType for b in Backbone for v in Variant]


def read_row(cell, split):
    return {metric: PAPER.get_metric(cell, split, metric) for metric in PAPER_METRICS}


def imply_prevalence(row):
    """Solve accuracy = p sensitivity + (1 - p) specificity for p."""
    return (row[Metric.ACCURACY] - row[Metric.SPECIFICITY]) / (
        row[Metric.SENSITIVITY] - row[Metric.SPECIFICITY]
    )


def test_all_424_numbers_are_read():
    assert len(PAPER.values) == 424


def test_22_of_the_72_cells_have_no_number_in_the_paper():
    missing = [c for c in ALL_CELLS if PAPER.get_metric(c, Split.TEST, Metric.ACCURACY) is None]
    assert len(ALL_CELLS) == 72
    assert len(missing) == 22
    assert all(cell.variant is Variant.SEGMENTED for cell in missing)


def test_single_numbers_stand_where_the_paper_has_them():
    best = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, Backbone.DENSENET121, Variant.AUGMENTED)
    assert PAPER.get_metric(best, Split.TEST, Metric.ACCURACY) == 0.74
    assert PAPER.get_metric(best, Split.TEST, Metric.AUROC) is None
    assert PAPER.get_iou(Region.GREATER_TROCHANTER, SegmenterArch.UNETPP) == 0.85
    assert PAPER.get_train_images(Region.FEMORAL_NECK, Variant.AUGMENTED) == 777
    assert PAPER.get_train_images(Region.WARDS_TRIANGLE, Variant.ORIGINAL) == 57


@pytest.mark.parametrize("variant", [Variant.ORIGINAL, Variant.AUGMENTED])
def test_rows_called_pasted_equal_the_total_hip_row(variant):
    pasted = Cell(Region.WARDS_TRIANGLE, LabelType.BMD, Backbone.DENSENET121, variant)
    source = Cell(Region.TOTAL_HIP, LabelType.BMD, Backbone.DENSENET121, variant)
    assert read_row(pasted, Split.TEST) == read_row(source, Split.TEST)
    assert "pasted" in get_note(pasted, Split.TEST)
    assert get_note(source, Split.TEST) == ""


def test_the_impossible_f1_is_far_from_what_its_row_gives():
    cell = Cell(Region.WARDS_TRIANGLE, LabelType.BMD, Backbone.VGG16, Variant.AUGMENTED)
    row = read_row(cell, Split.TEST)
    p = imply_prevalence(row)
    hits, misses = p * row[Metric.SENSITIVITY], p * (1 - row[Metric.SENSITIVITY])
    alarms = (1 - p) * (1 - row[Metric.SPECIFICITY])
    implied = 2 * hits / (2 * hits + misses + alarms)
    assert implied == pytest.approx(0.81, abs=0.01)
    assert row[Metric.F1] == 0.74


def test_the_misprinted_specificity_implies_another_prevalence_than_its_region():
    odd = Cell(Region.TOTAL_HIP, LabelType.BMD, Backbone.RESNET50, Variant.ORIGINAL)
    sane = Cell(Region.TOTAL_HIP, LabelType.BMD, Backbone.VGG16, Variant.ORIGINAL)
    assert imply_prevalence(read_row(odd, Split.TRAIN)) == pytest.approx(0.61, abs=0.02)
    assert imply_prevalence(read_row(sane, Split.TEST)) == pytest.approx(0.39, abs=0.03)


def test_every_note_is_about_a_number_that_exists():
    for note in PAPER_NOTES:
        assert PAPER.get_metric(note.cell, note.split, Metric.F1) is not None


def test_the_caveats_state_the_sampling_error_of_28_and_15_hips():
    text = " ".join(build_caveats())
    assert "0.55 to 0.89" in text
    assert "0.45 to 0.92" in text
