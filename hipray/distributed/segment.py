"""The segmenters of a grid, alone: a run without cells.

Fits are named by what shapes them, so the grid takes these as they are and trains none again.
"""

from hipray.config.jobs import GridRun, SegmentRun
from hipray.distributed.grid import GridResult, run_grid
from hipray.errors import DataError


def without_cells(config: SegmentRun) -> GridRun:
    """Return the grid that has the segmenters only, as a run of its own."""
    own = {"run": f"{config.run}-segmenters", "cells": False}
    return GridRun.model_validate(config.model_dump() | own)


def run_segment(config: SegmentRun) -> GridResult:
    """Train the grid's open segmenters; raises as `run_grid` does, and DataError without masks."""
    result = run_grid(without_cells(config))
    if result.fits == 0:
        raise DataError(
            "annotated masks to learn from",
            "none in the manifest",
            "add labelme files beside the films and ingest again",
        )
    return result
