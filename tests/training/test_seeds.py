"""Every fit draws its own randomness, and the same again when it is asked again."""

from itertools import product

from hipray.training.seeds import seed_fit
from hipray.vocab import REGIONS, Cell, Fit, LabelType, Region, SegmenterArch, SegmenterFit, Variant


def test_repeats_and_folds_of_a_cell_draw_otherwise_and_cells_of_a_fold_alike() -> None:
    cells = [Cell(Region.TOTAL_HIP, LabelType.T_SCORE, b, Variant.ORIGINAL) for b in ("a", "b")]
    first, second = (
        [seed_fit(1, Fit(cell, *split)) for split in product(range(9), range(10))] for cell in cells
    )
    assert len(set(first)) == len(first)
    assert first == second
    assert seed_fit(2, Fit(cells[0], 0, 0)) not in first


def test_segmenters_have_seeds_of_their_own_folds() -> None:
    fits = [SegmenterFit(SegmenterArch.UNET, REGIONS, 0, fold) for fold in range(5)]
    assert len({seed_fit(1, fit) for fit in fits}) == 5
