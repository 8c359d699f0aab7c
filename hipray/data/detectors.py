"""What pixels alone tell about a film: no radiograph, polarity, metal, text, contrast, view.

Most detectors look at one of two normalised images, so that lengths have a meaning: a thumbnail of
the film (longest side 256 px, float32 in [0, 1]) or the canonical hip (uint8, longest side 512 px
by default; lengths are given as shares of the shorter side). What needs fine detail,
`check_is_radiograph` and `is_page_of_text`, gets the film's own pixels. None is validated on
clinical films: they remark, apart from the coarse refusals of `check_is_radiograph` and of metal,
which `data/hips.py` refuses where `preprocessing.refuse_implant` is set.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hipray.data.refusals import Refusal
from hipray.data.thumbnail import THUMBNAIL_PERCENTILES
from hipray.vocab import RefusalCode

MAX_FILM_ASPECT = 5.0
"""Long side / short side; the longest cassette (leg length, 35 x 130 cm) has 3.7."""
MIN_GREY_SPREAD = 3.0
"""Stored grey levels between the 0.5 and 99.5 percentile of a film that shows anything."""
MAX_LEVELS_OF_LINE_ART = 4
LINE_ART_SHARE = 0.995
MIN_STRUCTURE = 0.03
"""Share of the variance left after averaging into 16 x 16 blocks: radiographs keep > 0.5, white
noise on 256 x 256 pixels 1 / 256."""
STRUCTURE_BLOCKS = 16
PAGE_SHARE = 0.6
PAGE_TOLERANCE = 4.0 / 255
"""Paper: this share of all pixels within this distance of the commonest grey."""
INK_DISTANCE = 40.0 / 255
INK_SHARES = (0.002, 0.4)
MAX_THICK_INK = 0.1
STROKE_SHARE = 0.015
"""Strokes of letters are thinner than this share of the page's shorter side."""
LINE_ART_PX = 128
"""Side in pixels of the sample in which grey levels are counted."""
PAGE_PX = 1024
"""Longest side, px, of the image on which strokes are looked for."""

BRIGHT_AIR = 0.96
MIN_AIR_SHARE = 0.10
MIN_CURVED_AIR = 0.04
"""Air outside the full rows and columns: skin is curved and a collimator is straight."""
MIN_AIR_AT_EDGE = 0.15
"""Share of the film's outline; the stem of a prosthesis is bright and reaches it too."""
MAX_OPPOSITE_SHARE = 0.02
FRAME_SHARE = 0.95

METAL_LEVEL = 250
METAL_SHARES = (0.004, 0.3)
METAL_EDGE_STEP = 75.0
"""Grey levels of 255 from metal to what lies beside it."""
METAL_STEP_SHARE = 0.012
METAL_MARGIN = 0.12
MAX_METAL_AT_EDGE = 0.12
"""Share of the hip's outline; a stem leaves through one spot, a bright border follows a side."""
HARD_IMPLANT = (0.02, 90.0)
"""Least share of the hip and edge step of a nail or stem against soft tissue."""
PLATEAU_IMPLANT = (0.07, 30.0)
"""The same for a prosthesis inside dense bone. On 720 phantom hips without metal (256 and 512 px)
neither pair was reached: the largest saturated area was 0.058, the hardest edge of 0.02 was 69.
All 160 with a prosthesis reached one."""

TEXT_LEVEL = 250
TEXT_TOP_HAT = 45
TEXT_BORDER = 0.2
TEXT_GLYPH_SHARES = (0.008, 0.09)
MIN_GLYPHS = 3

MIN_CONTRAST_LEVELS = 48.0
AIR_LEVEL = 8.0
DISTAL_SHARE = 0.12
MIN_DISTAL_AIR = 0.9


@dataclass(frozen=True)
class Metal:
    """The largest metal-like object of a hip: its share of the area and its edge in grey levels."""

    area_share: float
    edge_step: float

    @property
    def is_hard_edged(self) -> bool:
        """Whether this is larger and harder-edged than a clip, a marker or dense bone."""
        return self._reaches(HARD_IMPLANT)

    @property
    def is_plateau(self) -> bool:
        """Whether more is saturated than bone ever is, unless an export's window clipped it."""
        return self._reaches(PLATEAU_IMPLANT)

    def _reaches(self, bounds: tuple[float, float]) -> bool:
        area_share, edge_step = bounds
        return self.area_share >= area_share and self.edge_step >= edge_step


def check_is_radiograph(
    pixels: NDArray[np.float32], thumbnail: NDArray[np.float32], *, level: float = 1.0
) -> Refusal | None:
    """Refuse a strip, a flat field, line art, noise or a page of text; None for anything else.

    `level` is the step of `pixels` from one stored grey level to the next.
    """
    aspect = max(pixels.shape) / min(pixels.shape)
    if aspect > MAX_FILM_ASPECT:
        return _not_a_radiograph("aspect", f"sides in the ratio {aspect:.1f}")
    sample = _sample(pixels)
    low, high = np.percentile(sample, THUMBNAIL_PERCENTILES)
    spread = float(high - low) / level
    if spread < MIN_GREY_SPREAD:
        return _not_a_radiograph("flat_field", f"{spread:.1f} grey levels")
    if _is_line_art(sample):
        return _not_a_radiograph("line_art", f"at most {MAX_LEVELS_OF_LINE_ART} grey levels")
    structure = measure_structure(thumbnail)
    if structure < MIN_STRUCTURE:
        return _not_a_radiograph("noise", f"structure {structure:.3f}")
    if is_page_of_text(pixels):
        return _not_a_radiograph("text_page", "thin strokes on an even ground")
    return None


def _not_a_radiograph(detector: str, evidence: str) -> Refusal:
    return Refusal(RefusalCode.NOT_A_RADIOGRAPH, detector, evidence)


def _sample(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    step = max(1, max(pixels.shape) // PAGE_PX)
    return pixels[::step, ::step]


def _is_line_art(sample: NDArray[np.float32]) -> bool:
    step = max(1, max(sample.shape) // LINE_ART_PX)
    some = sample[::step, ::step]  # sorting a whole film takes longer than decoding it
    _, counts = np.unique(some, return_counts=True)
    commonest = np.sort(counts)[-MAX_LEVELS_OF_LINE_ART:]
    return bool(commonest.sum() >= LINE_ART_SHARE * some.size)


def measure_structure(thumbnail: NDArray[np.float32]) -> float:
    """Return the share of the variance that lies in 16 x 16 block means."""
    blocks = cv2.resize(
        thumbnail, (STRUCTURE_BLOCKS, STRUCTURE_BLOCKS), interpolation=cv2.INTER_AREA
    )
    return float(np.var(blocks)) / max(float(np.var(thumbnail)), 1e-12)


def is_page_of_text(pixels: NDArray[np.float32]) -> bool:
    """Return whether most of the image is one even grey and nearly all else is thin strokes."""
    sample = _sample(pixels)
    low, high = float(sample.min()), float(sample.max())
    grey = (sample - low) / max(high - low, 1e-6)
    levels = np.bincount((grey * 255).astype(np.uint8).ravel(), minlength=256)
    mode = (int(np.argmax(levels)) + 0.5) / 255
    distance = np.abs(grey - mode)
    ink = (distance > INK_DISTANCE).astype(np.uint8)
    share = float(ink.mean())
    if float((distance <= PAGE_TOLERANCE).mean()) < PAGE_SHARE:
        return False
    if not INK_SHARES[0] <= share <= INK_SHARES[1]:
        return False
    thick = cv2.morphologyEx(ink, cv2.MORPH_OPEN, _square(STROKE_SHARE * min(ink.shape)))
    return float(thick.mean()) < MAX_THICK_INK * share


def _square(side: float) -> NDArray[np.uint8]:
    pixels = max(3, round(side))
    return np.ones((pixels, pixels), np.uint8)


def is_negative(thumbnail: NDArray[np.float32]) -> bool:
    """Return whether open air is clearly bright, so that bone must be dark.

    Air saturates and reaches the film's edge. Full rows and columns at the edge are the
    collimator's border, which is bright on a film with bright bone too, and so are four corners.
    """
    bright = thumbnail >= BRIGHT_AIR
    dark = thumbnail <= 1 - BRIGHT_AIR
    inner = _peel_frame(bright | dark)
    if bright[inner].size == 0 or _all_corners(bright[inner]):
        return False
    air = _edge_connected(bright)
    if _edge_share(air) < MIN_AIR_AT_EDGE or air.mean() < MIN_AIR_SHARE:
        return False
    return bool(air[inner].mean() >= MIN_CURVED_AIR and dark[inner].mean() <= MAX_OPPOSITE_SHARE)


def _peel_frame(saturated: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = saturated.mean(axis=1), saturated.mean(axis=0)
    return _peel(rows), _peel(columns)


def _peel(shares: NDArray[np.floating]) -> slice:
    inside = np.flatnonzero(shares < FRAME_SHARE)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


def _all_corners(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0, 0] and mask[0, -1] and mask[-1, 0] and mask[-1, -1])


def _edge_connected(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, labels = cv2.connectedComponents(mask.astype(np.uint8))
    return np.asarray(np.isin(labels, np.setdiff1d(_outline(labels), [0])), np.bool_)


def find_metal(hip: NDArray[np.uint8]) -> Metal | None:
    """Return the largest saturated object near the middle of the hip that looks like metal.

    Metal absorbs nearly all X-rays: its grey is the film's brightest, even, and ends within a
    pixel or two, where overexposed bone fades into its surroundings.
    """
    side = min(hip.shape)
    bright = cv2.morphologyEx(
        (hip >= METAL_LEVEL).astype(np.uint8), cv2.MORPH_OPEN, _square(0.008 * side)
    )
    count, labels, stats, centres = cv2.connectedComponentsWithStats(bright)
    low, high = METAL_SHARES
    found = []
    for i in range(1, count):
        share = float(stats[i, cv2.CC_STAT_AREA]) / hip.size
        if low <= share <= high and _is_central(centres[i], hip.shape):
            found.append((share, labels == i))
    metals = [Metal(s, _edge_step(hip, m)) for s, m in found if _edge_share(m) <= MAX_METAL_AT_EDGE]
    metals = [m for m in metals if m.edge_step >= METAL_EDGE_STEP or m.is_plateau]
    return max(metals, key=lambda metal: metal.area_share, default=None)


def _outline(image: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])


def _edge_share(mask: NDArray[np.bool_]) -> float:
    return float(_outline(mask).mean())


def _is_central(centre: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    return all(
        METAL_MARGIN <= float(c) / size <= 1 - METAL_MARGIN
        for c, size in zip(centre, shape[::-1], strict=True)
    )


def _edge_step(hip: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    reach = 2 * max(2, round(METAL_STEP_SHARE * min(hip.shape))) + 1
    grown = cv2.dilate(mask.astype(np.uint8), _square(reach)).astype(np.bool_)
    inner = cv2.dilate(mask.astype(np.uint8), _square(max(3, reach - 4))).astype(np.bool_)
    ring = hip[grown & ~inner]
    return METAL_LEVEL - float(np.median(ring)) if ring.size else 0.0


def has_border_text(hip: NDArray[np.uint8]) -> bool:
    """Return whether the outer fifth holds several bright marks of a glyph's size."""
    side = min(hip.shape)
    low, high = (share * side for share in TEXT_GLYPH_SHARES)
    top_hat = cv2.morphologyEx(hip, cv2.MORPH_TOPHAT, _square(high / 3))
    marks = ((top_hat > TEXT_TOP_HAT) & (hip >= TEXT_LEVEL)).astype(np.uint8)
    margin_y, margin_x = (round(TEXT_BORDER * size) for size in hip.shape)
    marks[margin_y:-margin_y, margin_x:-margin_x] = 0
    _, _, stats, _ = cv2.connectedComponentsWithStats(marks)
    heights = stats[1:, cv2.CC_STAT_HEIGHT]
    widths = stats[1:, cv2.CC_STAT_WIDTH]
    glyphs = (heights >= low) & (heights <= high) & (widths <= high)
    return int(glyphs.sum()) >= MIN_GLYPHS


def has_low_contrast(spread: float) -> bool:
    """Return whether an exposed film that spans this many stored grey levels spans too few."""
    return spread < MIN_CONTRAST_LEVELS


def ends_in_air(hip: NDArray[np.uint8]) -> bool:
    """Return whether no thigh crosses the distal edge, as it does on every AP hip or pelvis.

    On a frog-leg film the abducted femur leaves through the lateral edge and air lies below.
    """
    rows = max(1, round(DISTAL_SHARE * hip.shape[0]))
    return bool((hip[-rows:] <= AIR_LEVEL).mean() >= MIN_DISTAL_AIR)
