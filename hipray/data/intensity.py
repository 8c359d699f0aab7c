"""Grey values as every network sees them."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F  # noqa: N812

GREY_MEAN, GREY_SD = 0.449, 0.226
"""ImageNet's mean and spread as grey values in 0..1, for pretrained and fresh networks alike."""
REACH_SD = 3
"""Standard deviations after which the background's Gaussian is cut off."""
LEAST_CONTRAST = 1e-3
"""Added to a film's contrast before dividing by it: an even film stays even."""


def centre(films: torch.Tensor) -> torch.Tensor:
    """Return films with values in 0..1 (B, 1, S, S) centred and scaled for a network."""
    return (films - GREY_MEAN) / GREY_SD


def remove_background(films: torch.Tensor, fraction: float) -> torch.Tensor:
    """Return films (B, 1, S, S) less their local mean, each scaled to unit contrast.

    The local mean is a Gaussian's of `fraction` of the side as its SD. What is left is texture and
    edges; exposure, soft tissue and a maker's windowing go with the mean. Autocasting has no say:
    a difference from the mean needs more than the 8 bits of bfloat16.
    """
    # an exporter traces shapes as tensors; the side of a network's films never changes
    kernel = _gaussian(fraction * int(films.shape[-1]), films.device).to(films)
    reach = len(kernel) // 2
    with full_precision(films.device):
        across = F.pad(films, (reach, reach, 0, 0), mode="replicate")
        across = F.conv2d(across, kernel[None, None, None, :])
        down = F.pad(across, (0, 0, reach, reach), mode="replicate")
        local = films - F.conv2d(down, kernel[None, None, :, None])
        return local / (local.std((1, 2, 3), keepdim=True) + LEAST_CONTRAST)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which nothing on `device` is autocast."""
    kind = device.type
    # torch's `meta` device knows no autocasting, not even to turn it off
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def _gaussian(sd_px: float, device: torch.device) -> torch.Tensor:
    reach = max(1, round(REACH_SD * sd_px))
    x = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
    weights = torch.exp(-((x / sd_px) ** 2) / 2)
    return weights / weights.sum()
