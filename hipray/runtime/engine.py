"""The engine: what computes a release's networks. It is named in every answer.

Nothing here needs torch, so that who only reads answers or releases does without.
"""

import math
import os
from dataclasses import dataclass

from hipray.vocab import Device, Precision, Runtime


@dataclass(frozen=True)
class Engine:
    """What computes the networks of a process; part of what a number depends on."""

    runtime: Runtime = Runtime.TORCH
    device: Device = Device.CPU
    precision: Precision = Precision.FLOAT32


TORCH_ON_CPU = Engine()
"""What trains, and what golden answers are computed with."""


def count_threads(cpus: float) -> int:
    """Return how many threads compute with `cpus`: a fraction of a CPU is a thread of its own."""
    return max(1, math.ceil(cpus))


def count_cpus() -> int:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
