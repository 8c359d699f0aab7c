"""Augmentation: the paper's seven copies, and random changes of training batches.

The seven copies are also what a network is asked with test-time augmentation; whatever only
training should see belongs in the batch changes.

Feng et al. 2023, section 3.3.4 and Table 1: rotation by ±3 degrees (two copies) and shifts of
±5 pixels along x and along y (four copies) make seven films of one; then every batch is scaled by
one random factor between 0.8 and 1.2. The paper does not say at which resolution five pixels are
meant; they are taken at 224 px and follow the frame's size.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name every torch user knows

from hipray.config.experiment import ClassifierSettings
from hipray.data.framing import Pixels

PAPER_SIDE_PX = 224
"""Frame side at which the paper's shift of five pixels is taken."""


@dataclass(frozen=True)
class Move:
    """One rigid copy: rotation in degrees and a shift in pixels of a 224 px frame."""

    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0


def paper_moves(settings: ClassifierSettings) -> tuple[Move, ...]:
    """Return the seven copies of Table 1, the unmoved film first."""
    angle, shift = settings.rotation_degrees, settings.shift_px_at_224
    return (
        Move(),
        Move(rotation=-angle),
        Move(rotation=angle),
        Move(shift_x=-shift),
        Move(shift_x=shift),
        Move(shift_y=-shift),
        Move(shift_y=shift),
    )


def move_film(film: Pixels, move: Move) -> Pixels:
    """Return a square film (S, S) moved rigidly; what enters from outside is black."""
    if move == Move():
        return film
    moved = _affine(move, film.shape[0])(image=film)["image"]
    return np.asarray(moved, np.uint8)


@cache
def _affine(move: Move, side: int) -> Callable[..., dict[str, Pixels]]:
    # albumentations asks a server for its newest version at import unless told not to
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    factor = side / PAPER_SIDE_PX
    affine: Callable[..., dict[str, Pixels]] = albumentations.Affine(
        rotate=(move.rotation, move.rotation),
        translate_px={
            "x": (round(move.shift_x * factor),) * 2,
            "y": (round(move.shift_y * factor),) * 2,
        },
        p=1.0,
    )
    return affine


def scale_batch(films: torch.Tensor, *, amount: float, generator: torch.Generator) -> torch.Tensor:
    """Return films (B, C, S, S) scaled about their centre by one factor from 1 ± `amount`."""
    if amount == 0:
        return films
    factor = 1 + amount * (2 * torch.rand((), generator=generator).item() - 1)
    theta = torch.eye(2, 3, dtype=films.dtype, device=films.device) * (1 / factor)
    return _warp(films, theta.expand(len(films), 2, 3), mode="bilinear")


def jitter_batch(
    films: torch.Tensor, masks: torch.Tensor, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return films (B, 1, S, S) in 0..1 and masks (B, R, S, S) moved alike, film tone changed.

    For segmenters: rotation ±12 degrees, scale 0.85-1.15, shift ±8 % of the side, contrast and
    brightness ±25 %, gamma 0.7-1.4, each film on its own.
    """
    count = len(films)

    def draw(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, scale = torch.deg2rad(draw(-12, 12)), draw(0.85, 1.15)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack(
        [
            torch.stack([cos, -sin, draw(-0.16, 0.16)], 1),
            torch.stack([sin, cos, draw(-0.16, 0.16)], 1),
        ],
        1,
    )
    gain, offset, gamma = draw(0.75, 1.25), draw(-0.15, 0.15), draw(0.7, 1.4)
    moved = _warp(films, theta, mode="bilinear")
    tone = moved.clamp(0, 1) ** _per_film(gamma, films) * _per_film(gain, films)
    return (tone + _per_film(offset, films)).clamp(0, 1), _warp(masks, theta, mode="nearest")


def _per_film(values: torch.Tensor, films: torch.Tensor) -> torch.Tensor:
    return _send(values, films)[:, None, None, None]


def _warp(films: torch.Tensor, theta: torch.Tensor, *, mode: str) -> torch.Tensor:
    grid = F.affine_grid(_send(theta, films), list(films.shape), align_corners=False)
    return F.grid_sample(films, grid, mode=mode, align_corners=False)


def _send(values: torch.Tensor, films: torch.Tensor) -> torch.Tensor:
    """Return a few numbers where and as the films are; the host does not wait for a GPU."""
    return values.to(films, non_blocking=True)
