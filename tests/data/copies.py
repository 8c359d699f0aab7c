"""Copies of a film as they turn up in archives: moved, mirrored, toned, stored again."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.data.framing import frame_hip

Film = NDArray[np.uint8]


def rotate(film: Film, degrees: float, scale: float = 1.0) -> Film:
    centre = ((film.shape[1] - 1) / 2, (film.shape[0] - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    return np.asarray(cv2.warpAffine(film, matrix, film.shape[::-1]), np.uint8)


def shift(film: Film, x: float, y: float) -> Film:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return np.asarray(cv2.warpAffine(film, matrix, film.shape[::-1]), np.uint8)


def mirror(film: Film) -> Film:
    return np.ascontiguousarray(film[:, ::-1])


def store_as_jpeg(film: Film, quality: int = 85) -> Film:
    _, data = cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def change_tone(film: Film, gamma: float = 1.3) -> Film:
    return np.asarray(255 * (film / 255) ** gamma, np.uint8)


def move_all(film: Film) -> Film:
    return store_as_jpeg(change_tone(shift(rotate(film, -3, 0.95), -4, 3)))


def crop(film: Film, share: float) -> Film:
    """The middle of the exposed part, framed again as reading the cropped file would."""
    rows, columns = (np.flatnonzero(film.any(axis)) for axis in (1, 0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    y, x = (round(length * (1 - share) / 2) for length in (height, width))
    cut = film[top + y : top + height - y, left + x : left + width - x]
    return frame_hip(np.ascontiguousarray(cut), film.shape[0])


def squeeze(film: Film, x: float) -> Film:
    matrix = np.array([[x, 0, (1 - x) / 2 * film.shape[1]], [0, 1, 0]], np.float32)
    return np.asarray(cv2.warpAffine(film, matrix, film.shape[::-1]), np.uint8)


COPIES: dict[str, Callable[[Film], Film]] = {
    "rotated 3 degrees": lambda film: rotate(film, 3),
    "rotated -3 degrees": lambda film: rotate(film, -3),
    "shifted": lambda film: shift(film, 5, -5),
    "shrunk": lambda film: rotate(film, 0, 0.85),
    "grown": lambda film: rotate(film, 0, 1.15),
    "mirrored": mirror,
    "JPEG 85": store_as_jpeg,
    "other tone": change_tone,
    "mirrored and rotated": lambda film: rotate(mirror(film), 2),
    "all but mirrored": move_all,
    "rotated 12 degrees": lambda film: rotate(film, 12),
    "upside down": lambda film: np.ascontiguousarray(film[::-1]),
    "turned a quarter": lambda film: np.ascontiguousarray(np.rot90(film)),
    "inverted": lambda film: 255 - film,
    "cropped 5 %": lambda film: crop(film, 0.95),
    "cropped 15 %": lambda film: crop(film, 0.85),
    "squeezed": lambda film: squeeze(film, 0.9),
}
