"""What a training loop needs from the world around it: a device, a clock and a place to save.

A laptop, a Ray Train worker and a test each build their own context; the loops know no other.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from hipray.errors import HiprayError
from hipray.training.checkpoints import CheckpointStore
from hipray.training.crew import ALONE, Crew


class FitTimeoutError(HiprayError):
    """A fit ran past its time limit."""


@dataclass(frozen=True)
class EpochReport:
    """What one finished epoch says of itself."""

    epoch: int
    epochs: int
    train_loss: float
    inner_loss: float
    seconds: float


def _say_nothing(report: EpochReport) -> None:
    return None


@dataclass(frozen=True)
class FitContext:
    """The world of one fit."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoints: CheckpointStore | None = None
    """Where epochs are saved; None trains without resume."""
    checkpoint_s: float = 0.0
    """Seconds of training after which the next epoch is saved; 0 saves each one."""
    report: Callable[[EpochReport], None] = _say_nothing
    """Called after each epoch."""
    crew: Crew = ALONE
    """The processes that train this fit together."""
    deadline: float | None = None
    """`time.monotonic()` at which the fit gives up."""

    def check_deadline(self) -> None:
        """Raise FitTimeoutError when the time is over."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise FitTimeoutError(
                "the fit to end within its time limit",
                "more",
                "raise scaling.fit_timeout_s, or give the fit fewer epochs or smaller films",
            )

    def autocast(self) -> AbstractContextManager[object]:
        """Return bfloat16 autocasting on a GPU, nothing on a CPU."""
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()


def local_context() -> FitContext:
    """Return a context on this machine's GPU if it has one, without resume.

    There float32 stays full float32 in this process, as where networks answer.
    """
    if not torch.cuda.is_available():
        return FitContext()
    torch.backends.cudnn.allow_tf32 = False
    return FitContext(device=torch.device("cuda"))
