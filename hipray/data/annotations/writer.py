"""Write region masks and outlines as labelme files, so that an annotator can correct them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hipray.data.annotations.shapes import Mask, Points, encode_bitmap, fill_outline
from hipray.vocab import Region, Side

LABELME_VERSION = "5.4.1"  # the release whose file format is written
MIN_OUTLINE_IOU = 0.99  # below this an outline does not stand for its mask
GROUPS = {Side.LEFT: 0, Side.RIGHT: 1}
"""group_id of each hip on a film that shows both."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One region of one hip as an outline (n, 2) in pixels, or as a mask where none will do."""

    region: Region
    points: Points | None = None
    mask: Mask | None = None
    side: Side = Side.UNKNOWN


def outline_masks(
    masks: Mapping[Region, Mask], *, side: Side = Side.UNKNOWN, tolerance_px: float = 0.5
) -> tuple[Shape, ...]:
    """Return masks as polygons no more than `tolerance_px` off; one with holes stays a mask."""
    shapes: list[Shape] = []
    for region, mask in masks.items():
        if mask.any():
            shapes.extend(_outline_mask(region, mask, side, tolerance_px))
    return tuple(shapes)


def write_labelme(
    content: Mapping[Region, Mask] | Sequence[Shape], *, image_name: str, width: int, height: int
) -> bytes:
    """Return a labelme file of masks (height, width) or of shapes; imageData is left out.

    On a film of both hips give the shapes their side: `outline_masks(..., side=...)` for each.
    """
    shapes = outline_masks(content) if isinstance(content, Mapping) else content
    document: dict[str, object] = {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_describe(shape) for shape in shapes],
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8")


def _outline_mask(region: Region, mask: Mask, side: Side, tolerance_px: float) -> list[Shape]:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for tolerance in (tolerance_px, 0.0):
        outlines = [cv2.approxPolyDP(c, tolerance, True).reshape(-1, 2) for c in found]
        if min(map(len, outlines)) >= 3 and _stand_for(outlines, mask):
            return [Shape(region, points=line.astype(np.float64), side=side) for line in outlines]
    return [Shape(region, mask=mask, side=side)]


def _stand_for(outlines: Sequence[Points], mask: Mask) -> bool:
    height, width = mask.shape
    drawn = np.zeros_like(mask)
    for line in outlines:
        drawn |= fill_outline(np.asarray(line, dtype=np.float64), width=width, height=height)
    union = np.count_nonzero(drawn | mask)
    return bool(np.count_nonzero(drawn & mask) >= MIN_OUTLINE_IOU * union)


def _describe(shape: Shape) -> dict[str, object]:
    described: dict[str, object] = {
        "label": shape.region.value,
        "points": [] if shape.points is None else np.round(shape.points, 2).tolist(),
        "group_id": GROUPS.get(shape.side),
        "description": "" if shape.side is Side.UNKNOWN else shape.side.value,
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }
    if shape.mask is not None:
        described["mask"], described["points"] = encode_bitmap(shape.mask)
        described["shape_type"] = "mask"
    return described
