"""Whether masks can be one hip: regions that are missing and impossible arrangements."""

from collections.abc import Collection

from hipray.data.framing import Mask
from hipray.data.refusals import Refusal
from hipray.vocab import REGIONS, RefusalCode, Region

MIN_NECK_INSIDE_HIP = 0.5
"""DXA's total hip contains the femoral neck; below this share the masks contradict each other."""
MAX_NECK_TO_HIP = 0.6
"""Largest plausible area of the femoral neck as a share of the total hip (about 0.16)."""

DETECTOR = "mask_geometry"


def check_geometry(
    masks: Mask, *, asked: Collection[Region], min_area_fraction: float
) -> Refusal | None:
    """Return why masks (R, S, S) are no hip, or None.

    `asked` are the regions that must be there; `min_area_fraction` is the smallest mask, as a
    share of the frame, that counts as one.
    """
    for region in asked:
        share = float(masks[REGIONS.index(region)].mean())
        if share < min_area_fraction:
            evidence = f"{region.display_name} covers {share:.5f} of the frame"
            return Refusal(RefusalCode.REGION_MISSING, DETECTOR, evidence)
    neck = masks[REGIONS.index(Region.FEMORAL_NECK)]
    hip = masks[REGIONS.index(Region.TOTAL_HIP)]
    return _compare(neck, hip) if neck.any() and hip.any() else None


def _compare(neck: Mask, hip: Mask) -> Refusal | None:
    inside = float((neck & hip).sum() / neck.sum())
    if inside < MIN_NECK_INSIDE_HIP:
        evidence = f"{inside:.2f} of the femoral neck lies inside the total hip"
        return Refusal(RefusalCode.IMPLAUSIBLE_GEOMETRY, DETECTOR, evidence)
    ratio = float(neck.sum() / hip.sum())
    if ratio > MAX_NECK_TO_HIP:
        evidence = f"the femoral neck has {ratio:.2f} of the total hip's area"
        return Refusal(RefusalCode.IMPLAUSIBLE_GEOMETRY, DETECTOR, evidence)
    return None
