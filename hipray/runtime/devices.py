"""What an engine computes on: found, claimed by the process whose networks it runs, and lost."""

import cv2
import torch

from hipray.runtime.engine import Engine, count_cpus, count_threads
from hipray.vocab import Device, RuntimeChoice

DEVICE_MESSAGES = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "device-side")
"""How torch's older RuntimeErrors name a failing device."""
NO_MEMORY = ("out of memory", "ALLOC_FAILED")
"""How CUDA and its libraries say that they got no memory, beside torch's own error."""


def torch_device(engine: Engine) -> torch.device:
    """Return an engine's device as torch names it."""
    return torch.device(engine.device.value)


def claim_cpus(engine: Engine, cpus: float | None = None) -> None:
    """Give networks `cpus` threads, by default as many as this process may use, and films one.

    On a GPU, full float32 is kept for float32.
    """
    torch.set_num_threads(count_threads(cpus) if cpus is not None else count_cpus())
    cv2.setNumThreads(1)  # films are small: its own threads would only fight with the others
    if engine.device is Device.CUDA:
        torch.backends.cudnn.allow_tf32 = False


def find_device(runtime: RuntimeChoice) -> Device:
    """Return the GPU where torch finds one and may use it, else the CPUs."""
    on_gpu = runtime is not RuntimeChoice.ONNX and torch.cuda.is_available()
    return Device.CUDA if on_gpu else Device.CPU


def is_device_error(error: Exception) -> bool:
    """Whether `error` leaves the process without a usable GPU; out of memory does not."""
    if isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in NO_MEMORY):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in DEVICE_MESSAGES)
