"""Segmenters trained alone are the grid's own."""

import pytest

from hipray.config.jobs import GridRun, SegmentRun
from hipray.distributed.segment import run_segment, without_cells
from hipray.errors import DataError
from hipray.training.preparation import prepare
from hipray.vocab import SegmenterFit
from tests.small_workspace import SmallGrid


def _segment_run(grid: SmallGrid) -> SegmentRun:
    return SegmentRun.model_validate(grid.config.model_dump())


def test_a_grid_plans_the_very_segmenters_that_were_trained_alone(small_grid: SmallGrid) -> None:
    alone = prepare(small_grid.store, without_cells(_segment_run(small_grid))).plan
    grid = small_grid.preparation.plan
    assert {p.digest for p in alone} == {p.digest for p in grid if isinstance(p.fit, SegmenterFit)}
    assert all(isinstance(p.fit, SegmenterFit) for p in alone)


def test_segmenters_that_a_grid_has_trained_are_not_trained_again(small_grid: SmallGrid) -> None:
    result = run_segment(_segment_run(small_grid))
    assert (result.run, result.fits, result.trained_now) == ("small-segmenters", 3, 0)
    assert small_grid.store.exists("runs/small/plan.json"), "the grid's own run is left alone"


def test_an_archive_without_masks_has_nothing_to_segment(
    small_grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hipray.training.preparation as preparation

    monkeypatch.setattr(preparation, "plan_fits", lambda *_, **__: [])
    with pytest.raises(DataError, match="annotated masks"):
        run_segment(_segment_run(small_grid))


def test_lanes_are_told_of_a_grid_without_cells(small_grid: SmallGrid) -> None:
    alone = without_cells(_segment_run(small_grid))
    assert GridRun.model_validate(alone.model_dump(mode="json")) == alone
