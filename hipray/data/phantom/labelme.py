"""Write the true regions as an annotator would have drawn them, in labelme's JSON format."""

import json
from typing import Any

import cv2
import numpy as np

from hipray.data.phantom.anatomy import Mask
from hipray.data.phantom.render import RenderedStudy
from hipray.data.phantom.streams import open_stream
from hipray.vocab import REGIONS, Region, Side

_LABELME_VERSION = "5.4.1"
_VERTEX_TOLERANCE_MM = 0.6  # how closely an annotator's straight lines follow the outline
_GROUP = {Side.LEFT: 0, Side.RIGHT: 1}


def encode_labelme(rendered: RenderedStudy, *, image_name: str, noise_mm: float) -> bytes:
    """Return labelme JSON with one polygon per region and hip.

    `image_name` is relative to the JSON. Each vertex is off by `noise_mm` (SD, mm). On a pelvis
    film the patient's left hip is group 0 and the right one group 1.
    """
    shapes = [
        _draw_shape(rendered, mask, region=region, side=hip.side, noise_mm=noise_mm)
        for hip in rendered.hips
        for region, mask in zip(REGIONS, hip.masks, strict=True)
    ]
    height, width = rendered.film.shape
    content = {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, indent=1).encode()


def _draw_shape(
    rendered: RenderedStudy, mask: Mask, *, region: Region, side: Side, noise_mm: float
) -> dict[str, Any]:
    stream = open_stream(rendered.study.seed, side, region, "annotator")
    noise_px = noise_mm / rendered.spacing_mm
    points = _trace(mask, _VERTEX_TOLERANCE_MM / rendered.spacing_mm)
    points = points + stream.normal(0, 1, points.shape) * noise_px
    limits = np.array(mask.shape[::-1]) - 1
    paired = len(rendered.hips) > 1
    return {
        "label": region.value,
        "points": np.round(np.clip(points, 0, limits), 2).tolist(),
        "group_id": _GROUP[side] if paired else None,
        "description": side.value if paired else "",
        "shape_type": "polygon",
        "flags": {side.value: True} if paired else {},
    }


def _trace(mask: Mask, tolerance_px: float) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the vertices (n, 2) as (column, row) of the largest outline of a mask."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    return np.asarray(cv2.approxPolyDP(largest, tolerance_px, True)[:, 0], dtype=np.float64)
