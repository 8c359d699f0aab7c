"""The one training loop: epochs, early stopping, checkpoints between them, exact resume.

Every epoch seeds its own randomness from (seed, epoch), so a fit resumed after epoch k ends with
the same weights as one that was never interrupted. On a GPU they differ as those of two
uninterrupted fits do: its faster kernels add in no fixed order.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from hipray.errors import DataError
from hipray.training.checkpoints import Checkpoint, Tensors
from hipray.training.context import EpochReport, FitContext


class Task(Protocol):
    """What is particular to one kind of network: an epoch of steps and a validation."""

    module: nn.Module
    optimizer: torch.optim.Optimizer

    def train_epoch(self, epoch: int, generator: torch.Generator) -> float:
        """Take one epoch of optimiser steps and return the mean loss."""
        ...

    def validate(self) -> float:
        """Return the loss on inner validation, smaller is better."""
        ...


@dataclass
class History:
    """The curves of a fit and where it was best."""

    train_loss: list[float] = field(default_factory=list)
    inner_loss: list[float] = field(default_factory=list)
    best_epoch: int = -1

    @property
    def epochs(self) -> int:
        """Epochs that were run."""
        return len(self.inner_loss)

    def as_dict(self) -> dict[str, Any]:
        """Return the history as plain data."""
        return asdict(self)


def run_epochs(
    task: Task, *, epochs: int, patience: int, seed: int, context: FitContext
) -> History:
    """Train until `epochs` or until `patience` epochs bring no better inner loss.

    Leaves `task.module` with the weights of its best epoch. Raises DataError where no epoch has a
    finite inner loss.
    """
    history, best = _resume(task, context)
    saved_at = time.monotonic()
    while history.epochs < epochs and not _is_stale(history, patience):
        context.check_deadline()
        started = time.perf_counter()
        train_loss, inner_loss = _run_epoch(task, history.epochs, seed)
        inner_loss = context.crew.agree(inner_loss)
        history.train_loss.append(train_loss)
        history.inner_loss.append(inner_loss)
        if _is_best(history):
            history.best_epoch = history.epochs - 1
            best = _copy(task.module.state_dict())
        if time.monotonic() - saved_at >= context.checkpoint_s:
            _save(task, history, best, context)
            saved_at = time.monotonic()
        seconds = time.perf_counter() - started
        context.report(EpochReport(history.epochs, epochs, train_loss, inner_loss, seconds))
    if not math.isfinite(history.inner_loss[history.best_epoch]):
        raise DataError(
            "a finite loss on inner validation",
            f"{history.inner_loss[history.best_epoch]} after each of {history.epochs} epochs",
            "lower the learning rate (lr)",
        )
    task.module.load_state_dict(best)
    return history


def _is_best(history: History) -> bool:
    """Whether the last epoch is the best so far; nothing is worse than a loss that is no number."""
    if history.best_epoch < 0:
        return True
    best, last = history.inner_loss[history.best_epoch], history.inner_loss[-1]
    return last < best or (math.isnan(best) and not math.isnan(last))


def _run_epoch(task: Task, epoch: int, seed: int) -> tuple[float, float]:
    devices = [p.device for p in task.module.parameters()][:1]
    with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
        torch.manual_seed(epoch_seed(seed, epoch))  # dropout draws from the global generator
        generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
        task.module.train()
        train_loss = task.train_epoch(epoch, generator)
        task.module.eval()
        with torch.inference_mode():
            return train_loss, task.validate()


def mean_loss(losses: Sequence[torch.Tensor]) -> float:
    """Return the mean of an epoch's losses.

    A process that trains alone and whose GPU holds the films waits for its steps only here.
    """
    return float(torch.stack(list(losses)).double().mean())


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch; distinct for each (seed, epoch) below a million epochs."""
    return seed * 1_000_003 + epoch


def _is_stale(history: History, patience: int) -> bool:
    return history.epochs - 1 - history.best_epoch >= patience and history.epochs > 0


def _resume(task: Task, context: FitContext) -> tuple[History, Tensors]:
    checkpoint = context.checkpoints.load_latest() if context.checkpoints else None
    if checkpoint is None:
        return History(), _copy(task.module.state_dict())
    parts = _split(checkpoint.tensors)
    task.module.load_state_dict(parts["module"])
    _load_optimizer(task.optimizer, parts["optimizer"])
    return History(**checkpoint.history), _copy(parts["best"])


def _save(task: Task, history: History, best: Tensors, context: FitContext) -> None:
    if context.checkpoints is None or not context.crew.leads:
        return
    tensors = {f"module/{k}": v for k, v in task.module.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    for index, state in task.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{k}": torch.as_tensor(v) for k, v in state.items()}
    # shared storage is copied, for safetensors refuses tensors that overlap; off a GPU, whose
    # memory need not hold it all twice
    tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    context.checkpoints.save(Checkpoint(history.epochs, tensors, history.as_dict()))


def _split(tensors: Tensors) -> dict[str, Tensors]:
    parts: dict[str, Tensors] = {"module": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    return parts


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    for weight, moments in optimizer.state.items():
        for key, tensor in moments.items():
            if tensor.shape == weight.shape:  # in the memory format of its weight, as before
                moments[key] = torch.empty_like(weight).copy_(tensor)


def _copy(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
