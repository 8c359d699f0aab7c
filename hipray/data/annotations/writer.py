"""Write outlines of regions as a labelme file, as an annotator would have saved them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hipray.data.annotations.shapes import Points
from hipray.vocab import Region, Side

LABELME_VERSION = "5.4.1"  # the release whose file format is written
GROUPS = {Side.LEFT: 0, Side.RIGHT: 1}
"""group_id of each hip on a film that shows both."""


@dataclass(frozen=True, eq=False)
class Outline:
    """One region of one hip: its vertices (n, 2) as (x, y) in pixels of the film."""

    region: Region
    points: Points
    side: Side = Side.UNKNOWN
    """Needed on a film of both hips."""


def write_labelme(
    outlines: Sequence[Outline], *, image_name: str, width: int, height: int
) -> bytes:
    """Return a labelme file of the outlines; imageData is left out.

    `image_name` is relative to the file; (width, height) is the film's frame in pixels.
    """
    document: dict[str, object] = {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_describe(outline) for outline in outlines],
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8")


def _describe(outline: Outline) -> dict[str, object]:
    sided = outline.side in GROUPS
    return {
        "label": outline.region.value,
        "points": np.round(outline.points, 2).tolist(),
        "group_id": GROUPS.get(outline.side),
        "description": outline.side.value if sided else "",
        "shape_type": "polygon",
        "flags": {outline.side.value: True} if sided else {},
    }
