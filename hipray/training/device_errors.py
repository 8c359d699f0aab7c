"""What a GPU's errors mean for a lane: try again, fail the fit, or give up the process."""

import gc
import logging
from collections.abc import Callable
from typing import Self, TypeVar

import torch

from hipray.config.experiment import Experiment
from hipray.errors import HiprayError
from hipray.vocab import Fit, SegmenterFit

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


class DeviceLostError(HiprayError):
    """The GPU failed: after a CUDA error nothing in this process can use it any more."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the error that `error` of CUDA amounts to."""
        return cls(
            "a GPU that works",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            "the lane starts again in a new process; if it comes again, see the node's driver log",
        )


class CrewLostError(DeviceLostError):
    """One process of a crew failed in the middle of a fit: the others wait for it in vain."""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return the error that a process's own `error` amounts to."""
        return cls(
            "all workers of a fit to take each step",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            "the lane starts again with new workers, from the last checkpoint",
        )


class FitMemoryError(HiprayError):
    """A fit does not fit into its lane's part of a GPU."""


def run_sparing_memory(
    run: Callable[[], ResultT], *, experiment: Experiment, fit: Fit | SegmenterFit, gpus: float
) -> ResultT:
    """Call `run`, once more with an empty cache where the GPU's memory ran out.

    Raises FitMemoryError where that does not help.
    """
    try:
        return run()
    except torch.OutOfMemoryError as error:
        logger.warning("%s ran out of GPU memory and is tried again: %s", fit.name, error)
    # out of the except block: the traceback held the first try's tensors
    gc.collect()
    torch.cuda.empty_cache()
    try:
        return run()
    except torch.OutOfMemoryError as error:
        raise FitMemoryError(
            f"{fit.name} at batch {_batch(fit, experiment)} to fit into its lane's part of the "
            f"GPU (scaling.gpus_per_lane = {gpus:g})",
            f"twice out of memory ({str(error).split('. ')[0]})",
            "raise scaling.gpus_per_lane so that fewer lanes share a GPU, or lower the batch",
        ) from error


def _batch(fit: Fit | SegmenterFit, experiment: Experiment) -> int:
    if isinstance(fit, SegmenterFit):
        return experiment.segmenter.batch
    return experiment.classifier_of(fit.cell.backbone).batch
