"""Counting fits and cells by state."""

from hipray.training.plan import PlannedFit
from hipray.training.tally import describe_counts, tally_fits
from hipray.vocab import (
    REGIONS,
    Cell,
    Fit,
    FitState,
    LabelType,
    Region,
    SegmenterArch,
    SegmenterFit,
    Variant,
)

CELLS = [Cell(region, LabelType.BMD, "resnet50", Variant.ORIGINAL) for region in Region]
PLAN = [
    PlannedFit(SegmenterFit(SegmenterArch.UNET, REGIONS, 0, 0), "s"),
    *(
        PlannedFit(Fit(cell, 0, fold), f"{number}{fold}")
        for number, cell in enumerate(CELLS)
        for fold in (0, 1)
    ),
]


def tally(done=(), failed=(), running=()):
    return tally_fits(PLAN, done=set(done), failed=set(failed), running=set(running))


def test_a_cell_is_done_when_all_its_fits_are() -> None:
    assert tally(done=["00"]).cells == {FitState.RUNNING: 1, FitState.WAITING: 3}
    assert tally(done=["00", "01"]).cells == {FitState.DONE: 1, FitState.WAITING: 3}


def test_one_failed_fit_fails_its_cell() -> None:
    assert tally(done=["00"], failed=["01"]).cells[FitState.FAILED] == 1


def test_a_fit_done_elsewhere_meanwhile_is_done_though_it_is_claimed() -> None:
    assert tally(done=["00"], running=["00", "10"]).fits == {
        FitState.DONE: 1, FitState.RUNNING: 1, FitState.WAITING: 7,
    }  # fmt: skip


def test_segmenters_count_as_fits_and_not_as_cells() -> None:
    counted = tally(done=["s"])
    assert (counted.fits.total(), counted.cells.total()) == (9, 4)
    assert counted.fits[FitState.DONE] == 1


def test_open_fits_are_neither_done_nor_failed() -> None:
    assert tally(done=["s", "00"], failed=["01"], running=["10"]).open == [
        "10", "11", "20", "21", "30", "31",
    ]  # fmt: skip


def test_counts_are_said_in_the_order_of_a_fits_life() -> None:
    assert describe_counts(tally(done=["s"]).fits) == "8 waiting, 0 running, 1 done, 0 failed"
