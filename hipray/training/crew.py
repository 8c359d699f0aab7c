"""The processes that train one fit together: one, or several that share every optimiser step.

Each takes its share of a step's global batch and all take the same step (torch's distributed data
parallel), so a fit's numbers do not depend on how many there are, but for rounding and dropout.
Batch norm is computed over all of them on GPUs; on CPUs torch has no such thing, and each process
normalises by its own share.
"""

from dataclasses import dataclass, field

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hipray.classification.model import join_batch_norms
from hipray.errors import ConfigError


@dataclass(frozen=True)
class Crew:
    """This process's place among those that train one fit."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where figures travel: the crew's GPU for NCCL, the CPU for gloo."""

    @property
    def leads(self) -> bool:
        """Whether this process saves, scores and commits for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return `module` as it is called in training: gradients are averaged over the crew."""
        if self.size == 1:
            return module
        if device.type == "cuda":
            module = join_batch_norms(module)
        return DistributedDataParallel(module)

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """Return this process's part of a global batch (B, ...); raises ConfigError for none."""
        if len(rows) < self.size:
            raise ConfigError(
                f"a batch of at least one film for each of {self.size} workers",
                f"{len(rows)} films",
                "lower scaling.workers_per_fit or raise the batch",
            )
        return rows[self.rank :: self.size]

    def weigh(self, loss: torch.Tensor, *, own: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of this share so that the crew's mean is that of the whole batch.

        `own` and `total` are the sums of the films' weights in the share and in the batch.
        """
        return loss * (self.size * own / total).to(loss)

    def mean(self, value: float) -> float:
        """Return the mean of a figure over the crew, the same in every process."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total) / self.size

    def agree(self, value: float) -> float:
        """Return the leader's figure: what decides must be the same in every process."""
        if self.size == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(told, src=0)
        return float(told)

    def call(self, place: int) -> None:
        """Name the next fit to the crew, as its place in the plan; the leader's part."""
        self.agree(float(place))

    def hear(self) -> int:
        """Return the place that the leader calls; every other process's part."""
        return int(self.agree(0.0))


WAIT = -1
"""Called while no fit can be claimed: a crew that heard nothing would give its leader up."""
END = -2
"""Called when the plan is drained."""

ALONE = Crew()
"""A fit trained by one process."""
