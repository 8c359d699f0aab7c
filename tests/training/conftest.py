"""Data of the small workspace as a fit sees it; networks compute with one thread."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hipray.config.jobs import GridRun
from hipray.training.inputs import FitInputs
from hipray.training.loop import Task
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


class _HostTraffic(TorchDispatchMode):
    """Notes numbers that are read off tensors, and tensors that are made of numbers.

    On a GPU the host waits for each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "lift_fresh", "nonzero"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def watch_host() -> Callable[[Task], list[str]]:
    """Take an epoch of a task and return its traffic with the host."""

    def watch(task: Task) -> list[str]:
        # on a CPU the fits' own optimiser reads its count of steps; a GPU's does not
        task.optimizer = torch.optim.SGD(task.module.parameters(), lr=1e-3)
        task.module.train()
        with _HostTraffic() as traffic:
            task.train_epoch(0, torch.Generator().manual_seed(0))
        return traffic.seen

    return watch
