"""Whether four masks can be one hip: missing headline regions and impossible arrangements."""

from hipray.data.framing import Mask
from hipray.data.refusals import Refusal
from hipray.vocab import HEADLINE_REGIONS, REGIONS, RefusalCode, Region

MIN_AREA_FRACTION = 0.001
"""Smallest mask, as a share of the frame, that counts as a region."""
MIN_NECK_INSIDE_HIP = 0.5
"""DXA's total hip contains the femoral neck; below this share the masks contradict each other."""
MAX_NECK_TO_HIP = 0.6
"""Largest plausible area of the femoral neck as a share of the total hip (about 0.16)."""

DETECTOR = "mask_geometry"


def check_masks(masks: Mask) -> Refusal | None:
    """Return why masks (R, S, S) are no hip, or None."""
    for region in HEADLINE_REGIONS:
        share = float(masks[REGIONS.index(region)].mean())
        if share < MIN_AREA_FRACTION:
            evidence = f"{region.display_name} covers {share:.5f} of the frame"
            return Refusal(RefusalCode.REGION_MISSING, DETECTOR, evidence)
    neck = masks[REGIONS.index(Region.FEMORAL_NECK)]
    hip = masks[REGIONS.index(Region.TOTAL_HIP)]
    inside = float((neck & hip).sum() / neck.sum())
    if inside < MIN_NECK_INSIDE_HIP:
        evidence = f"{inside:.2f} of the femoral neck lies inside the total hip"
        return Refusal(RefusalCode.IMPLAUSIBLE_GEOMETRY, DETECTOR, evidence)
    ratio = float(neck.sum() / hip.sum())
    if ratio > MAX_NECK_TO_HIP:
        evidence = f"the femoral neck has {ratio:.2f} of the total hip's area"
        return Refusal(RefusalCode.IMPLAUSIBLE_GEOMETRY, DETECTOR, evidence)
    return None
