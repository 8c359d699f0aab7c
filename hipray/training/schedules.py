"""The optimiser of a fit, and how its learning rate changes over the epochs."""

import math
from typing import assert_never

import torch
from torch import nn

from hipray.config.experiment import Schedule

FINAL_LR_SHARE = 0.01
"""Share of the learning rate that cosine decay ends at."""


def build_optimizer(module: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW over the weights of `module` that learn.

    Fused: one kernel takes a step, where a loop over the weights costs some twentieth of a step of
    small films on a CPU.
    """
    weights = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, lr: float, schedule: Schedule, *, epoch: int, epochs: int
) -> None:
    """Set the rate of `epoch` (from 0) of `epochs`; it depends on nothing else, so fits resume."""
    for group in optimizer.param_groups:
        group["lr"] = lr * share_at(schedule, epoch / epochs)


def share_at(schedule: Schedule, progress: float) -> float:
    """Return the share of the learning rate at `progress` (0..1) of a fit."""
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.COSINE:
            half_wave = 0.5 * (1 + math.cos(math.pi * progress))
            return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * half_wave
        case _:
            assert_never(schedule)
