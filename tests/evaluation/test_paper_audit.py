"""The audit of the paper's tables reaches the values that were found by hand."""

import math

import numpy as np
import pytest

from hipray.evaluation.paper import Split, read_paper_tables
from hipray.evaluation.paper_audit import PaperRow, audit_paper, imply_f1
from hipray.evaluation.paper_audit_tables import build_audit_tables, build_caveats
from hipray.evaluation.single_run import fits_single_run
from hipray.vocab import Backbone, Cell, LabelType, Region, Variant

AUDIT = audit_paper(read_paper_tables())


@pytest.mark.parametrize(
    ("region", "label_type", "value", "low", "high"),
    [
        (Region.FEMORAL_NECK, LabelType.T_SCORE, 0.445, 0.400, 0.478),
        (Region.GREATER_TROCHANTER, LabelType.T_SCORE, 0.397, 0.389, 0.410),
        (Region.WARDS_TRIANGLE, LabelType.T_SCORE, 0.663, 0.648, 0.676),
        (Region.TOTAL_HIP, LabelType.T_SCORE, 0.466, 0.429, 0.485),
        (Region.FEMORAL_NECK, LabelType.BMD, 0.644, 0.625, 0.656),
        (Region.GREATER_TROCHANTER, LabelType.BMD, 0.505, 0.471, 0.529),
        (Region.WARDS_TRIANGLE, LabelType.BMD, 0.679, 0.667, 0.691),
        (Region.TOTAL_HIP, LabelType.BMD, 0.388, 0.364, 0.406),
    ],
)
def test_the_rows_imply_one_share_of_abnormal_hips_per_region_and_label(
    region, label_type, value, low, high
) -> None:
    found = AUDIT.prevalences[region, label_type]
    assert found.value == pytest.approx(value, abs=5e-4)
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-3), pytest.approx(high, abs=2e-3))


def test_the_paper_has_50_test_rows_of_which_none_comes_from_one_run() -> None:
    assert (len(AUDIT.rows), len(AUDIT.test_rows)) == (100, 50)
    assert AUDIT.one_run == ()


def test_24_test_rows_do_not_beat_the_majority_class() -> None:
    by_table = {table: 0 for table in (6, 7, 8, 9, 10)}
    for row in AUDIT.at_majority:
        by_table[row.table] += 1
    assert by_table == {6: 8, 7: 9, 8: 3, 9: 4, 10: 0}


def test_two_rows_are_pasted_from_the_total_hip() -> None:
    assert {(row.table, row.cell) for row in AUDIT.pasted} == {
        (
            7,
            Cell(Region.WARDS_TRIANGLE, LabelType.BMD, Backbone.DENSENET121, Variant.ORIGINAL),
        ),
        (
            9,
            Cell(Region.WARDS_TRIANGLE, LabelType.BMD, Backbone.DENSENET121, Variant.AUGMENTED),
        ),
    }
    assert {source.cell.region for source in AUDIT.pasted.values()} == {Region.TOTAL_HIP}
    for row, source in AUDIT.pasted.items():
        assert row.printed == source.printed
        assert "pasted" in AUDIT.get_note(row.cell, Split.TEST)
        assert AUDIT.get_note(source.cell, Split.TEST) == ""


def test_one_f1_does_not_belong_to_its_row() -> None:
    ((row, implied),) = AUDIT.impossible_f1.items()
    assert (row.table, row.cell.region, row.cell.backbone) == (
        9,
        Region.WARDS_TRIANGLE,
        Backbone.VGG16,
    )
    assert (row.printed[2], implied) == (0.74, pytest.approx(0.81, abs=0.005))


def test_training_rows_that_imply_another_share_are_called_misprints() -> None:
    found = {(row.table, row.cell.region, row.cell.backbone) for row in AUDIT.misprinted}
    assert (7, Region.TOTAL_HIP, Backbone.RESNET50) in found
    assert len(found) == 2
    low, high = next(r for r in AUDIT.misprinted if r.table == 7).prevalences
    assert low < 0.61 < high


@pytest.mark.parametrize(
    ("table", "vgg16", "resnet50", "densenet121"),
    [
        (6, 0.585, 0.529, 0.526),
        (7, 0.575, 0.541, 0.521),
        (8, 0.651, 0.647, 0.662),
        (9, 0.701, 0.636, 0.639),
        (10, 0.630, None, 0.615),
    ],
)
def test_balanced_accuracies_per_network(table, vgg16, resnet50, densenet121) -> None:
    found = [AUDIT.mean_balanced_accuracy(table, backbone) for backbone in Backbone]
    expected = [vgg16, resnet50, densenet121]
    assert [value is None for value in found] == [value is None for value in expected]
    for value, known in zip(found, expected, strict=True):
        assert value == (None if known is None else pytest.approx(known, abs=1e-3))


def test_a_row_that_one_run_gives_is_found_and_a_changed_one_is_not() -> None:
    tp, fn, tn, fp = 9, 4, 11, 4
    n = tp + fn + tn + fp
    row = (tp / 13, tn / 15, 2 * tp / (2 * tp + fp + fn), (tp + tn) / n)
    rounded = tuple(round(value, 2) for value in row)
    cut = tuple(math.floor(value * 100) / 100 for value in row)
    assert fits_single_run(rounded, n)
    assert fits_single_run(cut, n)
    assert not fits_single_run((*rounded[:3], rounded[3] + 0.05), n)


def test_the_trochanters_resnet_row_fits_one_run_but_for_its_f1() -> None:
    cell = Cell(Region.GREATER_TROCHANTER, LabelType.BMD, Backbone.RESNET50, Variant.AUGMENTED)
    row = next(r for r in AUDIT.test_rows if r.cell == cell)
    other_f1 = np.round(np.arange(0.5, 0.8, 0.01), 2)
    sensitivity, specificity, _, accuracy = row.printed
    assert any(fits_single_run((sensitivity, specificity, f1, accuracy), 15) for f1 in other_f1)


def test_implied_f1_is_that_of_the_confusion_matrix() -> None:
    cell = Cell(Region.TOTAL_HIP, LabelType.BMD, Backbone.VGG16, Variant.ORIGINAL)
    row = PaperRow(cell, Split.TEST, (0.8, 0.75, 0.0, 0.0))  # 4 of 5 abnormal, 15 of 20 normal
    assert imply_f1(row, 5 / 25) == pytest.approx(2 * 4 / (2 * 4 + 5 + 1))


def test_the_caveats_are_computed_from_the_tables() -> None:
    text = " ".join(build_caveats(AUDIT))
    for part in (
        "21/28 = 0.75 has an exact 95 % interval of 0.55 to 0.89",
        "11/15 = 0.73 has an exact 95 % interval of 0.45 to 0.92",
        "50 of the 50 test rows",
        "24 of the 48 test rows",
        "densenet121 in Table 8",
        "probably pasted",
    ):
        assert part in text


def test_every_test_row_stands_in_the_appendix() -> None:
    rows = next(view for view in build_audit_tables(AUDIT) if view.anchor == "audit-rows")
    assert sum(len(block.rows) for block in rows.blocks) == 50
    for view in build_audit_tables(AUDIT):
        for block in view.blocks:
            assert all(len(row.entries) == len(view.columns) for row in block.rows)
