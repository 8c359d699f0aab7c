"""The paper's numbers are read as printed."""

from hipray.evaluation.paper import Split, read_paper_tables
from hipray.evaluation.statistics import Metric
from hipray.vocab import Backbone, Cell, LabelType, Region, SegmenterArch, Variant

PAPER = read_paper_tables()
ALL_CELLS = [Cell(r, t, b, v) for r in Region for t in LabelType for b in Backbone for v in Variant]


def test_all_424_numbers_are_read() -> None:
    assert len(PAPER.values) == 424


def test_22_of_the_72_cells_have_no_number_in_the_paper() -> None:
    missing = [c for c in ALL_CELLS if PAPER.get_metric(c, Split.TEST, Metric.ACCURACY) is None]
    assert len(ALL_CELLS) == 72
    assert len(missing) == 22
    assert all(cell.variant is Variant.SEGMENTED for cell in missing)


def test_single_numbers_stand_where_the_paper_has_them() -> None:
    best = Cell(Region.TOTAL_HIP, LabelType.T_SCORE, Backbone.DENSENET121, Variant.AUGMENTED)
    assert PAPER.get_metric(best, Split.TEST, Metric.ACCURACY) == 0.74
    assert PAPER.get_metric(best, Split.TEST, Metric.AUROC) is None
    assert PAPER.get_iou(Region.GREATER_TROCHANTER, SegmenterArch.UNETPP) == 0.85
    assert PAPER.get_train_images(Region.FEMORAL_NECK, Variant.AUGMENTED) == 777
    assert PAPER.get_train_images(Region.WARDS_TRIANGLE, Variant.ORIGINAL) == 57
