"""A network that answers arrays: the one thing that models ask of a runtime.

Legend of shapes: B films, P side in pixels, C numbers that tell a person.
"""

import logging
import math
import sys
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hipray.data.framing import Pixels
from hipray.data.person import People
from hipray.vocab import Precision

Answers = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)


class Network(Protocol):
    """Films in, answers out; safe to call from several threads."""

    def __call__(self, films: Pixels, people: People | None = None) -> Answers:
        """Return what the network answers (B, ...) of films (B, P, P) and people (B, C)."""
        ...


class PixelNetwork(nn.Module):
    """A network of grey values in 0..1 (B, 1, P, P) that takes films as they are stored."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, films: torch.Tensor, people: torch.Tensor | None = None) -> torch.Tensor:
        """Return the network's answers of films (B, P, P) uint8."""
        grey = films[:, None].float() / 255
        answers: torch.Tensor = self.network(grey) if people is None else self.network(grey, people)
        return answers


class TorchNetwork:
    """A torch module of grey values; it is moved to the device and out of training."""

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device | None = None,
        precision: Precision = Precision.FLOAT32,
    ) -> None:
        self._device = device or torch.device("cpu")
        self._autocast = precision is Precision.BFLOAT16
        self._at_once = sys.maxsize
        self._network = PixelNetwork(module).eval().to(self._device)

    def __call__(self, films: Pixels, people: People | None = None) -> Answers:
        """Return what the module answers, as float32 on the CPU.

        Films that do not fit into the GPU's memory together are answered in halves from then on.
        """
        if len(films) <= self._at_once:
            try:
                return self._answer(films, people)
            except torch.OutOfMemoryError:
                if len(films) < 2:
                    raise
            logger.warning("%d films exceed the GPU's memory: halved from now on", len(films))
            # out of the except block: the traceback held the first try's tensors
            torch.cuda.empty_cache()
            self._at_once = math.ceil(len(films) / 2)
        parts = [slice(at, at + self._at_once) for at in range(0, len(films), self._at_once)]
        return np.concatenate(
            [self(films[part], None if people is None else people[part]) for part in parts]
        )

    @torch.inference_mode()
    def _answer(self, films: Pixels, people: People | None) -> Answers:
        given = [_tensor(films, self._device)]
        if people is not None:
            given.append(_tensor(people, self._device))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            answers = self._network(*given)
        return np.asarray(answers.float().cpu().numpy(), np.float32)


def arrange(module: nn.Module) -> nn.Module:
    """Return a module with its weights in the order that convolutions are fastest in.

    Channels last: some tenth faster on CPUs, and what tensor cores want on GPUs.
    """
    arranged: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return arranged


def _tensor(array: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    # torch wants arrays that may be written to: those of a message or of the object store may not
    owned = np.require(array, requirements=("C", "W"))
    return torch.from_numpy(owned).to(device)
