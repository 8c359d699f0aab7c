"""Grey values as every network sees them."""

import torch

GREY_MEAN, GREY_SD = 0.449, 0.226
"""ImageNet's mean and spread as grey values in 0..1, for pretrained and fresh networks alike."""


def centre(films: torch.Tensor) -> torch.Tensor:
    """Return films with values in 0..1 (B, 1, S, S) centred and scaled for a network."""
    return (films - GREY_MEAN) / GREY_SD
