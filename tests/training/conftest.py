"""Data of the small workspace as a fit sees it; networks compute with one thread."""

from collections.abc import Iterator

import pytest

from hipray.config.jobs import GridRun
from hipray.training.inputs import FitInputs
from hipray.training.preparation import read_inputs
from tests.small_workspace import SmallWorkspace, grid_config, one_thread


@pytest.fixture(scope="package", autouse=True)
def single_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def small_config(small_workspace: SmallWorkspace) -> GridRun:
    return grid_config(small_workspace.store)


@pytest.fixture(scope="session")
def inputs(small_workspace: SmallWorkspace, small_config: GridRun) -> FitInputs:
    return read_inputs(small_workspace.store, small_config)
