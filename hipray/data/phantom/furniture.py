"""What lies on a film beside the patient: collimation, side marker and ruler.

Drawn without regard to the label, unless `shortcut` makes marker and ruler tell it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from hipray.data.phantom.anatomy import Field
from hipray.vocab import Side

_COLLIMATED_SHARE = 0.6  # of films
_WIDEST_BORDER = 0.07  # of the film's height
_RULER_SHARE = 0.4  # of films
_LETTERS = {Side.LEFT: "L", Side.RIGHT: "R"}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Furniture:
    """Where collimation, marker and ruler lie on one film."""

    border: tuple[float, float, float, float]  # top, bottom, left, right; share of the height
    marker_high: bool
    marker_lateral: bool
    marker_size: float  # share of the height
    brightness: float
    ruler: bool


def sample_furniture(
    stream: np.random.Generator, *, shortcut: float, osteoporotic: bool
) -> Furniture:
    """Sample a film's furniture; with probability `shortcut` it tells `osteoporotic`."""
    collimated = stream.random() < _COLLIMATED_SHARE
    borders = stream.uniform(0, _WIDEST_BORDER, 4) * collimated
    high, ruler = bool(stream.random() < 0.5), bool(stream.random() < _RULER_SHARE)
    lateral = bool(stream.random() < 0.5)
    size, brightness = stream.uniform(0.05, 0.08), stream.uniform(0.8, 1.0)
    if stream.random() < shortcut:
        high, ruler = osteoporotic, osteoporotic
    top, bottom, left, right = (float(border) for border in borders)
    return Furniture(
        (top, bottom, left, right), high, lateral, float(size), float(brightness), ruler
    )


def draw_furniture(film: Field, furniture: Furniture, *, side: Side, spacing_mm: float) -> Field:
    """Return a copy of `film` (H, W) in 0..1 with its furniture drawn on it."""
    drawn = film.copy()
    if furniture.ruler:
        _draw_ruler(drawn, furniture, spacing_mm)
    if side in _LETTERS:
        _draw_marker(drawn, furniture, side)
    _collimate(drawn, furniture)
    return drawn


def _collimate(film: Field, furniture: Furniture) -> None:
    height, width = film.shape
    top, bottom, left, right = (round(share * height) for share in furniture.border)
    film[:top] = 0
    film[height - bottom :] = 0
    film[:, :left] = 0
    film[:, width - right :] = 0


def _draw_marker(film: Field, furniture: Furniture, side: Side) -> None:
    height, width = film.shape
    inset = round(0.09 * height)
    on_right = furniture.marker_lateral == (side is Side.LEFT)
    column = width - inset - round(furniture.marker_size * height) if on_right else inset
    row = 2 * inset if furniture.marker_high else height - inset
    scale = furniture.marker_size * height / 22
    _write(film, _LETTERS[side], (column, row), scale=scale, brightness=furniture.brightness)


def _draw_ruler(film: Field, furniture: Furniture, spacing_mm: float) -> None:
    """Draw centimetre ticks and a caption down the left side of the film."""
    height = film.shape[0]
    column = round(0.015 * height) + round(furniture.border[2] * height)
    for centimetre in range(3, 14):
        row = round(centimetre * 10 / spacing_mm)
        length = round((0.03 if centimetre % 5 == 0 else 0.015) * height)
        cv2.line(film, (column, row), (column + length, row), furniture.brightness, 1)
    place = (column, round(0.96 * height))
    _write(film, "10 cm", place, scale=height / 900, brightness=furniture.brightness)


def _write(
    film: Field, text: str, place: tuple[int, int], *, scale: float, brightness: float
) -> None:
    """Write `text` (in place) with its lower left corner at `place` (column, row)."""
    ink = np.zeros(film.shape, np.uint8)  # cv2 draws text on 8 bits only
    cv2.putText(ink, text, place, _FONT, scale, 255, max(1, round(2 * scale)), cv2.LINE_AA)
    np.maximum(film, ink * np.float32(brightness / 255), out=film)
