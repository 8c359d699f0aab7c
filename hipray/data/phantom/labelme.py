"""The true regions as an annotator would have drawn them, in labelme's JSON format."""

import cv2
import numpy as np

from hipray.data.annotations import Outline, Points, write_labelme
from hipray.data.phantom.anatomy import Mask
from hipray.data.phantom.render import RenderedStudy
from hipray.data.phantom.streams import open_stream
from hipray.vocab import REGIONS, Region, Side

_VERTEX_TOLERANCE_MM = 0.6  # how closely an annotator's straight lines follow the outline


def encode_labelme(rendered: RenderedStudy, *, image_name: str, noise_mm: float) -> bytes:
    """Return labelme JSON with one polygon per region and hip.

    `image_name` is relative to the JSON. Each vertex is off by `noise_mm` (SD, mm).
    """
    outlines = [
        _draw_outline(rendered, mask, region=region, side=hip.side, noise_mm=noise_mm)
        for hip in rendered.hips
        for region, mask in zip(REGIONS, hip.masks, strict=True)
    ]
    height, width = rendered.film.shape
    return write_labelme(outlines, image_name=image_name, width=width, height=height)


def _draw_outline(
    rendered: RenderedStudy, mask: Mask, *, region: Region, side: Side, noise_mm: float
) -> Outline:
    stream = open_stream(rendered.study.seed, side, region, "annotator")
    noise_px = noise_mm / rendered.spacing_mm
    points = _trace(mask, _VERTEX_TOLERANCE_MM / rendered.spacing_mm)
    points = points + stream.normal(0, 1, points.shape) * noise_px
    limits = np.array(mask.shape[::-1]) - 1
    paired = len(rendered.hips) > 1
    return Outline(region, np.clip(points, 0, limits), side if paired else Side.UNKNOWN)


def _trace(mask: Mask, tolerance_px: float) -> Points:
    """Return the vertices (n, 2) as (column, row) of the largest outline of a mask."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea)
    return np.asarray(cv2.approxPolyDP(largest, tolerance_px, True)[:, 0], dtype=np.float64)
