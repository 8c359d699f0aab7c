"""One labelme shape: its outline in pixels, how much of it lies in the frame, its mask."""

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_POINTS = 100_000  # per shape; a hand-drawn outline has some hundred
MAX_OUT_OF_FRAME = 0.10  # share of a shape's area; more means it belongs to another image
CIRCLE_POINTS = 90  # corners that stand for a circle: 0.1 % of its area is lost
SUBPIXEL_BITS = 4  # fillPoly takes points in sixteenths of a pixel

Mask = NDArray[np.bool_]
"""(height, width); True inside the region."""
Points = NDArray[np.float64]
"""(n, 2): x to the right, y down, in pixels; whole numbers are pixel centres, as labelme draws."""


def outline_of(shape: Mapping[str, Any]) -> Points:
    """Return a polygon, rectangle or circle as a polygon; raise ValueError saying what is wrong."""
    kind = shape.get("shape_type") or "polygon"
    points = read_points(shape.get("points"))
    if kind == "polygon":
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return points
    if kind not in ("rectangle", "circle"):
        raise ValueError(f"the shape type '{str(kind)[:20]}' encloses no area")
    if len(points) == 4 and kind == "rectangle":
        return points
    if len(points) != 2:
        raise ValueError(f"a {kind} of {len(points)} points")
    return _rectangle(points) if kind == "rectangle" else _circle(points)


def read_points(points: object) -> Points:
    """Return labelme points as an array (n, 2); raise ValueError for anything but finite pairs."""
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        raise ValueError("no list of points, or too long a one")
    if not all(isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in points):
        raise ValueError("a point that is not a pair of finite numbers")
    return np.asarray(points, dtype=np.float64).reshape(-1, 2)


def fill_outline(points: Points, *, width: int, height: int) -> Mask:
    """Return the mask of a polygon, its outline included, as labelme itself draws it.

    Raises ValueError where more than a tenth of its area lies outside the frame, or all of it.
    """
    inside = _clip(points, width=width, height=height)
    area = _area(points)
    if len(inside) < 3:
        raise ValueError("it lies outside the frame")
    if area > 0 and 1 - _area(inside) / area > MAX_OUT_OF_FRAME:
        raise ValueError(f"more than {MAX_OUT_OF_FRAME:.0%} of it lies outside the frame")
    canvas = np.zeros((height, width), np.uint8)
    fixed = np.rint(inside * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], 1, shift=SUBPIXEL_BITS)
    return canvas.astype(bool)


def read_bitmap(shape: Mapping[str, Any], *, width: int, height: int) -> Mask:
    """Return the mask of a labelme "mask" shape: a base64 PNG placed at its first point.

    (width, height) is the frame the shape was drawn in. Raises ValueError saying what is wrong.
    """
    points = read_points(shape.get("points"))
    encoded = shape.get("mask")
    if len(points) != 2 or not isinstance(encoded, str):
        raise ValueError("a mask without its picture or its two corners")
    bitmap = _decode_bitmap(encoded, limit=width * height)
    left, top = (round(float(value)) for value in points.min(axis=0))
    return _place(bitmap, left=left, top=top, width=width, height=height)


def _decode_bitmap(encoded: str, *, limit: int) -> Mask:
    try:
        data = base64.b64decode(encoded, validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > limit:
                raise ValueError("a mask larger than the image")
            return np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("a mask that is no base64 PNG") from None


def _place(bitmap: Mask, *, left: int, top: int, width: int, height: int) -> Mask:
    placed = np.zeros((height, width), bool)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + bitmap.shape[1], width), min(top + bitmap.shape[0], height)
    if x0 < x1 and y0 < y1:
        placed[y0:y1, x0:x1] = bitmap[y0 - top : y1 - top, x0 - left : x1 - left]
    total = np.count_nonzero(bitmap)
    if np.count_nonzero(placed) < (1 - MAX_OUT_OF_FRAME) * total or total == 0:
        raise ValueError(f"empty, or more than {MAX_OUT_OF_FRAME:.0%} of it outside the frame")
    return placed


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9 and math.isfinite(value)


def _rectangle(points: Points) -> Points:
    (x0, y0), (x1, y1) = points
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _circle(points: Points) -> Points:
    centre, edge = points
    angles = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
    radius = float(np.hypot(*(edge - centre)))
    ring: Points = centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])
    return ring


def _area(points: Points) -> float:
    """Return the area of a simple polygon (shoelace formula), in square pixels."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _clip(points: Points, *, width: int, height: int) -> Points:
    """Return the part of a polygon inside the frame (Sutherland and Hodgman 1974)."""
    half = 0.5  # whole numbers are pixel centres, so the frame ends half a pixel beyond them
    for axis, limit, sign in (
        (0, -half, 1),
        (0, width - half, -1),
        (1, -half, 1),
        (1, height - half, -1),
    ):
        points = _clip_at(points, axis=axis, limit=limit, sign=sign)
    return points


def _clip_at(points: Points, *, axis: int, limit: float, sign: int) -> Points:
    """Keep what has sign * (coordinate - limit) >= 0."""
    if len(points) == 0:
        return points
    depth = sign * (points[:, axis] - limit)
    if np.all(depth >= 0):
        return points
    kept: list[Sequence[float]] = []
    for here, after, d0, d1 in zip(
        points, np.roll(points, -1, 0), depth, np.roll(depth, -1), strict=True
    ):
        if d0 >= 0:
            kept.append(here)
        if (d0 >= 0) != (d1 >= 0):
            kept.append(here + (after - here) * (d0 / (d0 - d1)))
    return np.asarray(kept, dtype=np.float64).reshape(-1, 2)
