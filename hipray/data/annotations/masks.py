"""Region masks as 8-bit PNG, and whether they lie where the regions of a hip lie."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from hipray.data.annotations.shapes import Mask
from hipray.errors import DataError
from hipray.vocab import Region

MIN_INSIDE = 0.90  # share of a region that must lie in its container, leaving room for the hand
MAX_MASK_PIXELS = 100_000_000  # beyond any film; checked before decoding
ENCLOSED_BY: dict[Region, tuple[Region, ...]] = {
    Region.TOTAL_HIP: (),
    Region.FEMORAL_NECK: (Region.TOTAL_HIP,),
    Region.GREATER_TROCHANTER: (Region.TOTAL_HIP,),
    Region.WARDS_TRIANGLE: (Region.FEMORAL_NECK, Region.TOTAL_HIP),
}
"""DXA geometry: the total hip contains neck and trochanter, Ward's triangle lies by the neck."""


def check_masks(masks: Mapping[Region, Mask]) -> list[str]:
    """Return what is wrong with the masks of one film; empty where nothing is.

    `masks` holds arrays (height, width) of one size. Nothing is repaired.
    """
    problems = [f"{region} is empty" for region, mask in masks.items() if not mask.any()]
    if len({mask.shape for mask in masks.values()}) > 1:
        return [*problems, "the masks differ in size"]
    if masks and Region.TOTAL_HIP not in masks:
        problems.append(f"{Region.TOTAL_HIP} is missing")
    for region, containers in ENCLOSED_BY.items():
        present = [masks[c] for c in containers if c in masks]
        if region not in masks or not present or not masks[region].any():
            continue
        share = _share_inside(masks[region], present)
        if share < MIN_INSIDE:
            where = " or ".join(c for c in containers if c in masks)
            problems.append(f"only {share:.0%} of {region} lies in {where}")
    return problems


def mask_to_png(mask: Mask) -> bytes:
    """Return the mask as an 8-bit grey PNG: 0 outside, 255 inside."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def png_to_mask(data: bytes, *, name: str) -> Mask:
    """Return the mask (height, width) in a PNG of 1, 8 or 24 bits (the paper's are 24-bit).

    In a grey file with values 0 and 1 only, 1 is inside; in others what is brighter than half is.
    Palette files count by index, 0 being outside. Raises DataError where `data` is no such PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_MASK_PIXELS:
                raise OSError(f"{picture.width} x {picture.height} pixels")
            pixels = np.asarray(picture if picture.mode == "P" else picture.convert("L"))
            indexed = picture.mode == "P"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError("a PNG mask", f"{name}: {error}", "export it again") from None
    threshold = 0 if indexed or pixels.max(initial=0) <= 1 else 127
    mask: Mask = pixels > threshold
    return mask


def _share_inside(mask: Mask, containers: list[Mask]) -> float:
    container = np.logical_or.reduce(containers)
    return float(np.count_nonzero(mask & container) / np.count_nonzero(mask))
