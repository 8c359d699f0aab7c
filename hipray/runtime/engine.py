"""The engine: what computes a release's networks. It is named in every answer."""

import math
import os
from dataclasses import dataclass

import cv2
import torch

from hipray.vocab import Device, Precision, Runtime, RuntimeChoice


@dataclass(frozen=True)
class Engine:
    """What computes the networks of a process; part of what a number depends on."""

    runtime: Runtime = Runtime.TORCH
    device: Device = Device.CPU
    precision: Precision = Precision.FLOAT32

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device.value)

    def claim(self, cpus: float | None = None) -> None:
        """Give this process' networks `cpus` threads, by default as many as it may use.

        On a GPU, full float32 is kept for float32.
        """
        torch.set_num_threads(count_threads(cpus) if cpus is not None else count_cpus())
        cv2.setNumThreads(1)  # films are small: its own threads would only fight with the others
        if self.device is Device.CUDA:
            torch.backends.cudnn.allow_tf32 = False


TORCH_ON_CPU = Engine()
"""What trains, and what golden answers are computed with."""


def find_device(runtime: RuntimeChoice) -> Device:
    """Return the GPU where torch finds one and may use it, else the CPUs."""
    on_gpu = runtime is not RuntimeChoice.ONNX and torch.cuda.is_available()
    return Device.CUDA if on_gpu else Device.CPU


def count_threads(cpus: float) -> int:
    """Return how many threads compute with `cpus`: a fraction of a CPU is a thread of its own."""
    return max(1, math.ceil(cpus))


def count_cpus() -> int:
    """Return the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
