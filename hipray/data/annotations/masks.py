"""Whether region masks lie where the regions of a hip lie."""

from collections.abc import Mapping

import numpy as np

from hipray.data.annotations.shapes import Mask
from hipray.vocab import Region

MIN_INSIDE = 0.90  # share of a region that must lie in its container, leaving room for the hand
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


def _share_inside(mask: Mask, containers: list[Mask]) -> float:
    container = np.logical_or.reduce(containers)
    return float(np.count_nonzero(mask & container) / np.count_nonzero(mask))
